"""uint8 images as PNG: bytes, and base64 for a report. Not for files of strangers: it only writes.

Shapes: C channels (1 grey, 3 or more colour, of which `with_alpha` takes the fourth for opacity), H rows, W columns.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def png(pixels_CHW: np.ndarray, *, with_alpha: bool = False) -> str:
    """A uint8 image as PNG in base64."""
    return base64.b64encode(png_bytes(pixels_CHW, with_alpha=with_alpha)).decode()


def png_bytes(pixels_CHW: np.ndarray, *, with_alpha: bool = False) -> bytes:
    """A uint8 image (grey or colour) as PNG."""
    from PIL import Image

    pixels_HWC = pixels_CHW.transpose(1, 2, 0)
    image = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] < 3 else pixels_HWC[..., : 4 if with_alpha else 3])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
