"""`badnets data list | fetch NAME | verify`: which data sets there are, where they lie, and whether they are what they should be."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import NamedTuple

import cyclopts

from badnets.core import registry
from badnets.core.errors import BadnetsError, RefusedError

app = cyclopts.App(name="data", help="List, fetch and verify data sets.")


@app.command(name="list")
def list_(*, json: bool = False) -> None:
    """List the data sets and where each lies on this machine.

    Parameters
    ----------
    json
        Print one JSON document instead of a table.
    """
    rows = []
    for name in registry.names("datasets"):
        dataset = registry.entry("datasets", name)()
        rows.append(
            {
                "name": name,
                "where": _where(name),
                "get": _how(name),
                "description": registry.describe("datasets", name),
                "licence": dataset.licence,
                "sha256": dataset.content,
            }
        )
    if json:
        _print_json({"datasets": rows})
        return
    for row in rows:
        print(f"{row['name']:<14} {row['where'] or row['get']}\n{'':<14} {row['description']}")


@app.command
def fetch(name: str, *, data: Path | None = None) -> None:
    """Download a data set into the cache, unless it is on this machine already, and verify it.

    Parameters
    ----------
    name
        Which data set, as `badnets data list` names it.
    data
        Verify the one in this folder instead of downloading.
    """
    from badnets.datasets._located import LocatedDataset
    from badnets.datasets._open import show

    dataset = registry.entry("datasets", name)()
    if isinstance(dataset, LocatedDataset) and data is None and dataset.where() is None:
        dataset.fetch(progress=sys.stderr.isatty())
    digest = dataset.verify(data)
    print(f"{name} is verified: {show(dataset.where(data))}, SHA-256 {digest}")


@app.command
def verify(*, json: bool = False) -> None:
    """Read every data set on this machine again and check its SHA-256.

    Parameters
    ----------
    json
        Print one JSON document instead of a table.
    """
    checks = [check for name in registry.names("datasets") if (check := _check(name)) is not None]
    if json:
        _print_json({"datasets": [check._asdict() | {"ok": not check.error} for check in checks]})
    else:
        for check in checks:
            print(f"{check.name:<14} {'BAD  ' + check.error if check.error else 'ok   ' + check.sha256}")
    bad = [check.name for check in checks if check.error]
    if bad:
        message = f"{len(bad)} of {len(checks)} data sets on this machine are not what they should be: {', '.join(bad)}."
        raise RefusedError("E-HASH", message, hint="The list says what to do about each.")


class _Check(NamedTuple):
    name: str
    where: str
    sha256: str
    error: str


def _check(name: str) -> _Check | None:
    """What verification says of one data set; None when it is not on this machine, or has neither files nor a hash that it must have."""
    from badnets.datasets._located import LocatedDataset

    where = ""
    try:
        dataset = registry.entry("datasets", name)()
        where = _shown(dataset.where())
        told = dataset.identity is not None or isinstance(dataset, LocatedDataset)
        return None if where is None or not told else _Check(name, where, dataset.verify(), "")
    except BadnetsError as error:
        return _Check(name, where or "", "", str(error))


def _where(name: str) -> str | None:
    try:
        return _shown(registry.entry("datasets", name)().where())
    except BadnetsError as error:
        return f"damaged ({error.code})"


def _shown(where: str | None) -> str | None:
    from badnets.datasets._open import show

    return None if where is None else show(where)


def _how(name: str) -> str:
    from badnets.datasets._located import LocatedDataset

    entry = registry.entry("datasets", name)
    if not issubclass(entry, LocatedDataset):
        return "yours: --data FOLDER" if name == "folder" else "comes with the program"
    return f"badnets data fetch {name}" if entry.origin is not None else f"put {entry.wanted.rstrip(',')} in a --data FOLDER"


def _print_json(value: object) -> None:
    print(jsonlib.dumps(value, indent=1, sort_keys=True))
