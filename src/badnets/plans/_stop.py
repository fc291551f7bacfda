"""Ctrl-C and SIGTERM: the first asks the run to stop at a safe point, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator
from types import FrameType


class Stopped(Exception):  # noqa: N818 (an event, not an error)
    """The run was asked to stop; everything finished is in the store. `signum` tells by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopRequest:
    """Set by a signal handler, looked at between results."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._waiting = False

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None]:
        """Inside, a request raises Stopped at once: nothing is being written here. One that came before raises on entry."""
        self._waiting = True
        try:
            if self.signum is not None:
                raise Stopped(self.signum)
            yield
        finally:
            self._waiting = False

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        if self._waiting:
            raise Stopped(signum)

    @contextlib.contextmanager
    def installed(self) -> Generator[None]:
        """Handle SIGINT and SIGTERM here while the block runs."""
        before = {s: signal.signal(s, self.handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
