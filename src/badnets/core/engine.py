"""Runs jobs in worker processes: configurations in, named bytes out, in the order in which they finish.

`Engine` has one method, so that a cluster is one more class. Results do not depend on the number of workers. An engine commits
nothing and handles no signals: the caller does. Not for untrusted code, which belongs in a sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from badnets.core import _child
from badnets.core.errors import BadnetsError, PartialError, RefusedError, StoreError, UsageError
from badnets.core.hardware import num_cores

_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from badnets.core._child import serve
serve(sys.argv[2], *map(int, sys.argv[3:]))
"""
_GONE = "the process that starts the workers is gone"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
_CLASSES = {cls.exit_status: cls for cls in (BadnetsError, UsageError, RefusedError, StoreError, PartialError)}


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work: its key in the store and what the worker is told (JSON)."""

    key: str
    payload: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a worker returned. When it failed, `error` is the message, `failure` the error to raise, and `files` is empty."""

    key: str
    files: dict[str, bytes] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    failure: BadnetsError | None = None


class Engine(ABC):
    """Something that runs jobs."""

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> Generator[JobResult]:
        """One result for each job, in the order of completion. Closing the iterator ends the work at once."""


@final
class SerialEngine(Engine):
    """One job after the other in this process: the reference, and for tests. A job that kills its process kills the caller."""

    def __init__(self, worker: str | _child.Perform) -> None:
        self._worker = worker

    def run(self, jobs: Sequence[Job]) -> Generator[JobResult]:
        """Results in the given order."""
        perform = _child.resolve(self._worker) if isinstance(self._worker, str) else self._worker
        for job in jobs:
            header, contents = _child.answer(perform, job.payload)
            yield _result(job, json.loads(json.dumps(header)), contents)


@final
class ProcessEngine(Engine):
    """Forked workers that live as long as one `run`. A worker that is killed costs its job an error; the others go on.

    `worker` is `package.module:function`, imported once; the function takes a payload and returns (files, info).
    """

    def __init__(self, worker: str = "badnets.plans._work:perform", num_workers: int | None = None) -> None:
        if num_workers is not None and num_workers < 1:
            raise UsageError("E-WORKERS", f"expected at least 1 worker, got {num_workers}.")
        self.worker, self.num_workers = worker, num_workers or num_cores()

    def run(self, jobs: Sequence[Job]) -> Generator[JobResult]:
        """Started in the given order, yielded as they finish."""
        waiting = deque(jobs)
        if not waiting:
            return
        with _Pool(self.worker) as pool:
            while waiting or pool.busy:
                results = pool.collect() if pool.busy else []
                try:
                    while waiting and len(pool.busy) < self.num_workers:
                        pool.start(waiting[0])
                        waiting.popleft()
                except _ServerGoneError:
                    results += [_killed(job, _GONE) for job in waiting]
                    waiting.clear()
                yield from results


class _ServerGoneError(Exception):
    """Somebody ended the server."""


class _Worker:
    """One child, and the job it is at (None: idle)."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link, self.pid = link, pid
        self.job: Job | None = None


class _Pool:
    """The server process and its children, seen from the parent."""

    def __init__(self, worker: str) -> None:
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            raise StoreError("E-PLATFORM", "this system cannot fork worker processes.", hint="On Windows run badnets in WSL.")
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._control, theirs = socket.socketpair()
        life, self._life = os.pipe()
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 (an empty entry is the current folder)
        # -P: what lies in the current folder may be a stranger's, and be called json.py.
        command = [sys.executable, "-P", "-c", _BOOT, path, worker, *map(str, (theirs.fileno(), life, os.getpid()))]
        try:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs.fileno(), life),
                start_new_session=True,  # the terminal's Ctrl-C is for the parent alone
            )
        except OSError as error:
            self._release()
            raise StoreError(
                "E-WORKERS", f"cannot start a worker process: {error}.", hint="Check the memory and process limits."
            ) from error
        finally:
            theirs.close()
            os.close(life)

    def __enter__(self) -> _Pool:
        try:
            header, _ = _child.receive(self._control)
        except BaseException as error:
            self._close(grace=0.0)
            if isinstance(error, EOFError):
                status = self._server.returncode
                raise BadnetsError("E-WORKERS", f"the process that starts the workers ended at once ({_ending(status)}).") from error
            raise
        if "code" in header:
            self._close(grace=1.0)
            raise failed(header)
        return self

    def __exit__(self, *_: object) -> None:
        self._close(grace=1.0)

    @property
    def busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job]

    def start(self, job: Job) -> None:
        """Give the job to an idle worker, or to a new one."""
        while True:
            worker = next((worker for worker in self._workers if not worker.job), None) or self._spawn()
            try:
                _child.send(worker.link, {}, [job.payload.encode()])
            except ConnectionError:  # it died while idle, which costs no job
                self._reap(worker)
                continue
            worker.job = job
            return

    def collect(self) -> list[JobResult]:
        """Wait until some workers have answered or died; their results."""
        results = []
        for key, _ in self._selector.select():
            worker: _Worker = key.data
            if worker.job is None:
                self._reap(worker)
                continue
            job = worker.job
            try:
                results.append(_result(job, *_child.receive(worker.link)))
                worker.job = None
            except EOFError:
                results.append(_killed(job, self._reap(worker)))
        return results

    def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._ask(b"s", 0, theirs)["pid"]
            except BaseException:
                ours.close()
                raise
        worker = _Worker(ours, pid)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _reap(self, worker: _Worker) -> str:
        """Forget a dead worker; how it died."""
        self._workers.remove(worker)
        self._selector.unregister(worker.link)
        worker.link.close()
        try:
            return _ending(self._ask(b"r", worker.pid)["exit"])
        except _ServerGoneError:
            return _GONE

    def _ask(self, verb: bytes, pid: int, passed: socket.socket | None = None) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [_child.REQUEST.pack(verb, pid)], [passed.fileno()] if passed else [])
            return _child.receive(self._control)[0]
        except (EOFError, ConnectionError) as error:
            raise _ServerGoneError from error

    def _close(self, grace: float) -> None:
        """The server kills its children when the control line closes; while it still imports, it has none and is killed itself."""
        self._release()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(grace)
        self._server.kill()
        self._server.wait()

    def _release(self) -> None:
        os.close(self._life)
        self._control.close()
        self._selector.close()
        for worker in self._workers:
            worker.link.close()


def _result(job: Job, header: dict[str, Any], contents: list[bytes]) -> JobResult:
    if "code" in header:
        failure = failed(header)
        return JobResult(job.key, error=str(failure), failure=failure)
    return JobResult(job.key, dict(zip(header["names"], contents, strict=True)), header["info"])


def failed(header: dict[str, Any]) -> BadnetsError:
    """The error that a header of `_child.failure` tells of."""
    return _CLASSES.get(header["status"], BadnetsError)(header["code"], header["message"], hint=header["hint"])


def _killed(job: Job, how: str) -> JobResult:
    hint = "If memory ran out, use fewer workers; the same command continues."
    failure = PartialError("E-KILLED", f"the worker of job {job.key[:12]} died: {how}.", hint=hint)
    return JobResult(job.key, error=str(failure), failure=failure)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {-status}, {signal.Signals(-status).name}"
    return f"signal {-status}"
