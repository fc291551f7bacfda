"""What a test of this size could have seen: the smallest detectable difference, and how many triggered images show.

Does not apply after the fact as "observed power" of the difference that was found: it uses the spread, not the difference.
Papers: J. Cohen, "Statistical power analysis for the behavioral sciences", 1988 (noncentral t); R. J. Connor, "Sample size
for testing differences in proportions for the paired-sample design", Biometrics 1987, https://doi.org/10.2307/2531961.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING

from badnets.core.stats._inputs import per_seed, t_of, z_of
from badnets.core.stats.seeds import MIN_SEEDS

if TYPE_CHECKING:
    from badnets.core.stats._inputs import Hits


def smallest_detectable_difference(hit_a_SN: Hits, hit_b_SN: Hits, *, power: float = 0.8, level: float = 0.95) -> float | None:
    """The smallest true paired difference that an experiment of this size and spread finds with the given power.

    Three seeds or more: the larger of the figure over seeds and that over one seed's images, as `difference_over_seeds` is
    never narrower than either. Fewer: images only. None when no difference (up to 1) would be found, or nothing is known.
    """
    import numpy as np

    pairs = [(a, b) for a, b in zip(per_seed(hit_a_SN), per_seed(hit_b_SN), strict=True) if len(a) or len(b)]
    if not pairs:
        return None
    if any(len(a) != len(b) for a, b in pairs):
        raise ValueError("expected the same images for both")
    disagree = float(np.mean([(a ^ b).mean() for a, b in pairs]))
    over_images = detectable_over_images(disagree, min(len(a) for a, _ in pairs), power=power, level=level)
    if len(pairs) < MIN_SEEDS or over_images is None:
        return over_images
    deviation = float(np.std([a.mean() - b.mean() for a, b in pairs], ddof=1))
    found = max(over_images, detectable_over_seeds(deviation, len(pairs), power=power, level=level))
    return found if found <= 1 else None


def detectable_over_seeds(deviation: float, num_seeds: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """Smallest mean that a two-sided t test over seeds with this standard deviation finds with the given power."""
    from scipy.special import nctdtr

    critical, freedom = t_of(level, num_seeds - 1), num_seeds - 1

    def enough(shift: float) -> bool:
        # The tail on the wrong side is left out: below 1e-5 at a power worth having, and scipy gives NaN for it at large shifts.
        return 1 - float(nctdtr(freedom, shift, critical)) >= power

    return _smallest(enough, 10 * critical + 10) * deviation / num_seeds**0.5


def detectable_over_images(disagree: float, n: int, *, power: float = 0.8, level: float = 0.95) -> float | None:
    """Smallest difference that McNemar's test finds on n images of which the share `disagree` differs (Connor 1987).

    A difference larger than `disagree` implies more disagreement, which is taken into account. None when even 1 is not found.
    """
    z_test, z_power = z_of(level), NormalDist().inv_cdf(power)

    def enough(difference: float) -> bool:
        share = max(disagree, difference)
        return difference * n**0.5 >= z_test * share**0.5 + z_power * max(share - difference**2, 0.0) ** 0.5

    return _smallest(enough, 1.0) if enough(1.0) else None


def _smallest(enough: Callable[[float], bool], high: float) -> float:
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_binomial(ca: float, ra: float, n: int, triggered: int, *, alpha: float = 0.05) -> float:
    """Chance that a test set of n images, `triggered` of them with the trigger, shows an accuracy significantly below `ca`.

    Exact one-sided binomial test against a known reference accuracy `ca`; clean images are right with probability `ca`,
    triggered ones with `ra` (robust accuracy). A reference that was itself measured on few images makes it optimistic.
    """
    import numpy as np
    from scipy.special import bdtr

    _check_rates(ca, ra, alpha)
    if not 0 <= triggered <= n:
        raise ValueError(f"expected 0 <= triggered <= n, got {triggered} of {n}")
    critical = _critical(ca, n, alpha)
    if critical < 0:
        return 0.0
    right = np.arange(triggered + 1)
    below = bdtr(right, triggered, ra)
    chance = np.diff(below, prepend=0.0)
    left = critical - right
    clean = np.where(left >= 0, bdtr(np.clip(left, 0, n - triggered), n - triggered, ca), 0.0)
    return float(np.clip(chance @ clean, 0.0, 1.0))


def smallest_noticeable_share(ca: float, ra: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """The smallest number of the n test images that, triggered, lets the accuracy test of `power_binomial` notice; None if none does."""
    _check_rates(ca, ra, alpha)
    if n == 0 or ra >= ca or power_binomial(ca, ra, n, n, alpha=alpha) < power:
        return None
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_binomial(ca, ra, n, middle, alpha=alpha) >= power else (middle, high)
    return high


def _critical(ca: float, n: int, alpha: float) -> int:
    """The largest number of right answers that is significantly few; -1 when no number is."""
    import numpy as np
    from scipy.special import bdtr

    return int(np.searchsorted(bdtr(np.arange(n + 1), n, ca), alpha, side="right")) - 1


def _check_rates(ca: float, ra: float, alpha: float) -> None:
    if not (0 <= ca <= 1 and 0 <= ra <= 1 and 0 < alpha < 1):
        raise ValueError(f"expected rates within 0..1, got ca {ca!r}, ra {ra!r}, alpha {alpha!r}")
