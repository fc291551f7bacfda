"""From plain values to the question they describe: probes, the entries of `neurons`, and those that claims put together."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated

import pydantic

from badnets.core import registry
from badnets.core.errors import UsageError
from badnets.measure.question import Question

_HOMES = {
    "probe": "badnets.measure.probe:Probe",
    "stressed": "badnets.claims._stress:Stressed",
    "further": "badnets.claims._further:Further",
    "transferred": "badnets.claims._transfer:Transferred",
    "handover": "badnets.claims._handover:Handover",
    "audit": "badnets.claims._handover:Audit",
    "scanned": "badnets.claims._scanned:Scanned",
    "scanned_unlabelled": "badnets.claims._unlabelled:ScannedUnlabelled",
    "traits": "badnets.claims._scanned:Traits",
    "photographed": "badnets.claims._photographed:Photographed",
    "mended": "badnets.claims._mended:Mended",
}
DEFENCE = frozenset({"scanned", "traits", "mended"})
"""Kinds whose answers depend on the sources of detectors and repairs as well."""
UNLABELLED = frozenset({"scanned_unlabelled"})
"""Kinds whose answers depend on those as well, and on the images without labels and how they are shown."""
UNKEYED = {"scanned_unlabelled": {"images": {"folder"}}}
"""Fields by kind that say where something lies, which decides nothing: what lies there has its hash in the key."""
CAMERA = frozenset({"photographed"})
"""Kinds whose answers depend on how signs are photographed, and on nothing that is done to a net."""


def parse(value: object) -> Question:
    """A question from itself or from its JSON mapping."""
    if isinstance(value, Question):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(kind, str):
        raise UsageError("E-CONFIG", f"expected a question (a mapping with 'kind'), got {value!r:.80}.")
    if kind in _HOMES:
        module, _, name = _HOMES[kind].partition(":")
        found = getattr(importlib.import_module(module), name)(**value)
    else:
        found = registry.parse("neurons", value)
    assert isinstance(found, Question)
    return found


AnyQuestion = Annotated[pydantic.SerializeAsAny[Question], pydantic.BeforeValidator(parse)]
