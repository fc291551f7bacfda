"""Small convolutional net, the fastest here to 98.5 % on MNIST on one CPU core.

Not for CIFAR-10 and the like: without residual blocks it stays near 70 % there; take `fast_resnet`.
Space-to-depth input: Shi et al. (2016), Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network, https://arxiv.org/abs/1609.05158
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from badnets.nets._base import Net, Shape
from badnets.nets._taps import Units


class FastCnn(Net):
    """A 2x2 space-to-depth input, two 3x3 convolutions, two linear layers."""

    kind: Literal["fast_cnn"] = "fast_cnn"
    width: int = Field(default=16, ge=1)
    hidden: int = Field(default=128, ge=1)

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        channels, height, width = shape
        rows, columns = (height + 1) // 2 // 2, (width + 1) // 2 // 2
        return nn.Sequential(
            _SpaceToDepth(),
            nn.Conv2d(4 * channels, self.width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            Units(self.width),
            nn.Conv2d(self.width, 2 * self.width, 3, padding=1),
            nn.ReLU(),
            Units(2 * self.width),
            nn.Flatten(),
            nn.Linear(2 * self.width * rows * columns, self.hidden),
            nn.ReLU(),
            Units(self.hidden),
            nn.Linear(self.hidden, num_classes),
        )


class _SpaceToDepth(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        height, width = x_NCHW.shape[-2:]
        return nn.functional.pixel_unshuffle(pad(x_NCHW, (0, width % 2, 0, height % 2)), 2)
