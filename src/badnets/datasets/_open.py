"""Reading files that others made: regular files only, opened once, bounded, and their names made safe to print.

Does not apply to the store's own files, which are verified by hash.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from badnets.core.errors import RefusedError

MIB = 1 << 20
_LONGEST = 160


def show(text: object) -> str:
    """`text` for a terminal: everything unprintable (control, bidi, surrogate) as an escape, long text cut in the middle."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in str(text))
    return safe if len(safe) <= _LONGEST else f"{safe[: _LONGEST // 2]}...{safe[-_LONGEST // 2 :]}"


def reason(error: BaseException) -> str:
    """What the system or a library said of a failure, in a few printable words."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return show(text) or type(error).__name__


def exists(path: Path) -> bool:
    """Whether there is anything of that name, a dangling or looping link included; False where one may not look."""
    return os.path.lexists(path)


def is_dir(path: Path) -> bool:
    """Whether it is a folder; False where one may not look (`Path.is_dir` raises there)."""
    return os.path.isdir(path)  # noqa: PTH112


@contextmanager
def opened(path: Path) -> Generator[BinaryIO]:
    """A regular file, opened without blocking on a FIFO or device; anything else is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise RefusedError("E-FILE", f"{show(path)} cannot be read: {reason(error)}.", hint="Check its permissions.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError("E-FILE", f"expected a regular file, {show(path)} is not one.", hint="Replace it with a plain file.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_bounded(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes."""
    with opened(path) as file:
        too_long = os.fstat(file.fileno()).st_size > limit
        content = b"" if too_long else bytes(take(path, file, limit + 1))
    if too_long or len(content) > limit:
        raise RefusedError("E-LARGE", f"{show(path)}: expected at most {limit:,} bytes, got more.", hint="Take a smaller file.")
    return content


@contextmanager
def opened_maybe_gzip(path: Path) -> Generator[BinaryIO]:
    """Like `opened`, decompressing when the name ends in `.gz`."""
    with opened(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield cast("BinaryIO", unpacked)
        else:
            yield file


def take(path: Path, file: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, piece by piece: a file that promises more than it holds costs only what it holds."""
    content = bytearray()
    try:
        while len(content) < count and (piece := file.read(min(MIB, count - len(content)))):
            content += piece
    except EOFError as error:
        raise RefusedError("E-TRUNCATED", f"{show(path)} ends early: {reason(error)}.", hint="Get the file again.") from error
    except (OSError, zlib.error) as error:
        raise RefusedError("E-CORRUPT", f"{show(path)} is damaged: {reason(error)}.", hint="Get the file again.") from error
    return content
