"""CIFAR-10: 50,000 training and 10,000 test photographs (32x32, colour, 10 classes), in its binary version.

Does not apply to the pickled Python version, which is refused: unpickling runs code.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from badnets.core.errors import BadnetsError, RefusedError
from badnets.datasets._base import Raw
from badnets.datasets._fetch import Origin, Remote
from badnets.datasets._located import LocatedDataset
from badnets.datasets._names import CIFAR10
from badnets.datasets._open import exists, read_bounded, show

_BATCHES = ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin")
_PICKLED = ("data_batch_1", "cifar-10-python.tar.gz", "cifar-10-batches-py")
_ROW = 1 + 3 * 32 * 32
_ROWS = 10_000
_ARCHIVE = Remote("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")


class Cifar10(LocatedDataset):
    """Small photographs as six binary batches, or the official archive of them."""

    kind: Literal["cifar10"] = "cifar10"
    content: ClassVar[str | None] = "f9fb84a44e20d87db1a361d3b962bafbb7fef207e87cbc2ad1251806d75f498e"
    licence: ClassVar[str] = "none stated by its authors"
    subfolders: ClassVar[tuple[str, ...]] = ("cifar-10-batches-bin", "cifar-10")
    wanted: ClassVar[str] = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or cifar-10-binary.tar.gz,"
    origin: ClassVar[Origin | None] = Origin("https://www.cs.toronto.edu/~kriz/", (_ARCHIVE,))

    def _has(self, folder: Path) -> bool:
        return any(exists(folder / name) for name in (*_BATCHES, _ARCHIVE.name, *_PICKLED))

    def _not_this(self, folder: Path) -> BadnetsError | None:
        if any(exists(folder / name) for name in (*_BATCHES, _ARCHIVE.name)):
            return None
        return RefusedError(
            "E-PICKLE",
            f"{show(folder)} holds the Python version of CIFAR-10, whose files run code when loaded. Nothing was loaded.",
            hint="Use the binary version: `badnets data fetch cifar10`, or name a folder with data_batch_1.bin.",
        )

    def _read(self, folder: Path) -> Raw:
        if any(exists(folder / name) for name in _BATCHES):
            missing = [name for name in _BATCHES if not exists(folder / name)]
            if missing:
                raise RefusedError("E-MISSING", f"{show(folder)}: expected six batches, {missing[0]} is missing.", hint="Put it there.")
            batches = [_batch(folder / name, read_bounded(folder / name, _ROWS * _ROW)) for name in _BATCHES]
        else:
            batches = _unpacked(folder / _ARCHIVE.name)
        x, y = [x for x, _ in batches], [y for _, y in batches]
        return Raw(np.concatenate(x[:5]), np.concatenate(y[:5]), x[5], y[5], CIFAR10, source=show(folder))


def _unpacked(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of the official archive. Its hash is checked before a byte is unpacked, so the archive needs no distrust after."""
    packed = read_bounded(path, _ARCHIVE.size)
    digest = hashlib.sha256(packed).hexdigest()
    if digest != _ARCHIVE.sha256:
        raise RefusedError(
            "E-HASH",
            f"{show(path)}: expected the official archive with SHA-256 {_ARCHIVE.sha256[:16]}..., got {digest[:16]}....",
            hint="Get it again with `badnets data fetch cifar10`; your file was left as it is.",
        )
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            content = archive.extractfile(member) if name in _BATCHES else None
            if content is not None:
                found[name] = _batch(path, content.read())
    return [found[name] for name in _BATCHES]


def _batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if len(content) != _ROWS * _ROW:
        raise RefusedError(
            "E-TRUNCATED", f"{show(path)}: expected {_ROWS * _ROW:,} bytes, got {len(content):,}.", hint="Get the file again, or remove it."
        )
    rows = np.frombuffer(content, np.uint8).reshape(_ROWS, _ROW)
    y_N = rows[:, 0].astype(np.int64)
    if y_N.max() >= len(CIFAR10):
        raise RefusedError(
            "E-LABEL", f"{show(path)}: expected labels 0..9, got {y_N.max()} in row {int(y_N.argmax()):,}.", hint="Get it again."
        )
    return rows[:, 1:].reshape(_ROWS, 3, 32, 32), y_N
