"""Faults for the tests of files and store: an error, a hard exit or a power cut before the n-th primitive operation."""

import contextlib
import errno
import os
import shutil
import sys
import time
import traceback
import warnings

from badnets.core import files
from badnets.core.errors import StoreError

ERRORS = {
    "EIO": (errno.EIO, "E-IO"),
    "ENOSPC": (errno.ENOSPC, "E-FULL"),
    "EACCES": (errno.EACCES, "E-READONLY"),
    "EROFS": (errno.EROFS, "E-READONLY"),
}
CUTS = ("all", "data", "oldest name")


class Counter:
    """Stands in for `files._op`: counts operations and does `act(name, path)` before the n-th."""

    def __init__(self, nth=None, act=None):
        self.nth, self.act, self.count, self.names = nth, act, 0, []

    def __call__(self, name, path):
        self.count += 1
        self.names.append(name)
        if self.count == self.nth:
            self.act(name, path)

    @property
    def fired(self):
        return self.nth is not None and self.count >= self.nth


def fail_with(number):
    def act(name, path):
        raise OSError(number, os.strerror(number), str(path))

    return act


def hard_exit(name, path):
    os._exit(77)


class PowerCut(Counter):
    """Before the n-th operation the power goes: what was not synced by then is lost, then the process ends.

    `lose` = "all": unsynced names and data; "data": names survive, unsynced data do not; "oldest name": only the first unsynced name goes.
    """

    def __init__(self, nth, lose):
        super().__init__(nth, self._cut)
        self.lose, self.previous = lose, None
        self.unsynced_data, self.unsynced_names, self.temp = set(), {}, None

    def __call__(self, name, path):
        if self.previous:
            self._done(*self.previous)
        self.previous = (name, path)
        if name == "rename":
            self.before = path.read_bytes() if path.exists() else None
        super().__call__(name, path)

    def _done(self, name, path):
        if name in ("open", "write"):
            self.temp = path
            self.unsynced_data.add(path)
        elif name == "fsync":
            self.unsynced_data.discard(path)
        elif name == "rename":
            if self.temp in self.unsynced_data:
                self.unsynced_data = {path if place == self.temp else place for place in self.unsynced_data}
            self.unsynced_names[path] = self.before
        elif name == "mkdir":
            self.unsynced_names[path] = None
        elif name == "fsync_dir":
            self.unsynced_names = {place: old for place, old in self.unsynced_names.items() if place.parent != path}

    def _cut(self, name, path):
        if self.lose != "oldest name":
            for place in self.unsynced_data:
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(place, 0)
        names = list(self.unsynced_names.items())
        for place, old in {"all": names, "data": [], "oldest name": names[:1]}[self.lose]:
            if place.is_dir():
                shutil.rmtree(place)
            elif old is None:
                place.unlink(missing_ok=True)
            else:
                place.write_bytes(old)
        os._exit(77)


def error_of(function):
    """The StoreError that the call raises, or None."""
    try:
        function()
    except StoreError as error:
        return error
    return None


def fork(function):
    """Run `function` in a forked child; its process id. The child exits 0, or 1 after a traceback."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests: the child uses none of their locks
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def status_of(pid, seconds=20.0):
    """The child's exit status (negative: signal); it must end in time."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < end, "a child hangs"
        time.sleep(0.001)


def in_children(number, function):
    """`function(index)` in that many children, released at the same moment; their exit statuses."""
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()

    def child(index):
        os.close(go_w)
        os.write(ready_w, b"r")
        os.read(go_r, 1)
        function(index)

    pids = [fork(lambda index=index: child(index)) for index in range(number)]
    for _ in pids:
        os.read(ready_r, 1)
    os.close(go_w)
    try:
        return [status_of(pid) for pid in pids]
    finally:
        for fd in (ready_r, ready_w, go_r):
            os.close(fd)


def in_child(counter, function):
    """`function` in a child with `counter` as its operation hook; its exit status (77: the fault fired)."""

    def child():
        files._op = counter
        function()

    return status_of(fork(child))
