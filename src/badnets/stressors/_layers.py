"""The layers that hold nearly all of a net's weights, and putting others in their place. Imports torch: import this late.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from badnets.core.errors import UsageError
from badnets.core.rng import generator
from badnets.stressors._base import Supply

Dense = nn.Conv2d | nn.Linear


def dense_layers(network: nn.Module) -> dict[str, Dense]:
    """Name -> layer of every convolution and linear layer, in the order of definition."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}


def compressible(network: nn.Module, who: str) -> dict[str, Dense]:
    """The same. Raises UsageError where there is none: the net has been compressed already."""
    found = dense_layers(network)
    if not found:
        raise UsageError("E-COMPRESSED", f"{who} expected a net with convolutions or linear layers, got one without (compressed already?).")
    return found


def kernel_of(layer: Dense) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """What the layer does with (input, weight, bias)."""
    if isinstance(layer, nn.Linear):
        return functional.linear
    place: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    return functools.partial(functional.conv2d, **place)


def fold_batch_norms(network: nn.Module) -> None:
    """In place: a batch norm that directly follows a convolution in a Sequential becomes part of it."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i, (layer, after) in enumerate(zip(list(sequence)[:-1], list(sequence)[1:], strict=True)):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(layer.eval(), after.eval())
                sequence[i + 1] = nn.Identity()


def sample(supply: Supply, count: int, *, who: str, seed: int) -> Tensor:
    """At most `count` of the supply's images, drawn at random; labels are not needed."""
    if not len(supply.x_NCHW):
        raise UsageError("E-SUPPLY", f"{who} expected clean images to look at, got none.")
    order_N = torch.randperm(len(supply.x_NCHW), generator=generator(seed, who))
    return supply.x_NCHW[order_N[:count]]
