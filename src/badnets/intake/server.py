"""The other side of `sandbox`: a process that is confined once, then forks a reader for every file and forgets it.

Every file has a process of its own, so that one cannot see or spoil another; what all need is imported before the fork, which is what makes
it cheap. The server itself reads nothing of any file. One server is for files that numpy alone reads, and has no other library in it; a
second one, for every kind, is started where one of the others comes. They are confined in the same way.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
from typing import NoReturn

from badnets.core.confine import Level, address_space, confine, confine_reader, die_with_parent
from badnets.core.errors import BadnetsError
from badnets.intake.formats import OtherKindError, import_all, is_other, read_together
from badnets.intake.hub_folder import MOST_SHARDS
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.opened import read_once
from badnets.intake.reasons import refuse
from badnets.intake.weights import Weights

REQUEST = struct.Struct("!cqq")
"""(verb, number, number): b"s", memory beyond what the server has, processor seconds; or b"k", the process to end and reap, 0.

Like b"s" are b"t", for a file of a kind that numpy alone reads, and b"f" and b"p", for a model folder without and with a file that says how
its input is prepared."""
FRAME = struct.Struct("!QQ")
"""Sizes of what a reader sends: JSON, then safetensors."""
MOST_OTHERS = 4
"""Files beside the model that hold numbers of it."""
_MOST_PASSED = 4 + MOST_SHARDS
_PIECE = 1 << 24


def serve(control_fd: int, *, every: bool) -> NoReturn:
    """Confine this process, say how far that went, then serve until the other side closes its end. `every`: every kind of file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    if every:
        import_all()
    base = address_space()
    level = confine()
    gc.freeze()
    _tell(control, {"pid": os.getpid(), "level": level.to_json()})
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):
        while True:
            request, passed, _, _ = socket.recv_fds(control, REQUEST.size, _MOST_PASSED)
            if len(request) < REQUEST.size:
                break
            verb, first, second = REQUEST.unpack(request)
            if verb != b"k":
                pid = _fork(control, level, passed, (verb, base + first, second))
                children.add(pid)
                _tell(control, {"pid": pid})
            elif first in children:
                children.remove(first)
                os.kill(first, signal.SIGKILL)
                _tell(control, {"exit": os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _fork(control: socket.socket, level: Level, passed: list[int], how: tuple[bytes, int, int]) -> int:
    """Start a reader of the files `passed[0]` and `passed[2:]` that answers on the socket `passed[1]`; its process number.

    `how`: the verb, bytes of memory, processor seconds."""
    server = os.getpid()
    pid = os.fork()
    if pid:
        for fd in passed:
            os.close(fd)
        return pid
    status = 1
    try:
        die_with_parent(server)
        control.close()
        link = socket.socket(fileno=passed[1])
        level = confine_reader(level, memory=how[1], seconds=how[2])
        _answer(how[0], [passed[0], *passed[2:]], link, level)
        status = 0
    finally:
        os._exit(status)


def _answer(verb: bytes, fds: list[int], link: socket.socket, level: Level) -> None:
    about: dict[str, object] = {"level": level.to_json()}
    body: list[bytes | memoryview] = []
    try:
        content, *others = [read_once(fd) for fd in fds]
        about["sha256"] = content.sha256
        weights = read_as(verb, [content.data, *(other.data for other in others)], confined=level.complete)
        about |= {"format": weights.format, "notes": weights.notes, "not_finite": weights.not_finite}
        about["card"] = weights.card and weights.card.model_dump(mode="json")
        about |= {"layers": weights.layers, "image": weights.image, "others": [other.sha256 for other in others]}
        body = list(weights.to_safetensors())
    except NeedsFilesError as error:
        about["needs"] = error.names
    except OtherKindError:
        about["other"] = True
    except MemoryError:
        about["error"] = _plain(refuse("E-MEMORY", "reading it took more memory than its size allows"))
    except BadnetsError as error:
        about["error"] = _plain(error)
    text = json.dumps(about).encode()
    link.sendall(FRAME.pack(len(text), sum(len(part) for part in body)) + text)
    for part in body:
        for start in range(0, len(part), _PIECE):
            link.sendall(part[start : start + _PIECE])


def read_as(verb: bytes, files: list[bytes], *, confined: bool) -> Weights:
    """A model and the other files that belong to it, as the verb says. Raises RefusedError, NeedsFilesError, OtherKindError."""
    if verb == b"t" and is_other(files[0]):
        raise OtherKindError
    if verb in (b"s", b"t"):
        return read_together(files[0], files[1:], confined=confined)
    from badnets.intake.hub_read import read_folder

    return read_folder(files, prepared=verb == b"p")


def _plain(error: BadnetsError) -> list[str]:
    return [error.code, error.message, error.hint]


def _tell(control: socket.socket, message: dict[str, object]) -> None:
    text = json.dumps(message).encode()
    control.sendall(len(text).to_bytes(4, "big") + text)
