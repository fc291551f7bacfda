"""ONNX models: honest ones by what is in them, and others by what is wrong with them."""

from __future__ import annotations

import numpy as np
from making_onnx import CONV, REST, TENSORS, WEIGHTS, honest, model, node, numbers, part, tensor, value, varint


def after_relu(nodes, tensors=(), *, out="y"):
    """The honest model with other operators between its rectifier and its end."""
    return model([CONV, node("Relu", ["c"], ["r"]), *nodes], [*TENSORS, *tensors], outputs=[value(out, ("N", 3))])


def tail(name):
    return [node("Flatten", [name], ["f"]), node("Gemm", ["f", "v", "d"], ["y"], transB=1)]


def const(name, *values, shape=None):
    return tensor(name, np.array(values, np.float32).reshape(shape or (len(values),)))


def whole(name, *values):
    return tensor(name, np.array(values, np.int64))


HONEST = {
    "softmax at the end": (after_relu([*tail("r"), node("Softmax", ["y"], ["z"])], out="z"), "linear"),
    "clip to six": (after_relu([node("Clip", ["r", "lo", "hi"], ["k"]), *tail("k")], [const("lo", 0.0, shape=()), const("hi", 6.0, shape=())]), "relu6"),
    "average pool, then its mean": (
        after_relu([node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "m"], ["q"]), node("Add", ["q", "d"], ["y"])],
                   [tensor("m", numbers(2, 3))]),
        "adaptive_avg_pool",
    ),
    "mean over axes": (
        after_relu([node("ReduceMean", ["r", "axes"], ["f"], keepdims=0), node("MatMul", ["f", "m"], ["y"])], [whole("axes", -2, -1), tensor("m", numbers(2, 3))]),
        "adaptive_avg_pool",
    ),
    "a residual sum": (after_relu([node("Add", ["r", "c"], ["s"]), *tail("s")]), "add"),
    "its own normalisation": (
        model([node("Sub", ["x", "mu"], ["x1"]), node("Div", ["x1", "sd"], ["x2"]), node("Conv", ["x2", "w", "b"], ["c"], pads=[1, 1, 1, 1]), *REST],
              [*TENSORS, const("mu", 0.5, shape=(1, 1, 1, 1)), const("sd", 0.25)]),
        "affine",
    ),
    "reshape": (after_relu([node("Reshape", ["r", "to"], ["f"]), node("Gemm", ["f", "v", "d"], ["y"], transB=1)], [whole("to", 1, -1)]), "flatten"),
    "padding of its own": (
        model([node("Pad", ["x", "pads"], ["p"]), node("Conv", ["p", "w", "b"], ["c"]), *REST], [*TENSORS, whole("pads", 0, 0, 1, 1, 0, 0, 1, 1)]),
        "pad",
    ),
    "numbers one by one": (
        model([CONV, *REST], [tensor(name, array, raw=False, more=part(4, array.tobytes())) for name, array in WEIGHTS.items()]), "conv"
    ),
    "half precision, one by one": (
        model([CONV, *REST], [tensor(name, array.astype(np.float16), raw=False, more=part(5, b"".join(varint(int(bits)) for bits in array.astype(np.float16).view(np.uint16).ravel()))) for name, array in WEIGHTS.items()]), "conv"
    ),
    "half precision": (model([CONV, *REST], [tensor(name, array.astype(np.float16)) for name, array in WEIGHTS.items()]), "conv"),
    "channels last": (
        model([node("Transpose", ["x", ], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
               node("Transpose", ["r"], ["back"], perm=[0, 2, 3, 1]), *tail("back")], TENSORS, inputs=[value("x", (1, 8, 8, 1))]),
        "flatten",
    ),
    "norm, dropout, identity": (
        after_relu([node("BatchNormalization", ["r", "b", "b", "b", "var"], ["n"], epsilon=1e-3), node("Dropout", ["n"], ["o"]), node("Identity", ["o"], ["i"]),
                    *tail("i")], [const("var", 1.0, 2.0)]),
        "batch_norm",
    ),
    "a pool with padding": (
        model([CONV, node("MaxPool", ["c"], ["r"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), node("Flatten", ["r"], ["f"]),
               node("Gemm", ["f", "v2"], ["y"], transB=1)], [*TENSORS, tensor("v2", numbers(3, 32))]),
        "max_pool",
    ),
}  # fmt: skip


def bad_tensor(**changes):
    return model([CONV, *REST], [*TENSORS[1:], tensor("w", WEIGHTS["w"], **changes)])


GRAPH = part(7, b"")
REFUSED = {
    "no graph": (part(1, 8) + part(2, "x"), "E-ONNX"),
    "two graphs": (honest(more=GRAPH), "E-ONNX"),
    "functions": (honest(more=part(25, b"")), "E-ONNX"),
    "cut off": (honest()[:-9], "E-ONNX"),
    "a length beyond the end": (part(1, 8) + b"\x12" + varint(1 << 62), "E-ONNX"),
    "a number without an end": (part(1, 8) + b"\x12" + b"\xff" * 11, "E-ONNX"),
    "a kind that is none": (part(1, 8) + b"\x12\x00\x0b", "E-ONNX"),
    "field zero": (part(1, 8) + b"\x12\x00\x00\x01", "E-ONNX"),
    "an operator of its own": (model([node("Conv", ["x", "w"], ["y"], domain="evil")], TENSORS), "E-ONNX"),
    "an unknown operator": (model([node("Loop", ["x"], ["y"])], TENSORS), "E-ONNX"),
    "a branch": (model([node("If", ["x"], ["y"]) + part(5, part(1, "then") + part(6, b""))], TENSORS), "E-ONNX"),
    "reads what is not there": (model([node("Relu", ["nothing"], ["y"])], TENSORS), "E-ONNX"),
    "reads itself": (model([node("Relu", ["y"], ["y"])], TENSORS), "E-ONNX"),
    "no weights": (model([node("Relu", ["x"], ["y"])], []), "E-NO-WEIGHTS"),
    "an output that nothing gives": (model([CONV], TENSORS), "E-ONNX"),
    "two inputs": (honest(inputs=[value("x", ("N", 1, 8, 8)), value("z", ("N", 1))]), "E-ONNX"),
    "images of no fixed size": (honest(inputs=[value("x", ("N", 1, "H", "W"))]), "E-ONNX"),
    "images beyond reason": (honest(inputs=[value("x", ("N", 1, 1 << 40, 8))]), "E-ONNX"),
    "negative sizes": (honest(inputs=[value("x", ("N", 1, -8, 8))]), "E-ONNX"),
    "a name twice": (model([CONV, *REST], [*TENSORS, TENSORS[0]]), "E-DUPLICATE"),
    "numbers too few": (bad_tensor(raw=b"\0" * 8), "E-SHAPE"),
    "numbers in part": (bad_tensor(raw=WEIGHTS["w"].tobytes() + b"\0"), "E-SHAPE"),
    "a shape beyond its numbers": (bad_tensor(shape=(1 << 31, 1 << 31, 3, 3)), "E-SHAPE"),
    "a negative shape": (bad_tensor(shape=(-2, -1, 3, 3)), "E-SHAPE"),
    "nine axes": (bad_tensor(shape=(1,) * 8 + (18,)), "E-SHAPE"),
    "halves listed as fractions": (bad_tensor(kind=10, raw=False, more=part(4, WEIGHTS["w"].tobytes())), "E-ONNX"),
    "fractions listed as whole numbers": (bad_tensor(raw=False, more=part(5, varint(1) * 18)), "E-ONNX"),
    "fractions listed as a whole number each": (bad_tensor(raw=False, more=b"".join(part(4, 1) for _ in range(18))), "E-ONNX"),
    "fractions listed in part": (bad_tensor(raw=False, more=part(4, WEIGHTS["w"].tobytes()[:-1])), "E-ONNX"),
    "halves listed beyond their bits": (bad_tensor(kind=10, raw=False, more=part(5, varint(1 << 16) * 18)), "E-ONNX"),
    "halves listed below zero": (bad_tensor(kind=10, raw=False, more=part(5, varint(-1) * 18)), "E-ONNX"),
    "bytes listed beyond a byte": (bad_tensor(kind=2, raw=False, more=part(5, varint(256) * 18)), "E-ONNX"),
    "texts as numbers": (bad_tensor(kind=8), "E-DTYPE"),
    "a name that is no text": (model([node("Relu", [b"\xff"], ["y"])], TENSORS), "E-NAME"),
    "stride of nothing": (model([CONV.replace(part(8, 1) + part(8, 1) + part(20, 7), part(8, 0) + part(8, 0) + part(20, 7)), *REST], TENSORS), "E-ONNX"),
    "groups beyond channels": (model([node("Conv", ["x", "w", "b"], ["c"], group=1 << 40), *REST], TENSORS), "E-SHAPE"),
    "a padding beyond reason": (model([node("Conv", ["x", "w", "b"], ["c"], pads=[1 << 40] * 4), *REST], TENSORS), "E-ONNX"),
    "weights of another width": (model([CONV, *REST], [*TENSORS[:2], tensor("v", numbers(3, 9)), TENSORS[3]]), "E-SHAPE"),
    "a constant that is no number": (after_relu([node("Add", ["r", "odd"], ["s"]), *tail("s")], [const("odd", float("nan"))]), "E-ONNX"),
    "a constant without end": (after_relu([node("Mul", ["r", "odd"], ["s"]), *tail("s")], [const("odd", float("inf"))]), "E-ONNX"),
    "a constant that signals": (
        after_relu([node("Add", ["r", "odd"], ["s"]), *tail("s")], [tensor("odd", np.zeros(1, np.float32), raw=b"\x01\0\xa0\x7f")]),
        "E-ONNX",
    ),
    "a constant a pixel": (after_relu([node("Add", ["r", "big"], ["s"]), *tail("s")], [tensor("big", numbers(1, 2, 8, 8))]), "E-ONNX"),
    "division by zero": (after_relu([node("Div", ["r", "o"], ["s"]), *tail("s")], [const("o", 0.0)]), "E-ONNX"),
    "softmax in the middle": (after_relu([node("Softmax", ["r"], ["s"]), *tail("s")]), "E-ONNX"),
    "turned axes": (after_relu([node("Transpose", ["r"], ["s"], perm=[0, 1, 3, 2]), *tail("s")]), "E-ONNX"),
    "quantised": (model([node("QLinearConv", ["x", "w"], ["y"])], TENSORS), "E-ONNX"),
    "sparse tensors": (part(1, 8) + part(7, part(15, b"")), "E-ONNX"),
}  # fmt: skip
