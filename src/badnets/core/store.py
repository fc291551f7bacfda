"""The content-addressed store: blobs by their SHA-256, results and records by their key; the manifest is the last commit.

Layout: `blobs/ab/<sha256>`, `results/ab/<key>.json` (manifest), `records/ab/<key>.json` (manifest whose blob is the Record),
`runs/<key>/` (report files), `locks/`, `damaged/`, `index.sqlite` (can be rebuilt). Every byte read is checked against its hash. It
does not defend against somebody who rewrites both a blob and its manifest. After Dolstra, "The Purely Functional Software Deployment
Model" (2006), https://edolstra.github.io/pubs/phd-thesis.pdf
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from badnets.core import files
from badnets.core.config import canonical
from badnets.core.errors import BadnetsError, StoreError, UsageError
from badnets.core.index import Index, Row
from badnets.core.tensors import pack, unpack
from badnets.core.types import Record

__all__ = ["Row", "Store", "pack", "unpack"]

_KEY = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_AGAIN = "Run the same command again: it computes what is missing."


class Store:
    """Results and records under one folder. Opening it touches nothing: a read-only store can be read, an absent one is empty."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().resolve()
        if self.root.exists() and not self.root.is_dir():
            raise StoreError("E-STORE", f"expected a folder, {self.root} is a file.", hint="Name another folder, or set BADNETS_HOME.")
        self._index = Index(self.root / "index.sqlite", self.root / "records", self._facts)
        self._is_swept = False

    def put(self, key: str, config: dict[str, Any], files: dict[str, bytes], info: dict[str, Any]) -> None:
        """Commit one result: blobs, then the manifest that makes it visible. Again with the same bytes: nothing happens."""
        entries = {name: {"sha256": _sha256(data), "size": len(data)} for name, data in files.items()}
        with contextlib.suppress(StoreError):  # absent or damaged: written (again) below
            if self.manifest(key)["files"] != entries:
                message = f"result {key[:12]} came out differently this time: same key, other bits."
                raise BadnetsError("E-BITS", message, hint="This is a defect in badnets: please report it with the plan you ran.")
            if all(self._is_whole(entry) for entry in entries.values()):
                return
        for name, data in files.items():
            self._put_blob(entries[name], data)
        self._put_manifest(self._path("results", key), {"key": key, "config": config, "files": entries, "info": info})

    def has(self, key: str) -> bool:
        """Whether the result was committed. One look at a name: damage shows on `get`."""
        return self._path("results", key).is_file()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those keys without a result, in their order, each once."""
        return [key for key in dict.fromkeys(keys) if not self.has(key)]

    def get(self, key: str) -> dict[str, bytes]:
        """The files of a result, verified; damage is set aside so that the next run computes it again (E-DAMAGED)."""
        entries = self.manifest(key)["files"]
        return {name: self._blob(entry, self._path("results", key), name) for name, entry in entries.items()}

    def manifest(self, key: str) -> dict[str, Any]:
        """`{"key", "config", "files": {name: {"sha256", "size"}}, "info"}` of a result, verified."""
        return self._manifest(self._path("results", key), key)

    def info(self, key: str) -> dict[str, Any]:
        """What the worker said besides its files."""
        return self.manifest(key)["info"]

    def put_record(self, record: Record) -> None:
        """Keep a Record under its key; a later one replaces it."""
        data = (canonical(record) + "\n").encode()
        entry = {"sha256": _sha256(data), "size": len(data)}
        facts = {"key": record.key, "plan": record.plan, "created": record.created, "summary": _summary(record)}
        path = self._path("records", record.key)
        self._put_blob(entry, data)
        self._put_manifest(path, {**facts, "files": {"record.json": entry}})

    def record(self, key_prefix: str | None = None) -> Record:
        """The record whose key starts with `key_prefix`; the newest when none is given."""
        key = self._find(key_prefix)
        path = self._path("records", key)
        data = self._blob(self._manifest(path, key)["files"]["record.json"], path, "record.json")
        return Record.read(data)

    def records(self) -> list[Row]:
        """(key, plan, created, summary) of every record, the newest first."""
        return self._index.rows()

    def run_dir(self, key: str) -> Path:
        """The folder for a run's report files, made when missing."""
        _check(key)
        return files.make_dir(self.root / "runs" / key[:12])

    @contextlib.contextmanager
    def lock(self, key: str) -> Generator[None]:
        """Hold the lock of a run while it works; E-BUSY, naming the process, when another one has it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self.root / "locks" / f"{_check(key)}.lock"))
            except BlockingIOError as error:
                holder = f"process {error.args[1]}" if error.args[1] else "another process"
                message = f"{holder} is already at work on run {key[:12]} in {self.root}."
                raise StoreError("E-BUSY", message, hint="Wait for it or stop it; then run the same command again.") from error
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what killed writers left, once per opened store. Files of living writers stay."""
        if self._is_swept:
            return
        for name in (".", "blobs", "results", "records", "runs", "damaged"):
            folder = self.root / name
            files.clean_temps(folder)
            if name != "." and folder.is_dir():
                for shelf in folder.iterdir():
                    if shelf.is_dir():
                        files.clean_temps(shelf)
        self._is_swept = True

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / _check(key)[:2] / f"{key}.json"

    def _blob_path(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def _put_blob(self, entry: dict[str, Any], data: bytes) -> None:
        path = self._blob_path(entry["sha256"])
        if self._is_whole(entry):
            # Whoever renamed it here may have died before its name was durable.
            files.sync_dir(path.parent)
        else:
            files.write_bytes(path, data)

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        try:
            return _sha256(files.read_bytes(self._blob_path(entry["sha256"]))) == entry["sha256"]
        except (FileNotFoundError, StoreError):
            return False

    def _put_manifest(self, path: Path, manifest: dict[str, Any]) -> None:
        text = canonical(manifest)
        files.write_json(path, {**json.loads(text), "check": _sha256(canonical(json.loads(text)).encode())})

    def _manifest(self, path: Path, key: str) -> dict[str, Any]:
        try:
            data = files.read_bytes(path)
        except FileNotFoundError as error:
            raise StoreError("E-MISSING", f"the store {self.root} has nothing under {key[:12]}.", hint=_AGAIN) from error
        try:
            manifest = json.loads(data)
            check = manifest.pop("check")
            if check == _sha256(canonical(manifest).encode()) and manifest["key"] == key:
                return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise self._damaged(path, path, "its manifest does not match its checksum")

    def _blob(self, entry: dict[str, Any], owner: Path, name: str) -> bytes:
        """A blob's bytes; when absent or altered, it and the manifest `owner` are set aside."""
        path = self._blob_path(entry["sha256"])
        try:
            data = files.read_bytes(path)
        except FileNotFoundError:
            raise self._damaged(owner, path, f"{name} is gone") from None
        got = _sha256(data)
        if got != entry["sha256"]:
            raise self._damaged(owner, path, f"{name} should have SHA-256 {entry['sha256'][:12]}, has {got[:12]}")
        return data

    def _damaged(self, owner: Path, path: Path, what: str) -> StoreError:
        """Set aside first the manifest, which hides the result, then the blob."""
        message = f"the stored entry {owner.stem[:12]} is damaged: {what}."
        try:
            for victim in dict.fromkeys((owner, path)):
                if victim.exists():
                    files.move(victim, self.root / "damaged" / victim.name)
        except StoreError as error:
            return StoreError("E-DAMAGED", message, hint=f"It could not be set aside ({error.code}): make {self.root} writable.")
        except FileNotFoundError:
            pass  # another process has just set it aside
        return StoreError("E-DAMAGED", f"{message} It was moved to {self.root / 'damaged'}.", hint=_AGAIN)

    def _facts(self, key: str) -> tuple[str, str, str] | None:
        """What the index keeps of a record; None when it is damaged (then it has been set aside)."""
        try:
            manifest = self._manifest(self._path("records", key), key)
        except (StoreError, UsageError):
            return None
        return manifest["plan"], manifest["created"], manifest["summary"]

    def _find(self, prefix: str | None) -> str:
        keys = [row.key for row in self.records()]
        if not keys:
            raise StoreError("E-EMPTY", f"the store {self.root} holds no record yet.", hint="Start with `badnets run`.")
        if prefix is None:
            return keys[0]
        found = [key for key in keys if _PREFIX.fullmatch(prefix) and key.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if found:
            message = f"{len(found)} records start with {prefix!r}: {', '.join(key[:12] for key in found[:5])}."
            raise UsageError("E-KEY", message, hint="Give more digits.")
        raise UsageError("E-KEY", f"no record has a key that starts with {prefix!r:.70}.", hint=f"The newest is {keys[0][:12]}.")


def _check(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise UsageError("E-KEY", f"expected a key of 64 hexadecimal digits, got {key!r:.80}.")
    return key


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _summary(record: Record) -> str:
    """For instance `6 HOLDS, 1 FAILS`."""
    verdicts = [str(claim.verdict) for claim in record.claims]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts))) or "no claims"
