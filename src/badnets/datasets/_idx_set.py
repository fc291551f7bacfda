"""Data sets of four idx files under the names that MNIST gave them, plain or `.gz`.

Does not apply to idx sets with other splits or names (EMNIST, QMNIST).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from badnets.core.errors import BadnetsError, RefusedError, UsageError
from badnets.datasets._base import Raw
from badnets.datasets._idx import read_idx, read_pair
from badnets.datasets._located import LocatedDataset
from badnets.datasets._open import exists, show

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TEST_LABELS = {
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": "mnist",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": "fashion_mnist",
}
"""SHA-256 of the unpacked test labels: tells sets with equal file names apart by reading 10 KB."""
_LABELS_LIMIT = 1 << 20


def present(folder: Path) -> dict[str, Path]:
    """The idx files of a folder: stem -> path; `.gz` and the spelling with a dot before `idx` count too."""
    found = {}
    for stem in STEMS:
        spellings = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz")
        path = next((folder / name for name in spellings if exists(folder / name)), None)
        if path is not None:
            found[stem] = path
    return found


def which(folder: Path) -> str | None:
    """The idx data set a folder holds by the hash of its test labels: its name, or None when there are none or unknown ones."""
    labels = present(folder).get(STEMS[3])
    if labels is None:
        return None
    return TEST_LABELS.get(hashlib.sha256(read_idx(labels, rank=1, limit=_LABELS_LIMIT).tobytes()).hexdigest())


class IdxDataset(LocatedDataset):
    """Four idx files: images and labels of a training and a test part."""

    classes: ClassVar[tuple[str, ...]] = ()
    wanted: ClassVar[str] = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)"

    def _has(self, folder: Path) -> bool:
        return bool(present(folder))

    def _read(self, folder: Path) -> Raw:
        found = present(folder)
        missing = [stem for stem in STEMS if stem not in found]
        if missing:
            raise RefusedError(
                "E-MISSING",
                f"{show(folder)}: expected the 4 idx files of {self.kind}, {missing[0]} is missing.",
                hint="Put it there, or .gz.",
            )
        x_train, y_train = read_pair(found[STEMS[0]], found[STEMS[1]], len(self.classes))
        x_test, y_test = read_pair(found[STEMS[2]], found[STEMS[3]], len(self.classes))
        if x_train.shape[1:] != x_test.shape[1:]:
            raise RefusedError(
                "E-SHAPE",
                f"{show(folder)}: expected test images of {x_train.shape[2:]} like the training images, got {x_test.shape[2:]}.",
                hint="Get the files again.",
            )
        return Raw(x_train, y_train, x_test, y_test, self.classes, source=show(folder))

    def _not_this(self, folder: Path) -> BadnetsError | None:
        known = which(folder)
        if known in (None, self.kind):
            return None
        return UsageError(
            "E-DATA", f"expected {self.kind} in {show(folder)}, got {known}.", hint=f"Ask for {known}, or name another folder."
        )
