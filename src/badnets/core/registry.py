"""The catalogues: a plural folder is the registry, a file in it is an entry. Listing reads files and imports nothing."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from badnets.core.config import Config
from badnets.core.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
_SINGULAR = {"datasets": "data set", "neurons": "analysis"}


@cache
def catalogues() -> tuple[str, ...]:
    """Names of the plural folders, sorted."""
    return tuple(sorted(p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name.endswith("s") and (p / "__init__.py").exists()))


@cache
def names(catalogue: str) -> tuple[str, ...]:
    """Entries of one catalogue, sorted: its files without a leading underscore."""
    return tuple(sorted(p.stem for p in (PACKAGE / catalogue).glob("*.py") if not p.stem.startswith("_")))


@cache
def describe(catalogue: str, name: str) -> str:
    """First line of the entry's module docstring, read without importing it."""
    source = (PACKAGE / catalogue / f"{check(catalogue, name)}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def check(catalogue: str, name: str) -> str:
    """`name` if it is an entry; otherwise a UsageError that offers the nearest one."""
    known = names(catalogue)
    if name in known:
        return name
    raise UsageError("E-NAME", f"no {_SINGULAR.get(catalogue, catalogue[:-1])} is called {name!r:.60}.", hint=nearest(name, known))


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """A sentence that names the closest known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def entry(catalogue: str, name: str) -> type[Any]:
    """The one public class (a Config with `kind`, or a Claim) or function that the entry's file defines."""
    module = importlib.import_module(f"badnets.{catalogue}.{check(catalogue, name)}")
    own = [v for k, v in vars(module).items() if not k.startswith("_") and getattr(v, "__module__", None) == module.__name__]
    classes = [v for v in own if inspect.isclass(v) and not inspect.isabstract(v)]
    found = classes or [v for v in own if inspect.isfunction(v)]
    assert len(found) == 1, f"badnets/{catalogue}/{name}.py must define exactly one public entry, found {found}"
    return found[0]


def parse(catalogue: str, value: object) -> Config:
    """A config of `catalogue` from itself, from its name, from `name:field=value,field=value`, or from its JSON mapping."""
    if isinstance(value, Config):
        return value
    if isinstance(value, str):
        name, _, rest = value.partition(":")
        return entry(catalogue, name)(**fields(rest))
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        return entry(catalogue, value["kind"])(**value)
    raise UsageError("E-CONFIG", f"expected an entry of {catalogue} (a name or a mapping with 'kind'), got {value!r:.80}.")


def fields(text: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for part in filter(None, _outer_commas(text)):
        name, equals, raw = part.partition("=")
        if not equals:
            raise UsageError("E-CONFIG", f"expected field=value, got {part!r:.60}.", hint="Write for example patch:size=5,opacity=0.5.")
        try:
            found[name.strip()] = ast.literal_eval(raw)
        except (ValueError, SyntaxError):
            found[name.strip()] = raw
    return found


def _outer_commas(text: str) -> list[str]:
    """The parts between commas that stand in no bracket: `size=3,colour=(255,0,0)` has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
