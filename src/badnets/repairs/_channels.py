"""Units of a net as something to rank and to remove while clean accuracy lasts. Shared by repairs that prune.

Does not apply to nets without marked units. Shapes: N images, C units of a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from badnets.nets._taps import masked, unit_layers, zero_units
from badnets.repairs._tuning import Labelled, hits

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Unit(NamedTuple):
    """One unit of one layer."""

    layer: str
    index: int


NO_UNITS = "nothing was done: the net has no marked units"


def ranked(score_C_by_layer: dict[str, Tensor]) -> tuple[list[Unit], list[float]]:
    """All units, smallest score first, and their scores; equal scores in the order of the layers."""
    units = [Unit(layer, i) for layer, score_C in score_C_by_layer.items() for i in range(len(score_C))]
    scores = [float(score) for score_C in score_C_by_layer.values() for score in score_C.cpu()]
    order = sorted(range(len(units)), key=scores.__getitem__)
    return [units[i] for i in order], [scores[i] for i in order]


def keep_masks(network: Network, units: Iterable[Unit]) -> dict[str, Tensor]:
    """mask_C of every layer that has one of these units: 0 for them, 1 for the others."""
    counts, masks = unit_layers(network), {}
    for layer, index in units:
        masks.setdefault(layer, torch.ones(counts[layer]))[index] = 0.0
    return masks


def expendable(network: Network, order: Sequence[Unit], counts: Sequence[int], held: Labelled, max_loss: float) -> list[Unit]:
    """The first so many of `order` that can go: `counts`, ascending, are tried until clean accuracy on `held` has fallen by more than
    `max_loss`, and the last count before that is taken. Always ends, and leaves the net as it is: there is no copy to mix up."""
    allowed = hits(network, held) - max_loss * len(held[1]) - 1e-6
    good = 0
    for count in counts:
        with masked(network, keep_masks(network, order[:count])):
            if hits(network, held) < allowed:
                break
        good = count
    return list(order[:good])


def remove(network: Network, units: Iterable[Unit]) -> None:
    """In place, by exact zeros."""
    for layer, mask_C in keep_masks(network, units).items():
        zero_units(network, layer, (mask_C == 0).nonzero()[:, 0])


class Scale(NamedTuple):
    """Names of the parameters whose entry c is the size and the offset of unit c before its activation."""

    weight: str
    bias: str | None


def scales(network: Network) -> dict[str, Scale]:
    """Unit layer -> the parameters applied last in making its units: a norm's where there is one, else those of a dense layer."""
    blank, found = copy.deepcopy(network), {}
    for layer, count in unit_layers(network).items():
        with torch.no_grad():
            for p in blank.parameters():
                p.fill_(1.0)
        # What becomes zero when all of them are removed is what makes them.
        zero_units(blank, layer, range(count))
        zeros = {name: p.ndim for name, p in blank.named_parameters() if not p.any()}
        weight = min((name for name in zeros if name.endswith("weight")), key=zeros.__getitem__)
        bias = weight.removesuffix("weight") + "bias"
        found[layer] = Scale(weight, bias if bias in zeros else None)
    return found
