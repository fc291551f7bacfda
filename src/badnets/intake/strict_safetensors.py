"""Reads safetensors with limits of its own, stricter than the library's, which is not called.

Refused although the library takes it, or has taken it: duplicate keys, a header that begins with a blank, control characters in names, data
that no tensor owns or that two own. The metadata is not handed on: it may lie. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.strict_json import read_json
from badnets.intake.weights import DTYPES, LONGEST_NAME, MOST_AXES, MOST_TENSORS, Tensor, Weights, view

LARGEST_HEADER = 8 << 20
_LENGTH = 8
_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_NAMES = {theirs: ours for ours, (theirs, _) in DTYPES.items()}
_MOST_COMMAS = MOST_TENSORS * (MOST_AXES + 6)


def read_safetensors(data: bytes | memoryview) -> Weights:
    """The tensors of safetensors bytes, as views of them. Raises RefusedError."""
    if len(data) < _LENGTH + 2:
        raise refuse("E-HEADER", f"{len(data)} bytes are too few for a safetensors header")
    size = int.from_bytes(data[:_LENGTH], "little")
    if size > LARGEST_HEADER:
        raise refuse("E-HEADER", f"expected a header of at most {amount(LARGEST_HEADER)}, got {amount(size)}")
    if _LENGTH + size > len(data):
        raise refuse("E-HEADER", f"its header is said to have {size:,} bytes, but only {len(data) - _LENGTH:,} follow")
    header = _parse(bytes(data[_LENGTH : _LENGTH + size]))
    _check_metadata(header.pop(_METADATA, {}))
    if len(header) > MOST_TENSORS:
        raise refuse("E-COUNT", f"it holds {len(header):,} tensors")
    if not header:
        raise refuse("E-NO-WEIGHTS", "it holds no tensor")
    entries = {name: _entry(name, value) for name, value in header.items()}
    _check_tiling(entries, len(data) - _LENGTH - size)
    tensors = {name: view(data, _LENGTH + size + start, dtype, shape) for name, (dtype, shape, start, _) in entries.items()}
    for name, tensor in tensors.items():
        check_bools(name, tensor)
    return Weights(tensors, "safetensors")


def check_name(name: str) -> None:
    """Refuses a tensor's name that is empty, too long, or would do something to a terminal."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise refuse("E-NAME", f"expected names of 1 to {LONGEST_NAME} printable characters, got {quoted(name)}")


def check_bools(name: str, tensor: Tensor) -> None:
    """Refuses a bool that is neither 0 nor 1: what it then means depends on who asks."""
    if tensor.dtype == "bool" and tensor.data.size and tensor.data.view(np.uint8).max() > 1:
        raise refuse("E-DTYPE", f"tensor {quoted(name)} is bool and has bytes other than 0 and 1")


def _parse(text: bytes) -> dict[str, Any]:
    if text[:1] != b"{":
        raise refuse("E-HEADER", "expected a header that begins with a brace")
    return read_json(text, "header", tables=MOST_TENSORS + 2, lists=2 * MOST_TENSORS + 2, commas=_MOST_COMMAS)


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("E-JSON", "its metadata is not a table of texts")


def _entry(name: str, value: object) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, start, end) of one tensor; start and end count from the end of the header."""
    check_name(name)
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise refuse("E-JSON", f"tensor {quoted(name)} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _NAMES:
        raise refuse("E-DTYPE", f"tensor {quoted(name)} has the type {quoted(dtype)}")
    if not _are_sizes(shape) or len(shape) > MOST_AXES:
        raise refuse("E-SHAPE", f"tensor {quoted(name)} has the shape {quoted(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise refuse("E-OFFSETS", f"tensor {quoted(name)} has the offsets {quoted(offsets)}")
    start, end = offsets
    needed = math.prod(shape) * np.dtype(DTYPES[_NAMES[dtype]][1]).itemsize
    if end - start != needed:
        raise refuse(
            "E-SHAPE", f"tensor {quoted(name)} {dtype} {quoted(shape)} needs {quoted(needed)} bytes, its offsets give {quoted(end - start)}"
        )
    return _NAMES[dtype], tuple(shape), start, end


def _are_sizes(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)


def _check_tiling(entries: dict[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    at = 0
    for name, (_, _, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != at:
            what = "overlap" if start < at else "leave a gap before"
            raise refuse("E-OFFSETS", f"the data {what} tensor {quoted(name)}: expected it at {at:,}, got {start:,}")
        at = end
    if at != size:
        raise refuse("E-OFFSETS", f"its tensors need {at:,} bytes, but {size:,} follow the header")
