"""Repairs one net with clean images and no secret: tries repairs, keeps the best by clean criteria, says what it did and what it cost.

Clean criteria: what a repair costs in accuracy on clean images that it did not see, and how well a trigger that was inverted from the net
as it came still works. Nobody here knows the true trigger, so nobody here can say that it is gone; and what is gone may be relearned.
Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from badnets.core import files, registry, stats
from badnets.core.rng import numpy_generator
from badnets.core.scanned import path_text
from badnets.core.suspect import Suspect
from badnets.core.types import Estimate
from badnets.datasets._base import ImageSet
from badnets.intake.arch_file import as_toml
from badnets.intake.running import Message, run_confined
from badnets.intake.strict_safetensors import read_safetensors
from badnets.plans._model_file import ModelFile, NetFile
from badnets.plans._recognise import Normalization
from badnets.plans._scan import Told, told_of
from badnets.plans._trial import NUM_THREADS

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.core.confine import Level
    from badnets.nets._base import Network
    from badnets.train.inversion import Inversion

REPAIRS = ("clp", "fine_tuning", "fine_pruning", "fst", "ft_sam", "anp", "unlearning")
"""Cheapest first, so that a budget of seconds tries as many as it can."""
BUDGET_SECONDS, MAX_LOSS, HELD = 120.0, 0.02, 5
"""BUDGET_SECONDS: once they are spent no further repair is begun; one that was begun is finished, however slow the machine. MAX_LOSS: of
clean accuracy, by which a repair may fall short of the net as it came. Every fifth clean image is held out to judge."""
LAYERED = "layered"
WEIGHTS, LAYERS, REPORT, FIGURES = "repaired.safetensors", "repaired.toml", "REPORT.md", "repair.json"


class Tried(pydantic.BaseModel):
    """One repair. `accuracy`: on held-out clean images; `inverted`: share of them that some inverted trigger moves to its class, for the
    trigger that moves most."""

    model_config = pydantic.ConfigDict(frozen=True)

    repair: str
    accuracy: Estimate | None
    inverted: Estimate | None
    seconds: float
    images: int
    note: str
    why_not: str


class Report(pydantic.BaseModel):
    """Before and after. `format`, `net`, `sandbox`, `notes`: as the file was opened; `options`: of a command that opens the repaired one;
    `tried`: every repair, those that the budget left out as well; `chosen` None: nothing was better than the net as it came, by clean
    criteria; `seconds`: all together."""

    model_config = pydantic.ConfigDict(frozen=True)

    file: str
    sha256: str
    format: str
    net: dict[str, Any]
    sandbox: str
    notes: tuple[str, ...]
    options: str
    dataset: str
    clean_images: int
    held_images: int
    before: Tried
    tried: list[Tried]
    chosen: str | None
    seconds: float
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Judge:
    """Held-out clean images, and the triggers inverted from the net as it came, laid over those of them that they should move."""

    clean: tuple[Tensor, Tensor]
    found: Inversion
    goals: list[int]

    def accuracy(self, network: Network) -> np.ndarray:
        x_NCHW, y_N = self.clean
        return (network.predict_logits(x_NCHW).argmax(dim=1).cpu() == y_N).numpy()

    def inverted(self, network: Network) -> np.ndarray:
        """Moved or not, of the trigger that moves the largest share."""
        x_NCHW, y_N = self.clean
        moved = []
        for goal in self.goals:
            others_NCHW = x_NCHW[y_N != goal]
            moved.append((network.predict_logits(self.found.stamp(goal, others_NCHW)).argmax(dim=1).cpu() == goal).numpy())
        return max(moved, key=lambda hit_N: float(hit_N.mean()))


def repair_file(file: NetFile, data: ImageSet, normalization: Normalization | None, out: Path) -> Iterator[Told | Tried | Report]:
    """What the file is taken for, each repair as it was tried, and in the end the report; then `out` holds the repaired net, if there is a
    better one. The net runs in a process that can write nothing, see `intake.running`.

    The caller writes the report for people last, since a folder with one is done: who was stopped before can run the same command again.
    """
    for said, body in run_confined(partial(_all, file.with_layers(data), data, normalization), file.shown, require=file.require_sandbox):
        if "told" in said:
            yield Told(**said["told"])
        elif "tried" in said:
            yield Tried(**said["tried"])
        else:
            yield _written(Report(**said["report"]), body, said["layers"], out)


def _all(file: NetFile, data: ImageSet, normalization: Normalization | None, level: Level) -> Iterator[Message]:
    """In that process: what is to be told, as plain values."""
    import torch

    torch.set_num_threads(NUM_THREADS)
    model = file.as_net(data, normalization, ran=level)
    yield {"told": told_of(model).model_dump(mode="json")}, b""
    for step in _try_all(model, data):
        if isinstance(step, Tried):
            yield {"tried": step.model_dump(mode="json")}, b""
            continue
        report, network = step
        layers = as_toml(report.net["layers"], data.shape, title=str(report.net.get("title", ""))) if report.net["kind"] == LAYERED else ""
        yield {"report": report.model_dump(mode="json"), "layers": layers}, _content(network, report)


def _content(network: Network | None, report: Report) -> bytes:
    from badnets.nets._weights import to_bytes

    metadata = {"badnets.repaired_by": str(report.chosen), "badnets.repaired_from": report.sha256}
    return to_bytes(network, metadata) if network is not None else b""


def _try_all(model: ModelFile, data: ImageSet) -> Iterator[Tried | tuple[Report, Network | None]]:
    start = time.perf_counter()
    held_N = np.arange(len(data.budget)) % HELD == HELD - 1
    judge = _judge(model.network, data, held_N)
    before = _weighed("as it came", model.network, judge)
    yield before
    suspect = Suspect(model.network, data.shape, data.num_classes, clean=(data.budget.x_NCHW[~held_N], data.budget.y_N[~held_N]))
    tried, networks = [], {}
    for name in REPAIRS:
        if time.perf_counter() - start > BUDGET_SECONDS:
            one, network = _nothing(name, f"not tried: the budget of {BUDGET_SECONDS:g} seconds was spent"), None
        else:
            one, network = _tried(name, suspect, judge, int(model.sha256[:15], 16))
        tried.append(one)
        if network is not None:
            networks[name] = network
        yield one
    chosen = choose(before, tried)
    report = Report(
        file=path_text(model.path),
        sha256=model.sha256,
        format=model.format,
        net=model.net,
        sandbox=model.sandbox,
        notes=model.notes,
        options=options(model.net),
        dataset=data.name,
        clean_images=int((~held_N).sum()),
        held_images=int(held_N.sum()),
        before=before,
        tried=tried,
        chosen=chosen,
        seconds=time.perf_counter() - start,
        files={},
    )
    yield report, None if chosen is None else networks[chosen]


def _judge(network: Network, data: ImageSet, held_N: np.ndarray) -> _Judge:
    """Triggers are looked for with the images that repairs may use, and are then tried on the held-out ones."""
    import torch

    from badnets.train.inversion import Search, few_of_each, invert

    x_NCHW, y_N = (torch.from_numpy(np.ascontiguousarray(part)) for part in (data.budget.x_NCHW, data.budget.y_N))
    mask_N = torch.from_numpy(held_N)
    found = invert(network, few_of_each(x_NCHW[~mask_N], y_N[~mask_N], 60), Search(steps=120))
    goals = [k for k in range(data.num_classes) if bool(torch.isfinite(found.norm_G[k])) and bool((y_N[mask_N] != k).any())]
    # The smallest ones are what a backdoor leaves; large ones move any net, repaired or not.
    goals = sorted(goals, key=lambda k: float(found.norm_G[k]))[:1]
    return _Judge((x_NCHW[mask_N], y_N[mask_N]), found, goals)


def _weighed(name: str, network: Network, judge: _Judge, *, seconds: float = 0.0, images: int = 0, note: str = "") -> Tried:
    right_N = judge.accuracy(network)
    inverted = None
    if judge.goals:
        moved_N = judge.inverted(network)
        inverted = stats.wilson(int(moved_N.sum()), len(moved_N))
    accuracy = stats.wilson(int(right_N.sum()), len(right_N))
    return Tried(repair=name, accuracy=accuracy, inverted=inverted, seconds=seconds, images=images, note=note, why_not="")


def _tried(name: str, suspect: Suspect, judge: _Judge, seed: int) -> tuple[Tried, Network | None]:
    from badnets.repairs._base import Repair

    repair = registry.parse("repairs", {"kind": name})
    assert isinstance(repair, Repair)
    done = repair.apply(suspect, rng=numpy_generator(seed, "repair", name))
    if done.network is None:
        return _nothing(name, done.why_not, seconds=done.seconds, images=done.images), None
    return _weighed(name, done.network, judge, seconds=done.seconds, images=done.images, note=done.note), done.network


def _nothing(name: str, why_not: str, *, seconds: float = 0.0, images: int = 0) -> Tried:
    return Tried(repair=name, accuracy=None, inverted=None, seconds=seconds, images=images, note="", why_not=why_not)


def choose(before: Tried, tried: list[Tried]) -> str | None:
    """Of the repairs that cost at most MAX_LOSS in accuracy the one that leaves least of the inverted trigger, if that is less than before;
    of equal ones the more accurate."""
    if before.accuracy is None or before.accuracy.value is None or before.inverted is None or before.inverted.value is None:
        return None
    known = [
        (one.inverted.value, -one.accuracy.value, one.repair)
        for one in tried
        if one.accuracy and one.inverted and one.accuracy.value is not None and one.inverted.value is not None
    ]
    bearable = sorted(one for one in known if -one[1] >= before.accuracy.value - MAX_LOSS)
    return bearable[0][2] if bearable and bearable[0][0] < before.inverted.value else None


def options(net: Mapping[str, Any]) -> str:
    """What a command needs to open a net of this architecture again, beside its weights: shapes do not show all of it."""
    if net["kind"] == LAYERED:
        return f"--arch {LAYERS}"
    fields = ",".join(f"{field}={value}" for field, value in net.items() if field not in ("kind", "title"))
    return f"--net {net['kind']}{':' if fields else ''}{fields}"


def _written(report: Report, content: bytes, layers: str, out: Path) -> Report:
    """The report with the hashes of what now lies in `out`. Bytes are checked as a stranger's: his net was run where they come from."""
    made = {WEIGHTS: content, LAYERS: layers.encode()} if content else {}
    if content:
        read_safetensors(memoryview(content))
    hashes = {}
    for name, part in made.items():
        if part:
            files.write_bytes(out / name, part)
            hashes[name] = hashlib.sha256(part).hexdigest()
    report = report.model_copy(update={"files": hashes})
    files.write_text(out / FIGURES, report.model_dump_json(indent=2) + "\n")
    return report
