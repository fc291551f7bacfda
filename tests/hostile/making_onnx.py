"""Writes ONNX models field by field, honest ones and others, without ONNX's library."""

from __future__ import annotations

import struct

import numpy as np


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def part(number, value):
    """A field: a whole number, a float, a text, or the bytes of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, *, kind=None, raw=None, shape=None, more=b""):
    array = np.asarray(array)
    kind = {"float32": 1, "int64": 7, "float16": 10}[str(array.dtype)] if kind is None else kind
    sizes = b"".join(part(1, int(size)) for size in (array.shape if shape is None else shape))
    return sizes + part(2, kind) + part(8, name) + (b"" if raw is False else part(9, array.tobytes() if raw is None else raw)) + more


def outside(name, shape, **place):
    """A tensor whose numbers lie in another file."""
    pairs = b"".join(part(13, part(1, key) + part(2, str(value))) for key, value in place.items())
    return tensor(name, np.zeros(shape, np.float32), raw=False, more=pairs + part(14, 1))


def attribute(name, value):
    if isinstance(value, list):
        return part(1, name) + b"".join(part(8, item) for item in value) + part(20, 7)
    return part(1, name) + part({int: 3, float: 2, str: 4, bytes: 5}[type(value)], value)


def node(op, inputs, outputs, *, domain="", **attributes):
    names = b"".join(part(1, name) for name in inputs) + b"".join(part(2, name) for name in outputs)
    return names + part(4, op) + b"".join(part(5, attribute(key, value)) for key, value in attributes.items()) + part(7, domain)


def value(name, shape):
    sizes = b"".join(part(1, part(2, size) if isinstance(size, str) else part(1, size)) for size in shape)
    return part(1, name) + part(2, part(1, part(1, 1) + part(2, sizes)))


def model(nodes, tensors, *, inputs=None, outputs=None, more=b"", opset=17):
    inputs = [value("x", ("N", 1, 8, 8))] if inputs is None else inputs
    outputs = [value("y", ("N", 3))] if outputs is None else outputs
    graph = b"".join(part(1, one) for one in nodes) + part(2, "g") + b"".join(part(5, one) for one in tensors)
    graph += b"".join(part(11, one) for one in inputs) + b"".join(part(12, one) for one in outputs)
    return part(1, 8) + part(2, "pytorch") + part(7, graph) + part(8, part(2, opset)) + more


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


CONV = node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
REST = [node("Relu", ["c"], ["r"]), node("Flatten", ["r"], ["f"], axis=1), node("Gemm", ["f", "v", "d"], ["y"], transB=1, alpha=1.0)]
WEIGHTS = {"w": numbers(2, 1, 3, 3), "b": numbers(2), "v": numbers(3, 128), "d": numbers(3)}
TENSORS = [tensor(name, array) for name, array in WEIGHTS.items()]


def honest(**changes):
    return model([CONV, *REST], TENSORS, **changes)
