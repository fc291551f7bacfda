"""SCALE-UP: an input that keeps its label while its pixels are multiplied, and clipped, is suspicious.

Does not apply to triggers that clipping destroys (a dark one, a faint pattern), nor to pictures that are black and white already:
multiplying changes nothing there and everything looks consistent. Asks for labels only; works without any clean image.

J. Guo, Y. Li, X. Chen, H. Guo, L. Sun, C. Liu (2023), SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled
Prediction Consistency, https://arxiv.org/abs/2302.03251

Departures: a class's deviation is at least one step of the score, since few clean images of a class may agree in all copies; a class with
fewer than two clean images is standardised by all of them.
Shapes: N inputs, C channels, H rows, W columns, K classes, S scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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

AT_ONCE = 4096
"""Images that are scaled at once; more would only need more memory."""


class ScaleUp(Detector):
    """The share of the copies, one for each of `scales`, that keep the label of the input.

    With clean images (and `standardise`) it is standardised by the mean and deviation of that share among clean images of the class that
    the input is given, since some classes survive scaling; the paper has a `threshold` only without them.
    """

    kind: Literal["scale_up"] = "scale_up"
    judges = Level.INPUTS
    scales: tuple[Annotated[float, Field(gt=1, le=255)], ...] = Field((3, 5, 7, 9, 11), min_length=1)
    standardise: bool = True
    threshold: float = Field(0.5, ge=0, le=1)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        share_N, label_N = self._shares(view.network, view.need_inputs())
        if not (self.standardise and view.granted(Access.CLEAN)):
            return Answer(score_N=share_N, flag_N=share_N > self.threshold, note="without clean images")
        clean_NCHW, y_N = view.need_clean()
        clean_share_N, _ = self._shares(view.network, clean_NCHW)
        mean_K, deviation_K = self._spread(clean_share_N, y_N.numpy(), view.num_classes)
        return Answer(score_N=(share_N - mean_K[label_N]) / deviation_K[label_N], note="standardised by clean images of each class")

    def _shares(self, network: Network, x_NCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The share of copies that keep the label, and that label, of each image."""
        shares, labels = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        for part in x_NCHW.split(AT_ONCE):
            label_N = network.predict_logits(part).argmax(dim=1)
            kept_SN = torch.stack([network.predict_logits(_times(part, scale)).argmax(dim=1) == label_N for scale in self.scales])
            shares.append(kept_SN.double().mean(dim=0).cpu().numpy())
            labels.append(label_N.cpu().numpy())
        return np.concatenate(shares), np.concatenate(labels)

    def _spread(self, share_N: np.ndarray, y_N: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the share among the images of each class."""
        groups = [share_N[y_N == k] for k in range(num_classes)]
        groups = [group if len(group) > 1 else share_N for group in groups]
        deviation_K = np.array([group.std() for group in groups])
        return np.array([group.mean() for group in groups]), np.maximum(deviation_K, 1 / len(self.scales))


def _times(x_NCHW: Tensor, scale: float) -> Tensor:
    """uint8 images, brighter, clipped."""
    return (x_NCHW.float() * scale).round_().clamp_(max=255).to(torch.uint8)
