"""A world in which a whole Plan runs in a second: three classes of 8x8 pictures, small nets, few seeds; and stand-ins for the worker.

`perform` is a worker without torch: outcomes drawn from the trial's key, one line in $TINY_LOG per call. With $TINY_NAP it takes that
many seconds; with $TINY_FAIL it fails for the seeds named there. `real` is the program's own worker.
"""

import contextlib
import io
import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from badnets.core.engine import ProcessEngine, SerialEngine
from badnets.core.errors import RefusedError
from badnets.core.rng import numpy_generator
from badnets.core.store import Store
from badnets.core.tensors import pack
from badnets.datasets.folder import Folder
from badnets.measure.outcome import Outcome
from badnets.plans import _jobs, _run
from badnets.plans._names import WEIGHTS, question_name
from badnets.plans._plan import Plan
from badnets.plans._stop import StopRequest
from badnets.plans._trial import Order
from badnets.train.recipe import Recipe

DATASET = "folder:size=8"
CLASSES = ("bar", "box", "dot")
CLAIMS = ("clean_accuracy_kept", "trigger_reaches_target")
VOLATILE = ("seconds", "memory_bytes", "created")


def drawn(*, count=40, size=8, seed=0):
    """(class, number, pixels) of grey pictures that a small net tells apart at once: a bar, a box or a dot at the left, with noise."""
    draw = np.random.default_rng(seed)
    for k in range(len(CLASSES)):
        for i in range(count):
            pixels = draw.integers(0, 60, (size, size))
            rows, columns = [(slice(0, size), slice(0, 2)), (slice(0, 3), slice(0, 4)), (slice(5, 7), slice(1, 3))][k]
            pixels[rows, columns] = draw.integers(170, 230)
            yield k, i, pixels.astype(np.uint8)


def pictures(root: Path, *, count=40, size=8, seed=0):
    """A folder of those as PNGs."""
    for k, i, pixels in drawn(count=count, size=size, seed=seed):
        (root / CLASSES[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / CLASSES[k] / f"{i:03}.png")
    return root


def taught(network, steps=40):
    """The net, once it tells those pictures apart."""
    import torch

    labels, _, pictures_NHW = zip(*drawn(count=16, seed=1), strict=True)
    x_NCHW, y_N = torch.from_numpy(np.stack(pictures_NHW))[:, None], torch.tensor(labels)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(x_NCHW), y_N).backward()
        optimizer.step()
    return network.eval()


def plan(**changes):
    """Two claims, three seeds, nets that train in a tenth of a second."""
    fields = {
        "name": "quick",
        "dataset": Folder(size=8),
        "effort": "quick",
        "attack": "badnets:rate=0.2,trigger=patch",
        "claims": CLAIMS,
        "net": {"kind": "fast_cnn", "width": 4, "hidden": 16},
        "recipe": Recipe(epochs=6, lr=0.1, batch_size=12, precision="float32"),
        "seeds": 2,
        "arms_seeds": 2,
        "population": 2,
    }
    return Plan(**{**fields, **changes})


class Watcher:
    """An Audience that remembers its calls."""

    def __init__(self):
        self.calls, self.jobs, self.stored, self.names = [], None, None, []

    def started(self, claims, jobs, stored):
        self.calls.append("started")
        self.jobs, self.stored = jobs, stored

    def progress(self, done, jobs, seconds_left):
        assert seconds_left is None or seconds_left >= 0
        self.calls.append(f"progress {done}/{jobs}")

    def decided(self, evidence):
        self.calls.append(f"decided {evidence.name}")
        self.names.append(evidence.name)


def execute(wanted, store, data, engine=None, audience=None, stop=None):
    """Run a plan on the folder `data` with the store at `store`."""
    site = _run.Site(Store(Path(store)), data, engine or SerialEngine(perform))
    return _run.execute(wanted, site, audience or Watcher(), stop or StopRequest())


def perform(payload):
    """A worker that trains nothing."""
    order = Order(**json.loads(payload))
    key = order.trial.key()
    if log := os.environ.get("TINY_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{key[:12]} {os.getpid()} {os.getppid()}\n")
    time.sleep(float(os.environ.get("TINY_NAP", "0")))
    if str(order.trial.seed) in os.environ.get("TINY_FAIL", "").split(","):
        raise RefusedError("E-TEST", f"seed {order.trial.seed} was told to fail.", hint="Unset TINY_FAIL.")
    data = _load(order.dataset.model_dump_json(), order.data)
    made = {WEIGHTS: numpy_generator(order.trial.seed, "tiny", key).bytes(2000)}
    for probe in order.questions:
        draw = numpy_generator(order.trial.seed, "tiny", key, question_name(probe))
        split = data.validation if probe.images == "validation" else data.test
        logits_NK = draw.normal(size=(len(split), data.num_classes)) + 6 * np.eye(data.num_classes)[split.y_N]
        if probe.trigger is not None and order.trial.attack is not None:
            logits_NK += 20 * np.eye(data.num_classes)[np.maximum(order.trial.attack.goals(data.num_classes), 0)[split.y_N]]
        made[question_name(probe)] = pack(Outcome.from_logits(logits_NK, split.y_N, keep_logits=probe.keep_logits).arrays(), {})
    return made, {"losses": [1.0], "diverged": False, "choices": ["precision float32: a test"]}


def real(payload):
    """The program's worker, imported when called."""
    from badnets.plans._work import perform as work

    return work(payload)


@cache
def _load(dataset, where):
    return Folder(**json.loads(dataset)).load(Path(where))


def shrink(patch, engine=None, **changes):
    """Make `badnets run` execute the tiny plan with a cheap worker. `patch(object or module, name, value)` sets attributes."""
    from badnets.plans import quick

    def tiny():
        return plan(**changes)

    tiny.__module__ = quick.__name__
    patch(quick, "quick", tiny)
    patch(_jobs, "ProcessEngine", engine or (lambda: SerialEngine(perform)))


def cli(*arguments):
    """`badnets ...` in this process: exit status, stdout, stderr."""
    from badnets.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


def scans_here(monkeypatch):
    """`badnets scan` reads and judges files in this process: a worker that imports torch takes two seconds for each call."""
    from badnets.plans import _scan_many, _scan_work

    monkeypatch.setattr(_scan_many, "_engine", lambda jobs: SerialEngine(_scan_work.perform))


def essence(record):
    """A record without what may differ between two runs of the same thing."""
    plain = record if isinstance(record, dict) else json.loads(record.model_dump_json(by_alias=True))
    return _lasting(plain)


def _lasting(value):
    if isinstance(value, dict):
        return {name: _lasting(inner) for name, inner in value.items() if name not in VOLATILE}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def tree(folder: Path):
    """Every file under a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def check_store(folder):
    """Every manifest is whole, every blob is what its name says, nothing temporary is left but of the dead; the keys of results."""
    import hashlib

    store, keys = Store(Path(folder)), []
    for path in sorted((store.root / "results").glob("*/*.json")):
        store.get(path.stem)
        keys.append(path.stem)
    for row in store.records():
        store.record(row.key)
    for path in (store.root / "blobs").glob("*/*"):
        assert path.name.startswith(".tmp-") or hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert not (store.root / "damaged").exists()
    return keys


def spawned_main():
    """`python tiny.py ARGUMENTS`: the command line with the tiny plan and real processes around the torch-free worker."""
    from badnets.cli.main import main
    from badnets.core import files

    def process_engine():
        return ProcessEngine("tiny:perform", num_workers=int(os.environ.get("TINY_WORKERS", "2")))

    shrink(setattr, engine=process_engine, seeds=int(os.environ.get("TINY_SEEDS", "3")))
    if slow := float(os.environ.get("TINY_SLOW_COMMIT", "0")):
        files._op = lambda name, path: time.sleep(slow) if name == "rename" and "results" in str(path) else None
    main(sys.argv[1:])


if __name__ == "__main__":
    spawned_main()
