"""A net that is shown each input at another place: what repairs that move the input have in common.

Shapes: N images, C channels, H rows, W columns, D draws.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from badnets.core.rng import generator
from badnets.nets._base import Network, unit_interval

_PRIME = 2**31 - 1


class Moved(Network, abc.ABC):
    """The same net, shown windows of a canvas that has `play` rows and columns more than an input. Its weights have their old names."""

    weight_CHW: Tensor
    mix_2D2: Tensor

    def __init__(self, network: Network, play: int, draws: int, seed: int) -> None:
        mean, std = network.mean.tolist(), network.std.tolist()
        super().__init__(network.body, network.shape, network.num_classes, mean=mean, std=std)
        self.play, drawn = play, generator(seed, "windows")
        self.register_buffer("weight_CHW", torch.randint(_PRIME, network.shape, generator=drawn), persistent=False)
        self.register_buffer("mix_2D2", torch.randint(1, _PRIME, (2, draws, 2), generator=drawn), persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = unit_interval(x_NCHW)
        canvas, starts_ND2 = self._canvas(x_NCHW), self._starts(x_NCHW.detach())
        shown = [super(Moved, self).forward(_window(canvas, starts_N2, self.shape[1:])) for starts_N2 in starts_ND2.unbind(1)]
        return shown[0] if len(shown) == 1 else torch.stack(shown).mean(0)

    def _starts(self, x_NCHW: Tensor) -> Tensor:
        """Where each window begins (row, column), 0..`play`: a hash of the image's 8-bit pixels that nobody can tell without the seed."""
        levels_NCHW = (255 * x_NCHW.float()).round().long()
        key_N = (levels_NCHW * self.weight_CHW).sum((1, 2, 3)) % _PRIME
        factor_D2, offset_D2 = self.mix_2D2
        return (key_N[:, None, None] * factor_D2 + offset_D2) % _PRIME % (self.play + 1)

    @abc.abstractmethod
    def _canvas(self, x_NCHW: Tensor) -> Tensor:
        """From floats 0..1."""


def _window(canvas: Tensor, starts_N2: Tensor, size: tuple[int, int]) -> Tensor:
    """One window an image, cut out at its own start."""
    count, channels, _, wide = canvas.shape
    (height, width), device = size, canvas.device
    rows_NH = starts_N2[:, :1] + torch.arange(height, device=device)
    columns_NW = starts_N2[:, 1:] + torch.arange(width, device=device)
    tall = canvas.gather(2, rows_NH[:, None, :, None].expand(count, channels, height, wide))
    return tall.gather(3, columns_NW[:, None, None].expand(count, channels, height, width))
