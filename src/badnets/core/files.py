"""The only module that opens for writing: temporary file, fsync, rename, fsync of the folder.

A reader therefore sees the old content or the new, never half of either, whatever dies in between. It does not apply to the
SQLite index, which has its own journal and can be rebuilt. After Pillai et al., "All File Systems Are Not Created Equal"
(OSDI 2014), https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from types import ModuleType

from badnets.core.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_TEMP = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
_DAY = 86_400.0


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably; its folder is made when missing."""
    make_dir(path.parent)
    with _reported("write", path):
        temp = path.with_name(_temp_name())
        try:
            _write_new(temp, data)
            _op("rename", path)
            os.replace(temp, path)  # noqa: PTH105 (the same call, but visible next to its fsync)
        except BaseException:
            with contextlib.suppress(OSError):
                _op("unlink", temp)
                temp.unlink()
            raise
        _sync_dir(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, durably."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Replace `path` by `value` as JSON (ASCII, sorted keys; NaN and infinity are refused), durably."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def write_tree(folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """A new folder of many files, named by relative paths: it appears whole or not at all. Raises FileExistsError if it is there."""
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "the folder is there already", str(folder))
    make_dir(folder.parent)
    temp = folder.with_name(_temp_name())
    with _reported("write", folder):
        try:
            for name, data in contents:
                path = temp / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_new(path, data)
            for part in [*(p for p in temp.rglob("*") if p.is_dir()), temp]:
                _sync_dir(part)
            _op("rename", folder)
            temp.rename(folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        _sync_dir(folder.parent)


def make_dir(path: Path) -> Path:
    """`path` as a folder, with its parents; every new folder is made durable in its parent."""
    if path.is_dir():
        return path
    if path.parent != path:
        make_dir(path.parent)
    with _reported("create the folder", path):
        _op("mkdir", path)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of the folder", str(path))
        _sync_dir(path.parent)
    return path


def remove(path: Path) -> None:
    """Delete a file, durably; nothing happens when it is absent."""
    with _reported("remove", path):
        _op("unlink", path)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        _sync_dir(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file within one file system, durably; an older `target` is replaced."""
    make_dir(target.parent)
    with _reported("move", source):
        _op("rename", target)
        source.replace(target)
        _sync_dir(target.parent)
        _sync_dir(source.parent)


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable: for a file that somebody else may have renamed into it just before dying."""
    with _reported("sync the folder", path):
        _sync_dir(path)


def read_bytes(path: Path) -> bytes:
    """Content of a regular file; FileNotFoundError when absent, StoreError when it cannot be read or is a link, pipe or device."""
    try:
        _op("read", path)
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError("E-IO", f"cannot read {path}: {_reason(error)}.", hint="Check the disk and the permissions.") from error


def home() -> Path:
    """Folder of everything badnets keeps: $BADNETS_HOME, else $XDG_DATA_HOME/badnets, else ~/.local/share/badnets. Not created here."""
    if chosen := os.environ.get("BADNETS_HOME"):
        return Path(chosen).expanduser().absolute()
    shared = Path(os.environ.get("XDG_DATA_HOME") or "")
    if shared.is_absolute():
        return shared / "badnets"
    user = Path(os.environ.get("HOME") or os.environ.get("USERPROFILE") or "")
    if not user.is_absolute():
        raise StoreError("E-HOME", "no home directory: HOME is not set.", hint="Set BADNETS_HOME to a folder you can write to.")
    return user / ".local" / "share" / "badnets"


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive `flock` on `path`; BlockingIOError with the holder's pid (0: unknown) as its second argument when it is taken.

    The lock goes with the process, also after kill -9. Not for Windows, nor for network file systems without `flock`.
    """
    fcntl = _fcntl()
    make_dir(path.parent)
    with _reported("lock", path):
        fd = _open_locked(path, fcntl)
    try:
        yield
    finally:
        # Removed while still held: _open_locked checks that the name still leads to what it locked.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)


def clean_temps(folder: Path) -> int:
    """Remove from one folder the temporary files of writers that are gone; their number."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        stale = [Path(entry.path) for entry in entries if entry.name.startswith(".tmp-") and _is_stale(Path(entry.path))]
        for path in stale:
            remove(path)
        return len(stale)
    return 0


def _op(name: str, path: Path) -> None:
    """Called before every primitive operation: the seam where tests inject faults. Does nothing."""


def _write_new(temp: Path, data: bytes) -> None:
    _op("open", temp)
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            _op("write", temp)
            written = _write_some(fd, rest)
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written", str(temp))
            rest = rest[written:]
        _op("fsync", temp)
        _fsync(fd)
    finally:
        os.close(fd)


def _write_some(fd: int, data: memoryview) -> int:
    return os.write(fd, data)


def _fsync(fd: int) -> None:
    """On macOS fsync leaves the data in the drive's cache; F_FULLFSYNC does not, but some file systems refuse it."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            _fcntl().fcntl(fd, _fcntl().F_FULLFSYNC)
            return
    os.fsync(fd)


def _sync_dir(folder: Path) -> None:
    _op("fsync_dir", folder)
    if os.name == "nt":
        return  # Windows opens no folders; NTFS journals names itself.
    fd = os.open(folder, os.O_RDONLY)
    try:
        _fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _open_locked(path: Path, fcntl: ModuleType) -> int:
    """A descriptor of `path` with the lock held and this process's pid written in it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(path, fd):
                os.close(fd)
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0)
            os.close(fd)
            raise BlockingIOError(errno.EWOULDBLOCK, int(holder) if holder.isdigit() else 0) from error
        except OSError:
            os.close(fd)
            raise
        return fd


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _fcntl() -> ModuleType:
    try:
        import fcntl
    except ImportError as error:
        message = "this system has no flock, which keeps two runs out of one store."
        raise StoreError("E-PLATFORM", message, hint="On Windows run badnets in WSL.") from error
    return fcntl


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _temp_name() -> str:
    return f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_stale(path: Path) -> bool:
    """Its writer is dead; of a writer on another host, sharing the folder, only age can tell."""
    match = _TEMP.fullmatch(path.name)
    if match is None:
        return False
    if match[1] == _host():
        return not _is_alive(int(match[2]))
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _DAY
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _reported(what: str, path: Path) -> Generator[None]:
    """OSError -> StoreError with the next step; a taken lock passes through."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        message = f"cannot {what} {path}: {_reason(error)}."
        if error.errno in _FULL:
            raise StoreError("E-FULL", message, hint="Free some space, or set BADNETS_HOME to a larger disk; then run it again.") from error
        if error.errno in _DENIED:
            raise StoreError("E-READONLY", message, hint="Set BADNETS_HOME to a folder you can write to.") from error
        raise StoreError("E-IO", message, hint="Check the disk; then run the same command again.") from error


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
