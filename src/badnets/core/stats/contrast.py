"""Difference of two differences of rates: what a trigger costs one net beyond what it costs another, on the same images.

Not for nets that saw different images. Two paired differences are combined as independent (Zou and Donner, "Construction of
confidence limits about effect measures", Statistics in Medicine 2008, https://doi.org/10.1002/sim.3095), which is
conservative where they are positively correlated, as two nets on the same images usually are. Shapes: S seeds, N images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from badnets.core.stats._inputs import aligned, checked_level, per_seed, unknown, z_of
from badnets.core.stats.proportions import paired_bounds
from badnets.core.stats.seeds import MIN_SEEDS, image_variance, spread_bounds
from badnets.core.types import Estimate

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Hits


def contrast_over_seeds(hit_a_SN: Hits, hit_b_SN: Hits, hit_c_SN: Hits, hit_d_SN: Hits, *, level: float = 0.95) -> Estimate:
    """(rate a - rate b) - (rate c - rate d), paired by seed and image; `n` counts one seed's images.

    t over seeds with the variance of the shared images, never narrower than one seed's images allow; with fewer than three seeds
    that alone, "images only". Conservative (0.97-1.00) where seeds differ little.
    """
    import numpy as np

    four = [per_seed(hits) for hits in (hit_a_SN, hit_b_SN, hit_c_SN, hit_d_SN)]
    sizes = [[len(hit_N) for hit_N in hits] for hits in four]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(f"expected the same images four times, got {sizes}")
    checked_level(level)
    seeds = [group for group in zip(*four, strict=True) if len(group[0])]
    if not seeds:
        return unknown("t over seeds")
    n = min(len(a) for a, *_ in seeds)
    d_SN = [a.astype(np.int8) - b.astype(np.int8) - c.astype(np.int8) + d.astype(np.int8) for a, b, c, d in seeds]
    value_S = np.array([d_N.mean() for d_N in d_SN])
    value = float(value_S.mean())
    low, high = _one_seed(seeds, n, level)
    if len(seeds) < MIN_SEEDS:
        return Estimate(
            value=value, low=float(low), high=float(high), n=n, num_seeds=len(seeds), method="Newcombe paired twice, images only"
        )
    x_SN = aligned(d_SN)
    shared = float(np.mean([d_N.var() for d_N in d_SN])) / n if x_SN is None else image_variance(x_SN)
    bounds = spread_bounds(value_S, shared, level)
    method = "t over seeds, at least Newcombe paired twice"
    low, high = max(min(float(bounds[0]), float(low)), -2.0), min(max(float(bounds[1]), float(high)), 2.0)
    return Estimate(value=value, low=low, high=high, n=n, num_seeds=len(seeds), method=method)


def _one_seed(seeds: list[tuple[np.ndarray, ...]], n: int, level: float) -> tuple[float, float]:
    """Bounds as one seed's images give them, from the mean shares of all seeds."""
    import numpy as np

    parts = []
    for first in (0, 2):
        pairs = [(group[first], group[first + 1]) for group in seeds]
        both, only_a, only_b = np.array([[(a & b).mean(), (a & ~b).mean(), (b & ~a).mean()] for a, b in pairs]).mean(0)
        low, high = paired_bounds(both * n, only_a * n, only_b * n, n, z_of(level))
        parts.append((float(only_a - only_b), float(low), float(high)))
    (value_a, low_a, high_a), (value_c, low_c, high_c) = parts
    below = ((value_a - low_a) ** 2 + (high_c - value_c) ** 2) ** 0.5
    above = ((high_a - value_a) ** 2 + (value_c - low_c) ** 2) ** 0.5
    return value_a - value_c - below, value_a - value_c + above
