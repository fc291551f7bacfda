"""Images without labels, from a flat folder: what detectors look at in place of the clean images of a data set.

Read as the data set `folder` reads its images, with the same limits: squeezed to the size that the net reads, and any file that is no sound
image stops the reading. Where a detector wants labels, to take images of all classes alike, the net's own answers stand in for them: they
say nothing about how often the net is right. Not for images in class folders, which have labels.
Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

import numpy as np

from badnets.core.config import Config
from badnets.core.errors import RefusedError
from badnets.datasets._base import ImageSet, Split
from badnets.datasets._images import SUFFIXES
from badnets.datasets._open import is_dir, show
from badnets.datasets._places import _check_folder
from badnets.datasets.folder import _decode_all, _entries
from badnets.intake.reasons import refuse

if TYPE_CHECKING:
    from badnets.nets._base import Network

FEWEST = 20
"""Of fewer different images the 95 % that an inverted trigger has to move are all of them, so that one odd image decides."""
MOST = 1000
"""Files that are read, evenly taken where there are more; detectors look at about a hundred, some of each class."""

Shape = tuple[int, int, int]


class Handed(Config):
    """Where images lie (the bytes of the path as in an address), and the SHA-256 that they had when the work began."""

    folder: str
    sha256: str

    def open(self, shape: Shape) -> Unlabelled:
        """The images again, in a worker. Raises RefusedError as `read_unlabelled` does, and E-CHANGED where they are others by now."""
        return _again(self.folder, self.sha256, shape)


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Different images, uint8 in an order that does not depend on names. `num_files`: in the folder; `num_read`: of those, the rest of
    which beyond MOST was left out; what is missing from these are copies. `sha256`: of shape and pixels."""

    folder: Path
    x_NCHW: np.ndarray
    num_files: int
    num_read: int

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(f"unlabelled {self.x_NCHW.shape}\n".encode() + self.x_NCHW.tobytes()).hexdigest()

    @property
    def handed(self) -> Handed:
        """What a worker is told."""
        return Handed(folder=quote(os.fsencode(self.folder.absolute())), sha256=self.sha256)

    def in_place_of_budget(self, data: ImageSet, network: Network) -> ImageSet:
        """The data set with these as the defender's images; their labels are what the net says of them."""
        import torch

        y_N = network.predict_logits(torch.from_numpy(self.x_NCHW)).argmax(dim=1).cpu().numpy()
        return replace(data, budget=Split(self.x_NCHW, y_N, np.arange(len(y_N))))


def looks_flat(folder: Path) -> bool:
    """Whether a folder holds images and nothing else, as far as names tell; False where nobody can look, which reading it will say."""
    try:
        entries = _entries(folder) if is_dir(folder) else []
    except RefusedError:
        return False
    return bool(entries) and all(path.suffix.lower() in SUFFIXES and not is_dir(path) for path in entries)


def read_unlabelled(folder: Path, shape: Shape) -> Unlabelled:
    """The images of a flat folder for nets that read `shape`.

    Raises UsageError (E-DATA: no folder) and RefusedError: E-FOLDER (sub-folders), E-FEW, E-SHAPE (colour for a grey net), and what
    stops the data set `folder`, such as E-IMAGE.
    """
    channels, height, width = shape
    assert channels in (1, 3), f"images have 1 or 3 channels, not {channels}"
    assert height == width, f"every data set is square, not {height} x {width}"
    _check_folder("--images", folder)
    paths = _flat(folder)
    if not paths:
        raise _few(folder, "none (it is empty)")
    taken = paths if len(paths) <= MOST else [paths[i] for i in np.linspace(0, len(paths) - 1, MOST).round().astype(int)]
    x_NCHW = _decode_all(folder, taken, height)
    if channels == 1:
        x_NCHW = _grey(folder, taken, x_NCHW)
    different_NCHW = np.unique(x_NCHW.reshape(len(x_NCHW), -1), axis=0).reshape(-1, *x_NCHW.shape[1:])
    if len(different_NCHW) < FEWEST:
        raise _few(folder, f"{len(different_NCHW)} (in {len(paths):,} files)")
    return Unlabelled(folder, different_NCHW, len(paths), len(taken))


@lru_cache(maxsize=1)
def _again(folder: str, expected: str, shape: Shape) -> Unlabelled:
    path = Path(os.fsdecode(unquote_to_bytes(folder)))
    found = read_unlabelled(path, shape)
    if found.sha256 != expected:
        raise refuse("E-CHANGED", f"{show(path)}: its images are not those any more that they were when the scan began")
    return found


def _flat(folder: Path) -> list[Path]:
    """The files of a folder that has no folders in it."""
    entries = _entries(folder)
    folders = [path for path in entries if is_dir(path)]
    if not folders:
        return entries
    beside = len(entries) - len(folders)
    got = f"{len(folders):,} of those" + (f" beside {beside:,} files" if beside else "")
    hint = "Put the images into one folder." if beside else "Images in class folders have labels: hand them over with --data."
    raise RefusedError("E-FOLDER", f"{show(folders[0])}: expected images without labels and no folders, got {got}.", hint=hint)


def _few(folder: Path, got: str) -> RefusedError:
    return RefusedError("E-FEW", f"{show(folder)}: expected at least {FEWEST} different images, got {got}.", hint="Add images.")


def _grey(folder: Path, paths: list[Path], x_NCHW: np.ndarray) -> np.ndarray:
    """One channel of images none of which has colour."""
    colour_N = (x_NCHW != x_NCHW[:, :1]).any(axis=(1, 2, 3))
    if not colour_N.any():
        return x_NCHW[:, :1]
    first = paths[int(colour_N.argmax())].name
    got = f"{int(colour_N.sum()):,} of {len(paths):,} have colour, the first {show(first)}"
    what = f"{show(folder)}: expected grey images, as the net reads them; {got}."
    raise RefusedError("E-SHAPE", what, hint="Save them as grey, in the way in which the net is given them, and hand over the copies.")
