"""Decodes images of strangers in a process that can reach nothing: one confined child for a folder, asked for one image after the other.

The file is read here, unlooked at; what comes back is as many bytes as the square has, or a line of text. A child that is late, dies or
says anything else is ended, its image refused, and the next one gets a new child. Does not apply to where a process cannot be given a
socket (Windows): there images are decoded in this process and the level says so. Images of one folder share a child: one that breaks into
it can change what is read of those after it, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self, final

import numpy as np

from badnets.core.confine import Level, address_space, confine, confine_reader, die_with_parent
from badnets.core.errors import StoreError
from badnets.datasets._images import BadImageError, decode, load_decoders, read_image, refuse_image

SECONDS = 120.0
"""For one image; the largest take a few seconds alone."""
MEMORY = 7 << 29
"""Beyond what the child has from the start: MAX_PIXELS of WebP with transparency and EXIF took 2.4 GiB, and the file comes on top."""
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from badnets.datasets._decoder import serve; serve(*map(int, sys.argv[2:]))"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_ASKED = struct.Struct("!QI")
"""Length of the file that follows, side of the square."""
_FRAME = struct.Struct("!cI")
"""What follows (b"l": what keeps the child in, b"p": pixels, b"e": what is wrong with the image) and its length."""
_LONGEST_TEXT = 1000
_STARTING_SECONDS = 60.0
_LATE_IN_A_ROW = 10
"""Images that may take all their time before the limit of processor time, which counts for the child's whole life, ends it."""


@dataclass(slots=True)
@final
class _Child:
    process: subprocess.Popen[bytes]
    link: socket.socket
    busy: float = 0.0

    def end(self, patience: float = 0.0) -> int:
        """Its exit status. `patience`: seconds in which it may end by itself."""
        self.link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience)
        self.process.kill()
        return self.process.wait()


@final
class Decoder:
    """Decodes any number of image files, one after the other. Use it as a context, or close it: it holds a process.

    `seconds`: for one image; `memory`: bytes that the child may take beyond what it starts with.
    """

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._apart = hasattr(os, "fork")
        self._child: _Child | None = None
        self._level = Level()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
            self._child = None

    @property
    def level(self) -> Level:
        """What keeps the child in."""
        if self._apart:
            self._ready()
        return self._level

    def decode(self, path: Path, size: int) -> np.ndarray:
        """The image as (size, size, 3) uint8. Raises RefusedError (E-IMAGE, and E-FILE, E-LARGE for the file) and StoreError."""
        content = read_image(path)
        try:
            return self._decode_apart(content, size) if self._apart else decode(content, size)
        except BadImageError as error:
            raise refuse_image(path, str(error)) from error

    def _decode_apart(self, content: bytes, size: int) -> np.ndarray:
        child, start, whole = self._ready(), time.monotonic(), False
        try:
            kind, body = _exchange(child.link, content, size, start + self._seconds)
            whole = True
        except TimeoutError as error:
            raise BadImageError(f"decoding it took longer than {self._seconds:g} s") from error
        except (OSError, EOFError) as error:
            raise BadImageError(f"its decoder ended without an answer ({_ending(child.end(patience=1.0))})") from error
        except ValueError as error:
            raise BadImageError("its decoder answered with nonsense") from error
        finally:
            # Also when Ctrl-C comes: an answer that nobody waits for must not be taken for that to the next image.
            child.busy += time.monotonic() - start
            if not whole:
                self.close()
        if kind == b"e":
            raise BadImageError(body.decode())
        return np.frombuffer(body, np.uint8).reshape(size, size, 3)

    def _ready(self) -> _Child:
        """The child, or a new one where it is gone or has little processor time left; it cannot have used more than we waited."""
        child = self._child
        if child is not None and (child.process.poll() is not None or child.busy > (_LATE_IN_A_ROW - 1) * self._seconds):
            self.close()
        return self._child or self._start()

    def _start(self) -> _Child:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise _no_start(str(error)) from error
        with theirs:
            try:
                process = _popen(theirs.fileno(), self._memory, math.ceil(_LATE_IN_A_ROW * self._seconds))
            except OSError as error:
                ours.close()
                raise _no_start(str(error)) from error
        self._child, started = _Child(process, ours), False
        try:
            _, body = _received(ours, {b"l": _LONGEST_TEXT}, time.monotonic() + _STARTING_SECONDS)
            self._level, started = Level(**json.loads(body)), True
        except (OSError, EOFError) as error:
            raise _no_start(_ending(self._child.end(patience=1.0))) from error
        finally:
            if not started:
                self.close()
        return self._child


def _popen(fd: int, memory: int, seconds: int) -> subprocess.Popen[bytes]:
    path = json.dumps([os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 (an empty entry is the current folder)
    return subprocess.Popen(
        # -P: the current folder may be the stranger's, with a json.py in it.
        [sys.executable, "-P", "-c", _BOOT, path, *map(str, (fd, os.getpid(), memory, seconds))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what a broken child says must not reach a terminal
        env={**os.environ, **_ONE_THREAD},
        pass_fds=(fd,),
        start_new_session=True,  # the terminal's Ctrl-C is for us alone
    )


def serve(fd: int, parent: int, memory: int, seconds: int) -> NoReturn:
    """The child: confines itself, says how far that went, then decodes until the other side closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=fd)
    load_decoders()
    memory += address_space()
    level = confine()
    die_with_parent(parent)  # not before: it is undone where rights change
    level = confine_reader(level, memory=memory, seconds=seconds)
    with contextlib.suppress(EOFError, ConnectionError):
        _send(link, b"l", json.dumps(level.to_json()).encode())
        while True:
            _send(link, *_answer(link))
    os._exit(0)


def _answer(link: socket.socket) -> tuple[bytes, bytes]:
    length, size = _ASKED.unpack(_part(link, _ASKED.size))
    try:
        return b"p", decode(_part(link, length), size).tobytes()
    except BadImageError as error:
        return b"e", str(error).encode()


def _send(link: socket.socket, kind: bytes, body: bytes) -> None:
    link.sendall(_FRAME.pack(kind, len(body)) + body)


def _exchange(link: socket.socket, content: bytes, size: int, until: float) -> tuple[bytes, bytearray]:
    """What the child says of an image. Raises TimeoutError; EOFError, OSError where it is gone; ValueError where it may not say so."""
    link.settimeout(_left(until))
    link.sendall(_ASKED.pack(len(content), size) + content)
    kind, body = _received(link, {b"p": 3 * size**2, b"e": _LONGEST_TEXT}, until)
    if not (body.decode().isprintable() if kind == b"e" else len(body) == 3 * size**2):
        raise ValueError
    return kind, body


def _received(link: socket.socket, longest: dict[bytes, int], until: float) -> tuple[bytes, bytearray]:
    """A frame of one of these kinds that is not longer than it may be."""
    kind, length = _FRAME.unpack(_part(link, _FRAME.size, until))
    if length > longest.get(kind, -1):
        raise ValueError
    return kind, _part(link, length, until)


def _part(link: socket.socket, length: int, until: float | None = None) -> bytearray:
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        if until is not None:
            link.settimeout(_left(until))
        count = link.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    return data


def _left(until: float) -> float:
    """Not 0, which would mean not to wait even for what is on its way."""
    return max(0.001, until - time.monotonic())


def _ending(status: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"exit status {status}"


def _no_start(why: str) -> StoreError:
    return StoreError("E-WORKERS", f"the process that decodes images does not start: {why}.", hint="Check the process limits.")
