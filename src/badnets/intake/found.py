"""Finds the model files among paths and folders, by their first bytes and never by their names, and gives each its SHA-256.

A file that is named is always an input, and so is a folder that is one model (`hub_folder`), whose other files are not. In other folders
what begins like no weight file, archive or pickle is passed over, and told; links are not followed. Nothing is parsed here: a few bytes
are compared, the rest is the sandbox's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from badnets.core.errors import RefusedError, UsageError
from badnets.intake import hub_folder
from badnets.intake.formats import HEAD, kind_of
from badnets.intake.opened import check, open_once
from badnets.intake.reasons import quoted, refuse

MOST_FILES = 100_000


@dataclass(slots=True)
class Found:
    """Files to be read, in order, each once; and of those in folders what is passed over, with the reason."""

    inputs: list[Path] = field(default_factory=list)
    passed_over: list[tuple[Path, str]] = field(default_factory=list)


def find(paths: Iterable[Path]) -> Found:
    """Every file that is named, and what looks like a model in every folder that is named. Raises UsageError (E-FILE, E-COUNT)."""
    found, seen = Found(), set()
    for path in paths:
        if path.is_dir() and not path.is_symlink() and not hub_folder.look(path):
            for inner in _walk(path):
                _sort(inner, found, seen)
                if len(found.inputs) + len(found.passed_over) > MOST_FILES:
                    raise UsageError(
                        "E-COUNT", f"more than {MOST_FILES:,} files in {quoted(str(path), 200)}.", hint="Name a smaller folder."
                    )
        elif not path.is_symlink() and not path.exists():
            message = f"there is no file {quoted(str(path), 200)}."
            raise UsageError("E-FILE", message, hint="Give the path of a model file or of a folder.")
        elif (place := os.path.abspath(path)) not in seen:  # noqa: PTH100 (resolve would follow a link)
            seen.add(place)
            found.inputs.append(path)
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file that is fit to be read, in pieces, or of a model folder.

    Raises RefusedError and UsageError as `open_once` does, naming the file.
    """
    try:
        if (folder := hub_folder.look(path)) is not None:
            return hub_folder.digest(folder)
        fd = open_once(path)
        try:
            return hub_folder.hash_of(fd)
        finally:
            os.close(fd)
    except RefusedError as error:
        raise RefusedError(error.code, f"{quoted(path.name)[1:-1]}: {error.message}", hint=error.hint) from error


def is_pickle(path: Path) -> bool:
    """Whether the file is, or as a zip file may hold, a pickle."""
    head, last = _ends(hub_folder.main_file(path))
    if head[:4] == b"PK\x03\x04":
        return True
    return _refusal(head, last) in ("E-PICKLE-RAW", "E-LEGACY")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, in the order of names; a folder that is one model in place of its files."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        if hub_folder.look(Path(place)):
            yield Path(place)
            continue
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in sorted([*names, *links]))


def _sort(path: Path, found: Found, seen: set[str]) -> None:
    place = os.path.abspath(path)  # noqa: PTH100
    if place in seen:
        return
    seen.add(place)
    if path.is_symlink() and path.is_dir():
        found.passed_over.append((path, "a link to a folder, which is not followed"))
        return
    if (model := hub_folder.look(path)) is not None:
        found.inputs.append(path)
        found.passed_over += [(path / name, "beside the files of a model folder") for name in model.others if not name.endswith("/")]
        return
    try:
        head, last = _ends(path)
    except (RefusedError, UsageError) as error:
        if error.code == "E-EMPTY":
            found.passed_over.append((path, "empty"))
        else:  # nobody can say that it is no model
            found.inputs.append(path)
        return
    if _refusal(head, last) == "E-FORMAT":
        found.passed_over.append((path, "begins like no model file"))
    else:
        found.inputs.append(path)


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a file and its last one."""
    fd = open_once(path)
    try:
        return os.pread(fd, HEAD, 0), os.pread(fd, 1, check(fd) - 1)
    except OSError as error:
        raise refuse("E-UNREADABLE", f"reading failed: {error.strerror}") from error
    finally:
        os.close(fd)


def _refusal(head: bytes, last: bytes) -> str:
    """The code by which a file of these ends is refused at once; empty where a reader would look at it."""
    try:
        kind_of(head + last)
    except RefusedError as error:
        return error.code
    return ""
