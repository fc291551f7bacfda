"""The other side of `engine`: a server that imports the worker once and forks it, and the loop that each fork runs.

Not a sandbox: the worker is our own code. It exists beside multiprocessing's fork server because that one runs the user's `__main__`
again in every child and talks pickle; this one needs no `if __name__ == "__main__"` and talks JSON and bytes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from badnets.core.errors import BadnetsError

Perform = Callable[[str], tuple[dict[str, bytes], dict[str, Any]]]

REQUEST = struct.Struct("!cq")
_LENGTH = struct.Struct("!Q")
_PR_SET_PDEATHSIG = 1


def serve(worker: str, control_fd: int, life_fd: int, parent: int) -> NoReturn:
    """Import `worker`, then fork a child for every `s` request and reap one for every `r`; end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what a worker prints must not end up in the parent's `--json` document
    sys.stdout = sys.stderr  # and not wait in a buffer until the worker is killed
    control = socket.socket(fileno=control_fd)
    _die_with(parent)
    try:
        perform = resolve(worker)
    except BaseException as error:  # noqa: BLE001 (whatever an import can raise is reported to the parent)
        send(control, failure(error))
        os._exit(1)
    # Linux sends this signal when the *thread* that started us ends, so it guards the import only; then end-of-file does.
    _on_parent_death(0)
    gc.freeze()
    send(control, {"pid": os.getpid()})
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):
        while (request := socket.recv_fds(control, REQUEST.size, 1))[0]:
            verb, pid = REQUEST.unpack(request[0])
            if verb == b"s":
                pid = _fork(perform, control, request[1][0], life_fd)
                children.add(pid)
                send(control, {"pid": pid})
            else:
                os.kill(pid, signal.SIGKILL)
                children.discard(pid)
                send(control, {"exit": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    os._exit(0)


def resolve(worker: str) -> Perform:
    """The function that `package.module:function` names."""
    module, _, name = worker.partition(":")
    return getattr(importlib.import_module(module), name)


def answer(perform: Perform, payload: str) -> tuple[dict[str, Any], list[bytes]]:
    """What becomes of one job: (header, contents of the files), or an error header and nothing."""
    try:
        files, info = perform(payload)
        assert all(isinstance(data, bytes) for data in files.values()), "a worker returns bytes"
        json.dumps(info, allow_nan=False)
    except BaseException as error:  # noqa: BLE001 (also SystemExit: whatever a job does, the worker lives on and says so)
        return failure(error), []
    return {"names": list(files), "info": info}, list(files.values())


def failure(error: BaseException) -> dict[str, Any]:
    """An error as plain data: ours with its code and message, any other with its traceback."""
    if isinstance(error, BadnetsError):
        return {"status": error.exit_status, "code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, MemoryError):
        hint = "Use fewer workers or a smaller batch, then run the same command again."
        return {"status": 5, "code": "E-MEMORY", "message": f"a worker ran out of memory: {error}.", "hint": hint}
    text = "".join(traceback.format_exception(error)).rstrip()
    return {"status": 4, "code": "E-BUG", "message": f"a defect in badnets, not in your input:\n{text}", "hint": ""}


def send(link: socket.socket, header: dict[str, Any], contents: list[bytes] | None = None) -> None:
    """One frame: length, JSON header (with the sizes of what follows), contents."""
    contents = contents or []
    text = json.dumps({**header, "sizes": [len(data) for data in contents]}, allow_nan=False).encode()
    link.sendall(_LENGTH.pack(len(text)) + text)
    for data in contents:
        link.sendall(data)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """One frame; EOFError when the other side is gone, also in its middle."""
    header = json.loads(_exactly(link, _LENGTH.unpack(_exactly(link, _LENGTH.size))[0]))
    return header, [_exactly(link, size) for size in header.pop("sizes")]


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            count = link.recv_into(view[got:])
        except ConnectionError as error:
            raise EOFError from error
        if not count:
            raise EOFError
        got += count
    return bytes(data)


def _fork(perform: Perform, control: socket.socket, job_fd: int, life_fd: int) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        os.close(job_fd)
        return pid
    status = 1
    try:
        control.close()
        _die_with(server)
        threading.Thread(target=_watch, args=(life_fd,), daemon=True).start()
        _work(perform, socket.socket(fileno=job_fd))
        status = 0
    except BaseException:  # noqa: BLE001 (there is nobody above to raise to)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _work(perform: Perform, link: socket.socket) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _, (payload,) = receive(link)
            send(link, *answer(perform, payload.decode()))


def _watch(life_fd: int) -> None:
    """The pipe's only writer is the engine's process: end-of-file says that it is gone."""
    os.read(life_fd, 1)
    os._exit(1)


def _die_with(parent: int) -> None:
    _on_parent_death(signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _on_parent_death(signal_number: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
