"""A blindfold: within it nothing can import what knows the secret (triggers and attacks), however late or by whatever name.

It holds against mistakes and temptation, not against malice: code in the same process could still search its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from badnets.core.errors import BadnetsError

HIDDEN = tuple(f"{__name__.partition('.')[0]}.{folder}" for folder in ("triggers", "attacks"))
_WITHIN = tuple(f"{folder}." for folder in HIDDEN)


class BlindError(BadnetsError):
    """A defender reached for the secret: a defect of the defender, never of its input."""


class _Refuse(MetaPathFinder):
    """Finds nothing; refuses hidden modules."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if _hidden(fullname):
            raise BlindError("E-BLIND", f"a defender may not import {fullname}: it would know the secret.")
        return None


@contextmanager
def blindfolded() -> Generator[None]:
    """Within the context, importing a hidden module raises BlindError, also where it was imported before. May be nested."""
    taken = {name: sys.modules.pop(name) for name in list(sys.modules) if _hidden(name)}
    parent = sys.modules[HIDDEN[0].partition(".")[0]]
    shortcuts = {name: vars(parent).pop(name) for name, value in list(vars(parent).items()) if _leads_there(value)}
    refuse = _Refuse()
    sys.meta_path.insert(0, refuse)
    try:
        yield
    finally:
        sys.meta_path.remove(refuse)
        sys.modules.update(taken)
        vars(parent).update(shortcuts)


def _hidden(name: str) -> bool:
    return name.startswith(_WITHIN) or name in HIDDEN


def _leads_there(value: object) -> bool:
    """A hidden folder, or something defined in one, as the package's front door keeps them."""
    return _hidden(value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", "")))
