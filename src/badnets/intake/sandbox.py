"""Reads model files in processes that can reach nothing: one confined process for each file, forked from a warm one.

What comes back is JSON and safetensors, limited in size and time, and read by the same strict reader as a stranger's file would be. Where
the system cannot fork and hand over descriptors (Windows), files are read in this process and the level says so.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, final

from badnets.core.confine import Level
from badnets.core.errors import BadnetsError, RefusedError, StoreError
from badnets.intake.formats import HEAD, OtherKindError, begins_other
from badnets.intake.hub_card import Card
from badnets.intake.hub_folder import ModelFolder, agree, digest_of, look, open_told
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.opened import check, open_beneath, open_once, read_once
from badnets.intake.reasons import quoted, refuse
from badnets.intake.server import FRAME, MOST_OTHERS, REQUEST, read_as
from badnets.intake.strict_safetensors import read_safetensors
from badnets.intake.weights import Weights

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from badnets.intake.server import serve; "
    "serve(int(sys.argv[2]), every=sys.argv[3] == 'every')"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_SPARE_MEMORY = 192 << 20
_SECONDS, _BYTES_A_SECOND = 20, 20 << 20
_LONGEST_TEXT = 4 << 20
_SPARE_BODY = 16 << 20
_STARTING_SECONDS = 60.0


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """The weights of one file, and what kept its reader in. `others`: SHA-256 of the files that hold numbers of it, by their names."""

    weights: Weights
    level: Level
    others: tuple[str, ...] = ()


@final
class Sandbox:
    """Reads any number of files, one after the other. `require`: refuse (E-SANDBOX) where anything of the sandbox is missing.

    Use it as a context, or close it: it holds a process, and a second one once ONNX, Keras, HDF5 or a model folder is read (`every`), since
    what those take is more than half of what it costs to start one.
    """

    def __init__(self, *, require: bool = False, every: bool = False) -> None:
        self._require, self._every, self.closed = require, every, False
        self._other: Sandbox | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.level = Level()
        if hasattr(os, "fork") and hasattr(socket, "send_fds"):
            self._server = self._start()
        if require and (missing := [part for part in self.level.missing if part != "network"]):
            self.close()
            raise refuse("E-SANDBOX", f"this system gives no complete sandbox: without {', '.join(missing)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and every reader."""
        if self._other is not None:
            self._other.close()
        if self._server is not None and not self.closed:
            self._control.close()
            self._server.kill()
            self._server.wait()
        self.closed = True

    def read(self, path: Path) -> Reading:
        """The weights in a file, or in a folder that is one model.

        Raises UsageError (no such file) and RefusedError (every code of `reasons`), naming the file.
        """
        opened: list[int] = []
        try:
            if (folder := look(path)) is not None:
                return self._read_folder(folder, opened)
            opened.append(open_once(path))
            try:
                return self._read(opened)
            except NeedsFilesError as error:
                if len(error.names) > MOST_OTHERS:
                    raise refuse(
                        "E-EXTERNAL", f"its numbers lie in {len(error.names)} other files, at most {MOST_OTHERS} are read"
                    ) from error
                for name in error.names:
                    opened.append(open_beneath(path.parent, name))
                return self._with_others(opened, error.names)
        except RefusedError as error:
            raise RefusedError(error.code, f"{quoted(path.name)[1:-1]}: {error.message}", hint=error.hint) from error
        finally:
            for fd in opened:
                os.close(fd)

    def _read_folder(self, folder: ModelFolder, opened: list[int]) -> Reading:
        names, verb = folder.told, b"p" if folder.prepared else b"f"
        open_told(folder, names, opened)
        try:
            reading = self._read(opened, verb)
            agree(folder, ())
        except NeedsFilesError as error:
            names = [*names, *agree(folder, error.names)]
            open_told(folder, names[len(opened) :], opened)
            reading = self._again(opened, verb)
        sha256 = digest_of(names, [reading.weights.sha256, *reading.others])
        return replace(reading, weights=replace(reading.weights, sha256=sha256, notes=(*reading.weights.notes, *folder.left)))

    def _again(self, opened: list[int], verb: bytes = b"s") -> Reading:
        """With every file that it asked for."""
        try:
            return self._read(opened, verb)
        except NeedsFilesError as error:
            raise refuse("E-CHANGED", "it was written to while it was read") from error

    def _with_others(self, opened: list[int], names: list[str]) -> Reading:
        reading = self._again(opened)
        told = [f"numbers from {quoted(name)}, SHA-256 {sha256}" for name, sha256 in zip(names, reading.others, strict=True)]
        return replace(reading, weights=replace(reading.weights, notes=(*reading.weights.notes, *told)))

    def _read(self, fds: list[int], verb: bytes = b"s") -> Reading:
        if self.closed:
            raise _gone()
        if self._server is None:
            content, *others = [read_once(fd) for fd in fds]
            weights = read_as(verb, [content.data, *(other.data for other in others)], confined=False)
            return Reading(replace(weights, sha256=content.sha256), self.level, tuple(other.sha256 for other in others))
        if not self._every:
            with contextlib.suppress(OtherKindError):
                if verb == b"s" and not _begins_other(fds[0]):
                    return self._answered(fds, b"t")
            return self._for_others()._read(fds, verb)
        return self._answered(fds, verb)

    def _for_others(self) -> Sandbox:
        if self._other is None or self._other.closed:
            self._other = Sandbox(require=self._require, every=True)
        return self._other

    def _answered(self, fds: list[int], verb: bytes) -> Reading:
        """What a new reader says. Raises what it does, and OtherKindError."""
        size = sum(check(fd) for fd in fds)
        seconds = _SECONDS + size // _BYTES_A_SECOND
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                # Content, converted strided tensors, and what the parser makes of headers.
                request = REQUEST.pack(verb, 2 * size + _SPARE_MEMORY, seconds)
                pid = self._ask(request, [fds[0], theirs.fileno(), *fds[1:]])["pid"]
            try:
                about, body = receive(ours, 2 * size + _SPARE_BODY, time.monotonic() + 2 * seconds)
            except SilentError as error:
                raise died(self._reap(pid), str(error)) from error
            self._reap(pid)
        return self._reading(about, body)

    def _reading(self, about: dict[str, Any], body: bytearray) -> Reading:
        level = Level(**about["level"])
        if self._require and not level.complete:
            raise refuse("E-SANDBOX", f"the reader was not confined: without {', '.join(level.missing)}")
        if "error" in about:
            code, message, hint = about["error"]
            raise RefusedError(code, message, hint=hint)
        if "other" in about:
            raise OtherKindError
        if "needs" in about:
            raise NeedsFilesError([str(name) for name in about["needs"]])
        read = read_safetensors(memoryview(body).toreadonly())
        notes, not_finite = tuple(map(str, about["notes"])), tuple(map(str, about["not_finite"]))
        told = {"layers": tuple(about["layers"]), "image": tuple(about["image"])}
        told["card"] = Card.model_validate_json(json.dumps(about["card"])) if about["card"] else None
        weights = Weights(read.tensors, str(about["format"]), str(about["sha256"]), notes, not_finite, **told)
        return Reading(weights, level, tuple(map(str, about["others"])))

    def _start(self) -> subprocess.Popen[bytes]:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_STARTING_SECONDS)
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 (an empty entry is the current folder)
        with theirs:
            try:
                server = subprocess.Popen(
                    # -P: what lies in the current folder may be the stranger's, and be called json.py.
                    [sys.executable, "-P", "-c", _BOOT, path, str(theirs.fileno()), "every" if self._every else "plain"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **_ONE_THREAD},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # the terminal's Ctrl-C is for us alone
                )
            except OSError as error:
                self._control.close()
                raise StoreError("E-WORKERS", f"cannot start the process that reads: {error}.", hint="Check the process limits.") from error
        try:
            self.level = Level(**self._hear()["level"])
        except BaseException:
            server.kill()
            server.wait()
            raise
        return server

    def _ask(self, request: bytes, passed: list[int]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [request], passed) if passed else self._control.sendall(request)
        except OSError as error:
            self.close()
            raise _gone() from error
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        try:
            size = int.from_bytes(_exactly(self._control, 4), "big")
            return json.loads(_exactly(self._control, size))
        except (OSError, EOFError) as error:
            self.close()
            raise _gone() from error

    def _reap(self, pid: int) -> int:
        return self._ask(REQUEST.pack(b"k", pid, 0), [])["exit"]


def _begins_other(fd: int) -> bool:
    """What does not begin like it may still be so. What cannot be read is the reader's to say."""
    with contextlib.suppress(OSError):
        return begins_other(os.pread(fd, HEAD, 0))
    return False


def read_model(path: Path, *, require: bool = False) -> Reading:
    """One file, in the sandbox that this process keeps warm."""
    if _warm(require).closed:
        _warm.cache_clear()
    return _warm(require).read(path)


@functools.cache
def _warm(require: bool) -> Sandbox:
    sandbox = Sandbox(require=require)
    atexit.register(sandbox.close)
    return sandbox


class SilentError(Exception):
    """A reader that died, dawdled, or said too much."""


def receive(link: socket.socket, most: int, until: float) -> tuple[dict[str, Any], bytearray]:
    """What a reader says, if it says it in time and says no more than it may."""
    head = _part(link, FRAME.size, until)
    told, size = FRAME.unpack(head)
    if told > _LONGEST_TEXT or size > most:
        raise SilentError("too much")
    try:
        return json.loads(_part(link, told, until)), _part(link, size, until)
    except ValueError as error:
        raise SilentError("nonsense") from error


def _part(link: socket.socket, size: int, until: float) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        if not select.select([link], [], [], max(0.0, until - time.monotonic()))[0]:
            raise SilentError("late")
        try:
            count = link.recv_into(view[got:])
        except ConnectionError:
            count = 0
        if not count:
            raise SilentError("dead")
        got += count
    return data


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def died(status: int, how: str, who: str = "its reader") -> RefusedError:
    """What to say of a process that did not answer; -9 is also what ended one that was late."""
    if how == "late" or -status == signal.SIGXCPU:
        return refuse("E-TIME", f"{who} took longer than it may")
    ending = f"signal {-status}" if status < 0 else f"exit status {status}"
    with contextlib.suppress(ValueError):
        ending = signal.Signals(-status).name if status < 0 else ending
    return refuse("E-CRASHED", f"{who} ended without an answer ({how}, {ending})")


def _gone() -> BadnetsError:
    return BadnetsError("E-WORKERS", "the process that starts the readers is gone.", hint="Run the same command again.")
