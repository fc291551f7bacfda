"""Finds the weights in what a checkpoint holds: the state dict itself, or the copy of it that is meant for use, without wrappers' prefixes.

A checkpoint may hold several nets. An averaged copy (EMA) is taken before the plain one, since that is what is evaluated and deployed; what
was left out is said. Where nothing tells which of several to take, the file is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from badnets.intake.geometry import check_disjoint, check_view, take
from badnets.intake.opcodes import Machine, View
from badnets.intake.reasons import quoted, refuse
from badnets.intake.strict_safetensors import check_bools, check_name
from badnets.intake.weights import MOST_TENSORS, Tensor

_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
_PREFIXES = ("module.", "_orig_mod.")
_DEEPEST = 3


def find_state(value: object) -> tuple[dict[str, View], list[str]]:
    """(tensors by name, notes on what was chosen and left out). Raises RefusedError (E-NO-WEIGHTS, E-AMBIGUOUS)."""
    notes: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(value, dict):
            raise refuse("E-NO-WEIGHTS", f"expected a table of tensors, got {quoted(value)}")
        tensors = {name: item for name, item in value.items() if isinstance(item, View)}
        usual = [key for key in (*_AVERAGED, *_PLAIN) if _holds_tensors(value.get(key))]
        if tensors and not usual:
            return _named(tensors, len(value) - len(tensors), notes)
        key, *others = usual or _only(value)
        # A number such as the best accuracy often lies beside the state dict; a whole net would be strange there.
        left = [*map(quoted, others), *([f"{len(tensors)} tensors beside it"] if tensors else [])]
        notes.append(f"weights taken from {quoted(key)}" + (f"; not looked at: {', '.join(left)}" if left else ""))
        value = value[key]
    raise refuse("E-NO-WEIGHTS", "its tables lie deeper in one another than those of checkpoints do")


def tensors_of(machine: Machine, value: object, size: int, place: Callable[[str], memoryview]) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors, notes) of what a pickle said of a file of `size` bytes, as views of it; `place`: the bytes of a storage by its key.

    Raises RefusedError.
    """
    if len(machine.views) > 4 * MOST_TENSORS:
        raise refuse("E-COUNT", f"it describes {len(machine.views):,} tensors")
    for view in machine.views:
        check_view(view, size)
    views, notes = find_state(value)
    if len(views) > MOST_TENSORS:
        raise refuse("E-COUNT", f"it holds {len(views):,} tensors")
    if same := check_disjoint(views.values()):
        notes.append(f"{same} tensors are the same numbers as another (tied)")
    tensors = {}
    for name, view in views.items():
        check_name(name)
        tensors[name] = take(view, place(view.storage.key))
        check_bools(name, tensors[name])
    return tensors, notes


def _only(table: Mapping[Any, object]) -> list[Any]:
    """The key of the only part that holds tensors."""
    parts = [key for key, item in table.items() if _holds_tensors(item)]
    if not parts:
        raise refuse(
            "E-NO-WEIGHTS", f"expected tensors or a state dict, got a table with the keys {', '.join(map(quoted, list(table)[:5]))}"
        )
    if len(parts) > 1:
        raise refuse("E-AMBIGUOUS", f"it holds several tables of tensors: {', '.join(map(quoted, parts[:5]))}")
    return parts


def _holds_tensors(item: object, depth: int = _DEEPEST - 1) -> bool:
    if not isinstance(item, dict):
        return False
    if any(isinstance(value, View) for value in item.values()):
        return True
    return depth > 1 and any(_holds_tensors(value, depth - 1) for key, value in item.items() if key in (*_AVERAGED, *_PLAIN))


def _named(tensors: dict[Any, View], num_others: int, notes: list[str]) -> tuple[dict[str, View], list[str]]:
    odd = next((name for name in tensors if not isinstance(name, str)), None)
    if odd is not None or not all(isinstance(name, str) for name in tensors):
        raise refuse("E-NAME", f"expected texts as names of tensors, got {quoted(odd)}")
    if num_others:
        notes.append(f"{num_others} entries beside the tensors left out")
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) and len(name) > len(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): view for name, view in tensors.items()}
                notes.append(f"prefix {prefix} removed")
    return tensors, notes
