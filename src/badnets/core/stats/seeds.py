"""Intervals over seeds, the unit of replication: Student's t over training runs, with what the shared test images add.

Seeds are judged on the same test images, so t over per-seed rates misses the luck of the draw of those images. The
variance that images share (two-way crossed analysis of variance) is added in quadrature, and no interval is
narrower than the one over a single seed's images. Does not apply to seeds that share a data draw other than the test
images; t is liberal when the per-seed rates are far from normal (an attack that works in one seed of ten).
Papers: Student, "The probable error of a mean", Biometrika 1908, https://doi.org/10.1093/biomet/6.1.1; A. B. Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 2007, https://doi.org/10.1214/07-AOAS122 (crossed seeds and images).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from badnets.core.stats._inputs import aligned, checked_level, finite, pair_shares, paired, per_seed, t_of, unknown, z_of
from badnets.core.stats.proportions import paired_bounds, wilson_bounds
from badnets.core.types import Estimate, Estimator

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Floats, Hits

MIN_SEEDS = 3


def t_over_seeds(values: Floats, *, level: float = 0.95) -> Estimate:
    """Mean of one finite number per seed with Student's t; fewer than two values have no interval.

    Equal values give an interval of no width, and the method says "all equal": t knows only the spread that it sees.
    For rates use `rate_over_seeds`, which does not stop there.
    """
    values_S = finite(values)
    num = len(values_S)
    checked_level(level)
    if num < 2:
        return unknown("one seed" if num else "t over seeds", num_seeds=num, n=num, value=float(values_S[0]) if num else None)
    low, high = spread_bounds(values_S, 0.0, level)
    method = "t over seeds" if values_S.min() < values_S.max() else "t over seeds, all equal"
    return Estimate(value=float(values_S.mean()), low=float(low), high=float(high), n=num, num_seeds=num, method=method)


def mean_over_seeds(values: Sequence[float | None] | np.ndarray, *, level: float = 0.95) -> Estimate:
    """`t_over_seeds` of the seeds whose number is known: a None is left out, and `num_seeds` counts the others."""
    return t_over_seeds([value for value in values if value is not None], level=level)


def spread_bounds(values_S: np.ndarray, image_variance: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    """t bounds over the last axis (seeds), with the variance of the shared images added in quadrature."""
    import numpy as np

    num = values_S.shape[-1]
    mean, variance = values_S.mean(-1), values_S.var(-1, ddof=1) / num
    half = np.sqrt(t_of(level, num - 1) ** 2 * variance + z_of(level) ** 2 * image_variance)
    return mean - half, mean + half


def image_variance(x_SN: np.ndarray) -> np.ndarray:
    """Variance of the grand mean that is owed to images all seeds share; zero when seeds agree no more than by chance.

    Works on `(..., S, N)` arrays of 0/1 outcomes or of their differences (-1, 0, 1).
    """
    import numpy as np

    num_seeds, n = x_SN.shape[-2:]
    if num_seeds < 2 or n < 2:
        return np.zeros(x_SN.shape[:-2])
    seed_S, image_N = x_SN.mean(-1), x_SN.mean(-2)
    grand = seed_S.mean(-1, keepdims=True)
    of_images = num_seeds * np.square(image_N - grand).sum(-1)
    of_seeds = n * np.square(seed_S - grand).sum(-1)
    total = np.square(x_SN).sum((-2, -1)) - num_seeds * n * grand[..., 0] ** 2
    residual = np.maximum(total - of_images - of_seeds, 0.0) / ((num_seeds - 1) * (n - 1))
    return np.maximum(of_images / (n - 1) - residual, 0.0) / (num_seeds * n)


def rate_over_seeds(hit_SN: Hits, *, level: float = 0.95) -> Estimate:
    """The rate of hits over seeds and images: an S x N matrix, or one array a seed. `n` counts one seed's images.

    Near nominal when seeds differ much more than images explain, or when most of the image noise is shared. Conservative
    (0.97-1.00) when seeds differ little and fail on different images, since the interval is at least Wilson's over one seed's
    images. Liberal when few seeds have skewed rates: 0.92 if mildly, 0.6 if most seeds sit at 1 and a rare one fails far
    below, since five seeds cannot show what happens once in ten. Seeds of unequal length cannot be aligned, so all of their
    image noise counts as shared (conservative). Seeds without images
    are left out; with fewer than three seeds the interval is Wilson's, "images only".
    """
    return rate_estimator(hit_SN)(level)


def rate_estimator(hit_SN: Hits) -> Estimator:
    """`rate_over_seeds` at any level; the images are looked at once, since a p-value asks for some thirty levels."""
    import numpy as np

    seeds = [hit_N for hit_N in per_seed(hit_SN) if len(hit_N)]
    if not seeds:
        return _nothing
    rate_S = np.array([hit_N.mean() for hit_N in seeds])
    n, num, rate = min(len(hit_N) for hit_N in seeds), len(seeds), float(rate_S.mean())
    if num < MIN_SEEDS:
        return lambda level: _estimate(rate, wilson_bounds(rate * n, n, z_of(level)), n, num, "Wilson, images only")
    x_SN = aligned(seeds)
    shared = rate * (1 - rate) / n if x_SN is None else image_variance(x_SN)
    return lambda level: _estimate(rate, rate_bounds(rate_S, n, shared, level), n, num, "t over seeds, at least Wilson")


def _nothing(level: float) -> Estimate:
    checked_level(level)
    return unknown("t over seeds")


def _estimate(value: float, bounds: tuple[Any, Any], n: int, num_seeds: int, method: str) -> Estimate:
    low, high = bounds
    return Estimate(value=value, low=float(low), high=float(high), n=n, num_seeds=num_seeds, method=method)


def rate_bounds(rate_S: np.ndarray, n: int, shared: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The wider of t over seeds and Wilson over `n` images, on each side, for the last axis of `rate_S`."""
    import numpy as np

    low, high = spread_bounds(rate_S, shared, level)
    floor, ceiling = wilson_bounds(rate_S.mean(-1) * n, n, z_of(level))
    return np.maximum(np.minimum(low, floor), 0.0), np.minimum(np.maximum(high, ceiling), 1.0)


def difference_over_seeds(hit_a_SN: Hits, hit_b_SN: Hits, *, level: float = 0.95) -> Estimate:
    """Rate a minus rate b, paired by seed and image (victim and twin). `n` counts one seed's images.

    Near nominal when seeds differ much more than images explain (liberal with few, skewed seeds, like `rate_over_seeds`).
    Conservative (0.97-1.00) when they differ little: it is at least the paired Newcombe interval over one seed's images.
    Pairs without images are left out; with fewer than three seeds the interval is the paired Newcombe one, "images only".
    """
    return difference_estimator(hit_a_SN, hit_b_SN)(level)


def difference_estimator(hit_a_SN: Hits, hit_b_SN: Hits) -> Estimator:
    """`difference_over_seeds` at any level; the images are looked at once."""
    import numpy as np

    pairs = paired(hit_a_SN, hit_b_SN)
    if not pairs:
        return _nothing
    x_SN = aligned([a.astype(np.int8) - b.astype(np.int8) for a, b in pairs])
    shares_3S = pair_shares(pairs)
    n, num, value = min(len(a) for a, _ in pairs), len(pairs), float((shares_3S[1] - shares_3S[2]).mean())
    if num < MIN_SEEDS:
        counts_3 = shares_3S.mean(-1) * n
        return lambda level: _estimate(value, paired_bounds(*counts_3, n, z_of(level)), n, num, "Newcombe paired, images only")
    disagree = float((shares_3S[1] + shares_3S[2]).mean())
    shared = (disagree - value**2) / n if x_SN is None else image_variance(x_SN)
    method = "t over seeds, at least Newcombe paired"
    return lambda level: _estimate(value, difference_bounds(shares_3S, n, shared, level), n, num, method)


def difference_bounds(shares_3S: np.ndarray, n: int, shared: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds from the shares (both, only a, only b) on the first axis and the seeds on the last."""
    import numpy as np

    low, high = spread_bounds(shares_3S[1] - shares_3S[2], shared, level)
    floor, ceiling = paired_bounds(*(shares_3S.mean(-1) * n), n, z_of(level))
    return np.maximum(np.minimum(low, floor), -1.0), np.minimum(np.maximum(high, ceiling), 1.0)


def slope_over_seeds(
    x_C: Floats, y_SC: np.ndarray | Sequence[Any], *, level: float = 0.95, trend: Literal["slope", "spearman"] = "slope"
) -> Estimate:
    """Dose-response: each seed's least-squares slope (or Spearman correlation) of y on x, with t over seeds.

    Spearman is unknown when a seed's y is constant. A slope says little where the response is far from a straight line.
    """
    import numpy as np

    x, y = finite(x_C), np.array([finite(y_C) for y_C in y_SC])
    if len(x) < 2 or x.min() == x.max() or (len(y) and y.shape[1] != len(x)):
        raise ValueError(f"expected at least two different doses and one response a dose, got x {x.tolist()} and y of shape {y.shape}")
    if trend == "spearman":
        from scipy.stats import rankdata

        if len(y) and (y.min(-1) == y.max(-1)).any():
            return unknown("Spearman, t over seeds", num_seeds=len(y), n=len(y))
        x, y = rankdata(x), rankdata(y, axis=-1) if len(y) else y
    if not len(y):
        return unknown(f"{trend}, t over seeds")
    across_x, across_y = x - x.mean(), y - y.mean(-1, keepdims=True)
    per_seed_S = across_y @ across_x / (across_x @ across_x)
    if trend == "spearman":
        per_seed_S = per_seed_S * np.sqrt(across_x @ across_x / np.square(across_y).sum(-1))
    found = t_over_seeds(per_seed_S, level=level)
    bounds = {}
    if trend == "spearman" and found.low is not None and found.high is not None:
        bounds = {"low": max(found.low, -1.0), "high": min(found.high, 1.0)}
    return found.model_copy(update={"method": f"{trend}, {found.method}", **bounds})
