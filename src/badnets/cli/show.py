"""`badnets show` prints or lists Records; `badnets diff` compares two."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from badnets.core.errors import UsageError


def show(key: str | None = None, *, all: bool = False, store: Path | None = None, json: bool = False) -> None:
    """Show a finished run: the newest, or the one whose key starts with KEY.

    Parameters
    ----------
    key
        The first digits of a run's key; the newest run by default.
    all
        List all runs instead.
    store
        Folder of results.
    json
        Print one JSON document: the Record (or the list).
    """
    from badnets.cli._output import open_store, print_json, print_scorecard, write_reports

    results = open_store(store)
    if all:
        _list(results.records(), json=json)
        return
    record = results.record(key)
    if json:
        print_json(record)
        return
    print_scorecard(record)
    page, _ = write_reports(results, record)
    print(f"Report: {page}")


def _list(rows: list[Any], *, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps({"records": [row._asdict() for row in rows]}, indent=2) + "\n")
        return
    if not rows:
        print("No runs yet. Start with: badnets run")
    for row in rows:
        print(f"{row.key[:12]}  {row.created:<25}  {row.plan:<10}  {row.summary}")


def diff(a: str, b: str, *, store: Path | None = None, json: bool = False) -> None:
    """Compare two runs: settings that differ, verdicts and figures side by side.

    Parameters
    ----------
    a
        The first digits of one run's key.
    b
        The first digits of the other's.
    store
        Folder of results.
    json
        Print one JSON document.
    """
    from badnets.cli._output import open_store
    from badnets.report._diff import compare, diff_text

    results = open_store(store)
    first, second = results.record(a), results.record(b)
    if first.key == second.key:
        raise UsageError("E-SAME", f"{a!r:.20} and {b!r:.20} name the same run.", hint="See `badnets show --all`.")
    compared = compare(first, second)
    sys.stdout.write(jsonlib.dumps(compared, indent=2) + "\n" if json else diff_text(compared))
