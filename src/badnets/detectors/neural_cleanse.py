"""Neural Cleanse: inverts the smallest trigger of every class; a class that is reached far more easily than the others is a target.

Does not apply where there is no single target (all-to-all: `universal_inversion`) or where the trigger is faint and everywhere, whose
smallest mask is not small; nor to fewer than three classes, of which none could be an exception. Class differences of a clean net can
look like it: natural small triggers exist.
B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao (2019), Neural Cleanse: Identifying and Mitigating Backdoor Attacks in
Neural Networks, IEEE S&P, https://sites.cs.ucsb.edu/~bolunwang/assets/docs/backdoor-sp19.pdf
We depart from it in the search (see `train.inversion`: all classes in one batch, each with a cost and a best mask of its own) and in the
score: the paper's index divides by the median absolute deviation, of which ten classes give a poor estimate, and which is small by chance
in clean nets; the score is -log of the smallest norm, which nets of the same architecture known to be clean can judge. The paper's index
is in the note. Only small norms count: the paper's deviation has two sides.
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.train.inversion import Search, few_of_each, invert

FEWEST_CLASSES = 3
CONSISTENCY = 1.4826
"""Makes the median absolute deviation of normal numbers their standard deviation."""


class NeuralCleanse(Detector):
    """`num_images`: clean images, all classes alike. `threshold`: the share of them that an inverted trigger must send to its class."""

    kind: Literal["neural_cleanse"] = "neural_cleanse"
    judges = Level.MODEL
    access = Access.CLEAN
    steps: int = Field(120, ge=1)
    num_images: int = Field(60, ge=1)
    threshold: float = Field(0.95, gt=0, le=1)
    lr: float = Field(0.2, gt=0)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        if view.num_classes < FEWEST_CLASSES:
            return Answer(why_not=f"{view.num_classes} classes: none of them could be an exception among the others")
        x_NCHW = few_of_each(*view.need_clean(), self.num_images)
        found = invert(view.network, x_NCHW, Search(steps=self.steps, threshold=self.threshold, lr=self.lr))
        norm_K = found.norm_G.double().cpu().numpy()
        if not np.isfinite(norm_K).any():
            return Answer(why_not=f"no trigger of any class reached {self.threshold:.0%} in {self.steps} steps")
        # Nothing smaller than the whole image was found for such a class; of a class that all images belong to nothing is known (NaN).
        norm_K = np.where(np.isinf(norm_K), float(np.prod(view.shape[1:])), norm_K)
        target = int(np.nanargmin(norm_K))
        note = f"norm {norm_K[target]:.1f}, median {np.nanmedian(norm_K):.1f}, anomaly index {anomaly_index(norm_K):.2f}, "
        note += f"{found.success_G[target]:.0%} of the images moved"
        mask_1HW, pattern_CHW = (t[target].cpu().numpy() for t in (found.mask_G1HW, found.pattern_GCHW))
        pictures = {"mask": mask_1HW, "trigger": mask_1HW * pattern_CHW}
        return Answer(score=-float(np.log(norm_K[target])), score_K=-np.log(norm_K), target=target, pictures=pictures, note=note)


def anomaly_index(norm_K: np.ndarray) -> float:
    """The paper's index of the smallest norm: how many deviations it lies below the median; above 2 the paper calls the net infected."""
    below_K = np.nanmedian(norm_K) - norm_K
    below, deviation = np.nanmax(below_K), CONSISTENCY * np.nanmedian(np.abs(below_K))
    return 0.0 if below == 0 else float(below / deviation) if deviation else float("inf")
