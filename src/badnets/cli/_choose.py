"""From what a person typed to a data set and a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from badnets.attacks._base import Attack
from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.datasets._base import Dataset
from badnets.plans._plan import CLAIMS, Plan

MAPPINGS = ("all_to_one", "all_to_all", "source_specific")


def choose_dataset(name: str | None, data: Path | None) -> tuple[Dataset, Path | None]:
    """The data set and the folder to read it from. Without a name: what the folder holds; without either: fashion_mini."""
    if name is None and data is not None:
        from badnets.datasets._detect import detect

        name = detect(data)
    chosen = _entry("datasets", name or "fashion_mini")
    assert isinstance(chosen, Dataset)
    return chosen, data


def choose_attack(text: str) -> Attack:
    """An attack by name and fields; a label map by itself means badnets with it."""
    name, _, rest = text.partition(":")
    if name in MAPPINGS:
        text = f"badnets:mapping={name}" + (f",{rest}" if rest else "")
    elif name in registry.names("triggers"):
        hint = f"Write badnets:trigger={name}, with further fields of the trigger after a colon."
        raise UsageError("E-NAME", f"{name} is a trigger, expected an attack or a label map.", hint=hint)
    elif name not in registry.names("attacks"):
        raise UsageError(
            "E-NAME",
            f"no attack or label map is called {name!r:.60}.",
            hint=registry.nearest(name, [*registry.names("attacks"), *MAPPINGS]),
        )
    attack = _entry("attacks", text)
    assert isinstance(attack, Attack)
    return _with_cover(attack) if name == "source_specific" and "cover_rate" not in rest else attack


def choose_net(text: str) -> dict[str, Any]:
    """A net by name and fields, as plain values. Fields are checked, which imports torch; a name alone is not worth that."""
    kind, _, rest = text.partition(":")
    registry.check("nets", kind)
    return _entry("nets", text).model_dump(mode="json") if rest else {"kind": kind}


def choose_theirs(text: str) -> dict[str, Any]:
    """The net of a stranger's weights: one of ours, or timm's as timm:NAME."""
    from badnets.intake import zoo

    kind, _, name = text.partition(":")
    return zoo.named(name) if kind == zoo.KIND else choose_net(text)


def _entry(catalogue: str, text: str) -> Config:
    """An entry of a catalogue as a person typed it; what is wrong with its fields is told with the fields that it has."""
    try:
        return registry.parse(catalogue, text)
    except UsageError as error:
        if error.code != "E-CONFIG" or error.hint:
            raise
        name = text.partition(":")[0]
        fields = [field for field in registry.entry(catalogue, name).model_fields if field != "kind"]
        hint = f"Fields of {name}: {', '.join(fields)}." if fields else f"{name} has no fields."
        raise UsageError(error.code, error.message, hint=hint) from error


def choose_normalization(text: str, channels: int) -> tuple[list[float], list[float]]:
    """MEAN/STD of pixels in 0..1, as 0.1307/0.3081 or 0.49,0.48,0.45/0.25,0.24,0.26; one number counts for every channel; or a usual one
    by name."""
    from badnets.plans._preparation import by_name

    if (named := by_name(text, channels)) is not None:
        return list(named.mean), list(named.std)
    try:
        mean, std = ([float(part) for part in side.split(",")] for side in text.split("/"))
    except ValueError as error:
        hint = "As --normalize 0.1307/0.3081, or 0..1, 0..255, -1..1, and imagenet for colours."
        raise UsageError("E-NORM", f"expected MEAN/STD, got {text!r:.60}.", hint=hint) from error
    for numbers in (mean, std):
        if len(numbers) not in (1, channels):
            message = f"expected one number or {channels}, one for each channel, got {len(numbers)} in {text!r:.60}."
            raise UsageError("E-NORM", message, hint="As --normalize 0.1307/0.3081.")
    return (mean * channels if len(mean) == 1 else mean), (std * channels if len(std) == 1 else std)


def choose_claims(text: str) -> tuple[str, ...]:
    """Claims by name, with fields as in `supply_chain:destination=digits,margin=0.1`: a part `field=value` is of the claim before it."""
    found: list[str] = []
    for part in (p.strip() for p in text.split(",") if p.strip()):
        if found and "=" in part.partition(":")[0]:
            found[-1] += f"{',' if ':' in found[-1] else ':'}{part}"
        else:
            registry.check("claims", part.partition(":")[0])
            found.append(part)
    if not found:
        raise UsageError("E-USAGE", "expected names of claims, got none.", hint=f"Known: {', '.join(CLAIMS)}.")
    found = list(dict.fromkeys(found))
    names = [one.partition(":")[0] for one in found]
    for name, one in zip(names, found, strict=True):
        if one != name:
            _entry("claims", one)  # refuses fields that it does not have
        if names.count(name) > 1:
            raise UsageError(
                "E-USAGE", f"expected each claim once, got {name} with different fields.", hint="Run them one after the other."
            )
    return tuple(found)


def _with_cover(attack: Any) -> Attack:
    """Source-specific as the paper means it: at a rate that the source class can bear, with as many cover samples."""
    rate = min(attack.rate, 0.05)
    return attack.but(rate=rate, cover_rate=rate)


def choose_plan(name: str, typed: Mapping[str, Any]) -> Plan:
    """The named plan with what the person changed. Raises UsageError with the nearest known name."""
    changes: dict[str, Any] = {} if typed["dataset"] is None else {"dataset": typed["dataset"]}
    if typed["claims"] is not None:
        changes["claims"] = choose_claims(typed["claims"])
    if typed["attack"] is not None:
        changes |= {"attack": choose_attack(typed["attack"]), "only_attack": True}
    if typed["net"] is not None:
        changes["net"] = choose_net(typed["net"])
    plan = registry.entry("plans", name)()
    return plan.but(**changes)
