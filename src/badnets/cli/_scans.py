"""What a scan of many files prints, one line a file and a summary that adds up; and where its page and its SARIF file go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from badnets.cli._output import check_target, outside_store
from badnets.core import files, registry
from badnets.core.errors import UsageError
from badnets.core.scanned import Item, ScanRecord, State
from badnets.report import _format as show
from badnets.report._escape import plain

if TYPE_CHECKING:
    from badnets.cli._progress import Progress
    from badnets.datasets._base import Dataset
    from badnets.intake.found import Found

WORDS = {
    State.FLAGGED: ("BACKDOORED", "bold red"),
    State.NOTHING: ("NOTHING FOUND", "bold"),
    State.REFUSED: ("REFUSED", "bold yellow"),
    State.FAILED: ("FAILED", "bold magenta"),
}


class Watched:
    """Shows a scan's two parts on one progress bar: first files, then the clean nets to compare with."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self.stop, self._parts = progress, progress.stop, 0
        self._seen = ""

    def opened(self, seen: str) -> None:
        """What was seen in a lone file: said only where the verdict has to wait for clean nets."""
        self._seen = seen

    def started(self, nets: int, jobs: int) -> None:
        """Files to read and judge, or clean nets."""
        self._parts += 1
        if self._parts > 1:
            self._progress.now("clean nets to compare with")
            if jobs and self._seen:
                self._progress.say(f"{self._seen}. Now clean nets like it are trained, once: if this is not how it should be read, Ctrl-C.")
        if jobs > 1 or self._parts > 1:  # of one file there is nothing to announce
            self._progress.started(nets, jobs)

    def progress(self, done: int, jobs: int, seconds_left: float | None) -> None:
        """One more."""
        self._progress.progress(done, jobs, seconds_left)


@dataclass(frozen=True)
class Outputs:
    """What was asked for beside the terminal."""

    sarif: Path | None
    html: Path | None
    json: bool

    def check(self) -> None:
        """Refuse what cannot be written before hours of work rather than after."""
        for option, path in (("--sarif", self.sarif), ("--html", self.html)):
            if path is not None:
                check_target(path, option)

    def write(self, record: ScanRecord, folder: Path, *, quiet: bool) -> None:
        """The SARIF file where one was asked for, and the page; where they are is told, on stderr if stdout is for JSON."""
        from badnets.report.sarif import render_sarif
        from badnets.report.scan_page import render_scan

        written = []
        if self.sarif is not None:
            with outside_store("--sarif"):
                files.write_text(self.sarif, render_sarif(record))
            written.append(("SARIF", self.sarif))
        if self.html is not None or not quiet:
            page = self.html or folder / "scan.html"
            with outside_store("--html"):
                files.write_text(page, render_scan(record))
            written.append(("page", page))
        console = Console(stderr=self.json or quiet, highlight=False)
        for name, path in written:
            console.print(Text(f"{name}: {plain(path)}", style="dim"), soft_wrap=True)


def look_for(
    models: Sequence[Path], dataset: str | None, data: Path | None, images: Path | None
) -> tuple[list[Path], Found, Dataset, Path | None]:
    """(paths, the files found there, data set, folder of data). Without paths it is the training data that are looked through."""
    from badnets.cli import _choose, _unlabelled
    from badnets.intake.found import find

    paths, dataset = split_names(models, dataset)
    _unlabelled.check(images, paths, dataset, data)
    if not paths and dataset is None and data is None:
        hint = "Try `badnets plant --out x` and `badnets scan x/victim.safetensors`."
        raise UsageError("E-USAGE", "expected a net or training data to scan, got neither.", hint=hint)
    if not paths and dataset is not None:
        if Path(dataset).is_dir():
            dataset, data = None, Path(dataset)
        elif dataset != Path(dataset).name and dataset.partition(":")[0] not in registry.names("datasets"):
            hint = "Give the folder of the training data, or a name of `badnets list datasets`."
            raise UsageError("E-DATA", f"--dataset names {dataset!r:.100}, which is no folder.", hint=hint)
    found = find(paths)
    if paths and not found.inputs:
        message = f"expected a model file, found none among {len(found.passed_over):,} files."
        raise UsageError("E-FILE", message, hint="For training data: `badnets scan --dataset DIR`.")
    return paths, found, *_choose.choose_dataset(dataset, data)


def split_names(models: Sequence[Path], dataset: str | None) -> tuple[list[Path], str | None]:
    """Paths, and the data set, whose name may also stand last, as in `badnets scan model.pt mnist`."""
    paths = list(models)
    if dataset is None and len(paths) > 1 and not os.path.lexists(paths[-1]):
        name = str(paths[-1])
        if name.partition(":")[0] in registry.names("datasets"):
            return paths[:-1], name
    return paths, dataset


def print_scans(record: ScanRecord) -> None:
    """One line a file, in the order in which they were named, then the sums."""
    console = Console(highlight=False)
    for item in record.items:
        console.print(_line(item), soft_wrap=True)
    console.print()
    for text in sums(record):
        console.print(Text(text), soft_wrap=True)


def sums(record: ScanRecord) -> list[str]:
    """What adds up, and how often clean nets are flagged."""
    s = record.summary
    counted = f"{show.plural(s.inputs, 'file')} = {s.analysed:,} analysed + {s.refused:,} refused or not analysable + {s.failed:,} failed."
    told = [f"{counted} Flagged: {s.flagged:,} of {s.analysed:,} analysed."]
    if s.passed_over:
        told.append(f"Passed over in folders, since they begin like no model file or lie beside one: {s.passed_over:,}.")
    rates = {item.verdict.setting: item.verdict for item in record.items if item.verdict}
    for setting, verdict in rates.items():
        alarms = show.figure(verdict.false_alarms, "rate")
        of = f"of {verdict.false_alarms.n} clean nets ({plain(setting)}), each judged by a calibration without it"
        told.append(f"False positives: {of}, {alarms} are flagged.")
    if record.images is not None:
        told.append(plain(f"Images: {record.images.told}"))
    if s.refused:
        told.append("Refused and not analysable do not mean clean.")
    if s.failed:
        told.append("Failed: the same command tries again; what is done is kept.")
    return told


def _line(item: Item) -> Text:
    word, style = WORDS[item.state]
    if item.state is State.REFUSED and item.verdict is not None:
        word = "NOT ANALYSABLE"
    parts: list[tuple[str, str]] = [(f"{word:<15}", style)]
    if item.verdict is not None and item.verdict.p is not None and item.state is not State.REFUSED:
        parts.append((f"p {item.verdict.p:.3f}  ", ""))
    parts.append((plain(item.path), ""))
    if item.verdict is not None and item.verdict.target:
        parts.append((f"  suspected target {plain(item.verdict.target)}", ""))
    if item.code:
        parts.append((f"  {item.code} {plain(item.message)}", "dim"))
    if item.opinion is not None and item.opinion.says in ("dangerous", "suspicious"):
        parts.append((f"  ({item.opinion.tool}: {item.opinion.says} {plain(', '.join(item.opinion.names))})", "dim"))
    return Text.assemble(*parts)
