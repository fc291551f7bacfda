"""Sentences of the form "nothing of this kind works": one rival that works refutes them, all must fail for them to hold.

A rival is tested on several conditions, all of which it must meet to work; the p-values of rivals are corrected by Bonferroni for being the
best of many. Not for rivals that were chosen by a look at the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from badnets.core import stats
from badnets.core.types import Estimate, Estimator, Verdict
from badnets.measure.rates import at_95

ALPHA = 0.05


class Condition(NamedTuple):
    """What a rival must reach: an estimate at or `below` (else at or above) the margin, beyond doubt (p-value)."""

    estimator: Estimator
    margin: float
    below: bool = False


class Rival(NamedTuple):
    """`works` if all its conditions are met; `barred` where something else forbids that it counts as working."""

    name: str
    conditions: tuple[Condition, ...]
    barred: bool = False


class Outcome(NamedTuple):
    """The verdict of "none of them works", its p-value, and the rival that comes closest to working."""

    verdict: Verdict
    p: float
    best: Rival


def none_works(rivals: Sequence[Rival]) -> Outcome:
    """FAILS when some rival surely works (Bonferroni over rivals), HOLDS when each of them surely does not, else UNDECIDED.

    A rival surely does not work when it surely misses one of its conditions (Bonferroni over these)."""
    assert rivals, "a claim about rivals has some"
    works = {rival.name: max(_met(c) for c in rival.conditions) for rival in rivals}
    fails = {rival.name: min(1.0, len(rival.conditions) * min(_missed(c) for c in rival.conditions)) for rival in rivals}
    able = [rival for rival in rivals if not rival.barred]
    best = min(able or rivals, key=lambda rival: (works[rival.name], -fails[rival.name]))
    p = min(1.0, len(rivals) * min((works[rival.name] for rival in able), default=1.0))
    if p <= ALPHA:
        return Outcome(Verdict.FAILS, p, best)
    # Each of them has to fail, so the largest p-value counts; one that is barred was not shown to fail for all that.
    p = max(fails.values())
    return Outcome(Verdict.HOLDS, p, best) if p <= ALPHA else Outcome(Verdict.UNDECIDED, 1.0, best)


def _met(condition: Condition) -> float:
    return _p(condition.estimator, condition.margin, below=condition.below)


def _missed(condition: Condition) -> float:
    return _p(condition.estimator, condition.margin, below=not condition.below)


def _p(estimator: Estimator, margin: float, *, below: bool) -> float:
    """1 where nothing is known. An interval that ends at the margin is on its side."""
    estimate: Estimate = at_95(estimator)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return 1.0
    return stats.p_below(estimator, margin) if below else stats.p_above(estimator, margin)
