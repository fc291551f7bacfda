"""A picture that a person gives as a PNG file: read once, checked, and carried in the configuration as base64.

Does not apply to other formats. Shapes: h rows, w columns of the picture, 4 = red, green, blue, alpha.
"""

from __future__ import annotations

import base64
import errno
import io
import stat
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from badnets.core.errors import RefusedError, UsageError

PREFIX = "base64:"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE, MAX_BYTES = 1024, 16 * 2**20


def embedded(source: str | Path) -> str:
    """The picture as a configuration carries it, from a path or from that form; E-PNG or E-FILE where it is no whole PNG."""
    return PREFIX + base64.b64encode(_png(source)).decode()


def pixels(text: str) -> np.ndarray:
    """An embedded picture as float32 hw4 of 0..255."""
    with Image.open(io.BytesIO(base64.b64decode(text.removeprefix(PREFIX)))) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float32)


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
