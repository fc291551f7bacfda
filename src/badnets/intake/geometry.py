"""Where tensors lie in their storages: dense and inside, each number owned once; nothing that a few bytes could blow up.

A stride of zero makes a terabyte of one number, overlapping views make one number two parameters, an offset past the end reads what is
not the file's. Transposed and channels-last tensors are dense and are read. Sizes, strides and offsets count elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from badnets.intake.opcodes import View
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.weights import DTYPES, MOST_AXES, Tensor


def check_view(view: View, file_size: int) -> None:
    """Refuses a view that is not dense, or does not lie within its storage."""
    if len(view.shape) > MOST_AXES or len(view.shape) != len(view.stride):
        raise refuse("E-SHAPE", f"a tensor has the shape {quoted(view.shape)} with the strides {quoted(view.stride)}")
    count = math.prod(view.shape)
    if count and _order(view) is None:
        claimed = amount(count * itemsize(view.storage.dtype))
        what = "expanded tensor" if 0 in view.stride and count > view.storage.numel else "tensor with gaps or overlaps"
        raise refuse(
            "E-STRIDE",
            f"{what}: shape {quoted(view.shape)}, strides {quoted(view.stride)} ({amount(file_size)} of file, {claimed} claimed)",
        )
    if view.offset + count > view.storage.numel:
        raise refuse(
            "E-BOUNDS",
            f"a tensor of {count:,} numbers at {view.offset:,} leaves its storage {quoted(view.storage.key)} of {view.storage.numel:,}",
        )


def check_disjoint(views: Iterable[View]) -> int:
    """Refuses views that share some of their numbers; returns how many are the same as an earlier one, as tied weights are."""
    distinct: dict[tuple[str, int, int], View] = {}
    same = 0
    for view in views:
        place = (view.storage.key, view.offset, math.prod(view.shape))
        if place[2] and place not in distinct:
            distinct[place] = view
        elif place[2]:
            if distinct[place] != view:
                raise refuse("E-OVERLAP", f"two tensors read storage {quoted(view.storage.key)} at {view.offset:,} in different ways")
            same += 1
    end: tuple[str, int] = ("", 0)
    for key, offset, count in sorted(distinct):
        if key == end[0] and offset < end[1]:
            raise refuse("E-OVERLAP", f"two tensors share numbers of storage {quoted(key)} at {offset:,}")
        end = (key, offset + count)
    return same


def take(view: View, storage: memoryview) -> Tensor:
    """The tensor as an array, a view of the bytes of its storage; `check_view` has passed."""
    code = DTYPES[view.storage.dtype][1]
    count = math.prod(view.shape)
    if not count:
        return Tensor(view.storage.dtype, np.zeros(view.shape, code))
    flat = np.frombuffer(storage, code, count, view.offset * np.dtype(code).itemsize)
    order = _order(view) or []
    laid = flat.reshape([view.shape[axis] for axis in order])
    return Tensor(view.storage.dtype, laid.transpose([order.index(axis) for axis in range(len(order))]))


def itemsize(dtype: str) -> int:
    """Bytes of one number."""
    return np.dtype(DTYPES[dtype][1]).itemsize


def _order(view: View) -> list[int] | None:
    """Axes from the widest stride to the narrowest if together they step through every number once, else None."""
    # The stride of an axis of one is never used, and torch leaves any number in it.
    order = sorted(range(len(view.shape)), key=lambda axis: (view.shape[axis] > 1, -view.stride[axis]))
    step = 1
    for axis in reversed(order):
        if view.shape[axis] > 1:
            if view.stride[axis] != step:
                return None
            step *= view.shape[axis]
    return order
