"""How often `badnets scan --dataset` calls clean training data poisoned: disjoint clean sets that its thresholds were not chosen on.

`python benchmarks/row_alarms.py --data DIR [--sets 23] [--images 3000]`. All 70,000 images of MNIST, shuffled once, are cut into disjoint
sets; each is scanned as a stranger's would be. Sets share a source but no image. Prints a line a set, appends to
`results/DATE-row-alarms-IMAGES.json` as it goes, and continues from there. Not run by `make bench`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from badnets.core import stats
from badnets.core.hardware import describe, versions
from badnets.core.rng import numpy_generator
from badnets.datasets._base import ImageSet, Split
from badnets.datasets.mnist import Mnist
from badnets.plans._scan_rows import scan_rows

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", type=int, default=23)
    parser.add_argument("--images", type=int, default=3000)
    asked = parser.parse_args()
    path = HERE / "results" / f"{datetime.date.today().isoformat()}-row-alarms-{asked.images}.json"
    found = json.loads(path.read_text())["sets"] if path.exists() else []
    whole = Mnist().load(asked.data)
    for index in range(len(found), asked.sets):
        start = time.process_time()
        verdict = scan_rows(part(whole, index, asked.images)).verdict
        groups = [{"label": g.label, "size": g.size, "kept": g.agreement.value, "poisoned": g.poisoned} for g in verdict.groups]
        spent = round(time.process_time() - start, 1)
        found.append({"set": index, "flagged": verdict.flagged, "num_suspect": verdict.num_suspect, "groups": groups, "cpu_seconds": spent})
        rate = stats.wilson(sum(one["flagged"] for one in found), len(found))
        print(f"set {index}: flagged {verdict.flagged}, {len(groups)} odd classes, {spent} s; so far {rate}", flush=True)
        told = {"images": asked.images, "rate": rate.model_dump(mode="json"), "hardware": describe(), "versions": versions(), "sets": found}
        path.write_text(json.dumps(told, indent=1) + "\n")


def part(whole: ImageSet, index: int, images: int) -> ImageSet:
    """Images `index * images` and on of the shuffled 70,000, as a training set of their own."""
    splits = (whole.train, whole.budget, whole.validation, whole.test)
    x_NCHW, y_N = (np.concatenate([getattr(split, name) for split in splits]) for name in ("x_NCHW", "y_N"))
    order = numpy_generator(0, "row alarms").permutation(len(y_N))[index * images : (index + 1) * images]
    if len(order) < images:
        raise SystemExit(f"{len(y_N)} images do not make {index + 1} sets of {images}.")
    x_NCHW = np.ascontiguousarray(x_NCHW[order])
    none = Split(x_NCHW[:0], y_N[:0], np.zeros(0, dtype=np.int64))
    train = Split(x_NCHW, y_N[order], np.arange(images))
    return replace(whole, train=train, budget=none, validation=none, test=none, sha256=hashlib.sha256(x_NCHW.data).hexdigest())


if __name__ == "__main__":
    main()
