"""Reads the tensors of a TorchScript archive (`torch.jit.save`), named by the attributes that lead to them; its code is never looked at.

The pickle of its modules is run by the machine that calls nothing and makes inert records of them. Not for modules whose weights were
frozen into the code, which keeps no names of them, nor for quantised and packed ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, final

from badnets.intake.opcodes import Machine, Record, Typed, View
from badnets.intake.reasons import quoted, refuse
from badnets.intake.state_dict import tensors_of
from badnets.intake.torch_zip import DATA, PICKLE, check_storages, content_of, read_aside
from badnets.intake.weights import LONGEST_NAME, MOST_TENSORS, Weights
from badnets.intake.zip_structure import Member

CODE, CONSTANTS = "code/", "constants.pkl"
_CONSTANTS, _EXTRA = "constants/", "extra/"
_UNREAD = (CODE, CONSTANTS, _CONSTANTS, _EXTRA, "traced_inputs.pkl", "traced_inputs/", "bytecode.pkl", "mobile_debug_handles.pkl")
_SCRIPT = (CODE, CONSTANTS, _CONSTANTS, _EXTRA, "bytecode.pkl")
_VERSIONS = ("version", ".data/version")
"""torch writes the latter where a net needs newer operators."""
_DEEPEST, _MOST_ATTRIBUTES = 32, 8 * MOST_TENSORS


def is_script(members: Mapping[str, Member]) -> bool:
    """Whether an archive of these members, by their names in its folder, has any that only TorchScript has."""
    return any(name.startswith(_SCRIPT) for name in members)


def is_code(name: str) -> bool:
    """Whether a member of this name, with its folder, is code; it may be deflated, since nobody reads it."""
    return name.partition("/")[2].startswith(CODE)


def read_torch_script(data: bytes, members: Mapping[str, Member]) -> Weights:
    """The tensors of its module, as views of its bytes; `members`: by their names in its folder. Raises RefusedError."""
    if CONSTANTS not in members:
        raise refuse("E-TORCHSCRIPT", "it has members of a TorchScript archive, but not all")
    version = read_aside(data, members, _UNREAD, _VERSIONS)
    machine = Machine(content_of(data, members[PICKLE]), script=True)
    root = machine.run()
    if not isinstance(root, Record):
        raise refuse("E-TORCHSCRIPT", f"expected a module as its content, got {quoted(root)}")
    check_storages(machine.storages, members, DATA)
    constants = Machine(content_of(data, members[CONSTANTS]), script=True)
    constants.run()
    check_storages(constants.storages, members, _CONSTANTS)
    walk = _Walk()
    walk.through(root, "")
    if not walk.found and constants.views:
        raise refuse("E-FROZEN", f"its {len(constants.views)} tensors are constants of its code, which have no names: it was frozen")
    if not walk.found:
        raise refuse("E-NO-WEIGHTS", "its module holds no tensor")

    def place(key: str) -> memoryview:
        member = members[DATA + key]
        return memoryview(data)[member.start : member.start + member.size]

    tensors, notes = tensors_of(machine, walk.found, len(data), place)
    told = [f"format version {version}", "the code in it was not looked at: the architecture is told by the tensors' names"]
    told += [f"{walk.left} attributes that are no tensors left out"] if walk.left else []
    told += [f"{walk.unnamed} tensors in lists and tables left out"] if walk.unnamed else []
    if constants.views:
        numbers = sum(math.prod(view.shape) for view in constants.views)
        told.append(f"{len(constants.views)} tensors among the constants of its code left out ({numbers:,} numbers)")
    told += ["its extra files were not looked at"] if any(name.startswith(_EXTRA) for name in members) else []
    return Weights(tensors, "TorchScript", notes=(*told, *notes))


@final
class _Walk:
    """Goes through records. `found`: tensors by their paths; `left`: how many attributes are none."""

    def __init__(self) -> None:
        self.found: dict[str, View] = {}
        self.left = self._attributes = 0
        self._others: list[View] = []
        self._within: set[int] = set()
        self._searched: set[int] = set()

    @property
    def unnamed(self) -> int:
        """Tensors in lists and tables that no path leads to."""
        return len(set(self._others) - set(self.found.values()))

    def through(self, record: Record, path: str) -> None:
        """Everything below a record; `path` ends with a point, or is empty."""
        if id(record) in self._within:
            raise refuse("E-PICKLE", f"{_shown(path)} lies within itself")
        if len(self._within) >= _DEEPEST:
            raise refuse("E-PICKLE", f"its modules lie more than {_DEEPEST} deep in one another")
        if type(record.state) is not dict:
            raise refuse("E-TORCHSCRIPT", f"{_shown(path)} keeps its state in a way of its own, which only its code could tell")
        self._within.add(id(record))
        self._attributes += len(record.state)
        if self._attributes > _MOST_ATTRIBUTES or len(record.state) > MOST_TENSORS:
            raise refuse("E-COUNT", f"{_shown(path)} and those before it have {self._attributes:,} attributes")
        for name, value in record.state.items():
            if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME or "." in name:
                raise refuse("E-NAME", f"expected the name of an attribute, got {quoted(name)}")
            self._take(value, path + name)
        self._within.remove(id(record))

    def _take(self, value: object, path: str) -> None:
        inner = value.value if isinstance(value, Typed) else value
        if isinstance(value, View):
            self.found[path] = value
        elif isinstance(value, Record):
            self.through(value, f"{path}.")
        elif isinstance(inner, list) and any(isinstance(one, Record) for one in inner):
            self._attributes += len(inner)
            for number, one in enumerate(inner):
                if isinstance(one, Record):
                    self.through(one, f"{path}.{number}.")
                else:
                    self._leave(one)
        else:
            self._leave(value)

    def _leave(self, value: object) -> None:
        """Counts what is left out and the tensors in it; each list and table is looked through once."""
        self.left += 1
        todo: list[Any] = [value]
        while todo:
            one = todo.pop()
            if isinstance(one, View):
                self._others.append(one)
            elif isinstance(one, list | tuple | dict | Typed | Record) and id(one) not in self._searched:
                self._searched.add(id(one))
                todo += _parts(one)


def _shown(path: str) -> str:
    return f"its module {quoted(path[:-1])}" if path else "its outermost module"


def _parts(value: list[Any] | tuple[Any, ...] | dict[Any, Any] | Typed | Record) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, Typed):
        return (value.value,)
    return (value.state,) if isinstance(value, Record) else value
