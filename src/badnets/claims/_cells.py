"""Cells made of outcomes: a rate or a difference, its control, its margin, its verdict; and their description in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from badnets.core import stats
from badnets.core.types import Cell, Estimate, Estimator, Scalar, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.rates import Hits, at_95, constant_seeds, difference, per_seed, rate

Condition = Mapping[str, Scalar]
Side = Literal["above", "below"]

CONSTANT_NOTE = "{} of {} nets give one class to nearly every clean image (diverged), so nothing is concluded here."


def judge(estimator: Estimator, margin: float, side: Side = "above") -> tuple[Verdict, float]:
    """HOLDS when the whole 95 % interval lies on the claimed side of the margin, FAILS when wholly on the other, with p."""
    estimate = at_95(estimator)
    if estimate.low is None or estimate.high is None:
        return Verdict.UNDECIDED, 1.0
    above, below = estimate.low >= margin, estimate.high <= margin
    if above == below:
        return Verdict.UNDECIDED, 1.0
    p = stats.p_above(estimator, margin) if above else stats.p_below(estimator, margin)
    return (Verdict.HOLDS if above == (side == "above") else Verdict.FAILS), p


def judge_within(estimator: Estimator, margin: float) -> tuple[Verdict, float]:
    """Equivalence: HOLDS when the whole 95 % interval lies within +-margin, FAILS when wholly outside (beyond one end)."""
    estimate = at_95(estimator)
    if estimate.low is None or estimate.high is None:
        return Verdict.UNDECIDED, 1.0
    if -margin <= estimate.low and estimate.high <= margin:
        return Verdict.HOLDS, stats.p_within(estimator, -margin, margin)
    if estimate.low >= margin:
        return Verdict.FAILS, stats.p_above(estimator, margin)
    if estimate.high <= -margin:
        return Verdict.FAILS, stats.p_below(estimator, -margin)
    return Verdict.UNDECIDED, 1.0


def unknown(n: int, num_seeds: int, why: str) -> Estimate:
    """An estimate that has no value."""
    return Estimate(value=None, low=None, high=None, n=n, num_seeds=num_seeds, method=why)


def rate_cell(
    condition: Condition,
    quantity: str,
    hits: Hits,
    control: Hits | None = None,
    *,
    margin: float | None = None,
    clean: Sequence[Outcome] = (),
) -> Cell:
    """A rate; with a `margin`, claimed to be at least that. `clean`: the same nets on clean images, to catch constant predictors."""
    estimator, bad = rate(hits), constant_seeds(clean)
    verdict, p = (None, None) if margin is None else (Verdict.UNDECIDED, 1.0) if bad else judge(estimator, margin)
    return Cell(
        condition=dict(condition),
        quantity=quantity,
        unit="rate",
        estimate=unknown(sum(map(len, hits)), len(hits), "constant predictor") if bad else at_95(estimator),
        control=at_95(rate(control)) if control is not None else None,
        verdict=verdict,
        p=p,
        per_seed=[] if bad else per_seed(hits),
        note=CONSTANT_NOTE.format(len(bad), len(clean)) if bad else "",
    )


def difference_cell(
    condition: Condition,
    quantity: str,
    hits_a: Hits,
    hits_b: Hits,
    verdict: tuple[Verdict, float] | None,
    *,
    clean: Sequence[Outcome] = (),
    control_name: str | None = None,
) -> Cell:
    """rate(a) - rate(b) paired by seed and image, with the rate of b as its control figure.

    `clean`: nets on clean images whose divergence would be mistaken for an effect of the attack: of the controls at least.
    """
    bad = constant_seeds(clean)
    if bad and verdict is not None:
        verdict = (Verdict.UNDECIDED, 1.0)
    return Cell(
        condition=dict(condition),
        quantity=quantity,
        unit="points",
        estimate=at_95(difference(hits_a, hits_b)),
        control=at_95(rate(hits_b)),
        control_unit="rate",
        control_name=control_name,
        verdict=verdict[0] if verdict else None,
        p=verdict[1] if verdict else None,
        per_seed=[a - b for a, b in zip(per_seed(hits_a), per_seed(hits_b), strict=True)],
        note=CONSTANT_NOTE.format(len(bad), len(clean)) if bad else "",
    )


def describe(cells: Sequence[Cell]) -> str:
    """The conditions of some cells in few words: "rate 0.1 %, 0.5 %"; long lists are cut with a count. No condition: the quantity."""
    by_key: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        keys = tuple(k for k, v in cell.condition.items() if v is not None)
        by_key.setdefault(keys, []).append(" ".join(_value(k, cell.condition[k]) for k in keys) or cell.quantity)
    parts = []
    for keys, values in by_key.items():
        shown = ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
        parts.append(f"{', '.join(keys)}: {shown}" if keys else shown)
    return "; ".join(parts)


def _value(key: str, value: Scalar) -> str:
    if isinstance(value, float):
        return f"{100 * value:.3g} %" if key.endswith(("rate", "share", "opacity", "area")) else f"{value:g}"
    return str(value).replace("_", " ")
