"""Any PNG with an alpha channel, pasted at its own place and size: paint a trigger, plant it.

The file's pixels travel inside the configuration, so that a run's key depends on the picture and not on its path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from badnets.core.types import Scalar
from badnets.triggers._base import Trigger, misfit
from badnets.triggers._png_file import embedded, pixels


class Painted(Trigger):
    """A picture over the image: `png` is a path when given by a person, base64 afterwards.

    A picture of the images' own size is laid over them; a smaller one is pasted with its top left pixel at (`top`, `left`),
    negative values counting from the bottom and right edges. Alpha and `opacity` multiply.
    """

    kind: Literal["painted"] = "painted"
    png: str = Field(strict=True)
    top: int = 0
    left: int = 0
    opacity: float = Field(1.0, ge=0.0, le=1.0)

    @model_validator(mode="before")
    @classmethod
    def _take_in(cls, fields: object) -> object:
        if isinstance(fields, dict) and isinstance(png := fields.get("png"), (str, Path)):
            return {**fields, "png": embedded(png)}
        return fields

    def check(self, shape: tuple[int, int, int]) -> None:
        picture_hw4 = self._picture()
        height, width = picture_hw4.shape[:2]
        top, left = self._place(shape)
        if top < 0 or left < 0 or top + height > shape[1] or left + width > shape[2]:
            raise misfit(f"a painted trigger of {height} x {width} at row {top}, column {left}", "to lie inside the image", shape)

    def _place(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        return (self.top if self.top >= 0 else shape[1] + self.top, self.left if self.left >= 0 else shape[2] + self.left)

    def _picture(self) -> np.ndarray:
        return pixels(self.png)

    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        channels = x_NCHW.shape[1]
        picture_hw4 = self._picture()
        rgb_chw = picture_hw4[..., :3].transpose(2, 0, 1)
        colour_chw = rgb_chw if channels == 3 else rgb_chw.mean(axis=0, keepdims=True)
        alpha_hw = picture_hw4[..., 3] / 255 * self.opacity
        top, left = self._place(x_NCHW.shape[1:])
        window = x_NCHW[:, :, top : top + alpha_hw.shape[0], left : left + alpha_hw.shape[1]]
        window += alpha_hw * (colour_chw - window)
        return x_NCHW

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """The same picture at a random place."""
        height, width = self._picture().shape[:2]
        top, left = (int(generator.integers(room + 1)) for room in (shape[1] - height, shape[2] - width))
        return self.but(top=top, left=left)

    def summary(self) -> dict[str, Scalar]:
        digest = hashlib.sha256(self.png.encode()).hexdigest()[:12]
        return {"kind": self.kind, "png": f"sha256 {digest}", "top": self.top, "left": self.left, "opacity": self.opacity}
