"""Vision transformer as in its paper: a class token, learned positions, pre-norm blocks; what foreign ViTs come down to.

Not for transformers with other positions, distillation tokens, windows or scaled layers. Learns little from few images.
A. Dosovitskiy et al. (2020), An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from badnets.core.errors import UsageError
from badnets.nets._base import Net, Shape
from badnets.nets._block import Block, BlockSize
from badnets.nets._taps import Units

_ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Vit(Net):
    """`hidden`: width within the blocks; `pool`: what the head reads, the class token or the mean of the patches; `size`: the side that
    images are brought to first (0: left as they are); `title`: what it is called in reports. Images are padded to whole patches."""

    kind: Literal["vit"] = "vit"
    patch: int = Field(default=4, ge=1, le=256)
    width: int = Field(default=64, ge=1, le=8_192)
    depth: int = Field(default=4, ge=1, le=64)
    heads: int = Field(default=4, ge=1, le=256)
    hidden: int = Field(default=256, ge=1, le=65_536)
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    eps: float = Field(default=1e-6, gt=0, le=1)
    qkv_bias: bool = True
    pool: Literal["token", "mean"] = "token"
    size: int = Field(default=0, ge=0, le=4_096)
    title: str = Field(default="", max_length=200)

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        if self.width % self.heads:
            raise UsageError("E-CONFIG", f"expected a width divisible by the heads, got width {self.width} and {self.heads} heads.")
        body = nn.Sequential()
        body.add_module("patches", _Patches(shape, self))
        size = BlockSize(self.width, self.heads, self.hidden, self.eps, self.qkv_bias)
        body.add_module("blocks", nn.Sequential(*(Block(size, self._act()) for _ in range(self.depth))))
        body.add_module("pool", _Pool(self))
        body.add_module("head", nn.Linear(self.width, num_classes))
        return body

    def _act(self) -> nn.Module:
        return nn.GELU(approximate="tanh") if self.activation == "gelu_tanh" else _ACTIVATIONS[self.activation]()


class _Patches(nn.Module):
    """Tokens of the patches, the class token before them, with their places."""

    def __init__(self, shape: Shape, net: Vit) -> None:
        super().__init__()
        channels, height, columns = (shape[0], net.size, net.size) if net.size else shape
        tokens = 1 + -(-height // net.patch) * -(-columns // net.patch)
        self.size, self.patch = net.size, net.patch
        self.project = nn.Conv2d(channels, net.width, net.patch, stride=net.patch)
        self.token = nn.Parameter(torch.randn(1, 1, net.width) * 0.02)
        self.place = nn.Parameter(torch.randn(1, tokens, net.width) * 0.02)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.size and tuple(x_NCHW.shape[-2:]) != (self.size, self.size):
            x_NCHW = interpolate(x_NCHW, (self.size, self.size), mode="bilinear", antialias=True)
        height, columns = x_NCHW.shape[-2:]
        x_NCHW = pad(x_NCHW, (0, -columns % self.patch, 0, -height % self.patch))
        x_NTF = self.project(x_NCHW).flatten(2).mT
        return torch.cat([self.token.expand(len(x_NTF), -1, -1), x_NTF], dim=1) + self.place


class _Pool(nn.Module):
    """What the head reads: of the class token the norm, or the norm of the patches' mean."""

    def __init__(self, net: Vit) -> None:
        super().__init__()
        self.pool, self.norm, self.units = net.pool, nn.LayerNorm(net.width, eps=net.eps), Units(net.width)

    def forward(self, x_NTF: Tensor) -> Tensor:
        x_NF = x_NTF[:, 0] if self.pool == "token" else x_NTF[:, 1:].mean(dim=1)
        return self.units(self.norm(x_NF))
