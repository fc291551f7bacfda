"""The only place that reads, masks, patches or prunes inside a net: named unit layers, reached by forward hooks.

Does not apply to what happens between two named modules: a layer that should be read needs a `Units` marker (or any other
module) at that spot. Shapes: N images, C units of a layer (the axis that its marker names; axis 1 of everything recorded), ... positions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from badnets.core.errors import UsageError
from badnets.core.registry import nearest

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Units(nn.Module):
    """Marks a spot whose channels (or features) are the net's units: the identity, with the axis and the count of its units."""

    def __init__(self, count: int, *, axis: int = 1) -> None:
        super().__init__()
        self.count, self.axis = count, axis

    def forward(self, x: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"{self.count}, axis={self.axis}"


def unit_layers(network: nn.Module) -> dict[str, int]:
    """Name -> number of units of every `Units` layer, in the order of definition (input side first)."""
    return {name: module.count for name, module in network.named_modules() if isinstance(module, Units)}


def record(network: nn.Module, names: Iterable[str], x_NCHW: Tensor) -> dict[str, Tensor]:
    """Outputs of the named layers for one batch, without gradients; the units of a `Units` layer are moved to axis 1."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            del inputs
            # A copy: a later in-place operation of the net must not change what was recorded.
            seen[name] = output.detach().movedim(_axis(module), 1).clone()

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name in names:
            stack.callback(_layer(network, name).register_forward_hook(keep(name)).remove)
        network(x_NCHW)
    return seen


@contextmanager
def overheard(network: nn.Module, reader: nn.Module) -> Generator[list[Tensor]]:
    """Within the context, every forward pass appends what `reader`, a module of the net, was given to the list, with its gradient."""
    assert any(module is reader for module in network.modules()), "the reader is no module of this net"
    heard: list[Tensor] = []
    handle = reader.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    try:
        yield heard
    finally:
        handle.remove()


class Swap(NamedTuple):
    """What a layer's units are replaced by: where `mask_C` is True, `value` (its units on axis 1, broadcast against the layer's output).

    The clean mean gives mean-ablation, 0 gives zero-ablation, what was recorded on other images gives patching.
    """

    mask_C: Tensor
    value: Tensor


class Axis(NamedTuple):
    """A direction among a layer's units (any length) and where on it every activation is put: at that of `centre_C`."""

    direction_C: Tensor
    centre_C: Tensor


@contextmanager
def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> Generator[nn.Module]:
    """Within the context, the outputs of the named layers are multiplied unit by unit with `mask_C` (0 = ablated, above 1 = amplified)."""

    def multiply(name: str, mask_C: Tensor) -> Any:
        layer = _layer(network, name)
        _check_units(layer, name, mask_C)

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del inputs
            view = [1] * output.ndim
            view[_axis(module)] = -1
            return output * mask_C.to(output).reshape(view)

        return hook

    with _hooked(network, {name: multiply(name, mask_C) for name, mask_C in masks.items()}):
        yield network


@contextmanager
def swapped(network: nn.Module, swaps: Mapping[str, Swap]) -> Generator[nn.Module]:
    """Within the context, chosen units of the named layers are replaced."""

    def replace(name: str, swap: Swap) -> Any:
        layer = _layer(network, name)
        _check_units(layer, name, swap.mask_C)
        units = swap.mask_C.nonzero()[:, 0].tolist()

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del inputs
            units_first = output.movedim(_axis(module), 1).clone()
            value = swap.value.to(units_first)
            value = value if value.ndim == units_first.ndim else value.reshape([1, -1] + [1] * (units_first.ndim - 2))
            units_first[:, units] = value.expand(-1, len(swap.mask_C), *value.shape[2:])[:, units]
            return units_first.movedim(1, _axis(module))

        return hook

    with _hooked(network, {name: replace(name, swap) for name, swap in swaps.items()}):
        yield network


@contextmanager
def projected(network: nn.Module, axes: Mapping[str, Axis]) -> Generator[nn.Module]:
    """Within the context, the named layers say nothing along a direction: x - (x.d - centre.d) d at every position, d of length 1."""

    def project(name: str, axis: Axis) -> Any:
        _check_units(_layer(network, name), name, axis.direction_C)

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del inputs
            units_last = output.movedim(_axis(module), -1)
            d_C = nn.functional.normalize(axis.direction_C.to(units_last), dim=0)
            along = (units_last - axis.centre_C.to(units_last)) @ d_C
            return (units_last - along[..., None] * d_C).movedim(-1, _axis(module))

        return hook

    with _hooked(network, {name: project(name, axis) for name, axis in axes.items()}):
        yield network


def rest_after(network: Network, layer: str, x_NCHW: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function and its input such that the function gives the logits of `x_NCHW`, running as little before `layer` as it can.

    Edits of `layer` and of later ones work on it as on the net. Where the body is no `Sequential`, it is the whole net.
    """
    _layer(network, layer)
    body, parts = network.body, layer.split(".")
    if not isinstance(body, nn.Sequential) or parts[0] != "body" or len(parts) < 2:
        return network, x_NCHW
    entered: list[Tensor] = []
    first = list(dict(body.named_children())).index(parts[1])
    handle = body[first].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].clone()))
    try:
        network(x_NCHW)
    finally:
        handle.remove()
    return body[first:], entered[0]


def zero_units(network: Network, layer: str, units: Sequence[int] | Tensor) -> None:
    """Remove units for good: the parameters that produce them become zero, in place, and the net then equals the one `masked` with 0.

    The parameters are those of the last convolution, linear layer or norm that is executed before the layer's marker; if that is a norm in
    a `Sequential`, the convolution or linear layer before it there goes too, since nobody else reads it. Not where something between
    them and the marker turns zero into something else (a sigmoid).
    """
    count = unit_layers(network).get(layer)
    if count is None:
        raise UsageError("E-LAYER", f"the net has no layer of units {layer!r:.60}.", hint=nearest(layer, list(unit_layers(network))))
    chosen = torch.as_tensor(units, dtype=torch.int64, device=network.device)
    if len(chosen) and (int(chosen.min()) < 0 or int(chosen.max()) >= count):
        raise UsageError("E-MASK", f"expected units in 0..{count - 1} of {layer}, got {chosen.tolist()!r:.60}.")
    with torch.no_grad():
        for module in _producers(network, layer, count):
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    parameter[chosen] = 0.0


_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Linear)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def incoming(network: Network, layer: str) -> Tensor:
    """weight_C...: the parameters by which each unit of the layer is made from what comes before: those of the last convolution or linear
    layer, times the factor of a norm behind it. Only the norm's factors where nothing but a norm makes the units."""
    producers = _producers(network, layer, unit_layers(network)[layer])
    factors = [_factor_C(module) for module in producers if isinstance(module, _NORM)]
    weights = [module.weight.detach() for module in producers if isinstance(module, _LINEAR)]
    if not weights:
        return factors[0]
    weight = weights[0]
    for factor_C in factors:
        weight = weight * factor_C.reshape([-1] + [1] * (weight.ndim - 1))
    return weight


def _factor_C(norm: Any) -> Tensor:
    running = getattr(norm, "running_var", None)
    factor_C = norm.weight.detach()
    return factor_C if running is None else factor_C / (running + norm.eps).sqrt()


def gradients(
    network: nn.Module, names: Iterable[str], x_NCHW: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Outputs of the named layers, the gradient of the number `score(logits)` with respect to each, and with respect to the images
    (float in 0..1 then). Units on axis 1; the parameters get no gradient."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del module, inputs
            # A branch of its own: an in-place operation of the net must not change what is differentiated.
            seen[name] = output
            return output.clone()

        return hook

    with torch.enable_grad():
        pixels = (x_NCHW.float() / 255 if x_NCHW.dtype == torch.uint8 else x_NCHW.detach().clone()).requires_grad_()
        with _hooked(network, {name: keep(name) for name in names}):
            total = score(network(pixels))
        found = torch.autograd.grad(total, [*seen.values(), pixels])
    moved = {name: grad.movedim(_axis(_layer(network, name)), 1) for name, grad in zip(seen, found[:-1], strict=True)}
    return {name: t.detach().movedim(_axis(_layer(network, name)), 1) for name, t in seen.items()}, moved, found[-1]


def peak_gradient(network: nn.Module, layer: str, unit: int, x_NCHW: Tensor) -> Tensor:
    """Gradient of a unit's largest activation over positions, summed over images, with respect to the pixels (0..1)."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        del inputs
        seen.append(output.movedim(_axis(module), 1))

    pixels = x_NCHW.float() / 255 if x_NCHW.dtype == torch.uint8 else x_NCHW.detach().clone()
    with torch.enable_grad(), _hooked(network, {layer: keep}):
        network(pixels.requires_grad_())
        (found,) = torch.autograd.grad(seen[0][:, unit].reshape(len(x_NCHW), -1).amax(1).sum(), [pixels])
    return found


def _producers(network: Network, layer: str, count: int) -> list[Any]:
    """The modules that `zero_units` speaks of, found by executing the net once on a blank image."""
    called: list[nn.Module] = []
    marker = _layer(network, layer)
    training = network.training
    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, (*_LINEAR, *_NORM)) or module is marker:
                stack.callback(module.register_forward_hook(lambda m, i, o: called.append(m)).remove)
        try:
            network.eval()
            with torch.no_grad():
                network(torch.zeros(1, *network.shape, device=network.device))
        finally:
            network.train(training)
    before = called[: called.index(marker)]
    last: Any = before[-1] if before else None
    if last is None or last.weight is None or len(last.weight) != count:
        raise UsageError("E-LAYER", f"the units of {layer} are not made by one convolution, linear layer or norm right before them.")
    found = [last]
    if isinstance(last, _NORM) and len(before) > 1 and isinstance(before[-2], _LINEAR):
        for box in network.modules():
            inside = list(box.children()) if isinstance(box, nn.Sequential) else []
            if last in inside and before[-2] in inside and inside.index(before[-2]) < inside.index(last):
                found.append(before[-2])
    return found


def _check_units(layer: nn.Module, name: str, per_unit_C: Tensor) -> None:
    if isinstance(layer, Units) and tuple(per_unit_C.shape) != (layer.count,):
        raise UsageError("E-MASK", f"expected a mask of {layer.count} units for {name}, got shape {tuple(per_unit_C.shape)}.")


@contextmanager
def _hooked(network: nn.Module, hooks: Mapping[str, Any]) -> Generator[None]:
    with ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(_layer(network, name).register_forward_hook(hook).remove)
        yield


def _axis(module: nn.Module) -> int:
    return module.axis if isinstance(module, Units) else 1


def _layer(network: nn.Module, name: str) -> nn.Module:
    modules = dict(network.named_modules())
    if name not in modules:
        raise UsageError("E-LAYER", f"the net has no layer {name!r:.60}.", hint=nearest(name, list(unit_layers(network))))
    return modules[name]
