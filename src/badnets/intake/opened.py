"""Opens a foreign file once: a regular file, not a link, of a bearable size, whole, and the same before and after.

The bytes that are hashed are the bytes that are parsed. Who opens need not be who reads: a descriptor can be handed to a process
that may open nothing. It does not follow a link in the last part of a path; folders on the way may be links.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from badnets.core.errors import UsageError
from badnets.intake.reasons import amount, quoted, refuse

LARGEST = 4 << 30
"""Bytes of a file that is read at all."""
_HOLLOW = 1 << 20
"""Bytes below which holes in a file are nobody's business."""
_MOST_PIECES, _DEEPEST = 1_000, 4


@dataclass(frozen=True, slots=True)
class Content:
    """All bytes of a file and their SHA-256 in hexadecimal digits."""

    data: bytes
    sha256: str


def open_once(path: Path) -> int:
    """A descriptor for reading, to be closed by the caller; nothing has been read from it.

    Raises UsageError (E-FILE: nothing there), RefusedError (E-LINK, E-DIRECTORY, E-NOT-FILE, E-EMPTY, E-SIZE, E-SPARSE, E-UNREADABLE).
    """
    try:
        # Without O_NONBLOCK a FIFO that nobody writes to would hold us for ever.
        fd = os.open(path, os.O_RDONLY | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY") | _flag("O_CLOEXEC"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("E-FILE", f"there is no file {quoted(str(path), 200)}.", hint="Give the path of a model file.") from error
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from error
    try:
        check(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_beneath(folder: Path, name: str) -> int:
    """A descriptor of the file that a model names as its neighbour, beneath its folder and through no link. Raises RefusedError."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or len(parts) > _DEEPEST or {"", ".", ".."} & set(parts):
        raise refuse("E-EXTERNAL", f"its numbers are said to lie in {quoted(name)}, which is no name of a file beneath its folder")
    if any((folder / Path(*parts[:count])).is_symlink() for count in range(1, len(parts))):
        raise refuse("E-EXTERNAL", f"its numbers are said to lie in {quoted(name)}, which is reached through a link")
    try:
        return open_once(folder / Path(*parts))
    except UsageError as error:
        raise refuse("E-EXTERNAL", f"its numbers are said to lie in {quoted(name)}, which is not there") from error


def check(fd: int) -> int:
    """The size of the regular file behind a descriptor, once it is fit to be read."""
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise refuse("E-DIRECTORY", "expected a file, got a folder")
    if not stat.S_ISREG(status.st_mode):
        raise refuse("E-NOT-FILE", f"expected a regular file, got {_kind(status.st_mode)}")
    if status.st_size == 0:
        raise refuse("E-EMPTY", "the file is empty")
    if status.st_size > LARGEST:
        raise refuse("E-SIZE", f"expected at most {amount(LARGEST)}, got {amount(status.st_size)}")
    if status.st_size >= _HOLLOW and (written := _written(fd, status.st_size)) < status.st_size // 2:
        raise refuse("E-SPARSE", f"only {amount(written)} of its {amount(status.st_size)} were ever written, the rest is a hole")
    return status.st_size


def read_once(fd: int) -> Content:
    """Everything behind the descriptor. Raises RefusedError: what `check` refuses, and E-CHANGED, E-UNREADABLE."""
    size = check(fd)
    before = os.fstat(fd)
    parts, got = [], 0
    try:
        # The kernel gives at most 2 GB a call; what fits into one is never copied.
        while got < size:
            parts.append(os.pread(fd, size - got, got))
            got += len(parts[-1])
            if not parts[-1]:
                raise refuse("E-CHANGED", f"it became shorter while it was read: {got:,} of {size:,} bytes")
        longer = os.pread(fd, 1, size)
    except OSError as error:
        raise refuse("E-UNREADABLE", f"reading failed after {got:,} bytes: {error.strerror}") from error
    after = os.fstat(fd)
    if longer or (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (after.st_size, after.st_mtime_ns, after.st_ctime_ns):
        raise refuse("E-CHANGED", "it was written to while it was read")
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return Content(data, hashlib.sha256(data).hexdigest())


def _unopened(path: Path, error: OSError | ValueError) -> Exception:
    number = getattr(error, "errno", None)
    # FreeBSD and macOS say EMLINK and EFTYPE where Linux says ELOOP.
    if number in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
        return refuse("E-LINK", f"it is a symbolic link to {quoted(os.readlink(path))}")  # noqa: PTH115 (a string, not a path to resolve)
    if number == errno.ENXIO:
        return refuse("E-NOT-FILE", "expected a regular file, got a socket or a device that is not there")
    return refuse("E-UNREADABLE", f"it cannot be opened: {getattr(error, 'strerror', None) or error}")


def _written(fd: int, size: int) -> int:
    """Bytes of the file that lie in no hole; all of them where the system cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        return size
    total = at = 0
    try:
        for _ in range(_MOST_PIECES):
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            total += at - start
            if at >= size:
                break
        else:
            return size
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no data after `at`
            return size
    return total


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


def _flag(name: str) -> int:
    return getattr(os, name, 0)
