"""Runs a stranger's net in a process of its own that can write, send and start nothing, and read nothing but the code that it runs.

By then a net is checked numbers in an architecture of ours. What is left to keep in is what computing with them may do: take all memory,
never end, meet a fault in a library. Not for nets of our own making. Where the system cannot fork (Windows) the work is done in this
process, and its level says so.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, NoReturn

from badnets.core._child import failure
from badnets.core.confine import Level, address_space, confine, confine_reader, die_with_parent, readable_by_code
from badnets.core.engine import failed
from badnets.core.errors import BadnetsError
from badnets.intake.reasons import refuse
from badnets.intake.sandbox import SilentError, died, receive
from badnets.intake.server import FRAME

Message = tuple[dict[str, Any], bytes]
"""What work says as it goes: anything JSON holds, and bytes."""
Work = Callable[[Level], Iterable[Message]]

_MOST_FILES, _HIGHEST_FD = 64, 1 << 20
_MOST_BYTES = 2 << 30
_PATIENCE = 4
"""Wall-clock seconds for a processor second, on a machine that is busy with other things."""
_NO_MEMORY = ("can't allocate memory", "not enough memory")
"""What torch says where an allocation fails, which is no error class of its own."""


class Limits(NamedTuple):
    """Bytes of memory beyond what the process has, and processor seconds."""

    memory: int = 6 << 30
    seconds: int = 6 * 3600


def run_confined(work: Work, name: str, *, limits: Limits = Limits(), require: bool = False) -> Generator[Message]:
    """What `work` says, message by message, done in a confined copy of this process; it is told what keeps it in. `name`: of the net.

    Ended early, the copy ends too. Raises what the work raises of ours, RefusedError (E-MEMORY, E-TIME, E-CRASHED) and, where `require` and
    anything of the confinement is missing, E-SANDBOX.
    """
    if not hasattr(os, "fork"):
        yield from work(_checked(Level(), name, require=require))
        return
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            pid = _fork(_Task(work, name, limits, require), theirs)
        until = time.monotonic() + _PATIENCE * limits.seconds
        status: int | None = None
        try:
            while True:
                try:
                    about, body = receive(ours, _MOST_BYTES, until)
                except SilentError as error:
                    status = _end(pid)
                    raise died(status, str(error), f"{name}: the process that ran it") from error
                if "end" in about:
                    return
                if "code" in about:
                    raise failed(about)
                yield about["said"], bytes(body)
        finally:
            if status is None:
                _end(pid)


class _Task(NamedTuple):
    """What `run_confined` was given."""

    work: Work
    name: str
    limits: Limits
    require: bool


def _checked(level: Level, name: str, *, require: bool) -> Level:
    """The level, where it is enough. Raises RefusedError (E-SANDBOX)."""
    if require and not level.complete:
        raise refuse("E-SANDBOX", f"{name}: the net would run without {', '.join(level.missing)}")
    return level


def _fork(task: _Task, theirs: socket.socket) -> int:
    # torch imports it when a net is built without memory, and it wants a folder to write to. Here it is also imported once for all files.
    importlib.import_module("torch._dynamo")
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent alone
        _work(task, theirs, parent)
    finally:
        os._exit(1)


def _work(task: _Task, link: socket.socket, parent: int) -> NoReturn:
    """In the copy. It may only leave by os._exit: above it stands its parent's code."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nowhere, fd)
    os.closerange(3, link.fileno())
    os.closerange(link.fileno() + 1, _HIGHEST_FD)
    memory = address_space() + task.limits.memory
    try:
        level = confine(readable_by_code())
        die_with_parent(parent)  # not before: it is undone where rights change
        level = confine_reader(level, memory=memory, seconds=task.limits.seconds, num_files=_MOST_FILES)
        for said, body in task.work(_checked(level, task.name, require=task.require)):
            _say(link, {"said": said}, body)
        _say(link, {"end": True})
    except BaseException as error:  # noqa: BLE001 (whatever the work raises is told to the parent)
        with contextlib.suppress(ConnectionError):  # nobody listens any more
            _say(link, failure(_out_of_memory(error, task.name) or error))
    os._exit(0)


def _out_of_memory(error: BaseException, name: str) -> BadnetsError | None:
    text = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return refuse("E-MEMORY", f"{name}: not analysable: running it takes more memory than it is given")
    return None


def _say(link: socket.socket, about: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(about).encode()
    link.sendall(FRAME.pack(len(text), len(body)) + text)
    link.sendall(body)


def _end(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
