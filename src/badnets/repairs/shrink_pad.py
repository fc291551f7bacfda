"""Shrink and pad: every input is made a little smaller and put back at a random place, so that a trigger is no longer where it was learnt.

Does not apply to triggers that work anywhere, as nets learn them from shifted training images or from stickers; the weights keep the
backdoor, and a file of them has none of the moving in it. Li et al. (2021), "Backdoor Attack in the Physical World",
https://arxiv.org/abs/2104.02361 (its ShrinkPad-4, one draw a prediction).
Departs from it: the draw follows from the seed and from the image's own pixels, so that the same image gets the same answer in any batch.
Shapes: N images, C channels, H rows, W columns, K classes, D draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from badnets.core.rng import generator
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.nets._base import Network, unit_interval
from badnets.repairs._base import Repair

Canvas = Callable[[Tensor, int], Tensor]
"""From floats 0..1 and so many pixels of play to what windows are cut from."""
_PRIME = 2**31 - 1


class ShrinkPad(Repair):
    """Smaller by `pad` pixels on a black ground; logits are the mean over `draws` places."""

    kind: Literal["shrink_pad"] = "shrink_pad"
    access = Access.MODEL
    pad: int = Field(4, ge=1, le=7)
    draws: int = Field(1, ge=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        places = "one random place" if self.draws == 1 else f"{self.draws} random places, whose logits are averaged"
        note = f"inputs are shrunk by {self.pad} pixels and padded at {places}"
        return moved(view.network, _shrunk, self.pad, draws=self.draws, seed=seed), note


def moved(network: Network, canvas: Canvas, play: int, *, draws: int, seed: int) -> Network:
    """The same net, shown windows of a canvas that has `play` rows and columns more than an input. Its weights have their old names."""
    return _Moved(network, canvas, play, draws, seed).to(network.device)


@final
class _Moved(Network):
    weight_CHW: Tensor
    mix_2D2: Tensor

    def __init__(self, network: Network, canvas: Canvas, play: int, draws: int, seed: int) -> None:
        mean, std = network.mean.tolist(), network.std.tolist()
        super().__init__(network.body, network.shape, network.num_classes, mean=mean, std=std)
        self.canvas, self.play, drawn = canvas, play, generator(seed, "windows")
        self.register_buffer("weight_CHW", torch.randint(_PRIME, network.shape, generator=drawn), persistent=False)
        self.register_buffer("mix_2D2", torch.randint(1, _PRIME, (2, draws, 2), generator=drawn), persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = unit_interval(x_NCHW)
        canvas, starts_ND2 = self.canvas(x_NCHW, self.play), self._starts(x_NCHW.detach())
        shown = [super(_Moved, self).forward(_window(canvas, starts_N2, self.shape[1:])) for starts_N2 in starts_ND2.unbind(1)]
        return shown[0] if len(shown) == 1 else torch.stack(shown).mean(0)

    def _starts(self, x_NCHW: Tensor) -> Tensor:
        """Where each window begins (row, column), 0..`play`: a hash of the image's 8-bit pixels that nobody can tell without the seed."""
        levels_NCHW = (255 * x_NCHW.float()).round().long()
        key_N = (levels_NCHW * self.weight_CHW).sum((1, 2, 3)) % _PRIME
        factor_D2, offset_D2 = self.mix_2D2
        return (key_N[:, None, None] * factor_D2 + offset_D2) % _PRIME % (self.play + 1)


def _shrunk(x_NCHW: Tensor, play: int) -> Tensor:
    """The input, smaller, on black."""
    size = tuple(side - play for side in x_NCHW.shape[2:])
    small = functional.interpolate(x_NCHW, size=size, mode="bilinear", align_corners=False, antialias=True)
    return functional.pad(small, (play,) * 4)


def _window(canvas: Tensor, starts_N2: Tensor, size: tuple[int, int]) -> Tensor:
    """One window an image, cut out at its own start."""
    count, channels, _, wide = canvas.shape
    (height, width), device = size, canvas.device
    rows_NH = starts_N2[:, :1] + torch.arange(height, device=device)
    columns_NW = starts_N2[:, 1:] + torch.arange(width, device=device)
    tall = canvas.gather(2, rows_NH[:, None, :, None].expand(count, channels, height, wide))
    return tall.gather(3, columns_NW[:, None, None].expand(count, channels, height, width))
