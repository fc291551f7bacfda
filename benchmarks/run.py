"""Runs the benchmarks and writes a dated result: hardware, versions, n, median and spread, ratios to a peer and to measured ceilings.

`make bench`, or `python benchmarks/run.py [--runs 5] [--art-runs 3] [--main-runs 5] [--skip-art]`. Each timed run is a process of its
own on one thread; ours and the peer's alternate, so that a machine whose speed drifts is fair to both.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
FRESH_SEED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--art-runs", type=int, default=3)
    parser.add_argument("--main-runs", type=int, default=5)
    parser.add_argument("--skip-art", action="store_true")
    parser.add_argument("--skip-main", action="store_true")
    options = parser.parse_args()
    result = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "hardware": hardware(), "versions": versions()}
    art_runs = 0 if options.skip_art else options.art_runs
    pairs = [run for i in range(max(options.runs, art_runs)) for run in _pair(i, options.runs, art_runs)]
    result["ceiling"] = [task("ceiling") for _ in range(3)]
    result["evaluate"] = [task("evaluate", FRESH_SEED + i) for i in range(options.runs)]
    for name in ("ours", "art", "art_plain"):
        result[name] = [run for run in pairs if run["task"] == name]
    if not options.skip_main:
        result["main_job"] = [main_job() for _ in range(options.main_runs)]
    (HERE / "results").mkdir(exist_ok=True)
    name = f"{result['date']}-{platform.machine()}"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (HERE / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _pair(i: int, runs: int, art_runs: int) -> list[dict]:
    ours = [task("ours", FRESH_SEED + i)] if i < runs else []
    return ours + ([task(name, FRESH_SEED + i) for name in ("art", "art_plain")] if i < art_runs else [])


def task(name: str, seed: int = 0) -> dict:
    """One task in a fresh process; `process_seconds` from start to exit."""
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, HERE / "mnist.py", name, str(seed)], env=one, stdout=subprocess.PIPE, text=True, check=True)
    found = {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": time.perf_counter() - start}
    print(json.dumps({k: v for k, v in found.items() if k not in ("recipe", "choices")}), file=sys.stderr, flush=True)
    return found


def main_job() -> dict:
    """`badnets run` in an empty store: seconds to the first verdict and to all, and the most memory of all its processes together."""
    with tempfile.TemporaryDirectory() as store:
        start, first, peak = time.perf_counter(), None, [0.0]
        command = [Path(sys.executable).parent / "badnets", "run", "--store", store]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            watcher = threading.Thread(target=_watch_memory, args=(process, peak))
            watcher.start()
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("[") and first is None:
                    first = time.perf_counter() - start
        seconds = time.perf_counter() - start
        watcher.join()
        found = {"first_verdict_seconds": first, "all_seconds": seconds, "memory_gib": peak[0] / 2**20, "status": process.returncode}
        print(json.dumps(found), file=sys.stderr, flush=True)
        return found


def _watch_memory(process: subprocess.Popen, peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_proportional_kib(pid) for pid in _tree(process.pid)))
        time.sleep(0.5)


def _tree(pid: int) -> list[int]:
    """A process and its descendants (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [pid, *(p for child in text.split() for p in _tree(int(child)))]


def _proportional_kib(pid: int) -> float:
    """Resident memory, shared pages counted in parts, so that a sum over processes counts each page once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith("Pss:")), 0.0)


def hardware() -> dict:
    from badnets.core.hardware import describe

    return describe()


def versions() -> dict:
    names = ("torch", "numpy", "adversarial-robustness-toolbox", "badnets")
    return {"python": platform.python_version(), **{n: _version(n) for n in names}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g}, n = {len(values)})"


def table(result: dict) -> str:
    """The result in Markdown."""
    lines = [f"# Benchmarks of {result['date']}", "", "Hardware: " + ", ".join(f"{k} {v}" for k, v in result["hardware"].items()) + ".", ""]
    lines += ["Versions: " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + ".", ""]
    lines += ["One thread, a process a run; median (range, n). Test images decide nothing: recipes were chosen on training data.", ""]
    lines += ["| figure | value |", "|---|---|"]
    ours, art = result["ours"], result["art"]
    rows = [
        ("badnets: training seconds, MNIST 60,000, 10 % BadNets", [r["train_seconds"] for r in ours]),
        ("badnets: whole process seconds", [r["process_seconds"] for r in ours]),
        ("badnets: CA", [r["ca"] for r in ours]),
        ("badnets: ASR", [r["asr"] for r in ours]),
        ("badnets: training images/s", [r["images_per_second"] for r in ours]),
        ("badnets: evaluation images/s", [r["images_per_second"] for r in result["evaluate"]]),
        ("ceiling: fp32 matrix product, GFLOP/s", [r["fp32_gflops"] for r in result["ceiling"]]),
        ("ceiling: bf16 matrix product, GFLOP/s", [r["bf16_gflops"] for r in result["ceiling"]]),
    ]
    fp32 = statistics.median(r["fp32_gflops"] for r in result["ceiling"]) * 1e9
    rows.append(("badnets: share of the fp32 ceiling in training", [r["flop_share"] / fp32 for r in ours]))
    for name, peer in (("ART on our net", art), ("ART on a plain net", result.get("art_plain", []))):
        rows += _peer_rows(name, peer, ours) if peer else []
    for name, key in (("seconds to the first verdict", "first_verdict_seconds"), ("seconds to all claims", "all_seconds")):
        if result.get("main_job"):
            rows.append((f"main job (`badnets run`): {name}", [r[key] for r in result["main_job"]]))
    if result.get("main_job"):
        rows.append(("main job: memory of all its processes, GiB", [r["memory_gib"] for r in result["main_job"]]))
    lines += [f"| {name} | {spread(values)} |" for name, values in rows]
    reached = sum(r["ca"] >= 0.985 and r["asr"] >= 0.99 for r in ours)
    return "\n".join([*lines, "", f"Target (CA >= 98.5 %, ASR >= 99 %) reached by {reached} of {len(ours)} fresh seeds.", ""])


def _peer_rows(name: str, peer: list[dict], ours: list[dict]) -> list[tuple[str, list[float]]]:
    seconds = [(name, "training", "train_seconds"), (name, "whole process", "process_seconds")]
    rows = [(f"{name}: {what} seconds to the same target", [r[key] for r in peer]) for name, what, key in seconds]
    rows += [(f"{name}: {key.upper()}", [r[key] for r in peer]) for key in ("ca", "asr")]
    rows.append((f"{name}: epochs", [float(r["epochs"]) for r in peer]))
    return rows + [
        (f"ratio {name} / badnets, {what}", [a[key] / o[key] for a, o in zip(peer, ours, strict=False)]) for _, what, key in seconds
    ]


if __name__ == "__main__":
    main()
