"""Statistics: per-example outcomes in, `Estimate`s and p-values out. Imports numpy and scipy only when a function is called."""

from badnets.core.stats.bootstrap import cluster_bootstrap, paired_bootstrap
from badnets.core.stats.contrast import contrast_over_seeds
from badnets.core.stats.decide import holm, p_above, p_below, p_within, tost
from badnets.core.stats.power import power_binomial, smallest_detectable_difference, smallest_noticeable_share
from badnets.core.stats.proportions import clopper_pearson, mcnemar_exact, newcombe, newcombe_paired, wilson
from badnets.core.stats.ratio import ratio_over_seeds
from badnets.core.stats.scores import Confusion, auroc, auroc_estimator, auroc_over_seeds, confusion, tpr_at_fpr
from badnets.core.stats.seeds import (
    difference_estimator,
    difference_over_seeds,
    mean_over_seeds,
    rate_estimator,
    rate_over_seeds,
    slope_over_seeds,
    t_over_seeds,
)

__all__ = [
    "Confusion",
    "auroc",
    "auroc_estimator",
    "auroc_over_seeds",
    "clopper_pearson",
    "cluster_bootstrap",
    "confusion",
    "contrast_over_seeds",
    "difference_estimator",
    "difference_over_seeds",
    "holm",
    "mcnemar_exact",
    "mean_over_seeds",
    "newcombe",
    "newcombe_paired",
    "p_above",
    "p_below",
    "p_within",
    "paired_bootstrap",
    "power_binomial",
    "rate_estimator",
    "rate_over_seeds",
    "ratio_over_seeds",
    "slope_over_seeds",
    "smallest_detectable_difference",
    "smallest_noticeable_share",
    "t_over_seeds",
    "tost",
    "tpr_at_fpr",
    "wilson",
]
