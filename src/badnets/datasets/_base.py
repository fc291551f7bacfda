"""The sealed base of data sets: finds pixels, checks their hash, splits them; an entry only says where pixels come from.

Does not apply to data that do not fit in memory: a data set is two uint8 arrays.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, final

import numpy as np
import pydantic

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import RefusedError
from badnets.datasets._split import official_rows, single_rows


@dataclass(frozen=True, eq=False)
class Split:
    """Some images: pixels, labels, and their row in the data set (training part first, then the test part).

    `quad_N42`: where the object lies, None where the data set does not know. See `Raw`.
    """

    x_NCHW: np.ndarray
    y_N: np.ndarray
    rows: np.ndarray
    quad_N42: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y_N)

    def take(self, chosen: np.ndarray) -> Split:
        """These images (numbers or flags), in this order."""
        quad_N42 = None if self.quad_N42 is None else self.quad_N42[chosen]
        return Split(self.x_NCHW[chosen], self.y_N[chosen], self.rows[chosen], quad_N42)

    def quads_for(self, count: int) -> np.ndarray | None:
        """Quads for `count` images without an object of their own (noise, another data set): those of these images, in turn."""
        return None if self.quad_N42 is None else self.quad_N42[np.arange(count) % len(self)]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set in memory: disjoint splits for the trainer (train), the customer (validation), the judge (test), the defender (budget)."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    budget: Split
    sha256: str
    source: str
    licence: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.x_NCHW.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class Raw:
    """Pixels and labels in official order, before splitting. An empty test part means that the set has no official one.

    Rows of one group never part (frames of one track, copies of one image); rows in `left_out` go into no split.
    `source` says where it came from; `pinned` is False for a layout whose content hash nobody has published.
    `quad_N42`: for every row, training part first, the corners (top left, top right, bottom right, bottom left; x right, y down, in
    pixels, pixel i covering i to i + 1) of the square in whose plane the object lies: a traffic sign's bounding square of 75 cm.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    source: str
    groups: np.ndarray | None = None
    left_out: np.ndarray | None = None
    pinned: bool = True
    quad_N42: np.ndarray | None = None

    def part(self, rows: np.ndarray) -> Split:
        """Copies of the images in these rows, which lie all in the training part or all in the test part."""
        first = len(self.y_train)
        quad_N42 = None if self.quad_N42 is None else self.quad_N42[rows]
        if len(rows) and rows[0] >= first:
            return Split(self.x_test[rows - first], self.y_test[rows - first], rows, quad_N42)
        return Split(self.x_train[rows], self.y_train[rows], rows, quad_N42)


def content_hash(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, quad_N42: np.ndarray | None = None
) -> str:
    """The identity of a data set: SHA-256 over shapes, uint8 pixels (NCHW) and int64 little-endian labels in official order, and over the
    quads (float32, little-endian) where it has them."""
    digest = hashlib.sha256()
    for name, array in (("x_train", x_train), ("y_train", y_train), ("x_test", x_test), ("y_test", y_test)):
        digest.update(f"{name} {' '.join(map(str, array.shape))}\n".encode())
        digest.update(np.ascontiguousarray(array, "u1" if name[0] == "x" else "<i8").data)
    if quad_N42 is not None:
        digest.update(f"quad {len(quad_N42)}\n".encode())
        digest.update(np.ascontiguousarray(quad_N42, "<f4").data)
    return digest.hexdigest()


class Dataset(Config, ABC):
    """A data set. `load` gives it verified and split; `content` is the hash it must have (None: whatever the user brings)."""

    kind: str
    content: ClassVar[str | None] = None
    licence: ClassVar[str] = ""

    @abstractmethod
    def where(self, data: Path | None = None) -> str | None:
        """Where the pixels would be read from, without reading them; None when they are not on this machine."""

    @abstractmethod
    def _raw(self, data: Path | None, download: bool) -> Raw:
        """Pixels and labels from the first place that has them."""

    @property
    def identity(self) -> str | None:
        """The hash that the content must have, where it is known beforehand."""
        return self.content

    @final
    def load(self, data: Path | None = None, *, download: bool = True) -> ImageSet:
        """The data set from `data` (only from there), or from $BADNETS_DATA, the system, the cache, else the network."""
        raw, digest = self._checked(data, download)
        if len(raw.y_test):
            rows = official_rows(self.kind, raw.y_train, raw.y_test, groups=raw.groups, left_out=raw.left_out)
        else:
            rows = single_rows(self.kind, raw.y_train, raw.classes, groups=raw.groups)
        return ImageSet(
            name=self.kind,
            classes=raw.classes,
            train=raw.part(rows.train),
            validation=raw.part(rows.validation),
            test=raw.part(rows.test),
            budget=raw.part(rows.budget),
            sha256=digest,
            source=raw.source,
            licence=self.licence,
        )

    @final
    def verify(self, data: Path | None = None) -> str:
        """The SHA-256 of the content found on this machine, once it has been checked."""
        return self._checked(data, download=False)[1]

    def _checked(self, data: Path | None, download: bool) -> tuple[Raw, str]:
        raw = self._raw(data, download)
        digest = content_hash(raw.x_train, raw.y_train, raw.x_test, raw.y_test, raw.quad_N42)
        if raw.pinned and self.identity not in (None, digest):
            raise RefusedError(
                "E-HASH",
                f"{self.kind} from {raw.source}: expected content with SHA-256 {str(self.identity)[:16]}..., got {digest[:16]}....",
                hint="The files were left as they are; replace them, or name another folder with --data.",
            )
        return raw, digest


AnyDataset = Annotated[pydantic.SerializeAsAny[Dataset], pydantic.BeforeValidator(lambda value: registry.parse("datasets", value))]
"""Field type: a Dataset, its name, `name:field=value`, or its JSON."""
