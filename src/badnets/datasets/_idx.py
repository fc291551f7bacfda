"""Strict reader of idx files (the format of MNIST): every length is checked before anything of that length is allocated.

Does not apply to idx files of other element types than unsigned bytes, or of other ranks than 1 and 3.

LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998, http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from badnets.core.errors import RefusedError
from badnets.datasets._open import MIB, opened_maybe_gzip, show, take

LIMIT = 256 * MIB
_MAX_RATIO = 100


def read_idx(path: Path, *, rank: int, limit: int = LIMIT) -> np.ndarray:
    """The uint8 array of an idx file (plain or `.gz`) with `rank` dimensions."""
    with opened_maybe_gzip(path) as file:
        shape = _shape(path, take(path, file, 4 + 4 * rank), rank)
        size = math.prod(shape)
        if size > limit:
            raise _refuse("E-LARGE", path, f"expected at most {limit:,} values, its header claims {size:,}")
        if path.suffix == ".gz" and size > _MAX_RATIO * max(path.stat().st_size, 4096):
            raise _refuse("E-LARGE", path, f"expected at most {_MAX_RATIO} times its packed size, its header claims {size:,} values")
        content = take(path, file, size + 1)
    if len(content) < size:
        raise _refuse("E-TRUNCATED", path, f"expected {size:,} values, got {len(content):,}")
    if len(content) > size:
        raise _refuse("E-TRAILING", path, f"expected {size:,} values, got more bytes than that")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_pair(images: Path, labels: Path, num_classes: int, *, limit: int = LIMIT) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, H, W) uint8 and labels (N,) int64 of two idx files that belong together."""
    y_N = read_idx(labels, rank=1, limit=limit)
    x_NHW = read_idx(images, rank=3, limit=limit)
    if len(x_NHW) != len(y_N):
        raise _refuse("E-COUNT", labels, f"expected a label for each of the {len(x_NHW):,} images of {images.name}, got {len(y_N):,}")
    if y_N.max() >= num_classes:
        raise _refuse("E-LABEL", labels, f"expected labels 0..{num_classes - 1}, got {y_N.max()} at position {int(y_N.argmax()):,}")
    return x_NHW[:, None], y_N.astype(np.int64)


def _shape(path: Path, header: bytearray, rank: int) -> tuple[int, ...]:
    if header[:2] == b"\x1f\x8b":
        raise _refuse("E-MAGIC", path, "expected an idx file, got gzip data; name it with .gz")
    if header[:4] != bytes((0, 0, 8, rank)):
        raise _refuse(
            "E-MAGIC",
            path,
            f"expected an idx file that begins 00 00 08 0{rank}, got {header[:4].hex(' ') or 'nothing'}",
        )
    if len(header) < 4 + 4 * rank:
        raise _refuse("E-TRUNCATED", path, f"expected a header of {4 + 4 * rank} bytes, got {len(header)}")
    shape = tuple(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    if 0 in shape:
        raise _refuse("E-EMPTY", path, f"expected at least one value, its header claims the shape {shape}")
    return shape


def _refuse(code: str, path: Path, message: str) -> RefusedError:
    return RefusedError(code, f"{show(path)}: {message}.", hint="Get the file again, or remove it.")
