"""Reads the bytes of an ONNX model without its library: a protobuf reader for the few messages that a graph is made of.

The library would parse what a stranger sends in C++ and follow paths to other files; this one reads plain values from bytes that are in
memory, counts what it makes, and skips fields that it does not know. Numbers that lie in other files are asked for by name; who opens
those, and which may be opened, is not decided here.
Format: https://protobuf.dev/programming-guides/encoding/ and https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from badnets.intake.reasons import quoted, refuse
from badnets.intake.weights import LONGEST_NAME, MOST_AXES, MOST_TENSORS, Tensor

MOST_NODES, _MOST_FIELDS, _MOST_ITEMS = 5_000, 400_000, 4_096
_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5
# ONNX numbers its types.
_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    16: "bfloat16",
}  # fmt: skip
_CODES = {
    "float32": "<f4", "uint8": "u1", "int8": "i1", "uint16": "<u2", "int16": "<i2", "int32": "<i4", "int64": "<i8", "bool": "?",
    "float16": "<f2", "float64": "<f8", "bfloat16": "<u2",
}  # fmt: skip
_FRACTIONS, _HALVES = ("float32", "float64"), ("float16", "bfloat16")
_INT32S, _LISTS = 5, {"float32": 4, "int64": 7, "float64": 10}
"""The fields that list numbers one by one: everything that fits into 32 bits shares one."""


@dataclass
class Node:
    """An operator with the names of what it reads and gives, and its attributes as plain values."""

    op: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """`inputs`, `outputs`: names with the shapes that are told, None for a size that is not."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, list[int | None]] = field(default_factory=dict)
    outputs: dict[str, list[int | None]] = field(default_factory=dict)
    opset: int = 0


class NeedsFilesError(Exception):
    """The numbers of some tensors lie in other files, `names`, sorted."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class _Reader:
    """Goes through one message after the other; counts the fields of all. `files`: other files by name; `needs`: those that lack."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.left, self.files = _MOST_FIELDS, files
        self.needs: set[str] = set()

    def fields(self, data: memoryview) -> list[tuple[int, int, Any]]:
        """(number, wire type, value) of every field; a value is a whole number or a piece of the data."""
        found, at, end = [], 0, len(data)
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise refuse("E-ONNX", f"its graph has more than {_MOST_FIELDS:,} parts")
            key, at = _varint(data, at)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise refuse("E-ONNX", f"a field without a number at byte {at:,} of a part")
            if kind == _VARINT:
                value, at = _varint(data, at)
            else:
                if kind == _BYTES:
                    size, at = _varint(data, at)
                elif kind in (_WIDE, _NARROW):
                    size = 8 if kind == _WIDE else 4
                else:
                    raise refuse("E-ONNX", f"a field of a kind that does not exist ({kind}) at byte {at:,} of a part")
                if size > end - at:
                    raise refuse("E-ONNX", f"it is cut off: a part of {size:,} bytes where {end - at:,} are left")
                value, at = data[at : at + size], at + size
            found.append((number, kind, value))
        return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if at >= len(data):
            raise refuse("E-ONNX", "it is cut off within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * step)
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise refuse("E-ONNX", "a number has more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def read_graph(data: bytes, files: Mapping[str, bytes]) -> Graph:
    """The main graph of a model. Raises RefusedError (E-ONNX, E-COUNT, E-DTYPE, E-SHAPE, E-NAME, ...), NeedsFilesError."""
    reader, found = _Reader(files), None
    opset = 0
    for number, kind, value in reader.fields(memoryview(data)):
        if number == 7 and kind == _BYTES:
            if found is not None:
                raise refuse("E-ONNX", "it has two graphs")
            found = _graph(reader, value)
        elif number == 8 and kind == _BYTES:
            domain, version = "", 0
            for inner, inner_kind, part in reader.fields(value):
                domain = _text(part) if (inner, inner_kind) == (1, _BYTES) else domain
                version = part if (inner, inner_kind) == (2, _VARINT) else version
            opset = version if domain in ("", "ai.onnx") else opset
        elif number == 25 and kind == _BYTES:
            raise refuse("E-ONNX", "it brings functions of its own")
    if found is None:
        raise refuse("E-ONNX", "there is no graph in it")
    if reader.needs:
        raise NeedsFilesError(sorted(reader.needs))
    found.opset = min(opset, 1 << 16)
    return found


def _graph(reader: _Reader, data: memoryview) -> Graph:
    graph = Graph()
    for number, kind, value in reader.fields(data):
        if kind != _BYTES:
            continue
        if number == 1:
            graph.nodes.append(_node(reader, value))
        elif number == 5:
            name, tensor = _tensor(reader, value)
            _new(graph.constants, name, tensor)
        elif number in (11, 12):
            name, shape = _value(reader, value)
            _new(graph.inputs if number == 11 else graph.outputs, name, shape)
        elif number == 15:
            raise refuse("E-ONNX", "it has sparse tensors")
        if len(graph.nodes) > MOST_NODES or len(graph.constants) > MOST_TENSORS:
            raise refuse("E-COUNT", f"its graph has more than {MOST_NODES:,} operators or {MOST_TENSORS:,} tensors")
    return graph


def _new(table: dict[str, Any], name: str, value: object) -> None:
    if name in table:
        raise refuse("E-DUPLICATE", f"its graph has {quoted(name)} twice")
    table[name] = value


def _node(reader: _Reader, data: memoryview) -> Node:
    node = Node()
    for number, kind, value in reader.fields(data):
        if kind != _BYTES:
            continue
        if number in (1, 2):
            (node.inputs if number == 1 else node.outputs).append(_text(value))
        elif number == 4:
            node.op = _text(value)
        elif number == 7:
            node.domain = _text(value)
        elif number == 5:
            name, attribute = _attribute(reader, value)
            _new(node.attributes, name, attribute)
    return node


def _attribute(reader: _Reader, data: memoryview) -> tuple[str, Any]:
    """Name and value: a number, a text, a tensor, or a list of numbers; None for kinds that no operator of ours has."""
    name, single, many = "", None, []
    for number, kind, value in reader.fields(data):
        if (number, kind) == (1, _BYTES):
            name = _text(value)
        elif (number, kind) == (2, _NARROW):
            single = struct.unpack("<f", value)[0]
        elif (number, kind) == (3, _VARINT):
            single = _signed(value)
        elif (number, kind) == (4, _BYTES):
            single = _text(value)
        elif (number, kind) == (5, _BYTES):
            single = _tensor(reader, value)[1]
        elif number in (6, 11):
            raise refuse("E-ONNX", f"the attribute {quoted(name)} is a graph: branches and loops are not read")
        elif number == 7:
            many += _numbers(value, kind, "<f4")
        elif number == 8:
            many += _numbers(value, kind, "varint")
    return name, many or single


def _numbers(value: Any, kind: int, code: str) -> list[Any]:
    """Of a repeated field, one by one or packed."""
    if kind == _VARINT:
        return [_signed(value)]
    if code != "varint":
        return np.frombuffer(value, code, len(value) // np.dtype(code).itemsize).tolist()[:_MOST_ITEMS]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
        if len(found) > _MOST_ITEMS:
            raise refuse("E-ONNX", f"a list of more than {_MOST_ITEMS:,} numbers")
    return found


def _tensor(reader: _Reader, data: memoryview) -> tuple[str, Tensor]:
    name, shape, kind_of, raw = "", [], 0, None
    listed: list[tuple[int, int, Any]] = []
    place: dict[str, str] = {}
    for number, kind, value in reader.fields(data):
        if number == 1:
            shape += _numbers(value, kind, "varint")
        elif (number, kind) == (2, _VARINT):
            kind_of = value
        elif number in (4, 5, 7, 10, 11):
            listed.append((number, kind, value))
        elif (number, kind) == (8, _BYTES):
            name = _text(value)
        elif (number, kind) == (9, _BYTES):
            raw = value
        elif (number, kind) == (13, _BYTES):
            pair = {inner: part for inner, inner_kind, part in reader.fields(value) if inner_kind == _BYTES}
            place[_text(pair.get(1, b""))] = _text(pair.get(2, b""))
    dtype = _TYPES.get(kind_of)
    if dtype is None:
        raise refuse("E-DTYPE", f"tensor {quoted(name)} has numbers of kind {kind_of}")
    if len(shape) > MOST_AXES or not all(0 <= size < 1 << 32 for size in shape):
        raise refuse("E-SHAPE", f"tensor {quoted(name)} has the shape {quoted(shape)}")
    if place:
        raw = _elsewhere(reader, place, math.prod(shape) * np.dtype(_CODES[dtype]).itemsize)
        if raw is None:
            return name, Tensor(dtype, np.zeros(0, _CODES[dtype]))
    flat = _listed(listed, dtype, name) if raw is None else np.frombuffer(raw, _CODES[dtype], len(raw) // np.dtype(_CODES[dtype]).itemsize)
    if math.prod(shape) != flat.size or (raw is not None and flat.nbytes != len(raw)):
        raise refuse("E-SHAPE", f"tensor {quoted(name)} of shape {quoted(shape)} has {flat.size:,} numbers")
    if dtype == "bool" and flat.size and flat.view(np.uint8).max() > 1:
        raise refuse("E-DTYPE", f"tensor {quoted(name)} is bool and has bytes other than 0 and 1")
    return name, Tensor(dtype, flat.reshape(shape))


def _elsewhere(reader: _Reader, place: Mapping[str, str], size: int) -> memoryview | None:
    """The bytes of a tensor that lie in another file; None where that file is not here yet."""
    name, numbers = place.get("location", ""), [place.get(key, text) for key, text in (("offset", "0"), ("length", str(size)))]
    if not all(text.isdecimal() and len(text) < 16 for text in numbers):
        raise refuse("E-ONNX", f"it places numbers at {quoted(numbers[0])} in another file")
    start, length = map(int, numbers)
    if name not in reader.files:
        reader.needs.add(name)
        return None
    if length != size or start + size > len(reader.files[name]):
        raise refuse("E-BOUNDS", f"{size:,} bytes at {start:,} leave the file {quoted(name)} of {len(reader.files[name]):,}")
    return memoryview(reader.files[name])[start : start + size]


def _listed(fields: list[tuple[int, int, Any]], dtype: str, name: str) -> np.ndarray:
    """Numbers that stand one by one, in the one field that is for their kind."""
    pieces, whole = [], dtype not in _FRACTIONS
    for number, kind, value in fields:
        if number != _LISTS.get(dtype, _INT32S):
            raise refuse("E-ONNX", f"tensor {quoted(name)} has its {dtype} numbers in a list for numbers of another kind")
        if whole:
            pieces.append(np.array([_signed(value)] if kind == _VARINT else _varints(value), np.int64))
        elif kind == _VARINT or len(value) % np.dtype(_CODES[dtype]).itemsize:
            raise refuse("E-ONNX", f"tensor {quoted(name)} lists what is no {dtype}")
        else:
            pieces.append(np.frombuffer(value, _CODES[dtype]))
    flat = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    # Half-precision numbers are listed as the whole numbers that their bits are.
    code = "<u2" if dtype in _HALVES else _CODES[dtype]
    if whole and flat.size:
        limits = np.iinfo("u1" if dtype == "bool" else code)
        if flat.min() < limits.min or flat.max() > limits.max:
            raise refuse("E-ONNX", f"tensor {quoted(name)} lists a number that is no {dtype}")
    return flat.astype(code).view(_CODES[dtype]) if dtype in _HALVES else flat.astype(_CODES[dtype])


def _varints(value: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _value(reader: _Reader, data: memoryview) -> tuple[str, list[int | None]]:
    """Name and shape of an input or output."""
    name, shape = "", []
    message: Callable[[memoryview], list[tuple[int, int, Any]]] = reader.fields
    for number, kind, value in message(data):
        if (number, kind) == (1, _BYTES):
            name = _text(value)
        elif (number, kind) == (2, _BYTES):
            tensors = [part for inner, inner_kind, part in message(value) if (inner, inner_kind) == (1, _BYTES)]
            shapes = [part for one in tensors for inner, inner_kind, part in message(one) if (inner, inner_kind) == (2, _BYTES)]
            for one in (part for told in shapes for inner, inner_kind, part in message(told) if (inner, inner_kind) == (1, _BYTES)):
                sizes = [_signed(part) for inner, inner_kind, part in message(one) if (inner, inner_kind) == (1, _VARINT)]
                shape.append(sizes[0] if sizes and sizes[0] > 0 else None)
    return name, shape[: MOST_AXES + 1]


def _text(value: Any) -> str:
    try:
        text = bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("E-NAME", "a name is not UTF-8") from error
    if len(text) > LONGEST_NAME * 4:
        raise refuse("E-NAME", f"expected names of at most {LONGEST_NAME * 4} characters, got {quoted(text)}")
    return text
