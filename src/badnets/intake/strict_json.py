"""Reads JSON of strangers: counted before it is parsed, no key twice, no NaN, nothing nested without end.

`read_json` is for the tables of contents of weight files, which are short, flat and without points in numbers; who reads other JSON counts
what is bearable there and then calls `parsed`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from badnets.intake.reasons import quoted, refuse

# Possessive, and without needing the closing quote: linear in time and constant in memory on whatever comes.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A text with its quotes, for counting what stands outside of texts."""


def read_json(text: bytes, what: str, *, tables: int, lists: int, commas: int) -> dict[str, Any]:
    """The object that a text is; `what`: what to call it in a refusal. Raises RefusedError (E-JSON, E-COUNT, E-DUPLICATE)."""
    # Before the parser makes objects of it: few bytes of brackets would become much memory.
    bare = STRING.sub(b"", text)
    if bare.count(b"{") > tables:
        raise refuse("E-COUNT", f"its {what} has {bare.count(b'{'):,} tables, more than 10,000 tensors need")
    if bare.count(b"[") > lists or bare.count(b",") > commas:
        raise refuse("E-JSON", f"its {what} has more lists and numbers than tensors need")
    return parsed(text, f"its {what}", points=False)


def parsed(text: bytes, subject: str, *, points: bool = True) -> dict[str, Any]:
    """The object that a text of bearable size is. `subject`: how a refusal begins; `points`: whether numbers may have one.

    Raises RefusedError (E-JSON, E-DUPLICATE).
    """
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=float if points else _no_number
        )
    except (ValueError, RecursionError) as error:
        raise refuse("E-JSON", f"{subject} is not JSON: {quoted(str(error))}") from error
    if not isinstance(found, dict):
        raise refuse("E-JSON", f"{subject} is no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The table of those keys and values, for `object_pairs_hook`. Raises RefusedError (E-DUPLICATE)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise refuse("E-DUPLICATE", f"its JSON has the key {quoted(name)} twice in one table")
            seen.add(name)
    return found


def _no_number(text: str) -> NoReturn:
    raise refuse("E-JSON", f"its JSON has {quoted(text)} where another number belongs")
