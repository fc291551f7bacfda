"""Bootstrap intervals of a mean difference over pairs and of a rate over crossed seeds and images.

Does not apply to a handful of units, nor where a single outlier carries the mean (both liberal). When a p-value is read
from the interval, give each call a fresh generator of the same seed: equal draws at every level.
Papers: B. Efron, "Bootstrap methods", Annals of Statistics 1979, https://doi.org/10.1214/aos/1176344552; A. B. Owen, "The
pigeonhole bootstrap", 2007, https://doi.org/10.1214/07-AOAS122; T. C. Hesterberg, "What teachers should know about the
bootstrap", 2015, https://doi.org/10.1080/00031305.2015.1089789 (expanded percentiles).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from badnets.core.stats._inputs import aligned, checked_level, finite, per_seed, t_of, unknown
from badnets.core.stats.seeds import MIN_SEEDS
from badnets.core.types import Estimate

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Floats, Hits

_CHUNK = 1 << 22


def paired_bootstrap(values_a: Floats, values_b: Floats, rng: np.random.Generator, *, level: float = 0.95, draws: int = 10_000) -> Estimate:
    """Mean of a minus mean of b over paired units (images with a loss each), expanded percentile interval.

    Bounds are None at levels that so few draws cannot resolve, and for fewer than two pairs.
    """

    a, b = finite(values_a), finite(values_b)
    checked_level(level)
    if len(a) != len(b):
        raise ValueError(f"expected pairs, got {len(a)} and {len(b)} values")
    n = len(a)
    if n < 2:
        return unknown("paired bootstrap", num_seeds=1, n=n, value=float(a[0] - b[0]) if n else None)
    means = _mean_draws(a - b, rng, draws)
    low, high = _percentiles(means, _tail(level, n))
    return Estimate(value=float((a - b).mean()), low=_known(low), high=_known(high), n=n, num_seeds=1, method="paired bootstrap")


def _mean_draws(values_N: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Means of n values drawn with replacement, `draws` times."""
    import numpy as np

    n = len(values_N)
    distinct, counts = np.unique(values_N, return_counts=True)
    if len(distinct) <= n / 16:
        # A multinomial over the distinct values is exact, and only three cells for differences of 0/1 outcomes.
        return np.concatenate([weights @ distinct / n for weights in _multinomials(rng, n, counts, draws)])
    size = max(1, _CHUNK // n)
    parts = (rng.integers(0, n, (min(size, draws - start), n), dtype=np.int32) for start in range(0, draws, size))
    return np.concatenate([values_N[part_BN].mean(-1) for part_BN in parts])


def cluster_bootstrap(hit_SN: Hits, rng: np.random.Generator, *, level: float = 0.95, draws: int = 2000) -> Estimate:
    """Rate over an S x N matrix: seeds and images are both drawn with replacement; bootstrap standard error times t.

    Near nominal when seeds differ much more than images explain; conservative (0.97-1.00) otherwise, since this bootstrap
    counts the noise of single outcomes up to three times. Outcomes that are all equal give no width: `rate_over_seeds` does
    not stop there. With fewer than three seeds only images are drawn, and the method says "images only".
    """
    import numpy as np

    seeds = per_seed(hit_SN)
    checked_level(level)
    if not seeds or not len(seeds[0]):
        return unknown("cluster bootstrap", num_seeds=len(seeds))
    x_SN = aligned(seeds)
    if x_SN is None:
        raise ValueError(f"expected the same images for every seed, got {[len(seed) for seed in seeds]}")
    num_seeds, n = x_SN.shape
    # Images with the same outcomes over the seeds are exchangeable, so a multinomial over the distinct columns is exact.
    pattern_SP, counts = np.unique(x_SN, axis=1, return_counts=True)
    over_seeds = num_seeds >= MIN_SEEDS
    rates = []
    for weights_BP in _multinomials(rng, n, counts, draws):
        size = len(weights_BP)
        weights_BS = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size) if over_seeds else np.ones((size, num_seeds))
        rates.append(crossed_means(pattern_SP, weights_BS, weights_BP))
    units = num_seeds if over_seeds else n
    method = "cluster bootstrap over seeds and images" if over_seeds else "bootstrap, images only"
    value = float(x_SN.mean())
    if units < 2:
        return unknown(method, num_seeds=num_seeds, n=n, value=value)
    low, high = crossed_bounds(value, np.concatenate(rates), units, level)
    return Estimate(value=value, low=float(low), high=float(high), n=n, num_seeds=num_seeds, method=method)


def crossed_means(x_SN: np.ndarray, weights_BS: np.ndarray, weights_BN: np.ndarray) -> np.ndarray:
    """The B weighted means of the matrix (leading axes of `x_SN` allowed)."""
    import numpy as np

    total = weights_BS[0].sum() * weights_BN[0].sum()
    return np.einsum("...bn,bn->...b", weights_BS.astype(np.float64) @ x_SN, weights_BN.astype(np.float64)) / total


def crossed_bounds(value: Any, means_B: np.ndarray, units: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """t times the spread of the bootstrap means (last axis), which sees only (units - 1) / units of the variance of units."""
    import numpy as np

    half = t_of(level, units - 1) * means_B.std(-1) * (units / (units - 1)) ** 0.5
    return np.maximum(value - half, 0.0), np.minimum(value + half, 1.0)


def _tail(level: float, units: int) -> float:
    """Hesterberg's tail: as far out as t with units - 1 degrees of freedom, undoing the bootstrap's (units - 1) / units."""
    return NormalDist().cdf(-((units / (units - 1)) ** 0.5) * t_of(level, units - 1)) if units > 1 else (1 - level) / 2


def _percentiles(means_B: np.ndarray, tail: float) -> tuple[Any, Any]:
    import numpy as np

    if tail * means_B.shape[-1] < 1:
        return np.nan, np.nan
    return tuple(np.quantile(means_B, [tail, 1 - tail], axis=-1))


def _known(bound: Any) -> float | None:
    return None if bound != bound else float(bound)


def _multinomials(rng: np.random.Generator, n: int, counts: np.ndarray, draws: int) -> Any:
    size = max(1, _CHUNK // len(counts))
    for start in range(0, draws, size):
        yield rng.multinomial(n, counts / n, size=min(size, draws - start))
