"""Any PNG with an alpha channel, pasted at its own place and size: paint a trigger, plant it.

The file's pixels travel inside the configuration, so that a run's key depends on the picture and not on its path.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import stat
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field, model_validator

from badnets.core.errors import RefusedError, UsageError
from badnets.core.types import Scalar
from badnets.triggers._base import Trigger, misfit

PREFIX = "base64:"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE, MAX_BYTES = 1024, 16 * 2**20


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
            return {**fields, "png": PREFIX + base64.b64encode(_png(png)).decode()}
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
        with Image.open(io.BytesIO(base64.b64decode(self.png.removeprefix(PREFIX)))) as image:
            return np.asarray(image.convert("RGBA"), dtype=np.float32)

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


def _png(source: str | Path) -> bytes:
    """The bytes of a whole PNG of a bearable size, from base64 or from a file."""
    if isinstance(source, str) and source.startswith(PREFIX):
        name = "the embedded picture"
        try:
            data = base64.b64decode(source.removeprefix(PREFIX), validate=True)
        except ValueError as error:
            raise _refused(name) from error
    else:
        name, data = f"{Path(source).name!r:.80}", _read(Path(source))
    if not data.startswith(SIGNATURE) or len(data) > MAX_BYTES:
        raise _refused(name)
    # Before Pillow sees it: a huge picture makes it warn or raise in its own ways.
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    if max(width, height) > MAX_SIDE:
        raise RefusedError("E-PNG", f"{name} is {width} x {height}, at most {MAX_SIDE} is read.", hint="Scale it down.")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.convert("RGBA").load()
    except (UnidentifiedImageError, SyntaxError, ValueError, OSError) as error:
        raise _refused(name) from error
    return data


def _refused(name: str) -> RefusedError:
    return RefusedError("E-PNG", f"{name} is not a whole PNG image.", hint="Save it again as PNG with an alpha channel.")


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError("E-FILE", f"cannot read {str(path)!r:.200}: {why}.", hint="Give the path of a PNG file.") from error
