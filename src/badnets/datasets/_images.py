"""Decodes the bytes of one image of any size and mode to a small square of uint8 RGB, strictly: whatever is odd about it is refused.

Does not apply to moving pictures, and not to formats other than PNG, JPEG, BMP, WebP and PPM: fewer decoders, less to attack. Files of
others go through `_decoder`, which does this in a process that can reach nothing.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from badnets.core.errors import RefusedError
from badnets.datasets._open import MIB, read_bounded, reason, show

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
MAX_PIXELS = 89_478_485
"""Pillow's own mark for a decompression bomb; beyond it Pillow warns, we refuse."""
_MAX_BYTES = 128 * MIB
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, LookupError, TypeError, struct.error, zlib.error)
"""What Pillow's decoders raise for damaged files."""


_BAND = 1 << 20
"""Pixels of 16 bits that are scaled at once."""
_LATE = ("WebPImagePlugin", "MpoImagePlugin", "TiffImagePlugin", "ImagePalette")
"""What Pillow imports when it meets such an image, and for EXIF."""


@final
class BadImageError(Exception):
    """What is wrong with an image, in a few printable words."""


def load_decoders() -> None:
    """Imports all that `decode` may need, for a process that can open no file later."""
    Image.preinit()
    for name in _LATE:
        importlib.import_module(f"PIL.{name}")


def read_image(path: Path) -> bytes:
    """The bytes of an image file, which nothing has looked at. Raises RefusedError."""
    content = read_bounded(path, _MAX_BYTES)
    if not content:
        raise refuse_image(path, "expected an image, got an empty file")
    return content


def refuse_image(path: Path, message: str) -> RefusedError:
    return RefusedError("E-IMAGE", f"{show(path)}: {message}.", hint="Replace it, or move it out of the folder.")


def decode(content: bytes | bytearray, size: int) -> np.ndarray:
    """The image as (size, size, 3) uint8: upright by its EXIF, transparency laid on white, 16 bits scaled to 8, squeezed to a square.

    Raises BadImageError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(image)
                image.draft(image.mode, (4 * size, 4 * size))
                return _square(image, size)
        except UnidentifiedImageError as error:
            raise BadImageError(f"expected {', '.join(FORMATS)}, got something else") from error
        except Image.DecompressionBombError as error:
            raise BadImageError(f"expected at most {MAX_PIXELS:,} pixels, got a decompression bomb") from error
        except _BROKEN as error:
            raise BadImageError(f"damaged image: {reason(error)}") from error


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"expected at most {MAX_PIXELS:,} pixels, got {image.width} x {image.height}")
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise BadImageError(f"expected a still image, got {frames} frames")


def _square(image: Image.Image, size: int) -> np.ndarray:
    upright = _eight_bit(ImageOps.exif_transpose(image))
    if "A" in upright.getbands() or "transparency" in upright.info:
        colour = upright.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        upright = Image.alpha_composite(white, colour)
    small = upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8).copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey comes as I;16 (PNG) or I (PPM), which Pillow's `convert` clips instead of scaling."""
    if image.mode.startswith("I"):
        grey_HW = np.empty((image.height, image.width), np.uint8)
        rows = max(1, _BAND // image.width)
        for top in range(0, image.height, rows):
            band = image.crop((0, top, image.width, min(top + rows, image.height)))
            grey_HW[top : top + rows] = (np.clip(np.asarray(band).astype(np.int64), 0, 65_535) * 255 + 32_767) // 65_535
        return Image.fromarray(grey_HW)
    if image.mode == "F":
        raise BadImageError("expected 8 or 16 bits a channel, got floating point")
    return image
