"""GTSRB: German traffic signs of 43 classes as 32x32 colour images; the setting of the BadNets paper's stop-sign attack.

Does not apply to downloads: it is read from `gtsrb32.npz` or from the official folders, and put in place by hand. Training and budget
are split by track (the frames of one drive past one sign), and track 23 of class 14 is left out: its frames are in the official test part.

Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer", Neural Networks 32, 2012, https://doi.org/10.1016/j.neunet.2012.02.016
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from badnets.core.errors import RefusedError
from badnets.datasets._base import Raw
from badnets.datasets._images import decode
from badnets.datasets._located import LocatedDataset
from badnets.datasets._names import GTSRB
from badnets.datasets._npz import read_npz
from badnets.datasets._open import MIB, exists, is_dir, read_bounded, show

_NPZ = "gtsrb32.npz"
_ARRAYS = {"x_train": ("|u1", 4), "y_train": ("|u1", 1), "track_train": ("<u2", 1), "x_test": ("|u1", 4), "y_test": ("|u1", 1)}
_TRAINING = ("Final_Training/Images", "Training")
_TESTING = ("Final_Test/Images", "Testing")
_ANSWERS = "GT-final_test.csv"
_SIDE = 32
_LEAKED = (14, 23)
_TRACKS = 1 << 16
_MAX_FILES = 100_000


Country = Literal["all", "first", "second"]
_BORDER = 22
_CONTENT: dict[Country, str] = {
    "first": "2ff6c33c2c8c21c0a969551920ec72be28ce242988d2b652b8d6118ad333a164",
    "second": "cc5c97c3b55b2380bbdf12f7e9c956612a3bc62e0dfac6c2700cdcb6e2799ccf",
}
"""Hashes of the classes below the border and of the others, taken from content of the hash below."""


class Gtsrb(LocatedDataset):
    """Traffic signs: every third frame of each training track in the npz file, every frame in the official folders.

    `country`: all classes, or only the first 22 or the other 21, as if they were the signs of two countries.
    """

    kind: Literal["gtsrb"] = "gtsrb"
    country: Country = "all"
    content: ClassVar[str | None] = "f8c0a16dcdf5b826b73b159ae6edb74753a089011c3b6bbcaea22a9a0ddce382"
    licence: ClassVar[str] = "none stated by its authors"
    subfolders: ClassVar[tuple[str, ...]] = ("GTSRB",)
    wanted: ClassVar[str] = f"{_NPZ}, or the official Final_Training and Final_Test folders,"

    @property
    def identity(self) -> str | None:
        return _CONTENT.get(self.country, self.content)

    def _has(self, folder: Path) -> bool:
        return exists(folder / _NPZ) or _training(folder) is not None

    def _read(self, folder: Path) -> Raw:
        if exists(folder / _NPZ):
            arrays, pinned = _from_npz(folder / _NPZ), True
        else:
            arrays, pinned = _from_folders(folder), False
        x_train, y_train, track_N, x_test, y_test = arrays
        classes = {"all": slice(None), "first": slice(_BORDER), "second": slice(_BORDER, None)}[self.country]
        first = classes.start or 0
        train, test = (np.isin(y, range(len(GTSRB))[classes]) for y in (y_train, y_test))
        x_train, y_train, track_N, x_test, y_test = x_train[train], y_train[train], track_N[train], x_test[test], y_test[test]
        groups = y_train.astype(np.int64) * _TRACKS + track_N
        return Raw(
            np.ascontiguousarray(x_train.transpose(0, 3, 1, 2)),
            y_train.astype(np.int64) - first,
            np.ascontiguousarray(x_test.transpose(0, 3, 1, 2)),
            y_test.astype(np.int64) - first,
            GTSRB[classes],
            source=show(folder) if pinned else f"{show(folder)} (official folders; no published hash of their pixels at {_SIDE}x{_SIDE})",
            groups=groups,
            left_out=np.flatnonzero(groups == _LEAKED[0] * _TRACKS + _LEAKED[1]),
            pinned=pinned,
        )


def _from_npz(path: Path) -> tuple[np.ndarray, ...]:
    found = read_npz(path, _ARRAYS)
    for part in ("train", "test"):
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        if x.shape[1:] != (_SIDE, _SIDE, 3) or len(x) != len(y):
            raise _refuse("E-SHAPE", path, f"expected x_{part} of shape ({len(y)}, {_SIDE}, {_SIDE}, 3), got {x.shape}")
        if y.max() >= len(GTSRB):
            raise _refuse("E-LABEL", path, f"expected labels 0..{len(GTSRB) - 1}, got {y.max()} in y_{part}")
    if len(found["track_train"]) != len(found["y_train"]):
        raise _refuse("E-COUNT", path, f"expected {len(found['y_train'])} track numbers, got {len(found['track_train'])}")
    return tuple(found[name] for name in _ARRAYS)


def _training(folder: Path) -> Path | None:
    """The official training folder; class folders without the table that names the frames are a user's own images."""
    return next((folder / name for name in _TRAINING if exists(folder / name / "00000" / "GT-00000.csv")), None)


def _from_folders(folder: Path) -> tuple[np.ndarray, ...]:
    training = _training(folder)
    testing = next((folder / name for name in _TESTING if is_dir(folder / name)), None)
    if training is None or testing is None:
        raise _refuse("E-MISSING", folder, f"expected the test images in {_TESTING[0]}, they are missing")
    x, y, tracks = [], [], []
    for label in range(len(GTSRB)):
        frames = sorted((training / f"{label:05}").glob("?????_?????.ppm"))
        if not frames:
            raise _refuse("E-MISSING", training, f"expected images in {label:05}, there are none")
        for frame in frames:
            x.append(decode(frame, _SIDE))
            y.append(label)
            tracks.append(_number(training, frame.name[:5], _TRACKS))
    answers = next((path for path in (testing / _ANSWERS, folder / _ANSWERS) if exists(path)), None)
    if answers is None:
        raise _refuse("E-MISSING", testing, f"expected {_ANSWERS} with the classes of the test images, it is missing")
    names, labels = _answers(answers)
    x_test = [decode(testing / name, _SIDE) for name in names]
    return np.stack(x), np.array(y), np.array(tracks), np.stack(x_test), np.array(labels)


def _answers(path: Path) -> tuple[list[str], list[int]]:
    """File names and classes of the official table: a header, then `Filename;...;ClassId` with names that are names only."""
    lines = read_bounded(path, 16 * MIB).decode("latin-1").splitlines()
    header = lines[0].split(";") if lines else []
    if header[:1] != ["Filename"] or header[-1:] != ["ClassId"] or not 1 < len(lines) <= _MAX_FILES:
        raise _refuse("E-MAGIC", path, f"expected the columns Filename;...;ClassId and rows, got {show(';'.join(header)) or 'nothing'}")
    names, labels = [], []
    for line in lines[1:]:
        cells = line.split(";")
        if len(cells) != len(header) or not cells[0].removesuffix(".ppm").isalnum():
            raise _refuse("E-MAGIC", path, f"expected 00000.ppm and {len(header) - 1} numbers in a row, got {show(line)}")
        names.append(cells[0])
        labels.append(_number(path, cells[-1], len(GTSRB)))
    return names, labels


def _number(path: Path, text: str, below: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < below):
        raise _refuse("E-LABEL", path, f"expected a number below {below}, got {show(text)}")
    return int(text)


def _refuse(code: str, path: Path, message: str) -> RefusedError:
    return RefusedError(code, f"{show(path)}: {message}.", hint="Get the files again, or name another folder with --data.")
