"""A progress bar on stderr for work that is not a run of claims; says how to go on when it is stopped."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from badnets.plans._stop import Stopped, StopRequest
from badnets.report._escape import plain


class Progress:
    """A bar where stderr is a terminal, else a line at the start. Within it SIGINT and SIGTERM stop at a safe point."""

    def __init__(self, what: str) -> None:
        self.what, self.stop = what, StopRequest()
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._task = self._bars.add_task(what, total=None)
        self._handled = self.stop.installed()

    def __enter__(self) -> Self:
        self._handled.__enter__()
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:  # it would print an empty line
            self._bars.stop()
        self._handled.__exit__(kind, error, trace)
        if isinstance(error, Stopped):
            print("Stopped. What is done is kept: the same command continues.", file=sys.stderr)
            sys.exit(128 + error.signum)

    def now(self, what: str) -> None:
        """Another kind of work begins."""
        self.what = what
        self._bars.reset(self._task, description=what, total=None)

    def say(self, sentence: str) -> None:
        """Something to be read while the work goes on."""
        self._console.print(Text(plain(sentence)), soft_wrap=True)

    def started(self, nets: int, jobs: int) -> None:
        """How much there is to do."""
        self._bars.update(self._task, total=jobs)
        if not self._console.is_terminal:
            self._console.print(f"{nets} {self.what}: {jobs} jobs to do")

    def progress(self, done: int, jobs: int, seconds_left: float | None) -> None:
        """One job more is done."""
        del jobs, seconds_left
        self._bars.update(self._task, completed=done)
