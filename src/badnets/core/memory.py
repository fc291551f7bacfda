"""The most memory that a piece of work held beyond what the process held before it, by looking every few milliseconds.

Counts the whole process, so nothing else should be at work in it. Unknown (None) where the system has no /proc.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_STATM = Path("/proc/self/statm")
EVERY_SECONDS = 0.005


class Peak:
    """`bytes`: the highest increase seen so far; None where it cannot be seen."""

    def __init__(self) -> None:
        self._before = _resident()
        self.bytes: int | None = None if self._before is None else 0

    def look(self) -> None:
        """Take note of what is held now."""
        now = _resident()
        if now is not None and self._before is not None:
            self.bytes = max(self.bytes or 0, now - self._before)


@contextmanager
def watched() -> Generator[Peak]:
    """Within the context a thread looks; afterwards `bytes` is what it saw."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.look()


def _resident() -> int | None:
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
