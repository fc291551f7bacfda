"""A layer whose weights are stored as four-bit integers, two a byte, and unpacked at each use. Imports torch: import this late.

Shapes: O output channels, G groups, S weights of a group, B bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from badnets.stressors._layers import Dense, kernel_of

LARGEST = 7


class Int4(nn.Module):
    """A convolution or linear layer with weights rounded to `scale` x -7..7."""

    packed: Tensor
    scale_OG: Tensor

    def __init__(self, layer: Dense, group: int) -> None:
        super().__init__()
        flat = layer.weight.detach().float().flatten(1)
        self.shape, self.width, self.group, self.kernel = tuple(layer.weight.shape), flat.shape[1], group, kernel_of(layer)
        weight_OGS = pad(flat, (0, -flat.shape[1] % group)).unflatten(1, (-1, group))
        scale_OG = weight_OGS.abs().amax(dim=2) / LARGEST
        level_OGS = (weight_OGS / torch.where(scale_OG > 0, scale_OG, 1.0)[..., None]).round().to(torch.int8)
        level_B = pad(level_OGS.flatten(), (0, level_OGS.numel() % 2)) + 8
        self.register_buffer("packed", (level_B[0::2] | (level_B[1::2] << 4)).view(torch.uint8))
        self.register_buffer("scale_OG", scale_OG)
        self.bias = layer.bias

    def weight(self) -> Tensor:
        """The weights as float32."""
        level = torch.stack((self.packed & 15, self.packed >> 4), dim=1).flatten().to(torch.int8) - 8
        rows, groups = self.scale_OG.shape
        level_OGS = level[: rows * groups * self.group].view(rows, groups, self.group)
        return (level_OGS * self.scale_OG[..., None]).flatten(1)[:, : self.width].reshape(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(x, self.weight(), self.bias)
