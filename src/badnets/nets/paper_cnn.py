"""The BadNets paper's MNIST net: two 5x5 convolutions with average pooling and a hidden layer of 512.

Below 16 pixels the paper's unpadded convolutions leave nothing, so they are padded there. Not for CIFAR-10 and the like.
T. Gu, B. Dolan-Gavitt, S. Garg (2017), BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain,
https://arxiv.org/abs/1708.06733
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from badnets.nets._base import Net, Shape
from badnets.nets._taps import Units


class PaperCnn(Net):
    """Table I of the paper."""

    kind: Literal["paper_cnn"] = "paper_cnn"

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        channels, height, width = shape
        padding = 2 if min(height, width) < 16 else 0

        def left(size: int) -> int:
            return ((size + 2 * padding - 4) // 2 + 2 * padding - 4) // 2

        return nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=padding),
            nn.ReLU(),
            Units(16),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5, padding=padding),
            nn.ReLU(),
            Units(32),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * left(height) * left(width), 512),
            nn.ReLU(),
            Units(512),
            nn.Linear(512, num_classes),
        )
