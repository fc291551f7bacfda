"""The list of records as a SQLite file that can be rebuilt: rollback journal, synchronous=FULL, a checksum in every row.

The files in `records/` are the truth. A row holds its file's inode, which a rename always changes, so one listing of names finds
every row that is missing or stale. Not for anything that must not be lost. Why no WAL: https://sqlite.org/wal.html (SQLite before
3.51.3 can corrupt it).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from badnets.core import files
from badnets.core.errors import StoreError

SCHEMA = 1
_SYNCHRONOUS = "FULL"
_INT64 = 2**63 - 1
_COLUMNS = "key, plan, created, summary, inode, written, crc"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, plan TEXT NOT NULL, created TEXT NOT NULL, summary TEXT NOT NULL,"
    " inode INTEGER NOT NULL, written INTEGER NOT NULL, crc INTEGER NOT NULL)"
)

_NOT_WRITABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}

Read = Callable[[str], tuple[str, str, str] | None]
"""From a key to (plan, created, summary), or None when that file is damaged or gone."""


class Row(NamedTuple):
    """One record in the list."""

    key: str
    plan: str
    created: str
    summary: str


class Index:
    """Rows for the files `folder/ab/<key>.json`, kept in `path`; in memory when that cannot be written."""

    def __init__(self, path: Path, folder: Path, read: Read) -> None:
        self._path, self._folder, self._read = path, folder, read

    def rows(self) -> list[Row]:
        """All rows, the newest first, after bringing the index in step with the files."""
        if not self._folder.is_dir():
            return []
        with contextlib.suppress(StoreError, BlockingIOError), files.locked(self._path.with_name("index.lock")):
            for _ in range(2):
                try:
                    return self._from_file()
                except _CORRUPT as error:
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_WRITABLE:
                        break
                    self._discard()
        return self._from_memory()

    def _from_file(self) -> list[Row]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10.0, isolation_level=None)) as link:
            link.execute("PRAGMA journal_mode = DELETE")
            link.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")
            return self._synced(link)

    def _from_memory(self) -> list[Row]:
        """For a store that cannot be written (or is being indexed by somebody else): start from the file when it is sound."""
        with contextlib.suppress(*_CORRUPT), _in_memory() as link:
            if self._path.exists():
                with contextlib.closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)) as disk:
                    disk.backup(link)
            return self._synced(link)
        with _in_memory() as link:
            return self._synced(link)

    def _synced(self, link: sqlite3.Connection) -> list[Row]:
        """Everything in one transaction, so that two processes that build the same index cannot meet half-way."""
        link.execute("BEGIN IMMEDIATE")
        version = link.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            raise _Damaged
        if not version:  # so that a listing with nothing new writes nothing
            link.execute(_TABLE)
            link.execute(f"PRAGMA user_version = {SCHEMA}")
        known = {row[0]: row for row in link.execute(f"SELECT {_COLUMNS} FROM record")}
        if any(_crc(row) != row[-1] for row in known.values()):
            raise _Damaged
        present = dict(self._present())
        for key in known.keys() - present.keys():
            link.execute("DELETE FROM record WHERE key = ?", (key,))
        for key, inode in present.items():
            if key not in known or known[key][4] != inode:
                self._add(link, key, inode)
        rows = link.execute("SELECT key, plan, created, summary FROM record ORDER BY created DESC, written DESC, key").fetchall()
        link.execute("COMMIT")
        return [Row(*row) for row in rows]

    def _add(self, link: sqlite3.Connection, key: str, inode: int) -> None:
        link.execute("DELETE FROM record WHERE key = ?", (key,))
        found = self._read(key)
        if found is None:
            return
        try:
            written = (self._folder / key[:2] / f"{key}.json").stat().st_mtime_ns
        except FileNotFoundError:
            return
        row = (key, *found, inode, written)
        link.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, _crc((*row, 0))))

    def _present(self) -> Iterator[tuple[str, int]]:
        """Key and inode of every record file: names only, nothing is opened."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as shelves:
            for shelf in shelves:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(shelf.path) as entries:
                    yield from ((e.name[:-5], e.inode() & _INT64) for e in entries if e.name.endswith(".json"))

    def _discard(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            files.remove(self._path.with_name(self._path.name + suffix))


class _Damaged(Exception):  # noqa: N818 (never leaves this module)
    """The index is of another schema, or a row does not match its checksum."""


# Flipped bits make sqlite3 raise more than its own errors: text that is no UTF-8, numbers that became blobs.
_CORRUPT = (sqlite3.Error, _Damaged, ValueError, TypeError)


def _in_memory() -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(":memory:", isolation_level=None))


def _crc(row: tuple) -> int:
    return zlib.crc32(json.dumps(row[:-1]).encode())
