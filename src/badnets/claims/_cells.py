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
    """The conditions of some cells in few words: "rate: 0.1 %, 0.5 %"; long lists are cut with a count. No condition: the quantity.

    Conditions of three keys and more are gathered into blocks: "learning rate 0.01 or 0.1, layers all or head", which are all four of them.
    """
    by_key: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        by_key.setdefault(tuple(k for k, v in cell.condition.items() if v is not None), []).append(cell)
    return "; ".join(_list(keys, some) if len(keys) < 3 or len(some) == 1 else _blocks(keys, some) for keys, some in by_key.items())


def _list(keys: tuple[str, ...], cells: Sequence[Cell]) -> str:
    values = [" ".join(_value(k, cell.condition[k]) for k in keys) or cell.quantity for cell in cells]
    shown = ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
    return f"{', '.join(keys)}: {shown}" if keys else shown


def _blocks(keys: tuple[str, ...], cells: Sequence[Cell]) -> str:
    """Blocks of conditions that differ in one key only are joined over that key, until none do; numbers in ascending order."""
    cells = sorted(cells, key=lambda cell: [v if isinstance(v, int | float) else 0 for v in (cell.condition[k] for k in keys)])
    blocks = list(dict.fromkeys(tuple((_value(k, cell.condition[k]),) for k in keys) for cell in cells))
    for place in range(len(keys)):
        joined: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
        for block in blocks:
            rest = block[:place] + block[place + 1 :]
            joined[rest] = joined.get(rest, ()) + block[place]
        blocks = [rest[:place] + (values,) + rest[place:] for rest, values in joined.items()]
    words = [", ".join(f"{key} {_either(values)}" for key, values in zip(keys, block, strict=True)) for block in blocks]
    return "; ".join(words[:5]) + (f"; and {len(words) - 5} more such groups" if len(words) > 5 else "")


def _either(values: Sequence[str]) -> str:
    shown = [*values[:5], f"{len(values) - 5} more"] if len(values) > 6 else list(values)
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _value(key: str, value: Scalar) -> str:
    if isinstance(value, float):
        in_percent = key.endswith(("rate", "share", "opacity", "area")) and not key.endswith("learning rate")
        return f"{100 * value:.3g} %" if in_percent else f"{value:g}"
    return str(value).replace("_", " ")
