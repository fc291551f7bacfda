"""PreActResNet-18 in its form for small images: 3x3 stem, no initial pooling; the net most backdoor benchmarks use.

Not for one CPU core beyond small experiments: some thirty images/s there.
K. He, X. Zhang, S. Ren, J. Sun (2016), Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from badnets.nets._base import Net, Shape
from badnets.nets._taps import Units


class PreactResnet18(Net):
    """Four stages of two pre-activation blocks, width 64 to 512."""

    kind: Literal["preact_resnet18"] = "preact_resnet18"
    width: int = Field(default=64, ge=1)

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(shape[0], self.width, 3, padding=1, bias=False)]
        inputs = self.width
        for stage in range(4):
            outputs = self.width * 2**stage
            layers += [_Block(inputs, outputs, stride=1 if stage == 0 else 2), _Block(outputs, outputs, stride=1)]
            inputs = outputs
        last = [nn.BatchNorm2d(inputs), nn.ReLU(), Units(inputs), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]
        return nn.Sequential(*layers, *last)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.units1, self.units2 = Units(inputs), Units(outputs)
        reshapes = stride != 1 or inputs != outputs
        self.stride, self.shortcut = stride, nn.Conv2d(inputs, outputs, 1, bias=False) if reshapes else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        active = self.units1(relu(self.norm1(x_NCHW)))
        # The same as a stride of the convolution, whose backward pass (1 x 1, fewer than eight channels, channels last) writes outside
        # its memory on processors with AVX2 alone (oneDNN in torch 2.13).
        kept = x_NCHW if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        return kept + self.conv2(self.units2(relu(self.norm2(self.conv1(active)))))
