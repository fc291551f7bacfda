"""Rows as CSV that a spreadsheet shows and does not run. Not for reading: a quote in front of a formula stays there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A header and rows; every text is a `cell`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def cell(text: str) -> str:
    """Text that is no formula, with what is unprintable (control, bidi, surrogate) as an escape."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
    return f"'{safe}" if text.lstrip(" ").startswith(_FORMULA) else safe
