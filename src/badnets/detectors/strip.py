"""STRIP: an input that keeps its answer whatever other pictures are laid over it is suspicious.

Does not apply to triggers that a second picture covers or changes (a faint pattern over the whole image, one that needs its source class),
and is blind where clean images keep their answer too; needs clean images that were not trained on.

Y. Gao, C. Xu, D. Wang, S. Chen, D. C. Ranasinghe, S. Nepal (2019), STRIP: A Defence Against Trojan Attacks on Deep Neural Networks,
https://arxiv.org/abs/1902.06531

Departures: every input is blended with the same clean images, not with ones drawn for it, so that its score does not depend on what else is
judged; the sum of two pictures is clipped to 8 bits, as a camera or a file would; the normal distribution of clean entropies is fitted to
clean images that are not laid over others, never to what is judged.
Shapes: N inputs, M copies of each, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

AT_ONCE = 2**24
"""Pixels that are blended at once; more would only need more memory."""


class Strip(Detector):
    """Minus the mean entropy (in bits, over classes) of `num_copies` blends of an input with clean images.

    `blend`: the "sum" of two pictures (the paper's) or their "mean", which never clips but halves the trigger. `false_alarms`: the share of
    clean inputs that the paper's rule may flag; its threshold is fitted on at most `num_calibration` clean images.
    """

    kind: Literal["strip"] = "strip"
    judges = Level.INPUTS
    access = Access.CLEAN
    num_copies: int = Field(100, ge=1, le=10_000)
    blend: Literal["sum", "mean"] = "sum"
    false_alarms: float = Field(0.01, gt=0, lt=1)
    num_calibration: int = Field(200, ge=0)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        clean_NCHW, _ = view.need_clean()
        # Half of few images at most: the others are what a threshold is fitted on.
        copies = min(self.num_copies, max(1, len(clean_NCHW) // 2))
        over_MCHW, held_NCHW = clean_NCHW[:copies], clean_NCHW[copies : copies + self.num_calibration]
        entropy_N = self._entropies(view.network, view.need_inputs(), over_MCHW)
        note = f"{copies} copies of each"
        if len(held_NCHW) < 2:
            return Answer(score_N=-entropy_N, note=note)
        limit = _low_quantile(self._entropies(view.network, held_NCHW, over_MCHW), self.false_alarms)
        return Answer(score_N=-entropy_N, flag_N=entropy_N < limit, note=f"{note}; flagged below {limit:.3f} bits")

    def _entropies(self, network: Network, x_NCHW: Tensor, over_MCHW: Tensor) -> np.ndarray:
        """Mean entropy of the predictions on the copies of each image."""
        found = [np.zeros(0)]
        for part in x_NCHW.split(max(1, AT_ONCE // over_MCHW.numel())):
            blends = self._blends(part, over_MCHW)
            p_NMK = network.predict_logits(blends).double().softmax(dim=1).reshape(len(part), len(over_MCHW), network.num_classes)
            entropy_NM = torch.special.entr(p_NMK).sum(dim=-1) / np.log(2)
            found.append(entropy_NM.mean(dim=1).cpu().numpy())
        return np.concatenate(found)

    def _blends(self, x_NCHW: Tensor, over_MCHW: Tensor) -> Tensor:
        """uint8 blends, the copies of an image next to each other."""
        sum_NMCHW = x_NCHW[:, None].to(torch.int16) + over_MCHW.to(torch.int16)
        blended = sum_NMCHW.clamp_(max=255) if self.blend == "sum" else sum_NMCHW.div_(2, rounding_mode="floor")
        return blended.to(torch.uint8).flatten(0, 1)


def _low_quantile(entropy_N: np.ndarray, share: float) -> float:
    """What a normal distribution with the mean and deviation of clean entropies falls below with the probability `share`."""
    from scipy.special import ndtri

    return float(entropy_N.mean() + entropy_N.std(ddof=1) * ndtri(share))
