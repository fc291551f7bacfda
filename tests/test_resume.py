"""Killed at any moment, the same command goes on to the same record; a training resumes to the same bits at every step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import resume_driver
import tiny

from badnets.core import files
from badnets.core.config import canonical
from badnets.plans._names import WEIGHTS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


def drive(kind, root, kills, seed, seconds):
    few = tiny.pictures(root / "pictures", count=16)  # what is killed need not learn anything
    command = [sys.executable, resume_driver.__file__, kind, str(few), str(root), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("kind", "kills", "seed"), [("real", 32, 11), ("stub", 3, 21)])
def test_killed_runs_resume_to_the_same_record(kind, kills, seed, tmp_path):
    """35 kills. `real`: nets trained in the killed process itself, with a checkpoint after each epoch; `stub`: two worker processes."""
    found = drive(kind, tmp_path, kills, seed=seed, seconds=180)
    assert found["killed"] == kills
    assert found["survivors"] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize(("kind", "kills"), [("real", 50), ("stub", 17)])
def test_many_killed_runs_resume_to_the_same_record(kind, kills, seed, tmp_path):
    found = drive(kind, tmp_path, kills, seed=seed, seconds=900)
    assert (found["killed"], found["survivors"]) == (kills, [])
    assert {"results", "record"} <= set(found["stages"])


# --- one training


class Stop(Exception):  # noqa: N818
    """In place of the end of the process."""


@pytest.fixture(scope="module")
def orders(data, tmp_path_factory):
    """The orders of a run (a twin's and a victim's among them), for a store of one's own: `orders(store)`."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch.setattr)
        seen = []

        def note(payload):
            seen.append(payload)
            return tiny.perform(payload)

        wanted = tiny.plan(claims=("trigger_reaches_target",), only_attack=True)
        tiny.execute(wanted, tmp_path_factory.mktemp("orders"), data, tiny.SerialEngine(note))
    return lambda store: [canonical({**json.loads(payload), "store": str(store)}) for payload in seen]


@pytest.fixture(autouse=True)
def save_always(monkeypatch):
    from badnets.plans import _work

    monkeypatch.setattr(_work, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)


@pytest.fixture(scope="module")
def undisturbed(orders, tmp_path_factory):
    return [tiny.real(order)[0] for order in orders(tmp_path_factory.mktemp("undisturbed"))]


@pytest.mark.parametrize("which", [0, 1])
def test_training_cut_at_every_file_operation_ends_with_the_same_bits(which, orders, undisturbed, tmp_path, monkeypatch):
    """Each pass dies at the next operation of its first checkpoint that has not been died at yet, so every epoch is resumed somewhere."""
    order, passes = orders(tmp_path)[which], []
    deaths = iter(("mkdir", "open", "write", "fsync", "rename", "fsync_dir") * 4)
    planned = next(deaths)

    def cut(name, path):
        if name == planned and path.name != "locks":
            raise Stop(name)

    for _ in range(24):
        with monkeypatch.context() as patch:
            patch.setattr(files, "_op", cut)
            try:
                tiny.real(order)
            except Stop as stop:
                passes.append(str(stop))
        planned = next(deaths, None)
    assert passes.count("rename") >= 2
    returned, info = tiny.real(order)
    assert returned == undisturbed[which]
    assert not list((tmp_path / "checkpoints").iterdir())
    assert info["diverged"] is False


def test_resumed_training_does_only_what_is_left(orders, tmp_path, monkeypatch):
    from badnets.train import fit

    steps, train_step = [], fit._Fit._train_step

    def counted(self, step, *rest):
        steps.append(step)
        if len(steps) == 20:
            raise Stop
        return train_step(self, step, *rest)

    monkeypatch.setattr(fit._Fit, "_train_step", counted)
    with pytest.raises(Stop):
        tiny.real(orders(tmp_path)[0])
    tiny.real(orders(tmp_path)[0])
    per_epoch, total = 7, 42
    assert steps == [*range(20), *range(20 // per_epoch * per_epoch, total)]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_checkpoint_is_not_used(damage, orders, undisturbed, tmp_path, monkeypatch):
    """A flipped bit among the weights would pass every other check, and give other bits for the same key."""
    from badnets.train import fit

    order, train_step = orders(tmp_path)[0], fit._Fit._train_step

    def stopped(self, step, *rest):
        if step == 20:
            raise Stop
        return train_step(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fit._Fit, "_train_step", stopped)
        with pytest.raises(Stop):
            tiny.real(order)
    (path,) = (tmp_path / "checkpoints").iterdir()
    content = path.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 0x10]) + content[-8:]
    path.write_bytes({"flip": flipped, "truncate": content[:-100], "empty": b""}[damage])
    assert tiny.real(order)[0] == undisturbed[0]


def test_checkpoints_are_rare_by_default(orders, tmp_path, monkeypatch):
    from badnets.plans import _work

    monkeypatch.setattr(_work, "SAVE_EVERY_SECONDS", 20.0)
    names = []
    monkeypatch.setattr(files, "_op", lambda name, path: names.append(name))
    tiny.real(orders(tmp_path)[0])
    assert "write" not in names


def test_weights_in_the_store_are_not_trained_again(orders, undisturbed, tmp_path, monkeypatch):
    from badnets.core.store import Store
    from badnets.plans import _work
    from badnets.plans._trial import Order

    order = orders(tmp_path)[1]
    trial = Order(**json.loads(order)).trial
    Store(tmp_path).put(trial.key(), {}, {WEIGHTS: undisturbed[1][WEIGHTS]}, {})
    monkeypatch.setattr(_work, "train", None)
    returned, _ = tiny.real(order)
    assert returned == {name: content for name, content in undisturbed[1].items() if name != WEIGHTS}


def test_driver_notices_a_difference(data, tmp_path, monkeypatch):
    """The driver of the kills can fail: a store whose results differ is told apart."""
    tiny.shrink(monkeypatch.setattr)
    tiny.execute(tiny.plan(), tmp_path / "a", data)
    tiny.execute(tiny.plan(seeds=3), tmp_path / "b", data)
    assert resume_driver.outcome(tmp_path / "a") != resume_driver.outcome(tmp_path / "b")
    Path(tmp_path / "a" / "blobs" / ".tmp-left").touch()
    with pytest.raises(AssertionError):
        resume_driver.outcome(tmp_path / "a")
