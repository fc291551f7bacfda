"""Seconds of four defences, ours and the peers' (TrojanZoo, ART) in turn, on one MNIST victim; and what each of them found.

`python benchmarks/defence.py [--runs 3] [--peer-runs 1] [--data DIR] [--out DIR] [--only strip,spectral] [--net paper_cnn]`, on a quiet
machine: each timed run is a process of its own on one thread (`defence_task.py`). Writes `DATE-defence-MACHINE.{json,md}`. The peers live
best in an environment of their own, with badnets beside them; one that is absent, or fails, is reported as that:
`pip install adversarial-robustness-toolbox trojanzoo torchvision 'matplotlib<3.9'` (TrojanZoo imports what matplotlib 3.9 dropped).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from badnets.core.hardware import describe, versions

HERE = Path(__file__).parent
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
MODULES = {"adversarial-robustness-toolbox": "art", "trojanzoo": "trojanvision"}
SKIPPED = ("task", "seed", "seconds", "processor_seconds", "norms", "classes", "epochs")

CASES = {
    "cleanse": (
        "Neural Cleanse, all ten classes",
        "All are given the clean training images. The index is the paper's (above 2: infected); `own_index` is TrojanZoo's, which has two "
        "sides. TrojanZoo is given ready batches, and only its search is timed, not its validation.",
        {
            "ours": "badnets, defaults (60 of the images, 120 steps)",
            "trojanzoo": "TrojanZoo, its defaults for MNIST (all images, batches of 512, 10 epochs, patience 10, rate 0.1, cost 0.001)",
            "trojanzoo_few": "TrojanZoo, the same 60 images as badnets, batches of 20, at most 200 epochs: the cheapest settings found "
            "that name the target (which a defender does not know)",
        },
    ),
    "strip": (
        "STRIP over test images, half of them stamped",
        "100 blends of each, the same 300 clean images for blends and threshold, 1 % of false alarms asked for. ART is given "
        "probabilities. It blends by halves, which fades the trigger, and takes the entropy over the blends instead of the classes; "
        "`auroc_over_classes` is of the same predictions with the paper's entropy.",
        {"ours": "badnets", "art": "ART, 100 blends (its default is 20)"},
    ),
    "clustering": (
        "Activation clustering over the training set, features included",
        "ART answers yes or no, and its AUROC is of that answer.",
        {
            "ours": "badnets, defaults",
            "art": "ART, on the same features, by the paper's ICA (the smaller cluster of every class)",
            "art_silhouette": "ART, on the same features, by the paper's ICA and rules of size and silhouette, as badnets",
            "art_plain": "ART, its defaults (of a plain net it takes the logits; PCA; the smaller cluster of every class)",
        },
    ),
    "spectral": (
        "Spectral signatures over the training set, features included",
        "",
        {
            "ours": "badnets, defaults (15 % of every class removed)",
            "art": "ART, on the same features, told of 10 % of poison (15 % removed)",
            "art_plain": "ART, its defaults (of a plain net it takes the logits; 49.5 % removed)",
        },
    ),
}


def main() -> None:
    options = parsed()
    if options.data:
        os.environ["BADNETS_DATA"] = str(options.data)
    kept = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "hardware": describe(), "versions": versions()}
    kept["versions"] |= {name: _version(name) for name in ("torchvision", *MODULES)}
    kept |= {"load_before": os.getloadavg()[0], "net": options.net, "rows": options.rows, "inputs": options.inputs}
    with tempfile.TemporaryDirectory() as folder:
        given = {"victim": str(Path(folder, "victim.safetensors")), "net": options.net, "rows": options.rows}
        given |= {"inputs": options.inputs, "classes": options.classes}
        kept["victim"] = task("victim", given, 0)
        cases = {case: CASES[case][2] for case in options.only.split(",")}
        order = [(i, case, who) for case, sides in cases.items() for i in range(max(options.runs, options.peer_runs)) for who in sides]
        kept["runs"] = [
            task(f"{case}_{who}", given, i) for i, case, who in order if i < (options.runs if who == "ours" else options.peer_runs)
        ]
    kept["load_after"] = os.getloadavg()[0]
    options.out.mkdir(parents=True, exist_ok=True)
    name, text = f"{kept['date']}-defence-{platform.machine()}", table(kept)
    (options.out / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--net", default="paper_cnn", choices=("paper_cnn", "fast_cnn"))
    parser.add_argument("--rows", type=int, default=60_000, help="training images")
    parser.add_argument("--inputs", type=int, default=10_000, help="images that STRIP judges")
    parser.add_argument("--classes", type=int, default=10, help="classes that TrojanZoo searches")
    return parser.parse_args()


def task(name: str, given: dict, seed: int) -> dict:
    """One task in a fresh process. A peer may be absent or fail; ours may not."""
    peer = next((p for p in MODULES if MODULES[p] in name or p in name), None)
    if peer and not importlib.util.find_spec(MODULES[peer]):
        return {"task": name, "not_run": f"{peer} is absent"}
    command = [sys.executable, HERE / "defence_task.py", json.dumps({"task": name, "seed": seed, **given})]
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        why = f"ended by signal {-done.returncode}" if done.returncode < 0 else done.stderr.splitlines()[-1].partition(":")[0]
        if not peer:
            raise SystemExit(f"{name} failed: {why}")
        return {"task": name, "not_run": f"{peer} failed: {why}"}
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def table(kept: dict) -> str:
    """The result in Markdown."""
    victim, lines = kept["victim"], [f"# Defences, {kept['date']}", ""]
    lines += ["Hardware: " + ", ".join(f"{k} {v}" for k, v in kept["hardware"].items()) + ".", ""]
    lines += ["Versions: " + ", ".join(f"{k} {v}" for k, v in kept["versions"].items()) + ".", ""]
    load = f"load of the machine {kept['load_before']:.2f} before, {kept['load_after']:.2f} after, 1 of it this run"
    lines += [f"One thread, a process a run; median (range, n); ratios of medians, their ranges of extremes; {load}.", ""]
    lines += [f"Victim: `{kept['net']}`, MNIST {kept['rows']:,}, 10 % BadNets (3x3 white square, class 0)."]
    lines[-1] += f" CA {victim['ca']:.2%}, ASR {victim['asr']:.2%}. STRIP judges {kept['inputs']:,} images."
    for case, (title, words, sides) in CASES.items():
        runs = {who: [run for run in kept["runs"] if run["task"] == f"{case}_{who}"] for who in sides}
        if runs["ours"]:
            lines += ["", f"## {title}", "", *([words, ""] if words else [])]
            lines += ["| who | seconds | processor seconds | ratio to badnets | found |", "|---|---|---|---|---|"]
            lines += [_row(sides[who], runs[who], runs["ours"]) for who in sides]
    return "\n".join([*lines, ""])


def _row(who: str, runs: list[dict], ours: list[dict]) -> str:
    done = [run for run in runs if "not_run" not in run]
    if not done:
        return f"| {who} | {runs[0]['not_run'] if runs else 'not run'} | | | |"
    seconds, base = _whole(done), _whole(ours)
    ratio = f"{statistics.median(seconds) / statistics.median(base):.1f} ({min(seconds) / max(base):.1f}-{max(seconds) / min(base):.1f})"
    classes = done[0].get("classes", 10)
    who += f"; seconds EXTRAPOLATED from {classes} classes to ten, found among these only" if classes < 10 else ""
    figures = [f"{name} {_middle([run[name] for run in done])}" for name in done[0] if name not in SKIPPED]
    processor = _spread(_whole(done, "processor_seconds"))
    return f"| {who} | {_spread(seconds)} | {processor} | {'' if runs is ours else ratio} | {', '.join(figures)} |"


def _whole(runs: list[dict], key: str = "seconds") -> list[float]:
    """Seconds of ten classes, where fewer were looked at as if each took as long."""
    return [run[key] * 10 / run.get("classes", 10) for run in runs]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g}, n = {len(values)})"


def _middle(values: list) -> str:
    if isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}"
    return f"{statistics.median(values):.3g}"


if __name__ == "__main__":
    main()
