"""Kills runs by signal 9 at random moments and lets the same command go on: started by test_resume, because torch is imported here once.

`resume_driver.py KIND DATA ROOT KILLS SEED`; KIND is `real` (nets trained in the run's own process) or `stub` (worker processes). Prints
one JSON document. A run is killed until it happens to end in peace; then its record is compared, and the next store is begun.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import tiny

from badnets.core import files
from badnets.core.engine import ProcessEngine, SerialEngine

SMALL = {"claims": ("trigger_reaches_target",), "only_attack": True}


def main(kind, data, root, kills, seed):
    tiny.shrink(setattr)
    files._fsync = lambda fd: None
    if kind == "real":
        import torch

        from badnets.plans import _work

        torch.set_num_threads(1)
        _work.SAVE_EVERY_SECONDS = 0.0
        engine = SerialEngine(tiny.real)
        tiny.execute(tiny.plan(**SMALL), root / "warm", data, engine)  # torch imports a good deal when it is first used
    draw, killed, stores, survivors, stages = random.Random(seed), 0, 0, [], set()
    length = min(timed(kind, data, root / f"undisturbed{i}") for i in range(2 if kind == "real" else 1))
    earliest = 0.0 if kind == "real" else 0.3  # of the length: processes take their time to start, and nothing happens meanwhile
    reference = outcome(root / "undisturbed0")
    while killed < kills:
        store, ended = root / f"store{stores}", False
        while not ended:
            fresh, start = not store.exists(), time.monotonic()
            how = run(kind, data, store, draw.uniform(earliest, 0.9) * length if killed < kills else None)
            ended = how == "ended"
            # On a machine that is less busy by now runs would end before they are killed, one after the other.
            length = min(length, time.monotonic() - start) if ended and fresh else length
            killed += not ended
            stages.add(stage(store))
            survivors += [] if ended else alive(store)
        assert outcome(store) == reference, f"store {stores} of seed {seed} differs"
        stores += 1
    print(json.dumps({"killed": killed, "stores": stores, "survivors": survivors, "stages": sorted(stages), "length": length}))


def timed(kind, data, store):
    start = time.monotonic()
    assert run(kind, data, store, None) == "ended"
    return time.monotonic() - start


def run(kind, data, store, seconds):
    """One run in a session of its own, killed after so many seconds: `killed`, or `ended`."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            os.environ |= {"TINY_LOG": f"{store}.log", "TINY_NAP": "0.12"}
            engine = SerialEngine(tiny.real) if kind == "real" else ProcessEngine("tiny:perform", num_workers=2)
            tiny.execute(tiny.plan(**(SMALL if kind == "real" else {})), store, data, engine)
            status = 0
        finally:
            os._exit(status)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            assert status == 0, f"a run of {store} ended with {status}"
            return "ended"
        if end is not None and time.monotonic() >= end:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # not yet a session of its own
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "killed"
        time.sleep(0.001)


def outcome(store):
    """What a finished store says: its record without times, its results."""
    from badnets.core.store import Store

    keys = tiny.check_store(store)
    left = [str(path) for path in store.rglob("*") if path.name.startswith(".tmp-") or path.parent.name in ("checkpoints", "locks")]
    assert not left, left
    results = {key: Store(store).manifest(key)["files"] for key in keys}
    return tiny.essence(Store(store).record()), results


def alive(store):
    """Workers and their servers that still live a second after the run was killed."""
    log = Path(f"{store}.log")
    pids = {int(pid) for line in log.read_text().splitlines() for pid in line.split()[1:]} if log.exists() else set()
    end = time.monotonic() + 1
    while (found := [pid for pid in pids - {os.getpid()} if running(pid)]) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stage(store):
    """How far the store had got when the run was ended."""
    if list(store.glob("records/*/*.json")):
        return "record"
    if list(store.glob("results/*/*.json")):
        return "results"
    return "checkpoint" if list(store.glob("checkpoints/*")) else "nothing"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
