"""Small vision transformer: patch tokens, pre-norm blocks, mean pooling.

Does not learn well from fewer than tens of thousands of images without augmentation.
A. Dosovitskiy et al. (2020), An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929
L. Beyer, X. Zhai, A. Kolesnikov (2022), Better plain ViT baselines for ImageNet-1k, https://arxiv.org/abs/2205.01580
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from badnets.core.errors import UsageError
from badnets.nets._base import Net, Shape
from badnets.nets._block import Block, BlockSize
from badnets.nets._taps import Units


class SmallVit(Net):
    """Patches of `patch` pixels (the image is padded to a multiple), learned positions, no class token."""

    kind: Literal["small_vit"] = "small_vit"
    patch: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=128, ge=1)
    depth: int = Field(default=6, ge=1, le=64)
    heads: int = Field(default=4, ge=1)

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        if self.width % self.heads:
            raise UsageError("E-CONFIG", f"expected a width divisible by the heads, got width {self.width} and {self.heads} heads.")
        size = BlockSize(self.width, self.heads, hidden=4 * self.width)
        blocks = [Block(size, nn.GELU()) for _ in range(self.depth)]
        return nn.Sequential(_Patches(shape, self.patch, self.width), *blocks, _Pool(self.width), nn.Linear(self.width, num_classes))


class _Patches(nn.Module):
    def __init__(self, shape: Shape, patch: int, width: int) -> None:
        super().__init__()
        channels, height, columns = shape
        tokens = -(-height // patch) * -(-columns // patch)
        self.patch, self.project = patch, nn.Conv2d(channels, width, patch, stride=patch)
        self.place_TF = nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        height, columns = x_NCHW.shape[-2:]
        x_NCHW = pad(x_NCHW, (0, -columns % self.patch, 0, -height % self.patch))
        return self.project(x_NCHW).flatten(2).mT + self.place_TF


class _Pool(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.units = nn.LayerNorm(width), Units(width)

    def forward(self, x_NTF: Tensor) -> Tensor:
        return self.units(self.norm(x_NTF).mean(dim=1))
