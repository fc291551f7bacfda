"""Where results go: the store, the report files, JSON on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

import pydantic

from badnets.core import files
from badnets.core.store import Store
from badnets.core.types import Record


def open_store(folder: Path | None) -> Store:
    """The store in `folder`, or in the badnets home."""
    return Store(folder or files.home())


def write_reports(store: Store, record: Record) -> tuple[Path, Path]:
    """Write the HTML and the Markdown report of a record into its run folder; their paths."""
    from badnets.report.html import render_html
    from badnets.report.markdown import render_markdown

    folder = store.run_dir(record.key)
    page, text = folder / "report.html", folder / "report.md"
    files.write_text(page, render_html(record))
    files.write_text(text, render_markdown(record))
    return page, text


def print_json(value: pydantic.BaseModel) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(value.model_dump_json(indent=2, by_alias=True) + "\n")


def print_scorecard(record: Record) -> None:
    """The scorecard on stdout, as wide as the terminal, then what the machine chose and why."""
    from rich.console import Console
    from rich.text import Text

    from badnets.report._escape import plain
    from badnets.report.text import scorecard, stories

    console = Console(highlight=False)
    console.print(scorecard(record))
    console.print()
    told = stories(record)
    if told is not None:
        console.print(told)
    for choice in record.choices:
        console.print(Text(plain(choice), style="dim"))
    console.print()
