"""Intervals for shares of images: one share, two independent shares, two shares of the same images.

They do not apply to several seeds (training runs) put together: images of one seed are exchangeable, seeds are not images.
Papers: E. B. Wilson, "Probable inference", JASA 1927, https://doi.org/10.1080/01621459.1927.10502953; C. J. Clopper and
E. S. Pearson, Biometrika 1934, https://doi.org/10.1093/biomet/26.4.404; R. G. Newcombe, "Interval estimation for the
difference between independent proportions", 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I,
and "Improved confidence intervals ... based on paired data", 1998, same volume, page 2635; Q. McNemar, Psychometrika 1947,
https://doi.org/10.1007/BF02295996.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from badnets.core.stats._inputs import checked_counts, checked_level, outcomes, unknown, z_of
from badnets.core.types import Estimate

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Hits


def wilson(successes: int, n: int, *, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Score interval of one share.

    Coverage is nominal on average over shares. It is liberal at single shares very near 0 or 1 (about 0.84 where
    n x share is just below 0.18), and conservative at the shares beside them.
    """
    successes, n = checked_counts(successes, n)
    z = z_of(level)
    if n == 0:
        return unknown("Wilson", num_seeds=num_seeds)
    low, high = wilson_bounds(successes, n, z)
    return Estimate(value=successes / n, low=float(low), high=float(high), n=n, num_seeds=num_seeds, method="Wilson")


def wilson_bounds(successes: Any, n: Any, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson bounds on arrays; `successes` may be fractional (a mean over seeds)."""
    import numpy as np

    # A mean of shares that are all 1 may come out as 1 + 2e-16, whose variance would be negative.
    share = np.clip(np.asarray(successes, dtype=np.float64) / n, 0.0, 1.0)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may put a bound 1e-17 beyond the share it has to enclose.
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def clopper_pearson(successes: int, n: int, *, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Exact interval of one share: never liberal, so conservative (0.96-0.98, and up to 1.00 near 0 and 1)."""
    successes, n = checked_counts(successes, n)
    checked_level(level)
    if n == 0:
        return unknown("Clopper-Pearson", num_seeds=num_seeds)
    low, high = clopper_pearson_bounds(successes, n, level)
    return Estimate(value=successes / n, low=float(low), high=float(high), n=n, num_seeds=num_seeds, method="Clopper-Pearson")


def clopper_pearson_bounds(successes: Any, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper-Pearson bounds on arrays."""
    import numpy as np
    from scipy.special import betaincinv

    s = np.asarray(successes, dtype=np.float64)
    tail = (1 - level) / 2
    low = np.where(s > 0, betaincinv(np.maximum(s, 1), n - s + 1, tail), 0.0)
    high = np.where(s < n, betaincinv(s + 1, np.maximum(n - s, 1), 1 - tail), 1.0)
    return low, high


def newcombe(successes_a: int, n_a: int, successes_b: int, n_b: int, *, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Share a minus share b for different images (hybrid score, Newcombe's method 10). `n` is the smaller group.

    Coverage is nominal on average; conservative (up to 1.00) when both shares are within 2 / n of 0 or 1.
    """
    successes_a, n_a = checked_counts(successes_a, n_a)
    successes_b, n_b = checked_counts(successes_b, n_b)
    z = z_of(level)
    if n_a == 0 or n_b == 0:
        return unknown("Newcombe", num_seeds=num_seeds)
    low, high = newcombe_bounds((successes_a, n_a), (successes_b, n_b), z)
    value = successes_a / n_a - successes_b / n_b
    return Estimate(value=value, low=float(low), high=float(high), n=min(n_a, n_b), num_seeds=num_seeds, method="Newcombe")


def newcombe_bounds(a: tuple[Any, Any], b: tuple[Any, Any], z: float) -> tuple[np.ndarray, np.ndarray]:
    """Newcombe bounds on arrays, from (successes, n) of each group."""
    return _square_and_add(a, b, 0.0, z)


def newcombe_paired(hit_a_N: Hits, hit_b_N: Hits, *, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Share a minus share b on the same images (Newcombe 1998b, method 10).

    Coverage is nominal from about 20 images on which a and b disagree; with fewer it is conservative (0.97-1.00).
    """
    a, b = outcomes(hit_a_N), outcomes(hit_b_N)
    z = z_of(level)
    if len(a) != len(b):
        raise ValueError(f"expected the same images twice, got {len(a)} and {len(b)}")
    n = len(a)
    if n == 0:
        return unknown("Newcombe paired", num_seeds=num_seeds)
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum())
    low, high = paired_bounds(both, only_a, only_b, n, z)
    return Estimate(value=(only_a - only_b) / n, low=float(low), high=float(high), n=n, num_seeds=num_seeds, method="Newcombe paired")


def paired_bounds(both: Any, only_a: Any, only_b: Any, n: Any, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Paired Newcombe bounds on arrays of (possibly fractional) counts."""
    import numpy as np

    both, only_a, only_b = (np.asarray(count, dtype=np.float64) for count in (both, only_a, only_b))
    return _square_and_add((both + only_a, n), (both + only_b, n), paired_correlation(both, only_a, only_b, n), z)


def paired_correlation(both: Any, only_a: Any, only_b: Any, n: Any) -> np.ndarray:
    """Correlation of two outcomes of the same images as Newcombe takes it, on arrays of (possibly fractional) counts."""
    import numpy as np

    both, only_a, only_b = (np.asarray(count, dtype=np.float64) for count in (both, only_a, only_b))
    neither = np.maximum(n - both - only_a - only_b, 0.0)
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    excess = both * neither - only_a * only_b
    # Newcombe's continuity correction: a positive correlation narrows the interval, so it is not taken at its word.
    excess = np.where(excess > 0, np.maximum(excess - n / 2, 0.0), excess)
    return np.where(product > 0, excess / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)


def _square_and_add(a: tuple[Any, Any], b: tuple[Any, Any], correlation: Any, z: float) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    (low_a, high_a), (low_b, high_b) = wilson_bounds(*a, z), wilson_bounds(*b, z)
    share_a, share_b = np.asarray(a[0]) / a[1], np.asarray(b[0]) / b[1]
    down_a, up_a, down_b, up_b = share_a - low_a, high_a - share_a, share_b - low_b, high_b - share_b
    below = np.sqrt(np.maximum(down_a**2 - 2 * correlation * down_a * up_b + up_b**2, 0.0))
    above = np.sqrt(np.maximum(up_a**2 - 2 * correlation * up_a * down_b + down_b**2, 0.0))
    difference = share_a - share_b
    return np.maximum(difference - below, -1.0), np.minimum(difference + above, 1.0)


def mcnemar_exact(hit_a_N: Hits, hit_b_N: Hits) -> float:
    """Exact two-sided p of "a and b hit equally often", from the images on which they disagree; 1.0 when there are none."""
    from scipy.special import bdtr

    a, b = outcomes(hit_a_N), outcomes(hit_b_N)
    if len(a) != len(b):
        raise ValueError(f"expected the same images twice, got {len(a)} and {len(b)}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
