"""Layers of Keras as layers of ours with torch's weights: an allow-list, each translated so that the net gives the same numbers.

Keras has channels last, ours come first: kernels are turned, and what reads a flattened picture has its columns put in our order. A last
softmax is left out, as for ONNX. Not for channels first in Keras, nor for other layers: then the net is not built, and it is said why.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import pydantic

from badnets.core.layers import Layer, Shape, after
from badnets.intake.keras_graph import Graph, Step, UntranslatedError
from badnets.intake.reasons import quoted, refuse
from badnets.intake.weights import Tensor

_LAYER: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Layer)
_ACTIVATIONS = {
    **{name: name for name in ("relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid", "softplus")},
    "swish": "silu", "hard_silu": "hardswish", "hard_swish": "hardswish",
}  # fmt: skip
_LAST = (-1, 3, [-1], [3])


class Value(NamedTuple):
    """What a layer gives. `shape`: channels first; `flat`: the picture that it was flattened from, if any: Keras has its numbers in another
    order, and whoever reads them must know."""

    layer: str
    shape: Shape
    flat: Shape = ()


@final
class Net:
    """Goes through the steps of a graph; `held`: the layers' arrays by the layers' names, in the order of the file."""

    def __init__(self, graph: Graph, held: Mapping[str, Sequence[Tensor]]) -> None:
        self.graph, self.held = graph, held
        self.layers: list[dict[str, Any]] = []
        self.tensors: dict[str, Tensor] = {}
        self.notes: list[str] = []
        self.taken: set[str] = set()
        self.uses = Counter(name for step in graph.steps for name in step.read)
        rows, columns, channels = graph.image
        self.image = (channels, rows, columns)
        self.values = {graph.input: Value("input", self.image)}

    def build(self) -> None:
        """Fill `layers` and `tensors`. Raises UntranslatedError, RefusedError (E-KERAS: weights that are not the layers')."""
        for step in self.graph.steps:
            translate = _LAYERS.get(step.kind)
            if translate is None:
                raise UntranslatedError(f"its layer {step.kind} is not translated")
            if step.config.get("data_format") == "channels_first":
                raise UntranslatedError(f"its layer {quoted(step.name)} has channels first")
            self.values[step.name] = translate(self, step, [self.values[name] for name in step.read])
        last = self.values[self.graph.output]
        if not self.layers or not self.tensors:
            raise UntranslatedError("none of its layers has weights")
        if _turned(last.flat):
            raise UntranslatedError("its answer is a flattened picture")
        if last.layer != self.layers[-1]["name"]:
            self.add("end", {"op": "identity"}, last)
        self.notes.append(f"{len(self.layers)} layers of {len(self.graph.steps)} of Keras")

    def add(self, name: str, layer: dict[str, Any], *read: Value, **tensors: np.ndarray | None) -> Value:
        """Append a layer with its tensors; what it gives."""
        name = f"n{len(self.layers)}_{re.sub(r'[^A-Za-z0-9_]', '_', name)[:48]}"
        layer = {**layer, "of": tuple(one.layer for one in read), "name": name}
        try:
            shape = after(_LAYER.validate_python(layer), [one.shape for one in read], 0)
        except pydantic.ValidationError as error:
            raise UntranslatedError(f"layer {name} ({layer['op']}): {quoted(error.errors()[0]['msg'], 120)[1:-1]}") from error
        except ValueError as error:
            raise UntranslatedError(f"layer {name} ({layer['op']}): {quoted(str(error), 120)[1:-1]}") from error
        self.layers.append(layer)
        for part, numbers in tensors.items():
            if numbers is not None:
                self.tensors[f"{name}.{part}"] = Tensor("float32", np.ascontiguousarray(numbers, np.float32))
        return Value(name, shape)

    def numbers(self, step: Step, shapes: Sequence[Shape]) -> list[np.ndarray]:
        """The layer's own arrays, which must have these shapes in this order."""
        found = list(self.held.get(step.name, ()))
        if [one.shape for one in found] != [tuple(shape) for shape in shapes] or not all(one.is_float for one in found):
            told = ", ".join(quoted(one.shape) for one in found[:6]) or "none"
            want = ", ".join(quoted(tuple(shape)) for shape in shapes)
            raise refuse("E-KERAS", f"its layer {quoted(step.name)} ({step.kind}) needs arrays of the shapes {want}, the file has {told}")
        self.taken.add(step.name)
        return [one.data if one.dtype == "float32" else one.to_float32() for one in found]

    def act(self, step: Step, value: Value, told: object) -> Value:
        """What an activation gives that stands at the end of a layer."""
        name = told.get("config") if isinstance(told, dict) and told.get("class_name") == "function" else told
        if name in (None, "linear"):
            return value
        if name in ("softmax", "log_softmax"):
            if step.name != self.graph.output or self.uses[step.name]:
                raise UntranslatedError(f"its layer {quoted(step.name)} has a {name} in the middle of the net")
            self.notes.append(f"the last {name} left out: it changes no answer")
            return value
        if name == "leaky_relu":
            return self.add(step.name, {"op": "leaky_relu", "slope": 0.2}, value)._replace(flat=value.flat)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise UntranslatedError(f"its layer {quoted(step.name)} has the activation {quoted(name)}, which is not translated")
        return self.add(f"{step.name}_{name}", {"op": _ACTIVATIONS[name]}, value)._replace(flat=value.flat)


def _turned(flat: Shape) -> bool:
    """Whether the order of Keras is another one than ours."""
    return len(flat) == 3 and flat[0] > 1 and flat[1] * flat[2] > 1


def _order(flat: Shape) -> np.ndarray:
    """Where Keras has each of our numbers."""
    channels, rows, columns = flat
    return np.arange(channels * rows * columns).reshape(rows, columns, channels).transpose(2, 0, 1).reshape(-1)


def _only(step: Step, read: Sequence[Value]) -> Value:
    if len(read) != 1:
        raise UntranslatedError(f"its layer {quoted(step.name)} reads {len(read)} others")
    return read[0]


def _picture(step: Step, read: Sequence[Value]) -> Value:
    value = _only(step, read)
    if len(value.shape) != 3:
        raise UntranslatedError(f"its layer {quoted(step.name)} ({step.kind}) does not read a picture")
    return value


def _pair(step: Step, key: str, default: int | None = None) -> tuple[int, int]:
    told = step.config.get(key, default)
    told = [told, told] if type(told) is int else told
    if not isinstance(told, list) or len(told) != 2 or not all(type(one) is int and 0 < one <= 4_096 for one in told):
        raise UntranslatedError(f"its layer {quoted(step.name)} has {key} {quoted(told)}")
    return told[0], told[1]


def _padding(step: Step, value: Value, reach: tuple[int, int], stride: tuple[int, int]) -> tuple[int, ...]:
    """Zeros around, the odd one at the end."""
    told = step.config.get("padding", "valid")
    if told == "valid":
        return (0, 0, 0, 0)
    if told != "same":
        raise UntranslatedError(f"its layer {quoted(step.name)} pads by {quoted(told)}")
    return same_padding(value.shape[1:], reach, stride)


def same_padding(sizes: Shape, reach: tuple[int, int], stride: tuple[int, int]) -> tuple[int, ...]:
    """What TensorFlow means by "same" for rows and columns: top, left, bottom, right."""
    needed = [max(0, (-(-size // step) - 1) * step + wide - size) for size, wide, step in zip(sizes, reach, stride, strict=True)]
    less = [one // 2 for one in needed]
    return (*less, *(one - few for one, few in zip(needed, less, strict=True)))


def _window(step: Step, value: Value) -> dict[str, Any]:
    kernel, stride, dilation = _pair(step, "kernel_size"), _pair(step, "strides", 1), _pair(step, "dilation_rate", 1)
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": _padding(step, value, reach, stride)}


def _whole(step: Step, key: str, default: int | None = None) -> int:
    told = step.config.get(key, default)
    if type(told) is not int or not 0 < told <= 65_536:
        raise UntranslatedError(f"its layer {quoted(step.name)} has {key} {quoted(told)}")
    return told


def _conv(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value, out, groups = _picture(step, read), _whole(step, "filters"), _whole(step, "groups", 1)
    layer, bias = _window(step, value), bool(step.config.get("use_bias", True))
    if value.shape[0] % groups:
        raise UntranslatedError(f"its layer {quoted(step.name)} has {groups} groups of {value.shape[0]} channels")
    kernel, *rest = net.numbers(step, [(*layer["kernel"], value.shape[0] // groups, out), *[(out,)] * bias])
    layer |= {"op": "conv", "out": out, "groups": groups, "bias": bias}
    given = net.add(step.name, layer, value, weight=kernel.transpose(3, 2, 0, 1), bias=rest[0] if bias else None)
    return net.act(step, given, step.config.get("activation"))


def by_channel(kernel: np.ndarray) -> np.ndarray:
    """A kernel for each channel of its own, as rows, columns, channels, multiples: torch has the multiples of one channel together."""
    rows, columns, channels, multiples = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(channels * multiples, 1, rows, columns)


def _depthwise(net: Net, step: Step, read: Sequence[Value]) -> Value:
    """DepthwiseConv2D, and SeparableConv2D, which has a convolution of one pixel behind it."""
    value, times, bias = _picture(step, read), _whole(step, "depth_multiplier", 1), bool(step.config.get("use_bias", True))
    layer, channels = _window(step, value), value.shape[0]
    wide, separable = channels * times, step.kind == "SeparableConv2D"
    out = _whole(step, "filters") if separable else wide
    point = [(1, 1, wide, out)] if separable else []
    kernel, *rest = net.numbers(step, [(*layer["kernel"], channels, times), *point, *[(out,)] * bias])
    layer |= {"op": "conv", "out": wide, "groups": channels, "bias": bias and not separable}
    given = net.add(step.name, layer, value, weight=by_channel(kernel), bias=rest[-1] if layer["bias"] else None)
    if separable:
        layer = {"op": "conv", "out": out, "kernel": 1, "bias": bias}
        weight = rest[0].transpose(3, 2, 0, 1)
        given = net.add(f"{step.name}_pointwise", layer, given, weight=weight, bias=rest[-1] if bias else None)
    return net.act(step, given, step.config.get("activation"))


def _dense(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value, out, bias = _only(step, read), _whole(step, "units"), bool(step.config.get("use_bias", True))
    if len(value.shape) != 1:
        raise UntranslatedError(f"its layer {quoted(step.name)} (Dense) reads a picture that was not flattened")
    kernel, *rest = net.numbers(step, [(value.shape[0], out), *[(out,)] * bias])
    # One copy, not two: it may be nearly all of the file.
    weight = np.take(kernel.T, _order(value.flat), axis=1) if _turned(value.flat) else kernel.T
    given = net.add(step.name, {"op": "linear", "out": out, "bias": bias}, value, weight=weight, bias=rest[0] if bias else None)
    return net.act(step, given, step.config.get("activation"))


def _norm(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value, told = _only(step, read), step.config
    if told.get("axis", -1) not in (_LAST if len(value.shape) == 3 else (-1, 1, [-1], [1])) or told.get("renorm"):
        raise UntranslatedError(f"its layer {quoted(step.name)} normalises along another axis than the channels'")
    parts = [name for name in ("scale", "center") if told.get(name, True)]
    size = value.shape[0]
    found = dict(zip([*parts, "mean", "variance"], net.numbers(step, [(size,)] * (len(parts) + 2)), strict=True))
    if _turned(value.flat):
        found = {name: numbers[_order(value.flat)] for name, numbers in found.items()}
    tensors = {"weight": found.get("scale", np.ones(size)), "bias": found.get("center", np.zeros(size))}
    tensors |= {"running_mean": found["mean"], "running_var": found["variance"]}
    return net.add(step.name, {"op": "batch_norm", "eps": told.get("epsilon", 1e-3)}, value, **tensors)._replace(flat=value.flat)


def _pool(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value, kernel = _picture(step, read), _pair(step, "pool_size", 2)
    stride = kernel if step.config.get("strides") is None else _pair(step, "strides")
    padding = _padding(step, value, kernel, stride)
    # Keras' averages leave out the zeros around.
    layer = {"op": "max_pool" if step.kind.startswith("Max") else "avg_pool", "kernel": kernel, "stride": stride, "padding": padding}
    return net.add(step.name, {**layer, "count_padding": not any(padding)}, value)


def _overall(net: Net, step: Step, read: Sequence[Value]) -> Value:
    op = "adaptive_max_pool" if step.kind == "GlobalMaxPooling2D" else "adaptive_avg_pool"
    pooled = net.add(step.name, {"op": op}, _picture(step, read))
    return pooled if step.config.get("keepdims") else net.add(f"{step.name}_flat", {"op": "flatten"}, pooled)


def _flatten(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value = _only(step, read)
    return value if len(value.shape) == 1 else net.add(step.name, {"op": "flatten"}, value)._replace(flat=value.shape)


def _activation(net: Net, step: Step, read: Sequence[Value]) -> Value:
    return net.act(step, _only(step, read), step.config.get("activation"))


def _softmax(net: Net, step: Step, read: Sequence[Value]) -> Value:
    if step.config.get("axis", -1) not in (-1, [-1]):
        raise UntranslatedError(f"its layer {quoted(step.name)} is a softmax along another axis than the last")
    return net.act(step, _only(step, read), "softmax")


def _rectified(net: Net, step: Step, read: Sequence[Value]) -> Value:
    """ReLU and LeakyReLU, with the names that Keras 2 and 3 give to the slope."""
    value, told = _only(step, read), step.config
    slope = told.get("negative_slope", told.get("alpha", 0.3 if step.kind == "LeakyReLU" else 0.0)) or 0.0
    most = told.get("max_value")
    slope = float(slope) if isinstance(slope, int | float | np.ndarray) else math.nan
    if told.get("threshold") or most not in (None, 6, 6.0) or (slope and most is not None):
        raise UntranslatedError(f"its layer {quoted(step.name)} is a rectifier with unusual limits")
    layer = {"op": "leaky_relu", "slope": slope} if slope else {"op": "relu" if most is None else "relu6"}
    return net.add(step.name, layer, value)._replace(flat=value.flat)


def _elu(net: Net, step: Step, read: Sequence[Value]) -> Value:
    if step.config.get("alpha", 1.0) != 1.0:
        raise UntranslatedError(f"its layer {quoted(step.name)} is an ELU with an unusual slope")
    return net.act(step, _only(step, read), "elu")


def _rescaling(net: Net, step: Step, read: Sequence[Value]) -> Value:
    value = _only(step, read)
    if _turned(value.flat):
        raise UntranslatedError(f"its layer {quoted(step.name)} rescales a flattened picture")
    told = {"scale": step.config.get("scale", 1.0), "shift": step.config.get("offset", 0.0)}
    return net.add(step.name, {"op": "affine", **{k: v if isinstance(v, list) else (v,) for k, v in told.items()}}, value)


def _zeros(net: Net, step: Step, read: Sequence[Value]) -> Value:
    told = step.config.get("padding", 1)
    told = [told, told] if type(told) is int else told
    sides = [[one, one] if type(one) is int else one for one in told] if isinstance(told, list) else []
    if len(sides) != 2 or not all(isinstance(side, list) and len(side) == 2 for side in sides):
        raise UntranslatedError(f"its layer {quoted(step.name)} pads by {quoted(told)}")
    (top, bottom), (left, right) = sides
    return net.add(step.name, {"op": "pad", "padding": (top, left, bottom, right)}, _picture(step, read))


def _joined(net: Net, step: Step, read: Sequence[Value]) -> Value:
    op = {"Add": "add", "Multiply": "mul", "Concatenate": "concat"}[step.kind]
    if len(read) < 2 or len({one.flat for one in read}) > 1 or (op == "concat" and _turned(read[0].flat)):
        raise UntranslatedError(f"its layer {quoted(step.name)} joins values in different orders")
    if len({len(one.shape) for one in read}) > 1 or (op == "add" and len({one.shape for one in read}) > 1):
        raise UntranslatedError(f"its layer {quoted(step.name)} joins values of different shapes")
    if op == "concat" and step.config.get("axis", -1) not in (-1, len(read[0].shape)):
        raise UntranslatedError(f"its layer {quoted(step.name)} joins values along another axis than their channels")
    return net.add(step.name, {"op": op}, *read)._replace(flat=read[0].flat)


def _same(net: Net, step: Step, read: Sequence[Value]) -> Value:
    """What only training has."""
    del net
    return _only(step, read)


_IDLE = (
    "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity", "RandomFlip",
    "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
)  # fmt: skip
_LAYERS: dict[str, Callable[[Net, Step, Sequence[Value]], Value]] = {
    "Conv2D": _conv,
    **dict.fromkeys(("DepthwiseConv2D", "SeparableConv2D"), _depthwise),
    "Dense": _dense,
    **dict.fromkeys(("BatchNormalization", "BatchNormalizationV1"), _norm),
    **dict.fromkeys(("MaxPooling2D", "AveragePooling2D"), _pool),
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalMaxPooling2D"), _overall),
    "Flatten": _flatten,
    "Activation": _activation,
    "Softmax": _softmax,
    **dict.fromkeys(("ReLU", "LeakyReLU"), _rectified),
    "ELU": _elu,
    "Rescaling": _rescaling,
    "ZeroPadding2D": _zeros,
    **dict.fromkeys(("Add", "Multiply", "Concatenate"), _joined),
    **dict.fromkeys(_IDLE, _same),
}
"""Names of Keras' classes; what it once called them otherwise is not looked for."""
HELD = frozenset({"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "BatchNormalization"})
"""Those that hold weights."""
