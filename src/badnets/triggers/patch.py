"""A small square at a fixed place: plain colour or checkerboard, opaque or translucent; the BadNets trigger.

Does not follow the object in the picture: see a sticker for that.

Gu, Dolan-Gavitt and Garg (2017), "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
https://arxiv.org/abs/1708.06733 (single bright pixel and small bright pattern near a corner).
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field

from badnets.triggers._base import Trigger, misfit

Corner = Literal["bottom_right", "bottom_left", "top_right", "top_left", "centre"]


class Patch(Trigger):
    """A `size` x `size` square, `margin` pixels from the edges of its corner, moved by (`dx`, `dy`) pixels right and down.

    `colour`: one grey level or one per channel, 0..255; `pattern`: "solid", "checkerboard" (colour and its complement
    alternate, starting with the colour at the top left) or "random" (levels drawn from `pattern_seed`).
    `opacity` 1 replaces the pixels, 0 changes nothing.
    """

    kind: Literal["patch"] = "patch"
    size: int = Field(3, ge=1)
    corner: Corner = "bottom_right"
    margin: int = Field(1, ge=0)
    dx: int = 0
    dy: int = 0
    colour: int | tuple[int, ...] = 255
    pattern: Literal["solid", "checkerboard", "random"] = "solid"
    pattern_seed: int = Field(0, ge=0)
    opacity: float = Field(1.0, ge=0.0, le=1.0)

    def box(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Row and column of the top left pixel."""
        _, height, width = shape
        if self.corner == "centre":
            return (height - self.size) // 2 + self.dy, (width - self.size) // 2 + self.dx
        top = self.margin if self.corner.startswith("top") else height - self.margin - self.size
        left = self.margin if self.corner.endswith("left") else width - self.margin - self.size
        return top + self.dy, left + self.dx

    def check(self, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        top, left = self.box(shape)
        if not (0 <= top <= height - self.size and 0 <= left <= width - self.size):
            raise misfit(f"a patch of {self.size} x {self.size} at row {top}, column {left}", "to lie inside the image", shape)
        levels = (self.colour,) if isinstance(self.colour, int) else self.colour
        if len(levels) not in (1, channels) or not all(0 <= level <= 255 for level in levels):
            raise misfit(f"a patch of colour {self.colour}", f"1 or {channels} levels in 0..255", shape)

    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        top, left = self.box(x_NCHW.shape[1:])
        window = x_NCHW[:, :, top : top + self.size, left : left + self.size]
        window += self.opacity * (self._pixels(x_NCHW.shape[1]) - window)
        return x_NCHW

    def _pixels(self, channels: int) -> np.ndarray:
        levels = (self.colour,) if isinstance(self.colour, int) else self.colour
        colour_C11 = np.broadcast_to(np.array(levels, dtype=np.float32), (channels,)).reshape(-1, 1, 1)
        square = (channels, self.size, self.size)
        if self.pattern == "solid":
            return np.broadcast_to(colour_C11, square)
        if self.pattern == "random":
            return np.random.default_rng(self.pattern_seed).integers(0, 256, square).astype(np.float32)
        odd_HW = np.indices((self.size, self.size)).sum(axis=0) % 2 == 1
        return np.where(odd_HW, 255 - colour_C11, colour_C11)

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """Same size and opacity; random grey levels at a random place anywhere in the image."""
        _, height, width = shape
        top, left = int(generator.integers(height - self.size + 1)), int(generator.integers(width - self.size + 1))
        seed = int(generator.integers(2**31))
        return self.but(corner="top_left", margin=0, dy=top, dx=left, pattern="random", pattern_seed=seed)
