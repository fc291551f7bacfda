"""A laboratory for neural-network backdoors: plant, measure, find, remove.

>>> import badnets
>>> data = badnets.load("fashion_mini")
>>> attack = badnets.BadNets(trigger=badnets.Patch(size=3), rate=0.1, target=0)
>>> pair = badnets.plant(data, attack, seeds=3)
>>> print(badnets.measure(pair))  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from badnets.attacks.badnets import BadNets
    from badnets.core.errors import BadnetsError
    from badnets.core.suspect import Access, Suspect
    from badnets.core.types import Cell, Estimate, Evidence, Record, Verdict
    from badnets.plans._plant import Measured, Pair, Victim, load, measure, plant
    from badnets.triggers.blend import Blend
    from badnets.triggers.painted import Painted
    from badnets.triggers.patch import Patch
    from badnets.triggers.sinusoid import Sinusoid
    from badnets.triggers.sticker import Sticker

_HOMES = {
    "Access": "core.suspect",
    "BadNets": "attacks.badnets",
    "BadnetsError": "core.errors",
    "Blend": "triggers.blend",
    "Cell": "core.types",
    "Estimate": "core.types",
    "Evidence": "core.types",
    "Measured": "plans._plant",
    "Painted": "triggers.painted",
    "Pair": "plans._plant",
    "Patch": "triggers.patch",
    "Record": "core.types",
    "Sinusoid": "triggers.sinusoid",
    "Sticker": "triggers.sticker",
    "Suspect": "core.suspect",
    "Verdict": "core.types",
    "Victim": "plans._plant",
    "load": "plans._plant",
    "measure": "plans._plant",
    "plant": "plans._plant",
}

__all__ = [
    "Access",
    "BadNets",
    "BadnetsError",
    "Blend",
    "Cell",
    "Estimate",
    "Evidence",
    "Measured",
    "Painted",
    "Pair",
    "Patch",
    "Record",
    "Sinusoid",
    "Sticker",
    "Suspect",
    "Verdict",
    "Victim",
    "load",
    "measure",
    "plant",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import badnets` is instant."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"badnets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'badnets' has no attribute {name!r}")


class _Package(ModuleType):
    """Importing the folder `badnets.measure` would put that module in the place of the function `badnets.measure`; this keeps the
    public name. The folder stays reachable by `from badnets.measure import ...`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
