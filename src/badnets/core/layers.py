"""A net as plain data: a list of layers, each from the one before or from those that it names, with every shape worked out beforehand.

What an architecture file, a foreign file's shapes and an ONNX graph come down to; no code is in it. Not for recurrent nets, attention or
anything whose shapes depend on the numbers. Shapes: C channels, H rows, W columns; (F,) after flattening.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, final

import pydantic
from pydantic import Field

from badnets.core.errors import UsageError

MOST_LAYERS, MOST_PARAMETERS, MOST_VALUES = 1_000, 200_000_000, 64_000_000
"""MOST_VALUES: numbers in the outputs of all layers, for one image."""
INPUT = "input"
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(\.[A-Za-z0-9_]{1,64}){0,15}")

_Size = Annotated[int, Field(ge=1, le=65_536)]
_Pair = tuple[_Size, _Size]
_Gap = Annotated[int, Field(ge=0, le=4_096)]
_Sides = tuple[_Gap, _Gap, _Gap, _Gap]
"""Top, left, bottom, right."""
_Numbers = Annotated[tuple[float, ...], Field(min_length=1, max_length=4_096)]
ActivationName = Literal[
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "sigmoid", "hardswish", "hardsigmoid",
    "softplus",
]  # fmt: skip


class _Plain(pydantic.BaseModel):
    """Fields that every layer has. `name`: what its tensors are called in the file; `of`: layers that it reads, () for the one before."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = ""
    of: tuple[str, ...] = ()

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and (name == INPUT or not _NAME.fullmatch(name)):
            raise ValueError("expected letters, digits and _ with dots between, as layer1.0.conv1")
        return name

    @pydantic.field_validator("kernel", "stride", "dilation", "size", mode="before", check_fields=False)
    @classmethod
    def _twice(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @pydantic.field_validator("padding", mode="before", check_fields=False)
    @classmethod
    def _all_sides(cls, value: Any) -> Any:
        if isinstance(value, int):
            return (value,) * 4
        return (*value, *value) if isinstance(value, list | tuple) and len(value) == 2 else value


@final
class Conv(_Plain):
    """A convolution. `padding`: zeros, one number, rows and columns, or top, left, bottom, right."""

    op: Literal["conv"] = "conv"
    out: _Size
    kernel: _Pair
    stride: _Pair = (1, 1)
    padding: _Sides = (0, 0, 0, 0)
    dilation: _Pair = (1, 1)
    groups: _Size = 1
    bias: bool = True


@final
class Linear(_Plain):
    """A linear layer; `out`: "classes" for as many as the data set has."""

    op: Literal["linear"] = "linear"
    out: _Size | Literal["classes"]
    bias: bool = True


@final
class BatchNorm(_Plain):
    op: Literal["batch_norm"] = "batch_norm"
    eps: float = Field(default=1e-5, gt=0, le=1)
    affine: bool = True


@final
class Activation(_Plain):
    """`slope`: of leaky_relu below zero."""

    op: ActivationName
    slope: float = Field(default=0.01, ge=0, le=1)


@final
class Pool(_Plain):
    """`stride` None: the kernel. `count_padding`: whether an average counts the zeros around."""

    op: Literal["max_pool", "avg_pool"]
    kernel: _Pair
    stride: _Pair | None = None
    padding: _Sides = (0, 0, 0, 0)
    ceil: bool = False
    count_padding: bool = True


@final
class AdaptivePool(_Plain):
    op: Literal["adaptive_avg_pool", "adaptive_max_pool"]
    size: _Pair = (1, 1)


@final
class Flatten(_Plain):
    """`channels_last`: in the order rows, columns, channels, as nets of other libraries do."""

    op: Literal["flatten"] = "flatten"
    channels_last: bool = False


@final
class Identity(_Plain):
    """Only a name for what comes before it."""

    op: Literal["identity"] = "identity"


@final
class Dropout(_Plain):
    op: Literal["dropout"] = "dropout"
    p: float = Field(default=0.5, ge=0, lt=1)


@final
class Pad(_Plain):
    op: Literal["pad"] = "pad"
    padding: _Sides
    value: float = 0.0


@final
class Affine(_Plain):
    """x * scale + shift with constants: one number, or one for each channel."""

    op: Literal["affine"] = "affine"
    scale: _Numbers = (1.0,)
    shift: _Numbers = (0.0,)


@final
class Resize(_Plain):
    """Pictures brought to another size, between the pixels in straight lines; where they shrink, over all of them."""

    op: Literal["resize"] = "resize"
    size: _Pair


@final
class Join(_Plain):
    """Several layers' outputs to one; a product may widen one value a channel to the whole picture."""

    op: Literal["add", "mul", "concat"]


Layer = Annotated[
    Conv | Linear | BatchNorm | Activation | Pool | AdaptivePool | Flatten | Identity | Dropout | Pad | Affine | Resize | Join,
    Field(discriminator="op"),
]
Shape = tuple[int, ...]


@final
class Laid(pydantic.BaseModel):
    """Layers whose names and order have been checked: each has a name, and reads only what comes before it."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MOST_LAYERS)]

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Laid:
        known = {INPUT}
        for number, (name, layer, read) in enumerate(self.named()):
            if name in known:
                raise ValueError(f"layer {number}: the name {name!r:.80} is there twice")
            if missing := [one for one in read if one not in known]:
                raise ValueError(f"layer {number} ({name:.80}) reads {missing[0]!r:.80}, which no earlier layer is called")
            if (len(read) > 1) != isinstance(layer, Join):
                raise ValueError(f"layer {number} ({layer.op}) reads {len(read)} layers: only add, mul and concat read several")
            known.add(name)
        holders = sorted(known)
        for first, second in itertools.pairwise(holders):
            if second.startswith(first + "."):
                raise ValueError(f"the name {first!r:.80} is that of a layer and the beginning of {second!r:.80}")
        return self

    def named(self) -> list[tuple[str, Layer, tuple[str, ...]]]:
        """(name, layer, what it reads) in order."""
        found, before = [], INPUT
        for number, layer in enumerate(self.layers):
            name = layer.name or f"_{number}"
            found.append((name, layer, layer.of or (before,)))
            before = name
        return found


def lay(layers: Sequence[Any]) -> Laid:
    """Layers from plain values, checked. Raises UsageError (E-ARCH) that names the layer and the field."""
    try:
        return Laid(layers=tuple(layers))
    except pydantic.ValidationError as error:
        raise UsageError("E-ARCH", f"{_first(error)}.", hint="See the layers in docs/model-files.md.") from error


def _first(error: pydantic.ValidationError) -> str:
    item = error.errors()[0]
    where = " ".join(str(step) for step in item["loc"] if step != "function-after[_in_order(), Laid]")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    got = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r:.60}"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}{got}{more}".removeprefix(": ")


def shapes_of(laid: Laid, shape: Shape, num_classes: int) -> dict[str, Shape]:
    """The output shape of every layer for images of `shape`. Raises UsageError (E-ARCH): what does not fit, or is too large."""
    known: dict[str, Shape] = {INPUT: shape}
    parameters = values = 0
    for name, layer, read in laid.named():
        inputs = [known[one] for one in read]
        try:
            known[name] = after(layer, inputs, num_classes)
        except ValueError as error:
            got = " and ".join(map(str, inputs))
            raise UsageError(
                "E-ARCH", f"layer {name!r:.80} ({layer.op}) after {got}: {error}.", hint="Check the layers before it."
            ) from error
        parameters += sum(math.prod(one) for one in _held(layer, inputs[0], known[name]).values())
        values += math.prod(known[name])
        if parameters > MOST_PARAMETERS or values > MOST_VALUES:
            what = f"{parameters:,} parameters and {values:,} values an image up to layer {name!r:.80}"
            raise UsageError("E-ARCH", f"{what}, at most {MOST_PARAMETERS:,} and {MOST_VALUES:,} are taken.", hint="Name a smaller net.")
    return known


def check_output(laid: Laid, shapes: Mapping[str, Shape], num_classes: int) -> None:
    """Refuses layers whose last output is not one number for each class."""
    last = shapes[laid.named()[-1][0]]
    if last != (num_classes,):
        what = f"{last[0]} classes" if len(last) == 1 else f"an output of shape {last}"
        raise UsageError("E-CLASSES", f"the net has {what}, the data set has {num_classes} classes.", hint="Name its own data set.")


def tensors_of(laid: Laid, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Names and shapes of the state dict."""
    found: dict[str, Shape] = {}
    for name, layer, read in laid.named():
        found |= {f"{name}.{part}": size for part, size in _held(layer, shapes[read[0]], shapes[name]).items()}
    return found


def _held(layer: Layer, before: Shape, after: Shape) -> dict[str, Shape]:
    if isinstance(layer, Conv):
        own: dict[str, Shape] = {"weight": (layer.out, before[0] // layer.groups, *layer.kernel)}
        return own | ({"bias": (layer.out,)} if layer.bias else {})
    if isinstance(layer, Linear):
        return {"weight": (after[-1], before[-1])} | ({"bias": (after[-1],)} if layer.bias else {})
    if isinstance(layer, BatchNorm):
        parts = ("weight", "bias") if layer.affine else ()
        return {**dict.fromkeys((*parts, "running_mean", "running_var"), before[:1]), "num_batches_tracked": ()}
    return {}


def after(layer: Layer, inputs: Sequence[Shape], num_classes: int) -> Shape:
    """The output shape of one layer. Raises ValueError: what does not fit."""
    first = inputs[0]
    if isinstance(layer, Linear):
        return _linear(layer, first, num_classes)
    if isinstance(layer, Join):
        return _joined(layer.op, inputs)
    if isinstance(layer, Flatten):
        return (math.prod(first),)
    if isinstance(layer, Affine):
        if {len(layer.scale), len(layer.shift)} - {1, first[0]}:
            raise ValueError(f"expected 1 or {first[0]} constants")
        return first
    if isinstance(layer, Conv | Pool | AdaptivePool | Pad | Resize) and len(first) != 3:
        raise ValueError("expected channels, rows and columns")
    if isinstance(layer, Conv):
        if first[0] % layer.groups or layer.out % layer.groups:
            raise ValueError(f"{layer.groups} groups do not divide {first[0]} and {layer.out} channels")
        reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
        return (layer.out, *_slid(first[1:], layer.padding, reach, layer.stride, ceil=False))
    if isinstance(layer, Pool):
        if any(2 * gap > k for gap, k in zip(layer.padding, layer.kernel * 2, strict=True)):
            raise ValueError("expected a padding of at most half the kernel")
        if layer.op == "avg_pool" and not layer.count_padding and layer.padding[:2] != layer.padding[2:]:
            raise ValueError("an average that leaves out a lop-sided padding is not taken")
        return (first[0], *_slid(first[1:], layer.padding, layer.kernel, layer.stride or layer.kernel, ceil=layer.ceil))
    if isinstance(layer, AdaptivePool | Resize):
        return (first[0], *layer.size)
    if isinstance(layer, Pad):
        top, left, bottom, right = layer.padding
        return (first[0], first[1] + top + bottom, first[2] + left + right)
    return first


def _linear(layer: Linear, before: Shape, num_classes: int) -> Shape:
    if len(before) != 1:
        raise ValueError("expected a flat input: put a flatten before it")
    return (num_classes if layer.out == "classes" else layer.out,)


def _joined(op: str, inputs: Sequence[Shape]) -> Shape:
    if op == "concat":
        if len({one[1:] for one in inputs}) > 1:
            raise ValueError("expected the same rows and columns")
        return (sum(one[0] for one in inputs), *inputs[0][1:])
    widest = max(inputs, key=math.prod)
    narrow = (widest[0], 1, 1) if op == "mul" else widest
    if any(one not in (widest, narrow) for one in inputs):
        raise ValueError("expected the same shape")
    return widest


def _slid(size: Sequence[int], padding: _Sides, reach: Sequence[int], stride: Sequence[int], *, ceil: bool) -> tuple[int, int]:
    found = []
    for axis in (0, 1):
        room = size[axis] + padding[axis] + padding[axis + 2] - reach[axis]
        if room < 0:
            raise ValueError(f"a kernel of {reach[axis]} does not fit into {size[axis] + padding[axis] + padding[axis + 2]} pixels")
        steps = -(-room // stride[axis]) if ceil else room // stride[axis]
        # torch leaves out a last window that would begin in the padding.
        if ceil and steps * stride[axis] >= size[axis] + padding[axis]:
            steps -= 1
        found.append(steps + 1)
    return found[0], found[1]
