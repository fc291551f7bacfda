"""TeCo: an input whose label falls early under one kind of corruption and late under another is suspicious.

Does not apply to triggers that are as tough, or as fragile, under every corruption: of those the score is below that of clean inputs near a
boundary, whose label falls to whatever comes first. Asks for labels only; needs no clean image. Some fifty passes an input.

X. Liu, M. Li, H. Wang, S. Hu, D. Ye, H. Jin, L. Wu, C. Xiao (2023), Detecting Backdoors During the Inference Stage Based on Corruption
Robustness Consistency, https://arxiv.org/abs/2303.18191

Departures: nine corruptions of small or no code instead of fifteen (no weather, no zoom, nothing that needs colour); the noise of a
corruption is the same for every input, so that a score does not depend on what else is judged; what has lost its label is not corrupted
further. Every severity is applied to the input itself, as the paper says, not on top of the last one, as its published code does.
Shapes: N inputs, C channels, H rows, W columns, A corruptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._corruptions import CORRUPTIONS, SEVERITIES, Kind, corrupted

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

AT_ONCE = 1000
"""Images that are corrupted at once; more would only need more memory."""


class Teco(Detector):
    """The standard deviation, over `corruptions`, of the first severity (1 to 5, 6 if none) at which the input loses its label."""

    kind: Literal["teco"] = "teco"
    judges = Level.INPUTS
    corruptions: tuple[Kind, ...] = Field(tuple(CORRUPTIONS), min_length=2)

    def _scan(self, view: View, seed: int) -> Answer:
        parts = [self._falls(view.network, part, seed) for part in view.need_inputs().split(AT_ONCE)]
        falls_NA = np.concatenate([np.zeros((0, len(self.corruptions))), *parts])
        return Answer(score_N=falls_NA.std(axis=1))

    def _falls(self, network: Network, x_NCHW: Tensor, seed: int) -> np.ndarray:
        """falls_NA: the first severity of each corruption at which an image has another label."""
        label_N = network.predict_logits(x_NCHW).argmax(dim=1).cpu()
        falls_NA = np.full((len(x_NCHW), len(self.corruptions)), SEVERITIES + 1)
        for place, kind in enumerate(self.corruptions):
            standing = torch.arange(len(x_NCHW))
            for severity in range(1, SEVERITIES + 1):
                worse_NCHW = corrupted(x_NCHW[standing], kind, severity, seed)
                fallen_N = network.predict_logits(worse_NCHW).argmax(dim=1).cpu() != label_N[standing]
                falls_NA[standing[fallen_N].numpy(), place] = severity
                standing = standing[~fallen_N]
        return falls_NA
