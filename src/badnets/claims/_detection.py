"""From what detectors said of nets to the figures of one row of a detector table.

AUROC needs no threshold. The threshold of a detector of inputs is fitted on clean inputs that only serve that; a detector of rows has
its paper's own rule; a detector of nets is calibrated on clean nets that are in no other figure. Where there is none of these the
false-positive rate on twins is unknown, and the detector cannot be relied on. Shapes: S seeds, N inputs or rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from badnets.claims._cells import unknown
from badnets.claims._scanned import CLEAN, HELD, SHOWN, Seen
from badnets.core import stats
from badnets.core.types import Chart, Estimate, Estimator, Scalar
from badnets.measure.rates import at_95, rate

ALPHA = 0.05
"""Level of a calibrated detector of nets."""
NO_CALIBRATION = "no clean nets were left to calibrate on"
HALF_IS_POISON = "Left of the line at most half of what carries the label of the target is poison, right of it more."


@dataclass(frozen=True, eq=False)
class Row:
    """A detector on one arm. `fpr`: on twins, with the threshold `rule` tells of; cost is a mean over scans of victims."""

    auroc: Estimator
    tpr_1: Estimate
    tpr_5: Estimate
    fpr: Estimate
    rule: str
    seconds: float | None
    memory_bytes: int | None
    target_hit: Estimate | None = None


def row(victims: Sequence[Seen], twins: Sequence[Seen], calibration: Sequence[Seen], goals: frozenset[int]) -> Row | str:
    """The figures, or why there are none. `goals`: the classes that the attack sends images to."""
    silent = [seen for seen in (*victims, *twins) if not seen.analysable]
    if silent:
        return f"{len(silent)} of {len(victims) + len(twins)} nets could not be analysed"
    figures = _of_nets if len(victims[0].score_R) else _of_inputs if (victims[0].part_N == HELD).any() else _of_rows
    named = [seen.target for seen in victims if seen.target is not None]
    memory = [seen.memory_bytes for seen in victims if seen.memory_bytes is not None]
    return Row(
        *figures(victims, twins, calibration),
        seconds=float(np.mean([seen.seconds for seen in victims])),
        memory_bytes=max(memory) if memory else None,
        target_hit=stats.wilson(sum(k in goals for k in named), len(named), num_seeds=len(named)) if named else None,
    )


def who_finds_what(conditions: Sequence[Mapping[str, Scalar]], quantity: str, *, margin: float, num_classes: int) -> list[Chart]:
    """Detectors down, poison rates across: a map for each trigger and label map that has several rates, patches of the first one's size.

    `conditions`: of the arms, the run's own first. The line of half poison belongs to one target, so maps of other label maps have none.
    """
    size = conditions[0].get("size")
    rates: dict[tuple[tuple[str, Scalar], ...], set[Scalar]] = {}
    for condition in conditions:
        where = tuple((key, condition[key]) for key in ("trigger", "size", "mapping") if key in condition)
        if size is None or condition.get("size", size) == size:
            rates.setdefault(where, set()).add(condition.get("rate"))
    line = {"x_line": 1 / num_classes, "x_line_text": HALF_IS_POISON}
    base = Chart(
        title="Who finds what? AUROC of every detector",
        kind="map",
        quantities=[quantity],
        x="rate",
        x_title="poison rate",
        y="detector",
        y_title="detector",
        margin=margin,
    )
    several = [dict(where) for where, found in rates.items() if len(found) > 1]
    return [base.model_copy(update={"where": where, **(line if where.get("mapping") == "all_to_one" else {})}) for where in several]


def conformal(null: Sequence[float], score: float) -> float:
    """The conformal p-value of a score among those of clean nets."""
    return (1 + sum(other >= score for other in null)) / (1 + len(null))


Figures = tuple[Estimator, Estimate, Estimate, Estimate, str]


def _of_nets(victims: Sequence[Seen], twins: Sequence[Seen], calibration: Sequence[Seen]) -> Figures:
    pos, neg = (np.array([seen.score_R[0] for seen in side]) for side in (victims, twins))
    return of_scores(pos, neg, [float(seen.score_R[0]) for seen in calibration if seen.analysable])


def of_scores(pos: np.ndarray, neg: np.ndarray, null: Sequence[float]) -> Figures:
    """Of scores of victims, of twins, and of the clean nets that both are judged by."""
    flags = None if 1 / (1 + len(null)) > ALPHA else [conformal(null, score) <= ALPHA for score in neg]
    tpr_1, tpr_5 = (stats.tpr_at_fpr(pos, neg, fpr=fpr, num_seeds=len(pos)) for fpr in (0.01, 0.05))
    fpr = unknown(len(neg), len(neg), NO_CALIBRATION) if flags is None else stats.wilson(sum(flags), len(flags), num_seeds=len(flags))
    rule = NO_CALIBRATION if flags is None else f"p <= {ALPHA:g} among other clean nets"
    return partial(_auroc_of_nets, pos, neg), tpr_1, tpr_5, fpr, rule


def _auroc_of_nets(pos: np.ndarray, neg: np.ndarray, level: float) -> Estimate:
    return stats.auroc(pos, neg, level=level, num_seeds=len(pos))


def _of_inputs(victims: Sequence[Seen], twins: Sequence[Seen], calibration: Sequence[Seen]) -> Figures:
    del calibration

    def flagged(side: Sequence[Seen], part: int, fpr: float) -> Estimate:
        return at_95(rate([_part(seen, part) > _threshold(_part(seen, HELD), fpr) for seen in side]))

    tpr_1, tpr_5 = (flagged(victims, SHOWN, fpr) for fpr in (0.01, 0.05))
    return _auroc_over_seeds(victims), tpr_1, tpr_5, flagged(twins, CLEAN, 0.01), "1 % of other clean inputs score higher"


def _of_rows(victims: Sequence[Seen], twins: Sequence[Seen], calibration: Sequence[Seen]) -> Figures:
    del calibration

    def reached(fpr: float) -> Estimate:
        hits = [_part(seen, SHOWN) > _threshold(_part(seen, CLEAN), fpr) for seen in victims]
        return at_95(rate(hits)).model_copy(update={"method": "threshold at the clean rows' own quantile: a point of the ROC curve"})

    rules = [seen.flag_N for seen in twins if seen.flag_N is not None]
    known = bool(rules) and len(rules) == len(twins)
    fpr = at_95(rate(rules)) if known else unknown(len(twins[0].score_N) if twins else 0, len(twins), "its paper gives no rule")
    rule = "the paper's own rule" if known else "its paper gives no rule"
    return _auroc_over_seeds(victims), reached(0.01), reached(0.05), fpr, rule


def _auroc_over_seeds(victims: Sequence[Seen]) -> Estimator:
    return stats.auroc_estimator(*([_part(seen, part) for seen in victims] for part in (SHOWN, CLEAN)))


def _part(seen: Seen, part: int) -> np.ndarray:
    return seen.score_N[seen.part_N == part].astype(np.float64)


def _threshold(clean_N: np.ndarray, fpr: float) -> float:
    """At most the share `fpr` of these scores is higher."""
    allowed = int(np.floor(fpr * len(clean_N) + 1e-9))
    return float(np.sort(clean_N)[len(clean_N) - 1 - allowed])
