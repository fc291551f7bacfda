"""Reads the tree of an HDF5 file by h5py, from bytes in memory: plain groups and data sets, and the texts that Keras keeps as attributes.

The library is C that was not written for hostile bytes: it is used in a confined process only, with filters of others switched off, and
asked for little. Refused: links to elsewhere, groups within themselves, what lies too deep, too many of anything.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from badnets.intake.formats import HDF5
from badnets.intake.hdf5_numbers import Numbers
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.strict_safetensors import check_name
from badnets.intake.weights import MOST_TENSORS, Tensor

TEXTS = ("layer_names", "weight_names", "model_config")
"""Attributes of groups that are read, all of them texts; Keras splits long lists into `layer_names0`, `layer_names1` and so on."""
LARGEST_TEXT = 8 << 20
_SPLIT, _MOST_PARTS = ("layer_names", "weight_names"), 100
_MOST_OBJECTS, _MOST_ATTRIBUTES, _DEEPEST = 4 * MOST_TENSORS, 1_000, 32
_NO_PLUGINS = {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_PLUGIN_PATH": "", "HDF5_USE_FILE_LOCKING": "FALSE"}
_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, SystemError)
"""What h5py raises for damaged files. UnicodeDecodeError is a ValueError, NotImplementedError a RuntimeError."""


@dataclass(slots=True)
class Tree:
    """`sets`: by path without a leading slash, in natural order; `texts`: the attributes of each group, "" the root; `tied`: sets that are
    another one again."""

    sets: dict[str, Tensor] = field(default_factory=dict)
    texts: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    tied: int = 0


def prepare() -> None:
    """Imports h5py where it is installed, and keeps it from loading filters of others. Before the process is confined: it reads files."""
    if importlib.util.find_spec("h5py") is None:
        return
    os.environ.update(_NO_PLUGINS)
    # One that is broken must not keep other formats from being read.
    with contextlib.suppress(ImportError, *_ERRORS):
        paths = importlib.import_module("h5py").h5pl
        while paths.size():
            paths.remove(0)


def library() -> Any:
    """h5py, once `prepare` has been called. Raises RefusedError (E-EXTRA)."""
    if "h5py" not in sys.modules:
        raise refuse("E-EXTRA", "it is or holds an HDF5 file, as Keras writes; h5py, which reads those, is not installed or does not work")
    return sys.modules["h5py"]


def read_tree(data: memoryview, *, confined: bool) -> Tree:
    """Everything in the bytes of a file. `confined`: whether this process can reach nothing. Raises RefusedError."""
    if data[: len(HDF5)] != HDF5:
        raise refuse("E-HDF5", f"it begins with {quoted(bytes(data[:8]))}, which no HDF5 file does")
    if not confined:
        raise refuse("E-SANDBOX", "it is or holds an HDF5 file, whose library is only let run in a whole sandbox, and there is none here")
    h5py = library()
    try:
        with h5py.File(_Bytes(data), "r", driver="fileobj") as file:
            return _Walk(h5py, data).walk(file.id)
    except _ERRORS as error:
        raise refuse("E-HDF5", f"it is damaged, or no HDF5 that is read: {quoted(f'{type(error).__name__} {error}', 120)[1:-1]}") from error


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which conv2d_2 comes before conv2d_10."""
    return [(int(part), "") if part.isdecimal() and len(part) < 16 else (-1, part) for part in re.split(r"(\d+)", name)]


@final
class _Bytes(io.RawIOBase):
    """Bytes in memory as a file, without a copy."""

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data, self._at = data, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, len(self._data))[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


@final
class _Walk:
    """Goes through the groups, each once, names in natural order."""

    def __init__(self, h5py: Any, data: memoryview) -> None:
        self._h5py, self._tree, self._numbers = h5py, Tree(), Numbers(h5py, data)
        self._known: dict[tuple[int, int], str] = {}

    def walk(self, file: Any) -> Tree:
        if file.get_create_plist().get_userblock():
            raise refuse("E-HDF5", "other bytes come before it")
        todo: list[tuple[str, int, Any]] = [("", 0, self._h5py.h5o.open(file, b"/"))]
        count = 0
        while todo:
            path, depth, found = todo.pop()
            count += 1
            if count > _MOST_OBJECTS or len(self._tree.sets) > MOST_TENSORS:
                raise refuse("E-COUNT", f"it holds more than {count - 1:,} groups and data sets")
            if isinstance(found, self._h5py.h5g.GroupID):
                inner = self._group(path, depth, found)
                todo += [(f"{path}/{name}".lstrip("/"), depth + 1, one) for name, one in reversed(inner)]
            elif isinstance(found, self._h5py.h5d.DatasetID):
                self._set(path, found)
            else:
                raise refuse("E-HDF5", f"{quoted(path)} is neither a group nor a data set")
        self._numbers.check_disjoint()
        return self._tree

    def _group(self, path: str, depth: int, found: Any) -> list[tuple[str, Any]]:
        if (before := self._seen(path, found)) is not None:
            raise refuse("E-HDF5", f"the group {quoted(before)} is there again as {quoted(path)}: a circle, or a second name for the same")
        if depth > _DEEPEST:
            raise refuse("E-HDF5", f"its groups lie more than {_DEEPEST} deep in one another")
        self._tree.groups.append(path)
        if texts := self._texts(path, found):
            self._tree.texts[path] = texts
        links: list[tuple[bytes, int]] = []

        def keep(name: bytes, about: Any) -> bool | None:
            links.append((name, about.type))
            return True if len(links) > _MOST_OBJECTS else None

        found.links.iterate(keep, info=True)
        if len(links) + len(self._known) > _MOST_OBJECTS:
            raise refuse("E-COUNT", f"it holds more than {_MOST_OBJECTS:,} groups and data sets")
        names = [self._name(path, name, kind) for name, kind in links]
        if len(set(names)) < len(names):
            raise refuse("E-DUPLICATE", f"its group {quoted(path)} has a name twice")
        return [(name, self._h5py.h5o.open(found, name.encode())) for name in sorted(names, key=natural)]

    def _name(self, path: str, name: bytes, kind: int) -> str:
        shown = quoted(path.encode() + b"/" + name)
        if kind != self._h5py.h5l.TYPE_HARD:
            what = "to another file" if kind == self._h5py.h5l.TYPE_EXTERNAL else "by a path"
            raise refuse("E-HDF5", f"{shown} is a link {what}, which is not followed")
        text = name.decode("utf-8")
        check_name(f"{path}/{text}".lstrip("/"))
        if "/" in text or text in (".", ".."):
            raise refuse("E-NAME", f"{shown} has a name that leads elsewhere")
        return text

    def _set(self, path: str, found: Any) -> None:
        if (before := self._seen(path, found)) is not None:
            self._tree.sets[path] = self._tree.sets[before]
            self._tree.tied += 1
            return
        opaque = found.get_type().get_class() == self._h5py.h5t.OPAQUE
        note = self._texts(path, found, ("dtype",)).get("dtype") if opaque else None
        self._tree.sets[path] = self._numbers.read(found, path, note[0] if note else "")

    def _seen(self, path: str, found: Any) -> str | None:
        """Where the same was found before."""
        about = self._h5py.h5o.get_info(found)
        before = self._known.setdefault((about.fileno, about.addr), path)
        return before if before != path else None

    def _texts(self, path: str, found: Any, names: tuple[str, ...] = TEXTS) -> dict[str, list[str]]:
        attributes = self._h5py.h5a
        count = attributes.get_num_attrs(found)
        if count > _MOST_ATTRIBUTES:
            raise refuse("E-COUNT", f"{quoted(path)} has {count:,} attributes")
        texts = {}
        for name in names if count else ():
            parts = [name] if attributes.exists(found, name.encode()) else []
            if name in _SPLIT and not parts:
                parts = [f"{name}{i}" for i in range(_MOST_PARTS) if attributes.exists(found, f"{name}{i}".encode())]
            if parts:
                texts[name] = [text for part in parts for text in self._text(attributes.open(found, part.encode()), part)]
        return texts

    def _text(self, found: Any, name: str) -> list[str]:
        kind, shape = found.get_type(), tuple(found.shape or ())
        count = found.get_space().get_simple_extent_npoints()
        if not count:  # an empty list is one of no type in particular
            return []
        size = count * kind.get_size()
        if not isinstance(kind, self._h5py.h5t.TypeStringID) or len(shape) > 1:
            raise refuse("E-HDF5", f"its attribute {quoted(name)} is no text")
        if size > LARGEST_TEXT:
            raise refuse("E-HDF5", f"its attribute {quoted(name)} has {amount(size)}")
        values = np.empty(shape, kind.dtype)
        found.read(values)
        flat = [bytes(value) if isinstance(value, bytes) else str(value).encode() for value in values.reshape(-1)]
        if sum(map(len, flat)) > LARGEST_TEXT:
            raise refuse("E-HDF5", f"its attribute {quoted(name)} has {amount(sum(map(len, flat)))}")
        return [value.decode("utf-8") for value in flat]
