"""A folder of your own images: one sub-folder a class, any size and mode (PNG, JPEG, BMP, WebP, PPM), made square.

Does not apply to nested folders (train/cat/...): name the folder whose sub-folders are the classes. Images are squeezed, not cropped;
they stay grey when none has colour. Hidden files are passed over; any other file that is no sound image stops the reading.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from badnets.core.errors import BadnetsError, RefusedError
from badnets.datasets._base import Dataset, Raw
from badnets.datasets._decoder import Decoder
from badnets.datasets._images import SUFFIXES
from badnets.datasets._open import is_dir, reason, show
from badnets.datasets._places import one_folder

MIN_PER_CLASS = 10
_MAX_BYTES = 4 << 30
_MAX_CLASSES = 10_000
_CLUTTER = ("Thumbs.db", "desktop.ini", "__MACOSX")
_LAYOUT = "Name the folder whose sub-folders are the classes, each with its images."


class Folder(Dataset):
    """Your own images, resized to `size` x `size`; classes are named by their folders (numbers in numeric order)."""

    kind: Literal["folder"] = "folder"
    size: Annotated[int, Field(ge=8, le=512)] = 32

    def where(self, data: Path | None = None) -> str | None:
        return str(data) if data is not None and is_dir(data) else None

    def _raw(self, data: Path | None, download: bool) -> Raw:
        root = one_folder(data)
        found = _scan(root)
        paths = [path for members in found.values() for path in members]
        if len(paths) * 3 * self.size**2 > _MAX_BYTES:
            raise RefusedError(
                "E-LARGE", f"{len(paths):,} images of {self.size} x {self.size} need over {_MAX_BYTES >> 30} GiB.", hint="Lower size."
            )
        x_NCHW = _decode_all(root, paths, self.size)
        if (x_NCHW[:, :1] == x_NCHW[:, 1:]).all():
            x_NCHW = x_NCHW[:, :1].copy()
        y_N = np.repeat(np.arange(len(found)), [len(members) for members in found.values()])
        empty = np.empty((0, *x_NCHW.shape[1:]), np.uint8), np.empty(0, np.int64)
        return Raw(x_NCHW, y_N, *empty, tuple(found), source=show(root), groups=_copies(x_NCHW))


def _scan(root: Path) -> dict[str, list[Path]]:
    """Class name -> its files, in an order that does not depend on the file system or the locale."""
    entries = _entries(root)
    stray = [path for path in entries if path.suffix.lower() in SUFFIXES and not is_dir(path)]
    if stray:
        raise RefusedError("E-FOLDER", f"{show(stray[0])}: expected only class folders here, got {_count(stray, 'image')}.", hint=_LAYOUT)
    classes = sorted((path for path in entries if is_dir(path)), key=lambda path: _numeric(path.name))
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise RefusedError("E-FOLDER", f"{show(root)}: expected at least 2 class folders, got {len(classes)}.", hint=_LAYOUT)
    unprintable = [path for path in classes if not path.name.isprintable()]
    if unprintable:
        raise RefusedError(
            "E-CLASS", f"{show(unprintable[0])}: expected a printable class name ({_count(unprintable, 'such folder')}).", hint="Rename it."
        )
    found = {path.name: _entries(path) for path in classes}
    nested = [path for members in found.values() for path in members if is_dir(path)]
    if nested:
        raise RefusedError(
            "E-FOLDER", f"{show(nested[0])}: expected images in a class folder, got {_count(nested, 'folder')}.", hint=_LAYOUT
        )
    few = [path for path in classes if len(found[path.name]) < MIN_PER_CLASS]
    if few:
        got = len(found[few[0].name]) or "none (it is empty)"
        raise RefusedError(
            "E-FEW",
            f"{show(few[0])}: expected at least {MIN_PER_CLASS} images in a class, got {got} ({_count(few, 'such class')}).",
            hint="Add images, or move the folder away.",
        )
    return found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files, ordered by the bytes of the name."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (plain names are wanted)
    except OSError as error:
        raise RefusedError("E-FILE", f"{show(folder)} cannot be read: {reason(error)}.", hint="Check its permissions.") from error
    return [folder / name for name in sorted(names, key=os.fsencode) if not name.startswith(".") and name not in _CLUTTER]


def _numeric(name: str) -> tuple[int, bytes]:
    """Class 2 comes before class 10."""
    return (int(name) if name.isascii() and name.isdigit() and len(name) < 19 else 1 << 63), os.fsencode(name)


def _decode_all(root: Path, paths: list[Path], size: int) -> np.ndarray:
    from tqdm import tqdm

    x_NHWC = np.empty((len(paths), size, size, 3), np.uint8)
    refused: list[BadnetsError] = []
    with Decoder() as decoder:
        # disable=None: no bar where stderr is no terminal
        for row, path in enumerate(tqdm(paths, desc="decoding", unit="image", leave=False, disable=None)):
            try:
                x_NHWC[row] = decoder.decode(path, size)
            except RefusedError as error:
                refused.append(error)
    if refused:
        first = refused[0]
        raise RefusedError(first.code, f"{first.message} Bad files: {len(refused)} of {len(paths)} in {show(root)}.", hint=first.hint)
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


def _copies(x_NCHW: np.ndarray) -> np.ndarray:
    """A number for each different image, so that copies of one image stay in one split."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(image.tobytes(), len(seen)) for image in x_NCHW])


def _count(items: list[Path], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 'es' if what.endswith('s') else 's'}"
