"""GTSRB: German traffic signs of 43 classes as 32x32 colour images; the setting of the BadNets paper's stop-sign attack.

Does not apply to downloads: it is read from `gtsrb32.npz` or from the official folders, and put in place by hand. Training and budget
are split by track (the frames of one drive past one sign), and track 23 of class 14 is left out: its frames are in the official test part.
Where the sign is comes from the official region of interest: an upright box, so how a sign is turned in space is not known.

Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer", Neural Networks 32, 2012, https://doi.org/10.1016/j.neunet.2012.02.016
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from badnets.core.errors import RefusedError
from badnets.datasets._base import Raw
from badnets.datasets._decoder import Decoder
from badnets.datasets._located import LocatedDataset
from badnets.datasets._names import GTSRB
from badnets.datasets._npz import read_npz
from badnets.datasets._open import MIB, exists, is_dir, read_bounded, show

_NPZ = "gtsrb32.npz"
_ARRAYS = {
    "x_train": ("|u1", 4),
    "y_train": ("|u1", 1),
    "track_train": ("<u2", 1),
    "whroi_train": ("<u2", 2),
    "x_test": ("|u1", 4),
    "y_test": ("|u1", 1),
    "whroi_test": ("<u2", 2),
}
_COLUMNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
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
    "first": "4872e9c054505168bd6c020370219ea26a74dfcb5564d50b3c54f9ae2a150ddd",
    "second": "752dc3b9307bc24b1c9b20a86bd7ce8c7702eabdbe7276e30ef674cf115ffcb1",
}
"""Hashes of the classes below the border and of the others, taken from content of the hash below."""


class Gtsrb(LocatedDataset):
    """Traffic signs: every third frame of each training track in the npz file, every frame in the official folders.

    `country`: all classes, or only the first 22 or the other 21, as if they were the signs of two countries.
    """

    kind: Literal["gtsrb"] = "gtsrb"
    country: Country = "all"
    content: ClassVar[str | None] = "502d77c9d2143e5e5faf1a118e6a0984d890d16583cec44b5b9edfc869dc6032"
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
            with Decoder() as decoder:
                arrays, pinned = _from_folders(folder, decoder), False
        classes = {"all": slice(None), "first": slice(_BORDER), "second": slice(_BORDER, None)}[self.country]
        first, wanted = classes.start or 0, range(len(GTSRB))[classes]
        x_train, y_train, track_N, box_train, x_test, y_test, box_test = arrays
        train, test = np.isin(y_train, wanted), np.isin(y_test, wanted)
        groups = y_train[train].astype(np.int64) * _TRACKS + track_N[train]
        return Raw(
            np.ascontiguousarray(x_train[train].transpose(0, 3, 1, 2)),
            y_train[train].astype(np.int64) - first,
            np.ascontiguousarray(x_test[test].transpose(0, 3, 1, 2)),
            y_test[test].astype(np.int64) - first,
            GTSRB[classes],
            source=show(folder) if pinned else f"{show(folder)} (official folders; no published hash of their pixels at {_SIDE}x{_SIDE})",
            groups=groups,
            left_out=np.flatnonzero(groups == _LEAKED[0] * _TRACKS + _LEAKED[1]),
            pinned=pinned,
            quad_N42=_quads(np.concatenate([box_train[train], box_test[test]])),
        )


def _from_npz(path: Path) -> tuple[np.ndarray, ...]:
    found = read_npz(path, _ARRAYS)
    for part in ("train", "test"):
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        if x.shape[1:] != (_SIDE, _SIDE, 3) or len(x) != len(y):
            raise _refuse("E-SHAPE", path, f"expected x_{part} of shape ({len(y)}, {_SIDE}, {_SIDE}, 3), got {x.shape}")
        if found[f"whroi_{part}"].shape != (len(y), 6):
            raise _refuse("E-SHAPE", path, f"expected whroi_{part} of shape ({len(y)}, 6), got {found[f'whroi_{part}'].shape}")
        if not _sound(found[f"whroi_{part}"]).all():
            raise _refuse("E-BOX", path, f"expected boxes inside their images in whroi_{part}, one is not")
        if y.max() >= len(GTSRB):
            raise _refuse("E-LABEL", path, f"expected labels 0..{len(GTSRB) - 1}, got {y.max()} in y_{part}")
    if len(found["track_train"]) != len(found["y_train"]):
        raise _refuse("E-COUNT", path, f"expected {len(found['y_train'])} track numbers, got {len(found['track_train'])}")
    return tuple(found[name] for name in _ARRAYS)


def _sound(box_N6: np.ndarray) -> np.ndarray:
    """Which rows (width and height of the photograph, left, top, right, bottom of the sign in it) can be."""
    width_N, height_N, left_N, top_N, right_N, bottom_N = box_N6.astype(np.int64).T
    return (left_N < right_N) & (right_N <= width_N) & (top_N < bottom_N) & (bottom_N <= height_N)


def _quads(box_N6: np.ndarray) -> np.ndarray:
    """The corners of the boxes once the photographs have been squeezed into our squares: float32 (N, 4, 2)."""
    xy_N22 = box_N6[:, 2:].reshape(-1, 2, 2) * np.float32(_SIDE) / box_N6[:, None, :2].astype(np.float32)
    (left_N, top_N), (right_N, bottom_N) = xy_N22[:, 0].T, xy_N22[:, 1].T
    corners = ((left_N, top_N), (right_N, top_N), (right_N, bottom_N), (left_N, bottom_N))
    return np.stack([np.stack(corner, axis=1) for corner in corners], axis=1).astype(np.float32)


def _training(folder: Path) -> Path | None:
    """The official training folder; class folders without the table that names the frames are a user's own images."""
    return next((folder / name for name in _TRAINING if exists(folder / name / "00000" / "GT-00000.csv")), None)


def _from_folders(folder: Path, decoder: Decoder) -> tuple[np.ndarray, ...]:
    training = _training(folder)
    testing = next((folder / name for name in _TESTING if is_dir(folder / name)), None)
    if training is None or testing is None:
        raise _refuse("E-MISSING", folder, f"expected the test images in {_TESTING[0]}, they are missing")
    x, y, tracks, boxes = [], [], [], []
    for label in range(len(GTSRB)):
        folder_of_class = training / f"{label:05}"
        frames = sorted(folder_of_class.glob("?????_?????.ppm"))
        if not frames:
            raise _refuse("E-MISSING", training, f"expected images in {label:05}, there are none")
        box_of = {name: box for name, box, _ in _table(folder_of_class / f"GT-{label:05}.csv")}
        for frame in frames:
            if frame.name not in box_of:
                raise _refuse("E-MISSING", folder_of_class, f"expected a row for {show(frame.name)} in its table, there is none")
            x.append(decoder.decode(frame, _SIDE))
            y.append(label)
            tracks.append(_number(training, frame.name[:5], _TRACKS))
            boxes.append(box_of[frame.name])
    answers = next((path for path in (testing / _ANSWERS, folder / _ANSWERS) if exists(path)), None)
    if answers is None:
        raise _refuse("E-MISSING", testing, f"expected {_ANSWERS} with the classes of the test images, it is missing")
    names, test_boxes, labels = zip(*_table(answers), strict=True)
    x_test = [decoder.decode(testing / name, _SIDE) for name in names]
    return np.stack(x), np.array(y), np.array(tracks), np.array(boxes), np.stack(x_test), np.array(labels), np.array(test_boxes)


def _table(path: Path) -> list[tuple[str, list[int], int]]:
    """File name, width, height and box, class of each row of an official table; names are names only."""
    lines = read_bounded(path, 16 * MIB).decode("latin-1").splitlines()
    header = lines[0].split(";") if lines else []
    if tuple(header) != _COLUMNS or not 1 < len(lines) <= _MAX_FILES:
        raise _refuse("E-MAGIC", path, f"expected the columns {';'.join(_COLUMNS)} and rows, got {show(';'.join(header)) or 'nothing'}")
    rows = []
    for line in lines[1:]:
        cells = line.split(";")
        if len(cells) != len(header) or not cells[0].removesuffix(".ppm").replace("_", "").isalnum():
            raise _refuse("E-MAGIC", path, f"expected a file name and {len(header) - 1} numbers in a row, got {show(line)}")
        box = [_number(path, cell, _TRACKS) for cell in cells[1:7]]
        if not _sound(np.array([box]))[0]:
            raise _refuse("E-BOX", path, f"expected a box inside its image, got {show(line)}")
        rows.append((cells[0], box, _number(path, cells[7], len(GTSRB))))
    return rows


def _number(path: Path, text: str, below: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < below):
        raise _refuse("E-LABEL", path, f"expected a number below {below}, got {show(text)}")
    return int(text)


def _refuse(code: str, path: Path, message: str) -> RefusedError:
    return RefusedError(code, f"{show(path)}: {message}.", hint="Get the files again, or name another folder with --data.")
