"""What scanners of model files say of the hostile corpus, and of honest files: ours, picklescan, modelscan.

`python benchmarks/scanners.py [--modelscan PROGRAM]` with picklescan installed (extra `audit`); modelscan is a program in an environment
of its own (`pip install modelscan`). Files are written to a temporary folder, nothing is loaded. Prints the table of docs/model-files.md
and writes `results/DATE-scanners.json`. Not run by `make bench`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from picklescan import scanner

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "hostile")]

import corpus_safetensors  # noqa: E402 (lies among the tests)
import corpus_torch  # noqa: E402
import test_model_files_benign as benign  # noqa: E402

from badnets.core.errors import RefusedError  # noqa: E402
from badnets.intake.formats import read_weights  # noqa: E402

ENDINGS = {"raw": ".pkl", "safetensors": ".safetensors"}
"""modelscan goes by names; the rest are `.pt`."""
AREAS = {
    "raw": "bare pickles that run something",
    "within": "the same within torch files",
    "functions": "torch files that name one of ninety functions",
    "inert": "broken or odd pickles that run nothing",
    "containers": "zip files that contradict themselves",
    "geometry": "tensors that leave their storage",
    "bombs": "bombs",
    "semantics": "weights that are none",
    "kinds": "other formats",
    "safetensors": "broken safetensors",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modelscan")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for area, cases in corpus(Path(folder) / "canary").items():
            rows.append(row(AREAS[area], cases, asked.modelscan, Path(folder) / area))
            print(rows[-1], flush=True)
        rows.append(row("honest files", honest(), asked.modelscan, Path(folder) / "honest"))
        assert not (Path(folder) / "canary").exists(), "something ran"
    found = {"date": datetime.date.today().isoformat(), "versions": {"picklescan": importlib.metadata.version("picklescan")}, "rows": rows}
    if asked.modelscan:
        done = subprocess.run([asked.modelscan, "--version"], capture_output=True, text=True, check=True)
        found["versions"]["modelscan"] = done.stdout.split()[-1]
    (HERE / "results" / f"{found['date']}-scanners.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def corpus(canary: Path) -> dict[str, dict[str, bytes]]:
    """Area -> name -> bytes, of the cases that must be refused."""
    made = {}
    for area in AREAS:
        if area == "safetensors":
            cases = corpus_safetensors.cases()
        else:
            make = getattr(corpus_torch, area)
            cases = make(canary) if area in ("raw", "within") else make()
        made[area] = {name: data for name, (data, code) in cases.items() if code is not None}
    return made


def honest() -> dict[str, bytes]:
    """What torch itself writes."""
    return {name: benign.saved(make()) for name, make in benign.STATES.items()}


def row(what: str, cases: dict[str, bytes], modelscan: str | None, folder: Path) -> dict:
    """How many files each refuses or warns of."""
    folder.mkdir()
    ours, theirs = 0, {"dangerous": 0, "suspicious": 0}
    for place, data in enumerate(cases.values()):
        (folder / f"{place:04}{ENDINGS.get(folder.name, '.pt')}").write_bytes(data)
        ours += not reads(data)
        said = warns(data)
        if said:
            theirs[said] += 1
    third = None if modelscan is None else stopped(modelscan, sorted(folder.iterdir()))
    return {"what": what, "files": len(cases), "badnets": ours, "picklescan": theirs, "modelscan": third}


def reads(data: bytes) -> bool:
    try:
        read_weights(data)
    except RefusedError:
        return False
    return True


def warns(data: bytes) -> str:
    """The worst that picklescan says of what is named; only "dangerous" makes it exit with 1. An error alone is no warning."""
    try:
        result = scanner.scan_bytes(io.BytesIO(data), "model.pt", ".pt")
    except Exception as error:  # noqa: BLE001 (whatever it dies of, it warned of nothing)
        print(f"picklescan ended with {type(error).__name__}", file=sys.stderr)
        return ""
    levels = {one.safety.value for one in result.globals}
    return next((word for word in ("dangerous", "suspicious") if word in levels), "")


def stopped(program: str, paths: list[Path]) -> int:
    """In how many files modelscan finds an issue; an error alone is none. Where one file ends it, each is asked about alone."""
    report = paths[0].parent.with_suffix(".json")
    subprocess.run([program, "-p", str(paths[0].parent), "-r", "json", "-o", str(report)], capture_output=True)
    if report.exists():
        issues = json.loads(report.read_text())["issues"]
        return len({Path(issue["source"].partition(":")[0]).name for issue in issues})
    return sum(subprocess.run([program, "-p", str(path)], capture_output=True).returncode == 1 for path in paths)


def table(found: dict) -> str:
    versions = found["versions"]
    heads = ["files", "n", "badnets refuses", f"picklescan {versions['picklescan']}: dangerous", "only suspicious"]
    heads += [f"modelscan {versions['modelscan']}: issues"] if "modelscan" in versions else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found["rows"]:
        cells = [one["what"], one["files"], one["badnets"], *one["picklescan"].values()]
        cells += [one["modelscan"]] if "modelscan" in versions else []
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
