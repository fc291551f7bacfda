"""The only place that reads or masks inside a net: named unit layers, recording and masking by forward hooks.

Does not apply to what happens between two named modules: a layer that should be read needs a `Units` marker (or any other
module) at that spot.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from badnets.core.errors import UsageError
from badnets.core.registry import nearest


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
def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> Generator[nn.Module]:
    """Within the context, the outputs of the named layers are multiplied unit by unit with `mask_C` (0 = ablated)."""

    def multiply(mask_C: Tensor) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del inputs
            view = [1] * output.ndim
            view[_axis(module)] = -1
            return output * mask_C.to(output).reshape(view)

        return hook

    with ExitStack() as stack:
        for name, mask_C in masks.items():
            layer = _layer(network, name)
            if isinstance(layer, Units) and tuple(mask_C.shape) != (layer.count,):
                raise UsageError("E-MASK", f"expected a mask of {layer.count} units for {name}, got shape {tuple(mask_C.shape)}.")
            stack.callback(layer.register_forward_hook(multiply(mask_C)).remove)
        yield network


def _axis(module: nn.Module) -> int:
    return module.axis if isinstance(module, Units) else 1


def _layer(network: nn.Module, name: str) -> nn.Module:
    modules = dict(network.named_modules())
    if name not in modules:
        raise UsageError("E-LAYER", f"the net has no layer {name!r:.60}.", hint=nearest(name, list(unit_layers(network))))
    return modules[name]
