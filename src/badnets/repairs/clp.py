"""Channel Lipschitzness pruning: without any image, units whose weights amplify far more than those of their layer are removed.

Does not apply to small layers: of n units none can lie more than (n - 1) / sqrt(n) deviations above the mean, so `u` = 3 needs 11.
R. Zheng, R. Tang, J. Li, L. Liu (2022), Data-free Backdoor Removal based on Channel Lipschitzness, https://arxiv.org/abs/2208.03111
Departs from it: every layer of units, hidden linear ones too, with the factor of a norm right behind folded in where there is one; a unit
that is removed loses its bias too. Shapes: C units of a layer, I inputs of a unit, P positions of its kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.nets._taps import incoming, unit_layers
from badnets.repairs._base import Repair
from badnets.repairs._channels import NO_UNITS, Unit, remove

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Clp(Repair):
    """Removes units whose bound lies more than `u` standard deviations above the mean of their layer."""

    kind: Literal["clp"] = "clp"
    access = Access.MODEL
    u: float = Field(3.0, gt=0)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        del seed
        network, layers = view.network, unit_layers(view.network)
        if not layers:
            return network, NO_UNITS
        pruned = [Unit(layer, index) for layer in layers for index in _outliers(_bound_C(incoming(network, layer)), self.u)]
        remove(network, pruned)
        return network, f"pruned {len(pruned)} of {sum(layers.values())} units"


def _bound_C(weight: Tensor) -> Tensor:
    """Largest singular value of every unit's weights as a matrix of inputs by positions; a vector's is its length, a factor's its size."""
    weight_CIP = weight.reshape(len(weight), weight.shape[1] if weight.ndim > 1 else 1, -1)
    return torch.linalg.matrix_norm(weight_CIP.float(), ord=2)


def _outliers(bound_C: Tensor, u: float) -> list[int]:
    if len(bound_C) < 2:
        return []
    return (bound_C > bound_C.mean() + u * bound_C.std()).nonzero()[:, 0].tolist()
