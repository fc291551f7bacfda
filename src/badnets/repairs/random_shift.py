"""Random shifts: every input is moved by a few pixels before the net sees it, its border repeated, so that a trigger misses its place.

Does not apply to triggers that work anywhere, nor to nets trained on images shifted by as much: they learnt the trigger shifted too. The
weights keep the backdoor. Li et al. (2021), "Backdoor Attack in the Physical World", https://arxiv.org/abs/2104.02361 (a patch moved by two
or three pixels), turned into a defence in the way of its ShrinkPad. Shapes: N images, C channels, H rows, W columns.
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
from badnets.repairs.shrink_pad import moved


class RandomShift(Repair):
    """By up to `pixels` along each axis; logits are the mean over `draws` shifts."""

    kind: Literal["random_shift"] = "random_shift"
    access = Access.MODEL
    pixels: int = Field(3, ge=1, le=7)
    draws: int = Field(1, ge=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        times = "" if self.draws == 1 else f", {self.draws} times, and the logits averaged"
        note = f"inputs are shifted at random by up to {self.pixels} pixels{times}"
        return moved(view.network, _repeated, 2 * self.pixels, draws=self.draws, seed=seed), note


def _repeated(x_NCHW: Tensor, play: int) -> Tensor:
    """The input with its border repeated."""
    return functional.pad(x_NCHW, (play // 2,) * 4, mode="replicate")
