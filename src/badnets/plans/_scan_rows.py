"""Looks through training data for images whose label wins wherever they are laid, and which nobody would call so without them.

Two steps, neither of which needs clean data. A net is trained on everything; each image is laid over images of other classes, and those
that nearly always take their label along are suspects: they carry a trigger, or are just strong pictures of their class. Then a net is
trained without the suspects and asked about them: strong pictures keep their label, poison loses it, since nothing else taught the trigger.
Does not apply to poison whose labels are right, nor to a trigger whose label depends on what is under it (all-to-all, source-specific);
misses faint triggers of which many copies are left when the suspects are out.
Y. Gao, C. Xu, D. Wang, S. Chen, D. C. Ranasinghe, S. Nepal (2019), STRIP, https://arxiv.org/abs/1902.06531 (overlays, there of inputs at
use, judged by their entropy). The second step is ours. Shapes: N rows, M rows of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from badnets.core import files, stats
from badnets.core.config import key_of
from badnets.core.errors import StoreError
from badnets.core.hardware import scan_digest, versions
from badnets.core.png import png_bytes
from badnets.core.rng import numpy_generator
from badnets.core.scanned import Group, RowVerdict
from badnets.core.sheet import csv_text
from badnets.core.store import Store
from badnets.core.tensors import pack, unpack
from badnets.datasets._base import ImageSet, Split
from badnets.plans._plant import default_net
from badnets.plans._trial import NUM_THREADS, Trial, device_name
from badnets.train.recipe import default_recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network

OVERLAYS, WINS, MOST = 20, 0.9, 0.8
"""An image is a suspect if at least the share WINS of its overlays take its label; but where more than MOST of a class do, the class wins,
and without them there would be nobody left to keep the label."""
FEWEST, HALF, ALPHA = 5, 0.5, 0.01
"""FEWEST suspects make a group; it is poisoned if it keeps its label in surely less than HALF of its rows (level ALPHA over all groups)."""
SHEET_SIDE, SHEET_SCALE = 8, 3
VERDICT, ARRAYS = "verdict", "arrays"
CLEAN_SETS, CLEAN_FLAGGED = 21, 0
CLEAN_MEASURED = "21 disjoint sets of 3,000 images of MNIST, 2026-11-28"
"""How many clean training sets were called poisoned that no threshold was chosen on; `benchmarks/row_alarms.py` measures it."""
NOT_LOOKED_AT = (
    "poison whose labels are right",
    "triggers whose label depends on what is under them (all-to-all, source-specific)",
    "faint triggers of which many copies stay in when the suspects are taken out",
)


@dataclass(frozen=True, eq=False)
class RowScan:
    """The verdict, and of every row that was looked at: its image, its place in the data set, label, `score_N` (the share of overlays that
    take its label), whether it is poison by the verdict, and what a net trained without the suspects says of it (-1: it was not asked)."""

    verdict: RowVerdict
    rows: Split
    score_N: np.ndarray
    suspect_N: np.ndarray
    said_N: np.ndarray
    classes: tuple[str, ...]


def kept_rows(data: ImageSet, store: Store) -> RowScan:
    """The same as `scan_rows`, from the store where it was done before."""
    found = versions()
    told = {name: found[name] for name in ("torch", "numpy")}
    key = key_of({"rows": data.sha256, "data": data.name, "device": device_name(), "code": scan_digest(), "versions": told})
    if store.has(key):
        try:
            kept = store.get(key)
            arrays = unpack(kept[ARRAYS])[0]
            return RowScan(RowVerdict.model_validate_json(kept[VERDICT]), _all_rows(data), **arrays, classes=data.classes)
        except StoreError as error:
            if error.code not in ("E-DAMAGED", "E-MISSING"):
                raise
    new = scan_rows(data)
    arrays = pack({"score_N": new.score_N, "suspect_N": new.suspect_N, "said_N": new.said_N})
    store.put(key, {"rows": data.sha256}, {VERDICT: new.verdict.model_dump_json().encode(), ARRAYS: arrays}, {})
    return new


def scan_rows(data: ImageSet) -> RowScan:
    """All images that could be trained on (the judge's official test part is none of them)."""
    rows = _all_rows(data)
    score_N = _wins(_trained(data, rows), rows)
    strong_N, said_N = _suspects(score_N, rows.y_N), np.full(len(rows), -1)
    if strong_N.any():
        said_N[strong_N] = _says(_trained(data, rows.take(~strong_N)), rows.x_NCHW[strong_N])
    members = {k: np.flatnonzero((said_N >= 0) & (rows.y_N == k)) for k in range(data.num_classes)}
    groups, suspect_N = [], np.zeros(len(rows), dtype=bool)
    members = {k: index_M for k, index_M in members.items() if len(index_M) >= FEWEST}
    for k, index_M in members.items():
        group = _group(k, said_N[index_M], data.classes, level=1 - ALPHA / len(members))
        suspect_N[index_M] = group.poisoned
        groups.append(group)
    verdict = RowVerdict(
        dataset=data.name,
        sha256=data.sha256,
        flagged=bool(suspect_N.any()),
        num_rows=len(rows),
        num_suspect=int(suspect_N.sum()),
        groups=groups,
        false_alarms=stats.wilson(CLEAN_FLAGGED, CLEAN_SETS),
        measured=CLEAN_MEASURED,
        not_looked_at=NOT_LOOKED_AT,
    )
    return RowScan(verdict, rows, score_N, suspect_N, said_N, data.classes)


def _all_rows(data: ImageSet) -> Split:
    """Training rows and the defender's; with those of the other splits where the data set has no official test part."""
    whole = data.name == "folder"
    parts = (data.train, data.budget, data.validation, data.test) if whole else (data.train, data.budget)
    order = np.argsort(np.concatenate([part.rows for part in parts]), kind="stable")
    x_NCHW, y_N, rows = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("x_NCHW", "y_N", "rows"))
    return Split(x_NCHW, y_N, rows)


def _trained(data: ImageSet, rows: Split) -> Network:
    import torch

    from badnets.plans._work import train

    device = device_name()
    kind = default_net(data.shape, device).value
    recipe = default_recipe(kind, data.shape, len(rows)).value
    trial = Trial(dataset=data.name, data_sha256=data.sha256, net={"kind": kind}, recipe=recipe, attack=None, seed=0, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        return train(trial, replace(data, train=rows))[0]
    finally:
        torch.set_num_threads(threads)


def _wins(network: Network, rows: Split) -> np.ndarray:
    """Of each row the share of overlays (sums of pixels, cut at white) with rows of other classes that take its label."""
    won_N = np.zeros(len(rows))
    for turn in range(OVERLAYS):
        under_N = _of_another_class(rows.y_N, turn)
        laid_NCHW = np.minimum(rows.x_NCHW.astype(np.uint16) + rows.x_NCHW[under_N], 255).astype(np.uint8)
        won_N += _says(network, laid_NCHW) == rows.y_N
    return won_N / OVERLAYS


def _suspects(score_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    strong_N = score_N >= WINS
    for k in np.unique(y_N[strong_N]):
        if strong_N[y_N == k].mean() > MOST:
            strong_N[y_N == k] = False
    return strong_N


def _of_another_class(y_N: np.ndarray, turn: int) -> np.ndarray:
    """For each row another one of another class, drawn anew until it is."""
    draw = numpy_generator(0, "overlays", turn)
    under_N = draw.integers(0, len(y_N), len(y_N))
    while (same_N := y_N[under_N] == y_N).any():
        under_N[same_N] = draw.integers(0, len(y_N), int(same_N.sum()))
    return under_N


def _says(network: Network, x_NCHW: np.ndarray) -> np.ndarray:
    from badnets.measure.probe import predict

    return predict(network, x_NCHW).argmax(axis=1)


def _group(label: int, said_M: np.ndarray, classes: tuple[str, ...], *, level: float) -> Group:
    kept_M = said_M == label
    agreement = stats.wilson(int(kept_M.sum()), len(kept_M))
    high = stats.wilson(int(kept_M.sum()), len(kept_M), level=level).high
    names, counts = np.unique(said_M[~kept_M], return_counts=True)
    often = [classes[k] for k in names[np.argsort(-counts, kind="stable")][:3]]
    return Group(
        label=classes[label],
        size=len(said_M),
        agreement=agreement,
        others=", ".join(often),
        poisoned=high is not None and high < HALF,
    )


def write_rows(folder: Path, found: RowScan) -> Mapping[str, Path]:
    """A CSV of all rows and a contact sheet of the suspects."""
    columns = zip(found.rows.rows, found.rows.y_N, found.suspect_N, found.score_N, found.said_N, strict=True)
    lines = [
        (int(row), found.classes[label], int(suspect), f"{score:.6g}", "" if said < 0 else found.classes[said])
        for row, label, suspect, score, said in columns
    ]
    written = {"rows": folder / "rows.csv"}
    files.write_text(written["rows"], csv_text(["row", "label", "suspect", "score", "called_without_them"], lines))
    if found.suspect_N.any():
        written["sheet"] = folder / "suspects.png"
        files.write_bytes(written["sheet"], sheet_png(found))
    return written


def sheet_png(found: RowScan) -> bytes:
    """Some of the suspects as one picture."""
    return png_bytes(_sheet(found.rows.x_NCHW[found.suspect_N]))


def _sheet(x_NCHW: np.ndarray) -> np.ndarray:
    """Up to 64 images, evenly taken, in rows of eight with a frame between them."""
    shown = x_NCHW[np.linspace(0, len(x_NCHW) - 1, min(len(x_NCHW), SHEET_SIDE**2)).astype(int)]
    shown = shown.repeat(SHEET_SCALE, axis=2).repeat(SHEET_SCALE, axis=3)
    shown = np.pad(shown, ((0, -len(shown) % SHEET_SIDE), (0, 0), (2, 2), (2, 2)), constant_values=128)
    num, channels, height, width = shown.shape
    tiles = shown.reshape(num // SHEET_SIDE, SHEET_SIDE, channels, height, width)
    return tiles.transpose(2, 0, 3, 1, 4).reshape(channels, num // SHEET_SIDE * height, SHEET_SIDE * width)
