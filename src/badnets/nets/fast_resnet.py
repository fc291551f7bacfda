"""Nine-layer ResNet for 32x32 colour images, meant for 94 % on CIFAR-10 in a few epochs on a GPU.

Not for one CPU core beyond small experiments: tens of images/s there. Not for images above 64 pixels.
D. Page (2018), How to Train Your ResNet, https://github.com/davidcpage/cifar10-fast
K. Jordan (2024), 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, https://arxiv.org/abs/2404.00498
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from badnets.nets._base import Net, Shape
from badnets.nets._taps import Units

SMALL_ENOUGH_TO_STAY = 4


class FastResnet(Net):
    """A stem, three halving stages of which the first and the last have a residual block, and a scaled linear head."""

    kind: Literal["fast_resnet"] = "fast_resnet"
    width: int = Field(default=64, ge=1)
    head_scale: float = Field(default=0.125, gt=0)

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        channels, height, width = shape
        size = min(height, width)
        layers: list[nn.Module] = [_conv(channels, self.width)]
        for stage, residual in enumerate((True, False, True)):
            wide = self.width * 2 ** (stage + 1)
            halve = size >= SMALL_ENOUGH_TO_STAY
            size = size // 2 if halve else size
            layers.append(_conv(wide // 2, wide, pool=halve))
            if residual:
                layers.append(_Residual(wide))
        wide = self.width * 8
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), _Head(wide, num_classes, self.head_scale))


def _conv(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    halving = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *halving, nn.BatchNorm2d(outputs), nn.ReLU(), Units(outputs))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW + self.second(self.first(x_NCHW))


class _Head(nn.Module):
    """Scaled down, so that the first logits are small and a high learning rate does not throw the net off."""

    def __init__(self, inputs: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(inputs, num_classes, bias=False), scale

    def forward(self, x_NF: Tensor) -> Tensor:
        return self.linear(x_NF) * self.scale
