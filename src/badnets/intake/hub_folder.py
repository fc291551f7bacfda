"""A folder as Hugging Face's libraries save one model: config.json beside its weights. Which files those are is told by their names alone.

Nothing is opened here but for their hash. A link to such a folder is none, and links within it are refused when they are opened.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from badnets.core.errors import RefusedError, UsageError
from badnets.intake.opened import check, open_once
from badnets.intake.reasons import amount, quoted, refuse

CONFIG, PREPARATION, INDEX = "config.json", "preprocessor_config.json", ".index.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The first that is there is taken, as their libraries do."""
SHARD = {
    WEIGHTS[1]: re.compile(r"model-\d{5}-of-\d{5}\.safetensors"),
    WEIGHTS[3]: re.compile(r"pytorch_model-\d{5}-of-\d{5}\.bin"),
}
LARGEST = {CONFIG: 4 << 20, PREPARATION: 1 << 20, INDEX: 8 << 20}
MOST_SHARDS, _MOST_ENTRIES, _SHOWN, _PIECE = 16, 10_000, 6, 16 << 20


class ModelFolder(NamedTuple):
    """`main`: the file of weights, or the index of `shards`; `prepared`: whether the input's preparation is told; `others`: what is left,
    folders with a slash at their end."""

    path: Path
    main: str
    prepared: bool
    shards: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def told(self) -> list[str]:
        """The files that are always read, in the order in which a reader gets them."""
        return [CONFIG, *([PREPARATION] if self.prepared else []), self.main]

    @property
    def left(self) -> list[str]:
        """What to say of the others."""
        if not self.others:
            return []
        more = f" and {len(self.others) - _SHOWN} more" if len(self.others) > _SHOWN else ""
        return [f"not looked at in this folder: {', '.join(quoted(name) for name in self.others[:_SHOWN])}{more}"]


def look(path: Path) -> ModelFolder | None:
    """The model that a folder is; None where it is none."""
    names: list[str] = []
    if path.is_symlink():
        return None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                names.append(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""))
                if len(names) > _MOST_ENTRIES:
                    return None
    except (OSError, ValueError):  # ValueError: a name with NUL
        return None
    main = next((name for name in WEIGHTS if name in names), "")
    if CONFIG not in names or not main:
        return None
    shards = tuple(sorted(name for name in names if main in SHARD and SHARD[main].fullmatch(name)))
    own = {CONFIG, PREPARATION, main, *shards}
    return ModelFolder(path, main, PREPARATION in names, shards, tuple(sorted(name for name in names if name not in own)))


def main_file(path: Path) -> Path:
    """The weights of a model folder, or the path itself."""
    folder = look(path)
    return path / folder.main if folder else path


def open_told(folder: ModelFolder, names: Sequence[str], opened: list[int]) -> None:
    """Append a descriptor of each of these files in the folder. Raises RefusedError, naming the file."""
    for name in names:
        try:
            opened.append(open_once(folder.path / name))
            most = LARGEST.get(INDEX if name.endswith(INDEX) else name)
            if most is not None and (size := check(opened[-1])) > most:
                raise refuse("E-MODEL-FOLDER", f"expected at most {amount(most)}, got {amount(size)}")
        except (RefusedError, UsageError) as error:
            raise RefusedError(error.code, f"{name}: {error.message}", hint=_hint(error)) from error


def _hint(error: RefusedError | UsageError) -> str:
    if error.code == "E-LINK":
        return "Fetch it as files: `hf download NAME --local-dir FOLDER` makes no links, as the cache of that command does."
    return error.hint


def agree(folder: ModelFolder, names: Iterable[str]) -> list[str]:
    """The shards that an index names, in order, once they are those that are there."""
    wanted = sorted(names)
    if len(wanted) > MOST_SHARDS:
        raise refuse("E-SHARDS", f"its index names {len(wanted)} shards, at most {MOST_SHARDS} are read")
    if missing := [name for name in wanted if name not in folder.shards]:
        raise refuse("E-SHARDS", f"its index names {quoted(missing[0])}, which is no shard in its folder")
    if extra := [name for name in folder.shards if name not in wanted]:
        raise refuse("E-SHARDS", f"its index does not name {quoted(extra[0])}, which lies beside the others")
    return wanted


def digest_of(names: Sequence[str], sha256s: Sequence[str]) -> str:
    """SHA-256 of a model folder: of what `sha256sum` prints of the files that are read, in the order of their names."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(zip(names, sha256s, strict=True)))
    return hashlib.sha256(lines.encode()).hexdigest()


def digest(folder: ModelFolder) -> str:
    """The same from the files themselves, in pieces. Raises RefusedError."""
    names, opened = [*folder.told, *folder.shards], []
    if len(folder.shards) > MOST_SHARDS:
        raise refuse("E-SHARDS", f"it has {len(folder.shards)} shards, at most {MOST_SHARDS} are read")
    try:
        open_told(folder, names, opened)
        return digest_of(names, [hash_of(fd) for fd in opened])
    finally:
        for fd in opened:
            os.close(fd)


def hash_of(fd: int) -> str:
    """SHA-256 of what is behind a descriptor. Raises RefusedError."""
    try:
        total, sha = check(fd), hashlib.sha256()
        for at in range(0, total, _PIECE):
            sha.update(os.pread(fd, min(_PIECE, total - at), at))
        return sha.hexdigest()
    except OSError as error:
        raise refuse("E-UNREADABLE", f"reading failed: {error.strerror}") from error
