"""An architecture as its owner writes it down: a TOML file of layers and shapes, in which there is no code.

A `residual` block, with a `body` and perhaps a `shortcut`, becomes plain layers and a sum here; everything else is as `core.layers` has it.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import pydantic

from badnets.core.errors import UsageError
from badnets.core.layers import MOST_LAYERS, lay
from badnets.intake.opened import open_once, read_once
from badnets.intake.reasons import quoted

LARGEST = 1 << 20
_DEEPEST = 6


class Architecture(NamedTuple):
    """`layers`: plain values that have been checked; `title`: for people. `image`, `classes`: what the file says they are, if it does."""

    title: str
    layers: list[dict[str, Any]]
    image: tuple[int, ...] | None = None
    classes: int | None = None


@final
class _File(pydantic.BaseModel):
    """What may stand in the file beside the layers."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    title: str = pydantic.Field(default="", max_length=60)
    input: list[int] | None = pydantic.Field(default=None, min_length=3, max_length=3)
    classes: int | None = pydantic.Field(default=None, ge=2)
    layers: list[dict[str, Any]] = pydantic.Field(min_length=1, max_length=MOST_LAYERS)


def read_architecture(path: Path) -> Architecture:
    """The architecture in a file. Raises UsageError (E-FILE, E-ARCH), RefusedError (what `opened` refuses)."""
    fd = open_once(path)
    try:
        if os.fstat(fd).st_size > LARGEST:
            raise _wrong(path, f"expected at most {LARGEST:,} bytes", "An architecture file has a line or two a layer.")
        text = read_once(fd).data
    finally:
        os.close(fd)
    try:
        told = _File(**tomllib.loads(text.decode("utf-8")))
        flat: list[dict[str, Any]] = []
        _flatten(told.layers, flat, "", _DEEPEST)
        lay(flat)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _wrong(
            path, f"it is not TOML: {quoted(str(error), 120)[1:-1]}", "Write [[layers]] tables, as in docs/model-files.md."
        ) from error
    except pydantic.ValidationError as error:
        item = error.errors()[0]
        where = ".".join(map(str, item["loc"]))
        raise _wrong(path, f"{quoted(where)[1:-1]}: {item['msg']}", "It may have title, input, classes and layers.") from error
    except UsageError as error:
        raise UsageError(error.code, f"{quoted(path.name)[1:-1]}: {error.message}", hint=error.hint) from error
    return Architecture(told.title or path.stem[:60], flat, tuple(told.input) if told.input else None, told.classes)


def as_toml(layers: Sequence[Mapping[str, Any]], image: Sequence[int], *, title: str) -> str:
    """Such a file; what JSON writes of numbers, texts and lists of them is TOML too."""
    head = [f"title = {json.dumps(title[:60])}", f"input = {json.dumps(list(image))}"]
    blocks = ["\n".join(["", "[[layers]]", *(f"{key} = {json.dumps(value)}" for key, value in layer.items())]) for layer in layers]
    return "\n".join([*head, *blocks]) + "\n"


def _flatten(layers: list[dict[str, Any]], flat: list[dict[str, Any]], read: str, depth: int) -> None:
    """Append the layers, the first of them reading `read`; a block becomes its branches and their sum."""
    for layer in layers:
        if layer.get("op") != "residual":
            flat.append({**layer, "of": (read,)} if read and "of" not in layer else layer)
            read = ""
            continue
        if depth == 0:
            raise UsageError("E-ARCH", f"blocks lie more than {_DEEPEST} deep in one another.", hint="Write their layers one by one.")
        unknown = layer.keys() - {"op", "name", "body", "shortcut"}
        body, shortcut = layer.get("body"), layer.get("shortcut", [])
        branches = [body, shortcut]
        if unknown or not body or not all(isinstance(b, list) and all(isinstance(one, dict) for one in b) for b in branches):
            what = f"has {quoted(sorted(map(str, unknown))[0])}" if unknown else "has no list of layers as its body"
            raise UsageError("E-ARCH", f"a residual block {what}.", hint="It has a body, and perhaps a name and a shortcut.")
        name = layer.get("name") or f"_block{len(flat)}"
        start, end, side = f"{name}._in", f"{name}._body", f"{name}._side"
        flat.append({"op": "identity", "name": start, **({"of": (read,)} if read else {})})
        _flatten(body, flat, start, depth - 1)
        flat.append({"op": "identity", "name": end})
        if shortcut:
            _flatten(shortcut, flat, start, depth - 1)
            flat.append({"op": "identity", "name": side})
        flat.append({"op": "add", "name": f"{name}._sum", "of": (end, side if shortcut else start)})
        read = ""


def _wrong(path: Path, what: str, hint: str) -> UsageError:
    return UsageError("E-ARCH", f"{quoted(path.name)[1:-1]}: {what}.", hint=hint)
