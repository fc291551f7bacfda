"""Downloads from official addresses into the user's cache: https, bounded, hash checked before a byte is kept.

Does not apply to sets that may not be fetched without asking (`gtsrb`): they are put in place by hand.
"""

from __future__ import annotations

import hashlib
import io
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from badnets.core import files
from badnets.core.errors import RefusedError, StoreError
from badnets.datasets._open import exists, read_bounded, reason, show
from badnets.datasets._places import cache_dir

_TIMEOUT = 30.0


@dataclass(frozen=True)
class Remote:
    """One file at an official address, known by its size and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """An official address (a folder, ending in '/') and what lies there."""

    base_url: str
    files: tuple[Remote, ...]


class _Bounded(io.BytesIO):
    """Memory that refuses to grow past the size the file is known to have."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: bytes, /) -> int:  # ty: ignore[incompatible-method-override]
        if self.tell() + len(data) > self._limit:
            raise _TooLongError
        return super().write(data)


class _TooLongError(Exception):
    pass


def complete(name: str, origin: Origin) -> Path | None:
    """The cache folder when every file of `origin` is there, intact or not."""
    cache = cache_dir()
    if cache is None or not all(exists(cache / name / remote.name) for remote in origin.files):
        return None
    return cache / name


def cached(name: str, origin: Origin) -> Path | None:
    """The cache folder when every file of `origin` is there and intact; a damaged one is kept aside and refused."""
    folder = complete(name, origin)
    if folder is None:
        return None
    damaged = [folder / remote.name for remote in origin.files if not _intact(folder / remote.name, remote)]
    if not damaged:
        return folder
    raise RefusedError(
        "E-HASH",
        f"{name}: {show(damaged[0])} in the cache has changed since it was fetched ({len(damaged)} such files).",
        hint=f"Kept aside as {', '.join(_set_aside(path) for path in damaged)}; `badnets data fetch {name}` gets it again.",
    )


def fetch(name: str, origin: Origin, *, progress: bool = True) -> Path:
    """The cache folder with every file of `origin` in it, verified; what is there already is not fetched again."""
    cache = cache_dir()
    if cache is None:
        raise StoreError("E-HOME", "there is no home directory to keep downloads in.", hint="Set XDG_CACHE_HOME or HOME to a folder.")
    _check_scheme(origin.base_url)
    for remote in origin.files:
        target = cache / name / remote.name
        if exists(target):
            if _intact(target, remote):
                continue
            _set_aside(target)
        content = _download(name, origin.base_url + remote.name, remote.size, progress)
        files.write_bytes(target, _verified(name, remote, content, target))
    return cache / name


def _intact(path: Path, remote: Remote) -> bool:
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    return hashlib.sha256(read_bounded(path, remote.size)).hexdigest() == remote.sha256


def _set_aside(path: Path) -> str:
    kept = path.with_name(path.name + ".refused")
    files.move(path, kept)
    return show(kept)


def _verified(name: str, remote: Remote, content: bytes, target: Path) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    if digest == remote.sha256:
        return content
    kept = target.with_name(target.name + ".refused")
    files.write_bytes(kept, content)
    raise RefusedError(
        "E-HASH",
        f"{name}: {remote.name} came with SHA-256 {digest[:16]}... ({len(content):,} bytes), expected {remote.sha256[:16]}....",
        hint=f"Kept aside as {show(kept)}. Try `badnets data fetch {name}` later, or bring the files with --data FOLDER.",
    )


def _download(name: str, url: str, size: int, progress: bool) -> bytes:
    import pooch
    import requests

    buffer, answers = _Bounded(size), []
    # pooch leaves the connection open when a download fails: keep its answers, to close them
    downloader = pooch.HTTPDownloader(
        progressbar=progress, timeout=_TIMEOUT, hooks={"response": lambda answer, **_: answers.append(answer)}
    )
    try:
        downloader(url, buffer, None)
    except _TooLongError as error:
        raise RefusedError("E-HASH", f"{url} sent more than the expected {size:,} bytes.", hint="Nothing was kept. Try later.") from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise RefusedError(
            "E-NETWORK",
            f"{name} is not on this machine and {url} did not deliver it ({_short(error)}).",
            hint=f"Connect and run `badnets data fetch {name}` again, or bring the files with --data FOLDER.",
        ) from error
    finally:
        for answer in answers:
            answer.close()
    return buffer.getvalue()


def _short(error: BaseException) -> str:
    """The server's answer where there was one, else the kind of failure: the library's own text is long and says little."""
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"HTTP {response.status_code} {reason(Exception(response.reason))}"


def _check_scheme(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        return
    raise RefusedError("E-NETWORK", f"expected an https address, got {show(url)}.", hint="Use https.")
