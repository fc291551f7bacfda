"""Shrink and pad: every input is made a little smaller and put back at a random place, so that a trigger is no longer where it was learnt.

Does not apply to triggers that work anywhere, as nets learn them from shifted training images or from stickers; the weights keep the
backdoor, and a file of them has none of the moving in it. Li et al. (2021), "Backdoor Attack in the Physical World",
https://arxiv.org/abs/2104.02361 (its ShrinkPad-4, one draw a prediction).
Departs from it: the draw follows from the seed and from the image's own pixels, so that the same image gets the same answer in any batch.
Shapes: N images, C channels, H rows, W columns, K classes, D draws.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.nets._base import Network
from badnets.repairs._base import Repair
from badnets.repairs._moved import Moved


class ShrinkPad(Repair):
    """Smaller by `pad` pixels on a black ground; logits are the mean over `draws` places."""

    kind: Literal["shrink_pad"] = "shrink_pad"
    access = Access.MODEL
    pad: int = Field(4, ge=1, le=7)
    draws: int = Field(1, ge=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        places = "one random place" if self.draws == 1 else f"{self.draws} random places, whose logits are averaged"
        note = f"inputs are shrunk by {self.pad} pixels and padded at {places}"
        return _Shrunk(view.network, self.pad, self.draws, seed).to(view.network.device), note


class _Shrunk(Moved):
    """The input, smaller, on black."""

    def _canvas(self, x_NCHW: Tensor) -> Tensor:
        size = tuple(side - self.play for side in x_NCHW.shape[2:])
        small = functional.interpolate(x_NCHW, size=size, mode="bilinear", align_corners=False, antialias=True)
        return functional.pad(small, (self.play,) * 4)
