"""Data sets that lie in files: looks in each place for a folder that has them, else downloads, else says what to put where.

Does not apply to sets that ship with a package (`fashion_mini`, `digits`).
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, final

from badnets.core.errors import BadnetsError, UsageError
from badnets.datasets._base import Dataset, Raw
from badnets.datasets._fetch import Origin, cached, complete, fetch
from badnets.datasets._open import is_dir, show
from badnets.datasets._places import places


class LocatedDataset(Dataset):
    """`origin` is where to fetch it (None: only by hand); `subfolders` are names under which others unpack it; `wanted` names its files."""

    origin: ClassVar[Origin | None] = None
    subfolders: ClassVar[tuple[str, ...]] = ()
    wanted: ClassVar[str] = ""

    @abstractmethod
    def _has(self, folder: Path) -> bool:
        """Whether the folder has any file that looks like this data set's, however damaged."""

    @abstractmethod
    def _read(self, folder: Path) -> Raw:
        """Pixels and labels of a folder that `_has` them; damaged or missing files are refused."""

    def _not_this(self, folder: Path) -> BadnetsError | None:
        """Why the folder is passed over although it has files of these names; raised when no other folder is found."""
        del folder

    @final
    def where(self, data: Path | None = None) -> str | None:
        folder = self._folder(data)
        if folder is None and data is None and self.origin is not None:
            folder = complete(self.kind, self.origin)
        return None if folder is None else str(folder)

    @final
    def passed_over(self, data: Path | None = None) -> BadnetsError | None:
        """Why a folder with files of these names is none of this data set's."""
        return next(filter(None, map(self._not_this, filter(self._has, self._folders(data)))), None)

    @final
    def fetch(self, base_url: str | None = None, *, progress: bool = True) -> Path:
        """Download what is missing into the cache; `base_url` stands in for the official address."""
        if self.origin is None:
            raise self._missing(None)
        origin = self.origin if base_url is None else dataclasses.replace(self.origin, base_url=base_url)
        return fetch(self.kind, origin, progress=progress)

    @final
    def _raw(self, data: Path | None, download: bool) -> Raw:
        folder = self._folder(data)
        if folder is None and data is None and self.origin is not None:
            folder = cached(self.kind, self.origin) or (self.fetch() if download else None)
        if folder is None:
            raise self._missing(data)
        return self._read(folder)

    def _folder(self, data: Path | None) -> Path | None:
        """The first folder outside our cache that has the data set."""
        return next((folder for folder in self._folders(data) if self._has(folder) and self._not_this(folder) is None), None)

    def _folders(self, data: Path | None) -> Iterator[Path]:
        for place in places(self.kind, data, with_cache=self.origin is None):
            yield place
            for name in (self.kind, *self.subfolders):
                if is_dir(place / name):
                    yield place / name

    def _missing(self, data: Path | None) -> BadnetsError:
        refusal = self.passed_over(data)
        if refusal is not None:
            return refusal
        looked = ", ".join(show(place) for place in places(self.kind, data, with_cache=True))
        hint = f"Name a folder that has {self.wanted} with --data"
        hint += f", or run `badnets data fetch {self.kind}`." if self.origin is not None else "; it is not downloaded for you."
        return UsageError("E-DATA", f"{self.kind} was not found in {looked}.", hint=hint)
