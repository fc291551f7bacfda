"""A net that a list of layers describes: what an architecture file, a foreign file's shapes or an ONNX graph come down to.

Only what such a list can say; by default a small convolutional net. Weights begin as torch's layers begin, and convolutions before batch
norms or rectifiers by K. He, X. Zhang, S. Ren, J. Sun (2015), Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from badnets.core import layers as spec
from badnets.core.errors import UsageError
from badnets.nets._base import Net, Shape
from badnets.nets._taps import Units

_DEFAULT = (
    {"op": "conv", "name": "first", "out": 16, "kernel": 3, "stride": 2, "padding": 1},
    {"op": "relu"},
    {"op": "conv", "name": "second", "out": 32, "kernel": 3, "stride": 2, "padding": 1},
    {"op": "relu"},
    {"op": "flatten"},
    {"op": "linear", "name": "head", "out": "classes"},
)
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "softplus": nn.Softplus,
}  # fmt: skip
_POOLS: dict[str, type[nn.Module]] = {"adaptive_avg_pool": nn.AdaptiveAvgPool2d, "adaptive_max_pool": nn.AdaptiveMaxPool2d}
_KEEPS_ZERO = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "hardswish")
_THROUGH = (spec.BatchNorm, spec.Identity, spec.Dropout, spec.Activation, spec.Pool)
"""Layers behind which a unit is still the unit of the convolution or linear layer before them."""


class Layered(Net):
    """`layers`: plain values as `core.layers` checks them; `title`: what it is called in reports."""

    kind: Literal["layered"] = "layered"
    layers: tuple[dict[str, Any], ...] = Field(default=_DEFAULT, min_length=1, max_length=spec.MOST_LAYERS)
    title: str = Field(default="", max_length=200)

    @field_validator("layers")
    @classmethod
    def _checked(cls, layers: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        spec.lay(layers)
        return layers

    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        laid = spec.lay(self.layers)
        shapes = spec.shapes_of(laid, shape, num_classes)
        spec.check_output(laid, shapes, num_classes)
        named = laid.named()
        before = [spec.INPUT, *(name for name, _, _ in named)]
        chained = all(read == (last,) and "." not in name for (name, _, read), last in zip(named, before, strict=False))
        graph = _Graph(laid, shapes)
        return graph.as_sequence() if chained else graph


class _Graph(nn.Module):
    """Runs the layers in order; each lies under the path that its name spells, and a marker of units under `_units`."""

    def __init__(self, laid: spec.Laid, shapes: dict[str, spec.Shape]) -> None:
        super().__init__()
        self.steps: list[tuple[str, tuple[str, ...], str]] = []
        made: set[str] = set()
        for name, layer, read in laid.named():
            _put(self, name, _module(layer, [shapes[one] for one in read], shapes[name]))
            if isinstance(layer, spec.Conv | spec.Linear) or (isinstance(layer, _THROUGH) and read[0] in made):
                made.add(name)
            # Where the sum of two branches is rectified, no one layer makes the units.
            marker = f"_units.{name.replace('.', '_')}" if layer.op in _KEEPS_ZERO and name in made else ""
            if marker:
                _put(self, marker, Units(shapes[name][0]))
            self.steps.append((name, read, marker))
        last = {one: name for name, read, _ in self.steps for one in read}
        self.done = {name: [one for one in last if last[one] == name] for name in last.values()}

    def as_sequence(self) -> nn.Sequential:
        """The same of a chain, so that whoever wants only its end can have it."""
        parts: dict[str, nn.Module] = {}
        for name, _, marker in self.steps:
            parts |= {name: self.get_submodule(name)} | ({marker.replace(".", "_"): self.get_submodule(marker)} if marker else {})
        chain = nn.Sequential()
        for name, module in parts.items():
            _add(chain, name, module, name)
        return chain

    def forward(self, x_NCHW: Tensor) -> Tensor:
        known = {spec.INPUT: x_NCHW}
        name = spec.INPUT
        for name, read, marker in self.steps:
            value = self.get_submodule(name)(*[known[one] for one in read])
            known[name] = self.get_submodule(marker)(value) if marker else value
            for one in self.done.get(name, ()):
                del known[one]
        return known[name]


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        if folder not in root._modules:
            _add(root, folder, nn.Module(), path)
        root = root.get_submodule(folder)
    _add(root, name, module, path)


def _add(root: nn.Module, name: str, module: nn.Module, path: str) -> None:
    if hasattr(root, name):
        raise UsageError("E-ARCH", f"a layer cannot be called {path!r:.80}: torch's modules use {name!r:.40}.", hint="Rename it.")
    root.add_module(name, module)


def _module(layer: spec.Layer, inputs: list[spec.Shape], after: spec.Shape) -> nn.Module:
    if isinstance(layer, spec.Conv):
        return _conv(layer, inputs[0][0])
    if isinstance(layer, spec.Linear):
        return nn.Linear(inputs[0][0], after[0], bias=layer.bias)
    if isinstance(layer, spec.BatchNorm):
        return (nn.BatchNorm2d if len(after) == 3 else nn.BatchNorm1d)(after[0], eps=layer.eps, affine=layer.affine)
    if isinstance(layer, spec.Activation):
        if layer.op == "leaky_relu":
            return nn.LeakyReLU(layer.slope)
        return nn.GELU(approximate="tanh") if layer.op == "gelu_tanh" else _ACTIVATIONS[layer.op]()
    if isinstance(layer, spec.AdaptivePool):
        return _POOLS[layer.op](layer.size)
    if isinstance(layer, spec.Identity):
        return nn.Identity()
    return nn.Dropout(layer.p) if isinstance(layer, spec.Dropout) else _Step(layer)


class _Conv(nn.Conv2d):
    """With zeros on each side as the layer says: torch's own has as many on opposite sides."""

    sides: spec._Sides = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:
        top, left, bottom, right = self.sides
        return super().forward(functional.pad(input, (left, right, top, bottom)))


def _conv(layer: spec.Conv, channels: int) -> nn.Conv2d:
    top, left, bottom, right = layer.padding
    even = (top, left) == (bottom, right)
    made = (nn.Conv2d if even else _Conv)(
        channels, layer.out, layer.kernel, layer.stride, (top, left) if even else 0, layer.dilation, layer.groups, layer.bias
    )
    if isinstance(made, _Conv):
        made.sides = layer.padding
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


class _Step(nn.Module):
    """A layer without weights of its own."""

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: spec.Layer) -> None:
        super().__init__()
        self.layer = layer
        if isinstance(layer, spec.Affine):
            self.register_buffer("scale", torch.tensor(layer.scale), persistent=False)
            self.register_buffer("shift", torch.tensor(layer.shift), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        layer, x = self.layer, inputs[0]
        if isinstance(layer, spec.Join):
            return _join(layer.op, inputs)
        if isinstance(layer, spec.Flatten):
            return (x.permute(0, 2, 3, 1) if layer.channels_last and x.ndim == 4 else x).flatten(1)
        if isinstance(layer, spec.Affine):
            wide = (-1,) + (1,) * (x.ndim - 2)
            return x * self.scale.view(wide) + self.shift.view(wide)
        if isinstance(layer, spec.Pad):
            top, left, bottom, right = layer.padding
            return functional.pad(x, (left, right, top, bottom), value=layer.value)
        if isinstance(layer, spec.Resize):
            return functional.interpolate(x, layer.size, mode="bilinear", antialias=True)
        assert isinstance(layer, spec.Pool)
        padding = layer.padding[:2]
        if padding != layer.padding[2:]:
            (top, left, bottom, right), padding = layer.padding, (0, 0)
            x = functional.pad(x, (left, right, top, bottom), value=-torch.inf if layer.op == "max_pool" else 0.0)
        if layer.op == "max_pool":
            return functional.max_pool2d(x, layer.kernel, layer.stride, padding, ceil_mode=layer.ceil)
        return functional.avg_pool2d(x, layer.kernel, layer.stride, padding, layer.ceil, layer.count_padding)


def _join(op: str, inputs: tuple[Tensor, ...]) -> Tensor:
    if op == "concat":
        return torch.cat(inputs, dim=1)
    return functools.reduce(torch.add if op == "add" else torch.mul, inputs)
