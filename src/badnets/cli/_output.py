"""Where results go: the store, the report files, JSON on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from badnets.core import files
from badnets.core.errors import StoreError, UsageError
from badnets.core.store import Store
from badnets.core.types import Record

if TYPE_CHECKING:
    from badnets.plans._jobs import Site


def open_store(folder: Path | None) -> Store:
    """The store in `folder`, or in the badnets home."""
    return Store(folder or files.home())


def open_site(store: Path | None, data: Path | None) -> Site:
    """That store, and the folder that the user named for data."""
    from badnets.plans._jobs import Site

    return Site(open_store(store), data)


def write_reports(store: Store, record: Record) -> tuple[Path, Path]:
    """Write the HTML and the Markdown report of a record into its run folder; their paths."""
    from badnets.report.html import render_html
    from badnets.report.markdown import render_markdown

    folder = store.run_dir(record.key)
    page, text = folder / "report.html", folder / "report.md"
    files.write_text(page, render_html(record))
    files.write_text(text, render_markdown(record))
    return page, text


@contextlib.contextmanager
def outside_store(option: str) -> Generator[None]:
    """What cannot be written where an option says is no matter of the store."""
    try:
        yield
    except StoreError as error:
        raise StoreError(error.code, error.message, hint=f"Name another place with {option}.") from error


def check_target(path: Path, option: str) -> None:
    """That a file can be written at `path`, as far as permissions tell; nothing is made."""
    shown = f"{option} {str(path)!r:.200}"
    if path.is_dir():
        raise UsageError("E-EXISTS", f"{shown} is a folder, expected a file.", hint=f"Name a file in it: {option} {path / 'scan'}.")
    check_place(path.absolute().parent, shown)


def check_place(folder: Path, shown: str) -> None:
    """That something can be written in `folder`, which need not be there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError("E-EXISTS", f"{shown}: {str(folder)!r:.200} is a file, expected a folder.", hint="Name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError("E-READONLY", f"{shown}: the folder {str(folder)!r:.200} cannot be written to.", hint="Name another place.")


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
