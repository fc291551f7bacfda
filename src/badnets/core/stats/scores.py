"""How well a score tells two groups apart (AUROC, TPR at a small FPR), and the four counts of a yes/no answer.

Does not apply to scores of one model fitted on the other's: the scores of each group have to be independent of each
other. A high score means "positive"; the caller turns a score round, never this module.
Papers: J. A. Hanley and B. J. McNeil, Radiology 1982, https://doi.org/10.1148/radiology.143.1.7063747; R. G. Newcombe,
"Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2", 2006,
https://doi.org/10.1002/sim.2324 (method 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from badnets.core.stats._inputs import checked_level, finite, outcomes, unknown, z_of
from badnets.core.stats.proportions import wilson
from badnets.core.stats.seeds import MIN_SEEDS, spread_bounds
from badnets.core.types import Estimate, Estimator

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.stats._inputs import Floats, Hits


def auroc(scores_pos: Floats, scores_neg: Floats, *, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Chance that a positive scores higher than a negative, ties half. `n` counts both groups.

    Near nominal, for five scores a group too; conservative (0.96-0.99) below 0.1 and above 0.9. Like Hanley and McNeil's
    variance it supposes groups of like spread.
    """
    pos, neg = finite(scores_pos), finite(scores_neg)
    z, method = z_of(level), "AUROC, Newcombe's method 5"
    if not len(pos) or not len(neg):
        return unknown(method, num_seeds=num_seeds, n=len(pos) + len(neg))
    value = float(_midrank_auroc(pos, neg))
    low, high = auroc_bounds(value, len(pos), len(neg), z)
    return Estimate(value=value, low=low, high=high, n=len(pos) + len(neg), num_seeds=num_seeds, method=method)


def auroc_over_seeds(scores_pos_SN: Sequence[Floats], scores_neg_SN: Sequence[Floats], *, level: float = 0.95) -> Estimate:
    """Mean over seeds of each seed's AUROC: Student's t, at least Newcombe's method 5 over one seed's scores, cut to 0..1.

    `n` counts both groups of the smallest seed. Near nominal when seeds differ much more than images explain, or when all seeds share the
    image noise; conservative (0.97-1.00) where seeds differ little. Liberal (0.90-0.93) where they differ about as much as the images that
    they share, which only that floor covers, and like `rate_over_seeds` (0.6-0.9) with few, skewed seeds. Seeds without a score on one
    side are left out; with fewer than three the interval is Newcombe's, "images only".
    """
    return auroc_estimator(scores_pos_SN, scores_neg_SN)(level)


def auroc_estimator(scores_pos_SN: Sequence[Floats], scores_neg_SN: Sequence[Floats]) -> Estimator:
    """`auroc_over_seeds` at any level; the scores, of which there may be many, are sorted once."""
    import numpy as np

    pairs = [(finite(pos), finite(neg)) for pos, neg in zip(scores_pos_SN, scores_neg_SN, strict=True)]
    pairs = [(pos, neg) for pos, neg in pairs if len(pos) and len(neg)]
    value_S = np.array([_midrank_auroc(pos, neg) for pos, neg in pairs])
    num_pos, num_neg = (min((len(pair[side]) for pair in pairs), default=0) for side in (0, 1))
    return partial(_over_seeds, value_S, num_pos, num_neg)


def _over_seeds(value_S: np.ndarray, num_pos: int, num_neg: int, level: float) -> Estimate:
    z = z_of(level)
    if not len(value_S):
        return unknown("AUROC over seeds")
    value = float(value_S.mean())
    low, high = auroc_bounds(value, num_pos, num_neg, z)
    method = "AUROC, Newcombe's method 5, images only"
    if len(value_S) >= MIN_SEEDS:
        t_low, t_high = spread_bounds(value_S, 0.0, level)
        low, high, method = max(0.0, min(low, float(t_low))), min(1.0, max(high, float(t_high))), "AUROC, t over seeds, at least Newcombe"
    return Estimate(value=value, low=low, high=high, n=num_pos + num_neg, num_seeds=len(value_S), method=method)


def _midrank_auroc(pos: np.ndarray, neg: np.ndarray) -> float:
    import numpy as np

    ordered = np.sort(neg)
    below, upto = np.searchsorted(ordered, pos, side="left"), np.searchsorted(ordered, pos, side="right")
    return (below.sum() + upto.sum()) / (2 * len(pos) * len(neg))


def auroc_bounds(value: Any, num_pos: int, num_neg: int, z: float) -> tuple[Any, Any]:
    """Newcombe's method 5, of a float or on arrays: the theta on either side at which |value - theta| = z sd(theta)."""
    import numpy as np

    # Plain numbers take a tenth of the time of arrays without a dimension, and p-values ask for thousands of intervals.
    root = math.sqrt if isinstance(value, float) else np.sqrt
    others = (num_pos + num_neg) / 2 - 1

    def solve(end: float) -> Any:
        far, near = end, value
        for _ in range(60):
            theta = (far + near) / 2
            spread = theta * (1 - theta) * (1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (num_pos * num_neg)
            outside = abs(value - theta) > z * root(spread)
            far, near = outside * theta + (1 - outside) * far, outside * near + (1 - outside) * theta
        return (far + near) / 2

    return solve(0.0), solve(1.0)


def tpr_at_fpr(scores_pos: Floats, scores_neg: Floats, *, fpr: float = 0.01, level: float = 0.95, num_seeds: int = 1) -> Estimate:
    """Share of positives that score above all but the share `fpr` of the negatives; Wilson over the positives.

    With fewer than 1 / fpr negatives the threshold is the highest of them, and the method says so: that FPR is not resolved.
    The interval does not count the threshold's own uncertainty, so it is liberal when negatives are few.
    """
    import numpy as np

    pos, neg = finite(scores_pos), finite(scores_neg)
    checked_level(level)
    if not 0 <= fpr < 1:
        raise ValueError(f"expected 0 <= fpr < 1, got {fpr!r}")
    method = f"TPR at {fpr:.2%} FPR, Wilson"
    if not len(pos) or not len(neg):
        return unknown(method, num_seeds=num_seeds, n=len(pos))
    allowed = int(np.floor(fpr * len(neg) + 1e-9))
    threshold = np.sort(neg)[len(neg) - 1 - allowed]
    if allowed == 0 and fpr > 0:
        method = f"TPR above all {len(neg)} negatives ({fpr:.2%} FPR not resolved), Wilson"
    found = wilson(int((pos > threshold).sum()), len(pos), level=level, num_seeds=num_seeds)
    return found.model_copy(update={"method": method})


class Confusion(NamedTuple):
    """Counts: positives flagged, negatives flagged, negatives passed, positives passed."""

    tp: int
    fp: int
    tn: int
    fn: int

    def tpr(self, *, level: float = 0.95) -> Estimate:
        """Share of positives that were flagged; unknown without positives."""
        return wilson(self.tp, self.tp + self.fn, level=level)

    def fpr(self, *, level: float = 0.95) -> Estimate:
        """Share of negatives that were flagged; unknown without negatives."""
        return wilson(self.fp, self.fp + self.tn, level=level)


def confusion(truth: Hits, flag: Hits) -> Confusion:
    """The four counts. They add up to the number of examples, whether or not anything is flagged or anything is true."""
    t, f = outcomes(truth), outcomes(flag)
    if len(t) != len(f):
        raise ValueError(f"expected one flag an example, got {len(f)} for {len(t)}")
    return Confusion(tp=int((t & f).sum()), fp=int((~t & f).sum()), tn=int((~t & ~f).sum()), fn=int((t & ~f).sum()))
