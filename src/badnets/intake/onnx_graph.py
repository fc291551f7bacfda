"""An ONNX graph as a list of layers and their weights: an allow-list of operators, each translated; any other is refused by name.

The net is then one of ours, with gradients. For classifiers of images, in either order of axes. Not for recurrent nets, attention, shapes
that are computed, quantised operators. A last softmax is left out: it changes no answer, and detectors want what comes before it.
Operators: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import numpy as np
import pydantic

from badnets.core.layers import Layer, Shape, after
from badnets.intake.onnx_wire import Graph, Node, read_graph
from badnets.intake.reasons import quoted, refuse
from badnets.intake.weights import Tensor, Weights

_LAYER: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Layer)
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_PLAIN = {
    "Relu": "relu", "Selu": "selu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "HardSwish": "hardswish", "Mish": "mish",
}  # fmt: skip


class Value(NamedTuple):
    """What a layer gives. `shape`: with channels first, whatever the order in the graph; `last`: whether they come last there."""

    layer: str
    shape: Shape
    last: bool = False


def read_onnx(data: bytes, files: Mapping[str, bytes]) -> Weights:
    """Layers and weights of a model. Raises RefusedError, NeedsFilesError."""
    graph = read_graph(data, files)
    return Translation(graph).done()


@final
class Translation:
    """Goes through the operators in order; what each gives is known by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.layers, self.tensors = graph, [], {}
        self.constants = {name: _numbers(tensor) for name, tensor in graph.constants.items()}
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.values: dict[str, Value] = {}
        self.notes: list[str] = []
        inputs = {name: shape for name, shape in graph.inputs.items() if name not in graph.constants}
        if len(inputs) != 1 or not graph.outputs:
            raise refuse("E-ONNX", f"expected one input and an output, got {len(inputs)} and {len(graph.outputs)}")
        ((self.input, told),) = inputs.items()
        sizes = [size for size in told[1:] if size is not None]
        if len(told) != 4 or len(sizes) != 3 or max(sizes) > 65_536:
            raise refuse("E-ONNX", f"expected an input of images of a fixed size, got the shape {quoted([size or 0 for size in told])}")
        first = next((node for node in graph.nodes if self.input in node.inputs), None)
        last = first is not None and first.op == "Transpose" and first.attributes.get("perm") == _TO_FIRST
        self.image = (sizes[2], sizes[0], sizes[1]) if last else (sizes[0], sizes[1], sizes[2])
        self.values[self.input] = Value("input", self.image, last)

    def done(self) -> Weights:
        for node in self.graph.nodes:
            if node.op == "Constant":
                self.constants[_only(node.outputs)] = _constant(node)
                continue
            translate = _OPERATORS.get(node.op) if node.domain in ("", "ai.onnx") else None
            if translate is None:
                raise refuse(
                    "E-ONNX", f"its graph has the operator {quoted(f'{node.domain}.{node.op}'.strip('.'))}, which is not translated"
                )
            if not node.inputs or not node.outputs:
                raise refuse("E-ONNX", f"an operator {node.op} without an input or output")
            if all(name in self.constants for name in node.inputs if name):
                raise refuse("E-ONNX", f"an operator {node.op} on constants alone: have the model simplified")
            self.values[node.outputs[0]] = translate(self, node)
        name, *others = self.graph.outputs
        if name not in self.values or not self.layers:
            raise refuse("E-ONNX", f"no operator gives its output {quoted(name)}")
        if others:
            self.notes.append(f"outputs not looked at: {', '.join(map(quoted, others[:3]))}")
        if self.values[name].layer != self.layers[-1]["name"]:
            self.add({"op": "identity", "of": (self.values[name].layer,)}, self.values[name])
        self.notes.append(f"{len(self.layers)} layers of {len(self.graph.nodes)} operators")
        if not self.tensors:
            raise refuse("E-NO-WEIGHTS", "its graph has no weights")
        return Weights(self.tensors, "ONNX", notes=tuple(self.notes), layers=tuple(self.layers), image=self.image)

    def value(self, node: Node, number: int = 0) -> Value:
        name = node.inputs[number] if number < len(node.inputs) else ""
        if name not in self.values:
            raise refuse("E-ONNX", f"{node.op} reads {quoted(name)}, which nothing before it gives")
        return self.values[name]

    def constant(self, node: Node, number: int, axes: int | None = None) -> np.ndarray | None:
        """A constant input; None where there is none. `axes`: how many it must have."""
        name = node.inputs[number] if number < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise refuse("E-ONNX", f"{node.op} wants {quoted(name)} to be a constant, which it is not")
        found = self.constants[name]
        if axes is not None and found.ndim != axes:
            raise refuse("E-SHAPE", f"{node.op} has a constant of shape {quoted(found.shape)}")
        return found

    def weights(self, node: Node, number: int, axes: int) -> np.ndarray:
        found = self.constant(node, number, axes)
        if found is None or not found.size:
            raise refuse("E-ONNX", f"{node.op} has no weights")
        return found

    def add(self, layer: dict[str, Any], *read: Value, **tensors: np.ndarray | None) -> Value:
        """Append a layer with its tensors; what it gives."""
        name = f"n{len(self.layers)}"
        layer = {"of": tuple(one.layer for one in read), **layer, "name": name}
        try:
            shape = after(_LAYER.validate_python(layer), [one.shape for one in read], 0)
        except pydantic.ValidationError as error:
            item = error.errors()[0]
            raise refuse("E-ONNX", f"operator {len(self.layers)} ({layer['op']}): {quoted(item['msg'], 120)[1:-1]}") from error
        except ValueError as error:
            raise refuse("E-ONNX", f"operator {len(self.layers)} ({layer['op']}): {quoted(str(error), 120)[1:-1]}") from error
        self.layers.append(layer)
        for part, numbers in tensors.items():
            if numbers is not None:
                self.tensors[f"{name}.{part}"] = Tensor("float32", np.ascontiguousarray(numbers, np.float32))
        return Value(name, shape, read[0].last and len(shape) == 3)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.to_float32() if tensor.is_float else tensor.data


def _only(names: list[str]) -> str:
    return names[0] if names else ""


def _constant(node: Node) -> np.ndarray:
    for name, value in node.attributes.items():
        if isinstance(value, Tensor):
            return _numbers(value)
        if name.startswith("value") and isinstance(value, int | float | list):
            return np.array(value)
    raise refuse("E-ONNX", "a constant of a kind that is not read")


def _sizes(node: Node, name: str, count: int, default: int) -> list[int]:
    found = node.attributes.get(name) or [default] * count
    if not isinstance(found, list) or len(found) != count or not all(isinstance(n, int) and 0 <= n <= 65_536 for n in found):
        raise refuse("E-ONNX", f"{node.op} has {name} {quoted(found)}")
    return found


def _window(node: Node, value: Value, kernel: list[int]) -> dict[str, Any]:
    """Stride, dilation and padding of a convolution or pooling."""
    stride, dilation = _sizes(node, "strides", 2, 1), _sizes(node, "dilations", 2, 1)
    auto = node.attributes.get("auto_pad") or "NOTSET"
    padding = _sizes(node, "pads", 4, 0)
    if auto in ("SAME_UPPER", "SAME_LOWER") and min(stride) > 0 and len(value.shape) == 3:
        needed = [
            max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
            for size, s, d, k in zip(value.shape[1:], stride, dilation, kernel, strict=True)
        ]
        less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
        padding = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
    elif auto not in ("NOTSET", "VALID"):
        raise refuse("E-ONNX", f"{node.op} pads by {quoted(auto)}")
    if value.last:
        raise refuse("E-ONNX", f"{node.op} where channels come last")
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def _conv(t: Translation, node: Node) -> Value:
    value, weight, bias = t.value(node), t.weights(node, 1, 4), t.constant(node, 2, 1)
    groups = node.attributes.get("group") or 1
    if not isinstance(groups, int) or value.shape[0] != weight.shape[1] * groups:
        raise refuse("E-SHAPE", f"a convolution for {weight.shape[1]} channels in {quoted(groups)} groups reads {value.shape[0]}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise refuse("E-SHAPE", f"a convolution to {weight.shape[0]} channels has a bias of shape {quoted(bias.shape)}")
    layer = {
        "op": "conv",
        "out": weight.shape[0],
        "groups": groups,
        "bias": bias is not None,
        **_window(node, value, list(weight.shape[2:])),
    }
    return t.add(layer, value, weight=weight, bias=bias)


def _linear(t: Translation, node: Node) -> Value:
    """Gemm and MatMul: with a constant matrix on the right."""
    value, weight, bias = t.value(node), t.weights(node, 1, 2), t.constant(node, 2)
    told = node.attributes
    if told.get("transA") or told.get("alpha", 1.0) not in (None, 1.0) or told.get("beta", 1.0) not in (None, 1.0):
        raise refuse("E-ONNX", "Gemm with factors, or with its input turned")
    weight = weight if node.op == "Gemm" and told.get("transB") else weight.T
    if value.shape != (weight.shape[1],) or (bias is not None and bias.size not in (1, len(weight))):
        raise refuse("E-SHAPE", f"{node.op} with weights of shape {quoted(weight.shape)} reads {quoted(value.shape)}")
    wide = None if bias is None else np.broadcast_to(bias.reshape(-1), len(weight))
    return t.add({"op": "linear", "out": len(weight), "bias": bias is not None}, value, weight=weight, bias=wide)


def _norm(t: Translation, node: Node) -> Value:
    value = t.value(node)
    parts = [t.weights(node, number, 1) for number in range(1, 5)]
    if value.last or any(part.shape != value.shape[:1] for part in parts):
        raise refuse("E-SHAPE", f"a batch norm of {parts[0].size} channels reads {quoted(value.shape)}")
    epsilon = node.attributes.get("epsilon")
    layer = {"op": "batch_norm", "eps": 1e-5 if epsilon is None else epsilon}
    return t.add(layer, value, **dict(zip(("weight", "bias", "running_mean", "running_var"), parts, strict=True)))


def _pool(t: Translation, node: Node) -> Value:
    value = t.value(node)
    layer = _window(node, value, _sizes(node, "kernel_shape", 2, 1))
    if layer.pop("dilation") != [1, 1]:
        raise refuse("E-ONNX", f"{node.op} with gaps")
    layer |= {"op": "max_pool" if node.op == "MaxPool" else "avg_pool", "ceil": bool(node.attributes.get("ceil_mode"))}
    return t.add({**layer, "count_padding": bool(node.attributes.get("count_include_pad"))}, value)


def _mean(t: Translation, node: Node) -> Value:
    """Over rows and columns: of the pooling of everything, or as a mean over named axes."""
    value, keep = t.value(node), True
    if node.op == "ReduceMean":
        told = t.constant(node, 1)
        axes = node.attributes.get("axes") if told is None else told.reshape(-1).tolist()
        wanted = [1, 2] if value.last else [2, 3]
        if len(value.shape) != 3 or not isinstance(axes, list) or sorted(axis % 4 for axis in axes) != wanted:
            raise refuse("E-ONNX", "a mean over other axes than rows and columns")
        keep = node.attributes.get("keepdims") != 0
    pooled = t.add({"op": "adaptive_max_pool" if node.op == "GlobalMaxPool" else "adaptive_avg_pool"}, value)
    return pooled if keep else t.add({"op": "flatten"}, pooled)


def _flat(t: Translation, node: Node) -> Value:
    """Flatten, and reshapes and squeezes that come to the same."""
    value = t.value(node)
    if node.op == "Flatten" and node.attributes.get("axis") not in (None, 1):
        raise refuse("E-ONNX", "a flatten that begins at another axis than the second")
    if node.op == "Squeeze" and value.shape[1:] != (1, 1):
        raise refuse("E-ONNX", "a squeeze of axes that are not all one")
    if node.op == "Reshape":
        shape = t.constant(node, 1)
        size = int(np.prod(value.shape))
        # The first axis is the batch: whatever stands there was its size when the net was written.
        if shape is None or shape.shape != (2,) or int(shape[1]) not in (-1, size):
            raise refuse("E-ONNX", f"a reshape of {quoted(value.shape)} to {quoted([] if shape is None else shape.reshape(-1).tolist())}")
    return value if len(value.shape) == 1 else t.add({"op": "flatten", "channels_last": value.last}, value)


def _turn(t: Translation, node: Node) -> Value:
    value, perm = t.value(node), node.attributes.get("perm")
    if len(value.shape) != 3 or perm != (_TO_FIRST if value.last else _TO_LAST):
        raise refuse("E-ONNX", f"it turns axes by {quoted(perm)}")
    return value._replace(last=not value.last)


def _activation(t: Translation, node: Node) -> Value:
    value, told = t.value(node), node.attributes
    if node.op in _PLAIN:
        return t.add({"op": _PLAIN[node.op]}, value)
    if node.op == "LeakyRelu":
        slope = told.get("alpha")
        return t.add({"op": "leaky_relu", "slope": 0.01 if slope is None else slope}, value)
    if node.op == "Gelu":
        return t.add({"op": "gelu_tanh" if told.get("approximate") == "tanh" else "gelu"}, value)
    if node.op == "Elu" and told.get("alpha") in (None, 1.0):
        return t.add({"op": "elu"}, value)
    if node.op == "HardSigmoid" and abs((told.get("alpha") or 0.2) - 1 / 6) < 1e-6 and told.get("beta") in (None, 0.5):
        return t.add({"op": "hardsigmoid"}, value)
    if node.op == "Clip":
        low, high = (_scalar(t, node, number, name) for number, name in ((1, "min"), (2, "max")))
        if low == 0.0 and high in (None, 6.0):
            return t.add({"op": "relu" if high is None else "relu6"}, value)
    raise refuse("E-ONNX", f"{node.op} with constants that are not usual")


def _scalar(t: Translation, node: Node, number: int, name: str) -> float | None:
    found = t.constant(node, number)
    if found is not None and found.size == 1:
        return float(found.reshape(()))
    told = node.attributes.get(name)
    return float(told) if isinstance(told, int | float) else None


def _arithmetic(t: Translation, node: Node) -> Value:
    """Of two values their sum or product; of a value and a constant what comes to a factor and a shift."""
    known = [name in t.constants for name in node.inputs[:2]]
    if len(known) != 2 or not any(known):
        values = [t.value(node, number) for number in range(len(node.inputs))]
        if node.op not in ("Add", "Mul") or len(values) != 2 or values[0].last != values[1].last:
            raise refuse("E-ONNX", f"{node.op} of {len(values)} values")
        return t.add({"op": "add" if node.op == "Add" else "mul"}, *values)
    value = t.value(node, 0 if known[1] else 1)
    numbers = t.weights(node, 1 if known[1] else 0, t.constants[node.inputs[1 if known[1] else 0]].ndim)
    if not np.isfinite(numbers).all():
        raise refuse("E-ONNX", f"{node.op} with a constant that is no finite number")
    numbers = _a_channel(node, numbers.astype(np.float64), value)
    if node.op == "Add" and len(numbers) == value.shape[0] and t.layers[-1:] and _takes_bias(t, node, value):
        t.layers[-1]["bias"] = True
        t.tensors[f"{value.layer}.bias"] = Tensor("float32", numbers.astype(np.float32))
        return value
    one, zero = np.ones(1), np.zeros(1)
    if node.op in ("Add", "Sub"):
        scale, shift = (one, numbers if node.op == "Add" else -numbers) if known[1] else (one if node.op == "Add" else -one, numbers)
    elif node.op == "Mul" or (known[1] and numbers.all()):
        scale, shift = numbers if node.op == "Mul" else 1 / numbers, zero
    else:
        raise refuse("E-ONNX", "a division by a value, or by zero")
    return t.add({"op": "affine", "scale": tuple(scale.tolist()), "shift": tuple(shift.tolist())}, value)


def _takes_bias(t: Translation, node: Node, value: Value) -> bool:
    """Whether the constant is the bias of the linear layer right before, which nobody else reads."""
    before = t.layers[-1]
    return before["name"] == value.layer and before["op"] == "linear" and not before["bias"] and t.uses[node.inputs[0]] == 1


def _a_channel(node: Node, numbers: np.ndarray, value: Value) -> np.ndarray:
    """The constant as one number, or one for each channel."""
    channels, axes = value.shape[0], len(value.shape) + 1
    if numbers.size == 1:
        return numbers.reshape(1)
    full = (1,) * (axes - numbers.ndim) + numbers.shape
    wanted = (1, channels) if axes == 2 else (1, 1, 1, channels) if value.last else (1, channels, 1, 1)
    if full != wanted:
        raise refuse("E-ONNX", f"{node.op} with a constant of shape {quoted(numbers.shape)}: not one number a channel")
    return numbers.reshape(-1)


def _same(t: Translation, node: Node) -> Value:
    return t.value(node)


def _softmax(t: Translation, node: Node) -> Value:
    if node.outputs[0] not in t.graph.outputs or t.uses[node.outputs[0]]:
        raise refuse("E-ONNX", f"{node.op} in the middle of the net")
    t.notes.append(f"the last {node.op} left out: it changes no answer")
    return t.value(node)


def _pad(t: Translation, node: Node) -> Value:
    told, value = t.constant(node, 1), t.value(node)
    pads = node.attributes.get("pads") if told is None else told.reshape(-1).tolist()
    fill = _scalar(t, node, 2, "value") or 0.0
    if node.attributes.get("mode") not in (None, "constant") or not isinstance(pads, list) or len(pads) != 8 or len(value.shape) != 3:
        raise refuse("E-ONNX", "a padding that is not one of constants around pictures")
    top, left, bottom, right = (pads[i] for i in ((1, 2, 5, 6) if value.last else (2, 3, 6, 7)))
    if sum(map(abs, pads)) != sum(map(abs, (top, left, bottom, right))):
        raise refuse("E-ONNX", "a padding of channels")
    return t.add({"op": "pad", "padding": (top, left, bottom, right), "value": fill}, value)


def _concat(t: Translation, node: Node) -> Value:
    values = [t.value(node, number) for number in range(len(node.inputs))]
    if len(values) < 2 or len({one.last for one in values}) > 1 or node.attributes.get("axis") not in (3 if values[0].last else 1, -1):
        raise refuse("E-ONNX", "it joins values along another axis than their channels")
    if node.attributes.get("axis") == -1 and not values[0].last and len(values[0].shape) == 3:
        raise refuse("E-ONNX", "it joins values along another axis than their channels")
    return t.add({"op": "concat"}, *values)


_OPERATORS: dict[str, Callable[[Translation, Node], Value]] = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Transpose": _turn,
    "Pad": _pad,
    "Concat": _concat,
    **dict.fromkeys(("Gemm", "MatMul"), _linear),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"), _mean),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _flat),
    **dict.fromkeys((*_PLAIN, "LeakyRelu", "Gelu", "Elu", "HardSigmoid", "Clip"), _activation),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
}
