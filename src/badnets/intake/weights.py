"""What was read from a model file: tensors by name in the file's order, with what was seen on the way.

Arrays are views of the file's bytes and read-only. NaN and infinity are reported, not refused: the file can be read, but whoever judges
the net must call it not analysable. Shapes are those of the file; there is no net yet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from badnets.intake.hub_card import Card

MOST_TENSORS = 10_000
MOST_AXES = 8
LONGEST_NAME = 256

DTYPES: Mapping[str, tuple[str, str]] = {
    "bool": ("BOOL", "?"),
    "uint8": ("U8", "u1"),
    "int8": ("I8", "i1"),
    "uint16": ("U16", "<u2"),
    "int16": ("I16", "<i2"),
    "uint32": ("U32", "<u4"),
    "int32": ("I32", "<i4"),
    "uint64": ("U64", "<u8"),
    "int64": ("I64", "<i8"),
    "float16": ("F16", "<f2"),
    "bfloat16": ("BF16", "<u2"),
    "float32": ("F32", "<f4"),
    "float64": ("F64", "<f8"),
}
"""Name -> (safetensors' name, numpy's code). NumPy has no bfloat16: its bits are kept as 16-bit integers."""

_PART = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """`data` has the shape of the tensor; bfloat16 as bits in uint16."""

    dtype: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    def to_float32(self) -> np.ndarray:
        """A new float32 array; a float64 beyond its range becomes infinite."""
        if self.dtype == "bfloat16":
            return (self.data.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            return self.data.astype(np.float32)

    def is_finite(self) -> bool:
        """Whether there is neither NaN nor infinity, as float32."""
        if not self.is_float:
            return True
        flat = self.data.reshape(-1)
        parts = (Tensor(self.dtype, flat[start : start + _PART]) for start in range(0, flat.size, _PART))
        return all(bool(np.isfinite(part.to_float32()).all()) for part in parts)


@dataclass(frozen=True, eq=False, slots=True)
class Weights:
    """`format`: what kind of file it was; `not_finite`: names of tensors with NaN or infinity; `notes`: sentences without full stop;
    `layers`: the net as `core.layers` has it, where the file says what it is; `image`: the shape that its input then has; `card`: what the
    other files of its folder say of the net."""

    tensors: Mapping[str, Tensor]
    format: str
    sha256: str = ""
    notes: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = field(default=())
    layers: tuple[Mapping[str, Any], ...] = ()
    image: tuple[int, ...] = ()
    card: Card | None = None

    def inspected(self) -> Weights:
        """The same with `not_finite` filled in."""
        return replace(self, not_finite=tuple(name for name, tensor in self.tensors.items() if not tensor.is_finite()))

    @property
    def channels_last(self) -> bool:
        """Whether whoever made it flattens pictures as rows, columns, channels, which shapes do not show."""
        return self.format.startswith("Keras") and not self.layers

    @property
    def num_bytes(self) -> int:
        return sum(tensor.data.nbytes for tensor in self.tensors.values())

    def to_safetensors(self) -> Iterator[bytes | memoryview]:
        """The tensors alone as a safetensors file, in pieces. Names in the file's order, aligned data: widest types first."""
        widest = sorted(self.tensors, key=lambda name: -self.tensors[name].data.itemsize)
        starts, at = {}, 0
        for name in widest:
            starts[name], at = at, at + self.tensors[name].data.nbytes
        header = {
            name: {"dtype": DTYPES[t.dtype][0], "shape": list(t.shape), "data_offsets": [starts[name], starts[name] + t.data.nbytes]}
            for name, t in self.tensors.items()
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for name in widest:
            data = np.ascontiguousarray(self.tensors[name].data)
            if data.nbytes:
                yield data.reshape(-1).view(np.uint8).data


def view(content: bytes | memoryview, start: int, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor in row-major order that lies at `start` in the content; the caller has checked that it is all there."""
    count = math.prod(shape)
    # NumPy refuses an offset at the very end, where an empty tensor may lie.
    flat = np.frombuffer(content, DTYPES[dtype][1], count, start) if count else np.zeros(0, DTYPES[dtype][1])
    return Tensor(dtype, flat.reshape(shape))
