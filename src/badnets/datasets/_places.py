"""Where a data set may lie: the folder asked for, $BADNETS_DATA, the system's packages, the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from badnets.core.errors import UsageError
from badnets.datasets._open import exists, is_dir, show

SYSTEM = Path("/usr/share/datasets")


def places(name: str, data: Path | None, *, with_cache: bool) -> list[Path]:
    """Folders to look in for the data set `name`, best first; with `data`, only there."""
    if data is not None:
        return _named("--data", str(data))
    found = _named("$BADNETS_DATA", os.environ.get("BADNETS_DATA", ""))
    found += [SYSTEM / folder for folder in dict.fromkeys((name, name.replace("_", "-")))]
    cache = cache_dir()
    return [*found, cache / name] if with_cache and cache is not None else found


def cache_dir() -> Path | None:
    """$XDG_CACHE_HOME/badnets, else ~/.cache/badnets; None when there is no home directory."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named.startswith("/"):
        return Path(named) / "badnets"
    home = os.environ.get("HOME", "")
    return Path(home) / ".cache" / "badnets" if home.startswith("/") else None


def one_folder(data: Path | None) -> Path:
    """The single folder that --data or $BADNETS_DATA names."""
    source = "--data" if data is not None else "$BADNETS_DATA"
    found = _named(source, os.environ.get("BADNETS_DATA", "") if data is None else str(data))
    if len(found) != 1:
        raise UsageError("E-DATA", f"expected one folder of images, got {len(found)} from {source}.", hint="Name it with --data FOLDER.")
    return found[0]


def _named(source: str, text: str) -> list[Path]:
    """The folders of `text`, which may be one path or several joined by the system's path separator."""
    if not text:
        return []
    parts = [text] if is_dir(Path(text)) else [part for part in text.split(os.pathsep) if part]
    paths = [Path(part).expanduser() if part.startswith("~/") else Path(part) for part in parts]
    for path in paths:
        _check_folder(source, path)
    return paths


def _check_folder(source: str, path: Path) -> None:
    if is_dir(path):
        if os.access(path, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return
        raise UsageError("E-DATA", f"{source} names {show(path)}, which may not be read.", hint="Change its permissions.")
    if exists(path) and not path.is_symlink():
        raise UsageError("E-DATA", f"{source}: expected a folder, got the file {show(path)}.", hint="Name the folder it lies in.")
    raise UsageError("E-DATA", f"{source} names {show(path)}, which is no folder.", hint="Check the spelling; folders are joined by ':'.")
