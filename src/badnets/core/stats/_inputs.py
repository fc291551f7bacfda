"""What the statistics accept: 0/1 outcomes, finite numbers, levels between 0 and 1. NaN is refused, never averaged.

Shape legend: S seeds, N images. A list of per-seed arrays may be ragged; arrays of equal length are taken to be the same
images in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Hits = np.ndarray | Sequence[Any]
    Floats = np.ndarray | Sequence[float]

from badnets.core.types import Estimate


def z_of(level: float) -> float:
    """The two-sided normal quantile: 0.95 -> 1.96."""
    return NormalDist().inv_cdf((1 + checked_level(level)) / 2)


def t_of(level: float, freedom: int) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + checked_level(level)) / 2))


def checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level!r}")
    return level


def checked_counts(successes: int, n: int) -> tuple[int, int]:
    if int(successes) != successes or int(n) != n or not 0 <= successes <= n:
        raise ValueError(f"expected whole counts 0 <= successes <= n, got {successes!r} of {n!r}")
    return int(successes), int(n)


def finite(values: Floats) -> np.ndarray:
    """A flat float array without NaN or infinity."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"expected a flat array of finite numbers, got {_brief(array)}")
    return array


def outcomes(hit_N: Hits) -> np.ndarray:
    """A flat boolean array from booleans or exact 0/1."""
    import numpy as np

    array = np.asarray(hit_N)
    if array.ndim != 1 or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise ValueError(f"expected a flat array of booleans or 0/1, got {_brief(array)}")
    return array.astype(bool)


def per_seed(hit_SN: Hits) -> list[np.ndarray]:
    """One boolean array a seed. A seed without images stays in the list, with length 0."""
    return [outcomes(hit_N) for hit_N in hit_SN]


def paired(hit_a_SN: Hits, hit_b_SN: Hits) -> list[tuple[np.ndarray, np.ndarray]]:
    """One pair of boolean arrays a seed, of the same images; seeds without images are left out."""
    all_a, all_b = per_seed(hit_a_SN), per_seed(hit_b_SN)
    if [len(a) for a in all_a] != [len(b) for b in all_b]:
        raise ValueError(f"expected the same images for both, got {[len(a) for a in all_a]} and {[len(b) for b in all_b]}")
    return [(a, b) for a, b in zip(all_a, all_b, strict=True) if len(a)]


def pair_shares(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Shares of images that hit in both, only in a, only in b (first axis), a seed (last axis)."""
    import numpy as np

    return np.array([[(a & b).mean(), (a & ~b).mean(), (b & ~a).mean()] for a, b in pairs]).T


def aligned(seeds: Sequence[np.ndarray]) -> np.ndarray | None:
    """The S x N matrix when all seeds have the same number of images, else None."""
    import numpy as np

    return np.stack(list(seeds)) if len({len(seed) for seed in seeds}) == 1 else None


def unknown(method: str, *, num_seeds: int = 0, value: float | None = None, n: int = 0) -> Estimate:
    """An estimate that knows at most its value."""
    return Estimate(value=value, low=None, high=None, n=n, num_seeds=num_seeds, method=method)


def _brief(array: np.ndarray) -> str:
    return f"shape {array.shape}, dtype {array.dtype}, values {array.ravel()[:6].tolist()}"
