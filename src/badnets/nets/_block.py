"""The pre-norm block of vision transformers: attention, then two layers whose units can be read and masked.

Shapes: N images, T tokens, F features.
"""

from __future__ import annotations

from typing import NamedTuple, final

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from badnets.nets._taps import Units


class BlockSize(NamedTuple):
    """`hidden`: width of the units; `eps`: of the norms; `qkv_bias`: whether queries, keys and values have one."""

    width: int
    heads: int
    hidden: int
    eps: float = 1e-5
    qkv_bias: bool = True


@final
class Block(nn.Module):
    """Two residual steps. The width must be divisible by the heads."""

    def __init__(self, size: BlockSize, act: nn.Module) -> None:
        super().__init__()
        width, self.heads, hidden, eps, qkv_bias = size
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=qkv_bias), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.act, self.units = act, Units(hidden, axis=-1)

    def forward(self, x_NTF: Tensor) -> Tensor:
        x_NTF = x_NTF + self._attend(self.norm1(x_NTF))
        return x_NTF + self.shrink(self.units(self.act(self.grow(self.norm2(x_NTF)))))

    def _attend(self, x_NTF: Tensor) -> Tensor:
        num, tokens, width = x_NTF.shape
        q, k, v = self.qkv(x_NTF).view(num, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(num, tokens, width))
