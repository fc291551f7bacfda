"""Ratio of two rates of the same images over seeds: how much of an effect is left, as a share of what it was.

Student's t over seeds on the linearised ratio (a - R b) / mean(b), with the variance of the shared images added in quadrature and never
narrower than the ratio of Wilson intervals over one seed's images (MOVER). Does not apply where the denominator is near nothing: see
`ratio_over_seeds`. Shape legend: S seeds, N images.
A. Donner, G. Y. Zou, "Closed-form confidence intervals for functions of the normal mean and standard deviation", Statistical Methods in
Medical Research 2012, https://doi.org/10.1177/0962280210383082 (MOVER for ratios); W. G. Cochran, "Sampling Techniques", 1977, chapter 6
(the linearised ratio).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from badnets.core.stats._inputs import aligned, checked_level, pair_shares, paired, unknown, z_of
from badnets.core.stats.proportions import paired_correlation, wilson_bounds
from badnets.core.stats.seeds import MIN_SEEDS, image_variance, spread_bounds
from badnets.core.types import Estimate

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Hits

LEAST_RATE = 0.1
"""A denominator below this is no effect to keep a share of: an untouched net sends a few per cent of the images to any given class by
mistake, so the ratio would compare one background with another."""


def ratio_over_seeds(hit_a_SN: Hits, hit_b_SN: Hits, *, level: float = 0.95) -> Estimate:
    """Rate a (after) over rate b (before), paired by seed and image. `n` counts one seed's images; the value may be above 1.

    Unknown when rate b is below `LEAST_RATE`, when the images are so few that b's 95 % Wilson interval reaches twice its rate, or when
    b's 95 % t interval over seeds reaches 0: such a denominator is not told from nothing. Near nominal when the seeds' ratios differ
    much more than images explain, and when the image noise is shared. Conservative (0.97-1.00) when seeds differ little, since it is at
    least MOVER over one seed's images. Liberal like `rate_over_seeds` with few, skewed seeds (0.6 when a rare seed fails far below).
    Pairs without images are left out; with fewer than three seeds it is MOVER alone, "images only".
    """
    pairs = paired(hit_a_SN, hit_b_SN)
    checked_level(level)
    if not pairs:
        return unknown("ratio over seeds")
    n, num = min(len(a) for a, _ in pairs), len(pairs)
    shares_3S = pair_shares(pairs)
    if why := _meaningless(shares_3S, n):
        return unknown(why, num_seeds=num, n=n)
    both, only_a, only_b = (float(share) for share in shares_3S.mean(-1))
    value = (both + only_a) / (both + only_b)
    if num < MIN_SEEDS:
        low, high = mover_bounds(shares_3S.mean(-1), n, level)
        method = "MOVER Wilson paired, images only"
    else:
        a_SN, b_SN = aligned([a for a, _ in pairs]), aligned([b for _, b in pairs])
        if a_SN is None or b_SN is None:
            shared = (both + only_a - 2 * value * both + value**2 * (both + only_b)) / n
        else:
            shared = image_variance(a_SN - value * b_SN)
        low, high = ratio_bounds(shares_3S, n, shared, level)
        method = "t over seeds on the linearised ratio, at least MOVER Wilson"
    return Estimate(value=value, low=float(low), high=float(high), n=n, num_seeds=num, method=method)


def _meaningless(shares_3S: np.ndarray, n: int) -> str:
    """Why there is no ratio, or an empty string; the same at every level, so that p-values can be read from intervals."""
    b_S = shares_3S[0] + shares_3S[2]
    rate = float(b_S.mean())
    if rate < LEAST_RATE:
        return f"ratio over seeds: the denominator is {rate:.3g}, below {LEAST_RATE:g}"
    too_few = wilson_bounds(rate * n, n, z_of(0.95))[1] >= 2 * rate
    if too_few or (len(b_S) >= MIN_SEEDS and spread_bounds(b_S, 0.0, 0.95)[0] <= 0):
        return "ratio over seeds: the denominator is not told from nothing"
    return ""


def ratio_bounds(shares_3S: np.ndarray, n: int, shared: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds from the shares (both, only a, only b) on the first axis and the seeds on the last; `shared` is the variance of
    mean(a - R b) that all seeds' images share."""
    import numpy as np

    both_S, only_a_S, only_b_S = shares_3S
    a_S, b_S = both_S + only_a_S, both_S + only_b_S
    base = b_S.mean(-1)
    value = a_S.mean(-1) / base
    residual_S = (a_S - value[..., None] * b_S) / base[..., None]
    low, high = spread_bounds(value[..., None] + residual_S, shared / base**2, level)
    floor, ceiling = mover_bounds(shares_3S.mean(-1), n, level)
    return np.maximum(np.minimum(low, floor), 0.0), np.maximum(high, ceiling)


def mover_bounds(shares_3: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of two Wilson intervals of the same `n` images, from the shares (both, only a, only b)."""
    import numpy as np

    both, only_a, only_b = (share * n for share in shares_3)
    z, correlation = z_of(level), paired_correlation(both, only_a, only_b, n)
    a, b = np.minimum((both + only_a) / n, 1.0), np.minimum((both + only_b) / n, 1.0)
    (low_a, high_a), (low_b, high_b) = wilson_bounds(a * n, n, z), wilson_bounds(b * n, n, z)

    def end(to_a: Any, to_b: Any, side: int) -> Any:
        middle = a * b - correlation * np.abs(a - to_a) * np.abs(to_b - b)
        scale = to_b * (2 * b - to_b)
        root = np.sqrt(np.maximum(middle**2 - to_a * (2 * a - to_a) * scale, 0.0))
        # At a level so high that b may be twice itself, the lower end is open.
        return np.where(scale > 0, (middle + side * root) / np.where(scale > 0, scale, 1.0), 0.0)

    # Rounding may put a bound 1e-16 beyond the ratio it has to enclose.
    return np.clip(end(low_a, high_b, -1), 0.0, a / b), np.maximum(end(high_a, low_b, 1), a / b)
