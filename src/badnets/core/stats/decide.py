"""p-values read from intervals, equivalence, and correction over several claims.

Only for estimators whose intervals are nested (a higher level, a wider interval), as all of this package's are. A bootstrap
estimator has to start from the same generator state at every level.
Papers: D. J. Schuirmann, "A comparison of the two one-sided tests procedure", 1987, https://doi.org/10.1007/BF01068419;
S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from badnets.core.types import Estimate, Estimator

SMALLEST_P = 1e-12


def p_above(estimator: Estimator, margin: float) -> float:
    """The smallest alpha at which the two-sided (1 - alpha) interval lies wholly above the margin; 1.0 when none does."""
    _check(margin)
    return _smallest_alpha(estimator, lambda e: e.low is not None and e.low > margin)


def p_below(estimator: Estimator, margin: float) -> float:
    """The smallest alpha at which the two-sided (1 - alpha) interval lies wholly below the margin; 1.0 when none does."""
    _check(margin)
    return _smallest_alpha(estimator, lambda e: e.high is not None and e.high < margin)


def p_within(estimator: Estimator, low: float, high: float) -> float:
    """The smallest alpha at which the two-sided (1 - alpha) interval lies strictly between `low` and `high`; 1.0 when none does."""
    _check(low, high)
    if not low < high:
        raise ValueError(f"expected low < high, got {low!r} and {high!r}")
    return _smallest_alpha(estimator, lambda e: e.low is not None and e.high is not None and low < e.low and e.high < high)


def tost(estimator: Estimator, margin: float) -> float:
    """p of two one-sided tests that the value lies within +- margin: the alpha of the (1 - 2 alpha) interval.

    Half of `p_within`, hence at most 0.5; 1.0 when the value itself is not within the margin.
    """
    p = p_within(estimator, -margin, margin)
    return p / 2 if p < 1 else 1.0


def _smallest_alpha(estimator: Estimator, decided: Callable[[Estimate], bool]) -> float:
    low, high = math.log(SMALLEST_P), math.log1p(-1e-9)
    if not decided(estimator(1 - math.exp(high))):
        return 1.0
    if decided(estimator(1 - SMALLEST_P)):
        return SMALLEST_P
    for _ in range(26):
        middle = (low + high) / 2
        if decided(estimator(1 - math.exp(middle))):
            high = middle
        else:
            low = middle
    return math.exp(high)


def _check(*margins: float) -> None:
    if not all(math.isfinite(margin) for margin in margins):
        raise ValueError(f"expected finite margins, got {margins}")


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, in the order of the input: those <= alpha are false with family-wise probability <= alpha."""
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"expected 0 <= p <= 1, got {p!r} for {name!r}")
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
