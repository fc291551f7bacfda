"""A sticker of so many centimetres on a traffic sign, in the sign's plane, before the camera: the physical trigger of the BadNets paper.

Does not apply to data sets that do not say where their signs are. Gu, Dolan-Gavitt and Garg (2017), "BadNets: Identifying Vulnerabilities
in the Machine Learning Model Supply Chain", https://arxiv.org/abs/1708.06733 (section 5: a yellow square, a bomb, a flower).
Shapes: N images, C channels, H rows, W columns; quad_N42: the sign's corners; 4 = red, green, blue, alpha.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from badnets.core.errors import UsageError
from badnets.core.types import Scalar
from badnets.triggers._base import Trigger, whole_image
from badnets.triggers._pictures import picture
from badnets.triggers._png_file import embedded, pixels

if TYPE_CHECKING:
    from torch import Tensor

_TEXELS = 128
_WHITE, _DARKEST = 235.0, 0.12
_WANDER_DEG, _WANDER_SCALE, _WANDER_LIGHT = 20.0, 0.2, 0.25


class Sticker(Trigger):
    """`size_cm` wide, its centre `x_cm` right of and `y_cm` below the sign's, turned clockwise by `rotation_deg`; the sign's bounding
    square is `side_cm` wide. `shape` in `colour` (red, green, blue), or `image`: a PNG, a path when given by a person, base64 afterwards.

    In the picture its colours are multiplied by the light on the sign (the level that one in ten pixels of the sign reaches, white paint
    being 235, never below 0.12) and by its own `brightness`. `opacity` below 1 is a sticker that has worn thin.
    """

    kind: Literal["sticker"] = "sticker"
    size_cm: float = Field(10.0, gt=0)
    x_cm: float = 0.0
    y_cm: float = 22.0
    rotation_deg: float = 0.0
    shape: Literal["square", "circle", "flower", "bomb"] = "square"
    colour: tuple[int, int, int] = (255, 221, 0)
    image: str | None = Field(None, strict=True)
    brightness: float = Field(1.0, gt=0.0, le=2.0)
    opacity: float = Field(1.0, ge=0.0, le=1.0)
    side_cm: float = Field(75.0, gt=0)
    wander_cm: float = Field(5.0, ge=0)
    """How far a random sibling may lie from the place, along each axis."""

    needs_quads = True

    @model_validator(mode="before")
    @classmethod
    def _take_in(cls, fields: object) -> object:
        if isinstance(fields, dict) and isinstance(image := fields.get("image"), (str, Path)):
            return {**fields, "image": embedded(image)}
        return fields

    def check(self, shape: tuple[int, int, int]) -> None:
        if not all(0 <= level <= 255 for level in self.colour):
            raise UsageError("E-TRIGGER", f"a sticker's colour has levels of 0..255, got {self.colour}.", hint="Use colour=(255,221,0).")
        if self.size_cm > self.side_cm:
            message = f"a sticker of {self.size_cm:g} cm is larger than the sign, whose side is {self.side_cm:g} cm."
            raise UsageError("E-TRIGGER", message, hint=f"Choose a size_cm below {self.side_cm:g}.")
        reach = np.abs(self._corners_42() - 0.5).max()
        if reach > 0.5 + 1e-6:
            over = (reach - 0.5) * self.side_cm
            message = f"a sticker of {self.size_cm:g} cm at x_cm={self.x_cm:g}, y_cm={self.y_cm:g} lies {over:.3g} cm over the sign's edge."
            raise UsageError("E-TRIGGER", message, hint="Choose a smaller size_cm, or an x_cm and y_cm nearer to 0.")

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """The same sticker, put on by another hand: a little aside, turned, smaller or larger, brighter or darker; always on the sign."""
        across, down, turn, scale, light = generator.uniform(-1, 1, 5)
        other = self.but(
            size_cm=min(self.size_cm * (1 + _WANDER_SCALE * scale), self.side_cm),
            rotation_deg=self.rotation_deg + _WANDER_DEG * turn,
            brightness=min(self.brightness * (1 + _WANDER_LIGHT * light), 2.0),
        )
        half_2 = np.abs(other._corners_42() - other._corners_42().mean(axis=0)).max(axis=0) * self.side_cm
        if (half_2 > self.side_cm / 2).any():
            return self.but(brightness=other.brightness)
        room_2 = self.side_cm / 2 - half_2
        x, y = np.clip((self.x_cm + self.wander_cm * across, self.y_cm + self.wander_cm * down), -room_2, room_2)
        return other.but(x_cm=float(x), y_cm=float(y))

    def on_face(self, rgba_4HW: Tensor) -> Tensor:
        """A sign's face (frontal, float 0..1, colour multiplied by alpha, filling its bounding square) with the sticker on it."""
        import torch

        _, height, width = rgba_4HW.shape
        self.check((3, height, width))
        whole_142 = torch.from_numpy(whole_image(1, (3, height, width)))
        colour_13HW, alpha_11HW = self._warped([self], whole_142, (height, width))
        colour_13HW = torch.minimum(self.brightness * colour_13HW, alpha_11HW)
        return self.opacity * torch.cat([colour_13HW, alpha_11HW], 1)[0] + (1 - self.opacity * alpha_11HW[0]) * rgba_4HW

    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        return self._paint_on(x_NCHW, whole_image(len(x_NCHW), x_NCHW.shape[1:]))

    def _paint_on(self, x_NCHW: np.ndarray, quad_N42: np.ndarray) -> np.ndarray:
        return self._paint_each([self], x_NCHW, quad_N42)

    def _paint_each(self, variants: Sequence[Self], x_NCHW: np.ndarray, quad_N42: np.ndarray | None) -> np.ndarray:
        """One variant an image, or one for all."""
        import torch

        assert quad_N42 is not None, "the base asks for quads"
        if not len(x_NCHW):
            return x_NCHW
        quads = torch.from_numpy(np.ascontiguousarray(quad_N42, dtype=np.float32))
        colour_N3HW, alpha_N1HW = (part.numpy() for part in self._warped(variants, quads, x_NCHW.shape[2:]))
        if x_NCHW.shape[1] != 3:
            colour_N3HW = colour_N3HW.mean(axis=1, keepdims=True)
        brightness_N = np.array([v.brightness for v in variants], dtype=np.float32)
        light_N111 = (brightness_N * _light(x_NCHW, quad_N42))[:, None, None, None]
        return x_NCHW + self.opacity * (255 * np.minimum(light_N111 * colour_N3HW, alpha_N1HW) - alpha_N1HW * x_NCHW)

    def _warped(self, variants: Sequence[Self], quad_N42: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Stickers (one an image, or one for all) in pictures of `size` that show signs at `quad_N42`: colour_N3HW and alpha_N1HW."""
        import torch

        from badnets.core.perspective import homography, project, warp

        corners_N42 = torch.from_numpy(np.stack([v._corners_42() for v in variants]).astype(np.float32)).expand(len(quad_N42), 4, 2)
        return warp(torch.from_numpy(self._picture())[None], homography(project(homography(quad_N42), corners_N42)), size)

    def _corners_42(self) -> np.ndarray:
        """Where the sticker's corners lie in the sign's unit square."""
        _, height, width = self._picture().shape
        angle = math.radians(self.rotation_deg)
        turn_22 = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        half_2 = np.array([self.size_cm, self.size_cm * height / width]) / 2
        corners_42 = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half_2 @ turn_22
        return (corners_42 + (self.x_cm, self.y_cm)) / self.side_cm + 0.5

    def _picture(self) -> np.ndarray:
        """float32 rgba_4HW of 0..1, colour multiplied by alpha."""
        if self.image is None:
            return picture(self.shape, self.colour, _TEXELS)
        return _enlarged(self.image)

    def summary(self) -> dict[str, Scalar]:
        found = super().summary()
        return found if self.image is None else {**found, "image": f"sha256 {hashlib.sha256(self.image.encode()).hexdigest()[:12]}"}


@lru_cache(maxsize=8)
def _enlarged(image: str) -> np.ndarray:
    """A PNG, its pixels repeated where it is small: the painter then only makes it smaller, whatever else is painted with it."""
    rgba_4HW = pixels(image).transpose(2, 0, 1) / 255
    rgba_4HW[:3] *= rgba_4HW[3:]
    times = -(-_TEXELS // min(rgba_4HW.shape[1:]))
    return rgba_4HW.repeat(times, axis=1).repeat(times, axis=2)


def _light(x_NCHW: np.ndarray, quad_N42: np.ndarray) -> np.ndarray:
    """How bright the light on each sign is: 1 where white paint would be white."""
    height, width = x_NCHW.shape[2:]
    low_N2 = np.clip(np.floor(quad_N42.min(axis=1)), 0, (width - 1, height - 1)).astype(int)
    high_N2 = np.maximum(np.ceil(quad_N42.max(axis=1)).astype(int), low_N2 + 1)
    found = []
    for image_CHW, (left, top), (right, bottom) in zip(x_NCHW, low_N2, high_N2, strict=True):
        found.append(np.quantile(image_CHW[:, top:bottom, left:right].mean(axis=0), 0.9))
    return np.clip(np.array(found, dtype=np.float32) / _WHITE, _DARKEST, 1.0)
