"""Works through the jobs of a bench, keeping each result as it comes; a stop request loses nothing that is done."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from badnets.core.engine import Engine, Job, JobResult, ProcessEngine
from badnets.core.errors import PartialError, UsageError
from badnets.core.store import Store
from badnets.plans._stop import StopRequest


@dataclass(frozen=True)
class Site:
    """Where a run takes place: its store, the folder the user named for data, the engine (None: a process a core)."""

    store: Store
    data: Path | None = None
    engine: Engine | None = None


class Receiver(Protocol):
    """Who keeps results: a bench."""

    def receive(self, result: JobResult) -> None: ...


def work_through(bench: Receiver, jobs: list[Job], site: Site, stop: StopRequest) -> Iterator[tuple[int, float | None]]:
    """After each job: how many are done, and about how many seconds are left. Raises what failed when the others are done."""
    start, failures = time.perf_counter(), []
    results = (site.engine or ProcessEngine()).run(jobs)
    for done, result in enumerate(_until_stopped(results, stop), start=1):
        if result.failure is not None:
            failures.append(result)
        else:
            bench.receive(result)
        yield done, (time.perf_counter() - start) / done * (len(jobs) - done)
    if failures:
        _report(failures, len(jobs))


def _until_stopped(results: Generator[JobResult], stop: StopRequest) -> Iterator[JobResult]:
    """Results one by one; a stop request ends the wait for the next, never the keeping of one that came."""
    try:
        while True:
            with stop.interruptible():
                result = next(results, None)
            if result is None:
                return
            yield result
    finally:
        results.close()


def _report(failures: list[JobResult], jobs: int) -> None:
    first = failures[0].failure
    assert first is not None
    if isinstance(first, UsageError) or len(failures) == jobs:
        raise first
    message = f"{len(failures)} of {jobs} trainings failed, the first with: {first}"
    raise PartialError("E-PARTIAL", message, hint="What succeeded is kept: run the same command again.")
