"""The live scoreboard of a run on stderr: rows fill in as claims are decided, with progress and time left."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from badnets.claims._base import Claim
from badnets.core.types import Evidence
from badnets.report._format import duration, plural
from badnets.report.text import Board

_BAR = 30


class Scoreboard:
    """An Audience that draws. Where stderr is no terminal it prints one line per decided claim instead."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True, highlight=False)
        self._claims: list[Claim] = []
        self._decided: dict[str, Evidence] = {}
        self._done, self._jobs, self._left = 0, 0, None
        self._live = Live(console=self.console, get_renderable=self._draw, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the live drawing away."""
        self._live.stop()

    def started(self, claims: list[Claim], jobs: int, stored: int) -> None:
        self._claims, self._jobs = claims, jobs
        if not self.console.is_terminal:
            self.console.print(
                f"{self.title}: {plural(len(claims), 'claim')}, {plural(jobs, 'job')} to do; in the store already: {plural(stored, 'net')}"
            )

    def progress(self, done: int, jobs: int, seconds_left: float | None) -> None:
        self._done, self._jobs, self._left = done, jobs, seconds_left

    def decided(self, evidence: Evidence) -> None:
        self._decided[evidence.name] = evidence
        if not self.console.is_terminal:
            done = f"[{min(self._done + 1, self._jobs)}/{self._jobs}]" if self._jobs else "[from the store]"
            self.console.print(f"{done} {evidence.verdict:<11} {evidence.sentence}", markup=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        filled = round(_BAR * self._done / self._jobs) if self._jobs else 0
        left = f", about {duration(self._left)} left" if self._left is not None else ""
        bar = Text.assemble(("━" * filled, "bold"), ("━" * (_BAR - filled), "dim"), f" {self._done} of {self._jobs} jobs{left}")
        pending = [(claim.sentence, "…") for claim in self._claims if claim.kind not in self._decided]
        decided = [self._decided[claim.kind] for claim in self._claims if claim.kind in self._decided]
        return Group(Text(self.title, style="bold"), bar, Text(), Board(decided, pending))
