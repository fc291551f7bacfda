"""Decodes one image file of any size and mode to a small square of uint8 RGB, strictly: whatever is odd about it is refused by name.

Does not apply to moving pictures, and not to formats other than PNG, JPEG, BMP, WebP and PPM: fewer decoders, less to attack.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

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


def decode(path: Path, size: int) -> np.ndarray:
    """The image as (size, size, 3) uint8: upright by its EXIF, transparency laid on white, 16 bits scaled to 8, squeezed to a square."""
    content = read_bounded(path, _MAX_BYTES)
    if not content:
        raise _refuse(path, "expected an image, got an empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(path, image)
                image.draft(image.mode, (4 * size, 4 * size))
                return _square(path, image, size)
        except UnidentifiedImageError as error:
            raise _refuse(path, f"expected {', '.join(FORMATS)}, got something else") from error
        except Image.DecompressionBombError as error:
            raise _refuse(path, f"expected at most {MAX_PIXELS:,} pixels, got a decompression bomb") from error
        except _BROKEN as error:
            raise _refuse(path, f"damaged image: {reason(error)}") from error


def _check(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _refuse(path, f"expected at most {MAX_PIXELS:,} pixels, got {image.width} x {image.height}")
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise _refuse(path, f"expected a still image, got {frames} frames")


def _square(path: Path, image: Image.Image, size: int) -> np.ndarray:
    upright = _eight_bit(path, ImageOps.exif_transpose(image))
    if "A" in upright.getbands() or "transparency" in upright.info:
        colour = upright.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        upright = Image.alpha_composite(white, colour)
    small = upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8).copy()


def _eight_bit(path: Path, image: Image.Image) -> Image.Image:
    """16-bit grey comes as I;16 (PNG) or I (PPM), which Pillow's `convert` clips instead of scaling."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((np.clip(values, 0, 65_535) * 255 + 32_767) // 65_535).astype(np.uint8))
    if image.mode == "F":
        raise _refuse(path, "expected 8 or 16 bits a channel, got floating point")
    return image


def _refuse(path: Path, message: str) -> RefusedError:
    return RefusedError("E-IMAGE", f"{show(path)}: {message}.", hint="Replace it, or move it out of the folder.")
