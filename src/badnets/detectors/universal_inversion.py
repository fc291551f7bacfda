"""Universal inversion: the shortest addition after which images are no longer what they were; finds backdoors of one target and of many.

Does not apply to a net that gives one class to everything, nor to a backdoor of few sources (source-specific): most images must move. Every
net has universal perturbations; only their length, compared with that of nets known to be clean, says something.
X. Xu, O. Ersoy, S. Picek (2023), Universal Soldier: Using Universal Adversarial Perturbations for Detecting Backdoor Attacks,
https://arxiv.org/abs/2302.00747 (a backdoored net needs less to be perturbed universally)
We depart from it in the search (`train.inversion`: one addition for all images, its direction and its Euclidean length found apart from
each other, for which no cost has to be tuned); in not going through the classes: the addition may send an image anywhere but where it was,
so an all-to-all backdoor, which no search for one target can find, is found as well, at the price of a single class; and in the score,
-log of the length, where the paper has an outlier among classes.
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.train.inversion import Search, few_of_each, shorten


class UniversalInversion(Detector):
    """`num_images`: clean images, all classes alike. `threshold`: the share of them that must move, each class weighing the same.

    `score_K`: the share of the moved images that arrive in each class; the target is where more than half of them do, if anywhere.
    """

    kind: Literal["universal_inversion"] = "universal_inversion"
    judges = Level.MODEL
    access = Access.CLEAN
    steps: int = Field(60, ge=1)
    num_images: int = Field(100, ge=1)
    threshold: float = Field(0.7, gt=0, le=1)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        x_NCHW = few_of_each(*view.need_clean(), self.num_images)
        found = shorten(view.network, x_NCHW, Search(steps=self.steps, threshold=self.threshold), goals="away")
        length = float(found.norm_G[0])
        if not math.isfinite(length):
            return Answer(why_not=f"no addition moved {self.threshold:.0%} of the images in {self.steps} steps")
        before_N, after_N = (view.network.predict_logits(x).argmax(dim=1) for x in (x_NCHW, found.stamp(0, x_NCHW)))
        moved_N = before_N != after_N
        share_K = torch.bincount(after_N[moved_N], minlength=view.num_classes) / moved_N.sum()
        target = int(share_K.argmax()) if float(share_K.max()) > 0.5 else None
        delta_CHW = found.delta_GCHW[0].cpu()
        picture = (0.5 + 0.5 * delta_CHW / delta_CHW.abs().amax()).clamp(0, 1).numpy()
        note = f"length {length:.2f}; {moved_N.float().mean():.0%} of the images moved, {share_K.max():.0%} of these to one class"
        return Answer(score=-math.log(length), score_K=share_K.cpu().numpy(), target=target, pictures={"addition": picture}, note=note)
