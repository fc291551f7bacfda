"""Cells and pictures about units inside nets, from the answers of the `neurons` entries; they describe and decide nothing.

Lists run over seeds. Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from badnets.claims._cells import Condition, difference_cell, rate_cell, unknown
from badnets.core import stats
from badnets.core.png import png
from badnets.core.types import Cell, Estimate, Picture
from badnets.measure.outcome import Outcome, attack_hits
from badnets.measure.question import Answer
from badnets.neurons._edits import as_value
from badnets.neurons.minimal_cut import NONE

SMALLEST_PICTURE = 56
NOTHING = "nothing replaced"


class Judged:
    """The answers of `carriers` over seeds, each read at its own place: the chosen one, or the one with this index."""

    def __init__(self, answers: Sequence[Answer], goal_K: np.ndarray, place: int | None = None) -> None:
        self.answers, self.goal_K = answers, goal_K
        self.at = [int(answer["chosen"]) if place is None else place for answer in answers]
        self.places = [as_value(answer["places"]) for answer in answers]

    def outcomes(self, name: str) -> list[Outcome]:
        """Outcomes of one of the arrays; those of a place by their name without it."""
        found = []
        for answer, p in zip(self.answers, self.at, strict=True):
            pred_N = answer[name if name.startswith("before") else f"{p}.{name}"].astype(np.int64)
            found.append(Outcome(answer["y"].astype(np.int64), pred_N, np.zeros(len(pred_N), dtype=np.float32)))
        return found

    def sent(self, name: str) -> list[np.ndarray]:
        """Per attacked image: sent to the goal?"""
        return [attack_hits(outcome, self.goal_K) for outcome in self.outcomes(name)]

    def right(self, name: str) -> list[np.ndarray]:
        """Per image: right?"""
        return [outcome.correct_N for outcome in self.outcomes(name)]

    def told(self) -> str:
        """Where each seed's set lies and how it was found."""
        chosen = [places[p] for places, p in zip(self.places, self.at, strict=True)]
        words = Counter(f"{c['name']}, {len(c['units'])} of {c['size']} units by {c['found by']}" for c in chosen)
        return "Sets by seed: " + "; ".join(f"{count} x {text}" for text, count in words.items()) + "."


def named(cell: Cell, control_name: str, note: str = "") -> Cell:
    """The cell with a name for its control."""
    return cell.model_copy(update={"control_name": control_name, **({"note": note} if note else {})})


def place_cells(victims: Sequence[Answer], twins: Sequence[Answer], goal_K: np.ndarray) -> list[Cell]:
    """Necessity, sufficiency and price of each place's best set."""
    cells = []
    for p, told in enumerate(as_value(victims[0]["places"])):
        at, twin = Judged(victims, goal_K, p), Judged(twins, goal_K, p)
        condition: Condition = {"place": told["name"], "units": len(told["units"]), "of": told["size"]}
        cells.append(
            named(rate_cell(condition, "ASR without the units", at.sent("mean.triggered"), at.sent("random.triggered")), "random units")
        )
        cells.append(
            named(
                rate_cell(condition, "ASR with the units at zero", at.sent("zero.triggered"), at.sent("mean.triggered")),
                "at their clean mean",
            )
        )
        cells.append(rate_cell(condition, "sent to the target by the units alone", at.sent("patch"), twin.sent("patch")))
        loss = difference_cell(condition, "CA loss", at.right("before.clean"), at.right("mean.clean"), None)
        cells.append(named(loss, "CA without the units"))
    return cells


def curve_cells(ablations: Sequence[Answer], patchings: Sequence[Answer], twin_patchings: Sequence[Answer]) -> list[Cell]:
    """ASR and CA over the share of a layer's units that is replaced, and what the same share does alone, by ranking."""
    cells = []
    layers = as_value(ablations[0]["layers"])
    for i, (layer, count) in enumerate(layers):
        where = {"layer": layer} | ({"depth": "last"} if i == len(layers) - 1 else {})
        for start in (key.removesuffix(".triggered") for key in ablations[0] if key.startswith(f"{i}.") and key.endswith(".triggered")):
            _, way, ranking = start.split(".")
            for row, k in enumerate(ablations[0][f"{i}.ks"].tolist()):
                condition = {
                    **where,
                    "ranking": ranking,
                    "replaced by": "zero" if way == "zero" else "clean mean",
                    "share of units": k / count,
                }
                for quantity, kind in (("ASR", "triggered"), ("CA", "clean")) if k else ():
                    hits, before = ([a[f"{start}.{kind}"][m] for a in ablations] for m in (row, 0))
                    cells.append(named(rate_cell(condition, quantity, hits, before), NOTHING))
        for ranking in (key.split(".")[1] for key in patchings[0] if key.startswith(f"{i}.") and not key.endswith(".ks")):
            for row, k in enumerate(patchings[0][f"{i}.ks"].tolist()):
                condition = {**where, "ranking": ranking, "share of units": k / count}
                hits, control = ([a[f"{i}.{ranking}"][row] for a in answers] for answers in (patchings, twin_patchings))
                if k:
                    cells.append(rate_cell(condition, "sent to the target by the units alone", hits, control))
    return cells


def direction_cells(answers: Sequence[Answer]) -> list[Cell]:
    """ASR and CA when one direction of a layer is taken out."""
    cells = []
    for i, (layer, _) in enumerate(as_value(answers[0]["layers"])):
        for quantity, kind in (("ASR without one direction", "triggered"), ("CA without one direction", "clean")):
            hits, chance = ([a[f"{i}.{name}{kind}"] for a in answers] for name in ("", "random."))
            cells.append(named(rate_cell({"layer": layer}, quantity, hits, chance), "a random direction"))
    return cells


def cut_cells(answers: Sequence[Answer]) -> list[Cell]:
    """Smallest share of a place's units that must go; unknown where some seed has no such set."""
    cells = []
    for p, told in enumerate(as_value(answers[0]["places"])):
        size = told["size"]
        ks = [int(answer["smallest"][p]) for answer in answers]
        missing = ks.count(NONE)
        shares = [k / size for k in ks if k != NONE]
        cells.append(
            Cell(
                condition={"place": told["name"], "of": size},
                quantity="smallest cut",
                unit="rate",
                estimate=unknown(len(ks), len(ks), "no set found in some seeds") if missing else _capped(stats.mean_over_seeds(shares)),
                per_seed=shares,
                note="Units per seed: " + ", ".join("none found" if k == NONE else str(k) for k in ks) + ".",
            )
        )
    return cells


def selectivity_cells(answers: Sequence[Answer], twins: Sequence[Answer]) -> list[Cell]:
    """The most selective unit of each layer, in clean standard deviations."""

    def largest(nets: Sequence[Answer], i: int) -> Estimate:
        return stats.mean_over_seeds([float(a[f"{i}.selectivity"].max()) for a in nets])

    return [
        Cell(condition={"layer": layer}, quantity="largest selectivity", unit="", estimate=largest(answers, i), control=largest(twins, i))
        for i, (layer, _) in enumerate(as_value(answers[0]["layers"]))
    ]


def _capped(estimate: Estimate) -> Estimate:
    """Interval ends of a share that t puts outside 0..1 brought back."""
    low, high = (None if e is None else min(1.0, max(0.0, e)) for e in (estimate.low, estimate.high))
    return estimate.model_copy(update={"low": low, "high": high})


def sight_pictures(answer: Answer) -> list[list[Picture]]:
    """Per layer: where the trigger changes it, what its most selective units see in clean and in triggered images, their weights."""
    rows = []
    for i, (layer, _) in enumerate(as_value(answer["layers"])):
        row = [Picture(caption=f"{layer}: change under the trigger", png_base64=png(_enlarged(answer[f"{i}.change"])))]
        for u, unit in enumerate(answer[f"{i}.units"].tolist()):
            for shown in ("clean", "triggered"):
                top, bottom, left, right = answer[f"{i}.{shown}.box"][u, 0].tolist()
                pixels_CHW = answer[f"{i}.{shown}.pixels"][u, 0][:, top:bottom, left:right]
                facts = {
                    "activation": round(float(answer[f"{i}.{shown}.value"][u, 0]), 3),
                    "selectivity": round(float(answer[f"{i}.selectivity"][u]), 2),
                }
                row.append(Picture(caption=f"unit {unit}, strongest {shown}", png_base64=png(_enlarged(pixels_CHW)), facts=facts))
            if i == 0 and "weights" in answer:
                row.append(Picture(caption=f"unit {unit}, weights", png_base64=png(_enlarged(answer["weights"][unit]))))
        rows.append(row)
    return rows


def _enlarged(pixels_CHW: np.ndarray) -> np.ndarray:
    factor = -(-SMALLEST_PICTURE // min(pixels_CHW.shape[1:]))
    return pixels_CHW.repeat(factor, axis=1).repeat(factor, axis=2)
