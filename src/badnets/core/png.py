"""uint8 images as PNG: bytes, and base64 for a report. Not for files of strangers: it only writes.

Shapes: C channels (1 grey, 3 or more colour), H rows, W columns.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def png(pixels_CHW: np.ndarray) -> str:
    """A uint8 image as PNG in base64."""
    return base64.b64encode(png_bytes(pixels_CHW)).decode()


def transparent(pixels_4HW: np.ndarray) -> str:
    """A uint8 image whose fourth channel is alpha, as PNG in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(pixels_4HW.transpose(1, 2, 0))
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def png_bytes(pixels_CHW: np.ndarray) -> bytes:
    """A uint8 image (grey or colour) as PNG."""
    from PIL import Image

    pixels_HWC = pixels_CHW.transpose(1, 2, 0)
    image = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] < 3 else pixels_HWC[..., :3])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
