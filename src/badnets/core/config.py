"""Typed, frozen configuration and its canonical form: the SHA-256 of that form is a key."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

import pydantic

from badnets.core.errors import UsageError


class Config(pydantic.BaseModel):
    """Base of everything configurable: keyword-only, frozen, unknown fields refused, no silent coercion of floats to ints.

    A catalogue entry adds `kind: Literal["its_file_name"] = "its_file_name"`, which travels with its JSON.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise UsageError("E-CONFIG", _one_line(type(self).__name__, error)) from error

    def but(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def _one_line(owner: str, error: pydantic.ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join([owner, *(str(step) for step in item["loc"])])
        got = "" if item["type"] in ("missing",) else f", got {item['input']!r:.60}"
        told = "there is no such field" if item["type"] == "extra_forbidden" else item["msg"]
        parts.append(f"{where}: {told}{got}")
    return "; ".join(parts) + "."


def canonical(value: object) -> str:
    """JSON of `value` (Configs, mappings, sequences, scalars) with sorted keys and no spaces: equal configs, equal text."""

    def plain(item: object) -> object:
        return item.model_dump(mode="json") if isinstance(item, pydantic.BaseModel) else _refuse(item)

    return json.dumps(value, default=plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refuse(item: object) -> object:
    raise TypeError(f"{type(item).__name__} has no canonical form")


def key_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
