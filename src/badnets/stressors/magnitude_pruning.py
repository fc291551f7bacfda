"""Magnitude pruning: the smallest weights of the whole net become zero, one by one, wherever they are.

Does not make a dense kernel faster, only the file smaller; for whole channels see channel_pruning.

S. Han, J. Pool, J. Tran, W. J. Dally (2015), Learning both Weights and Connections for Efficient Neural Networks,
https://arxiv.org/abs/1506.02626
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network


class MagnitudePruning(Stressor):
    """The share `amount` of all weights of convolutions and linear layers, smallest magnitude first over all layers together, is set to
    exactly zero. Biases and the parameters of norms stay."""

    kind: Literal["magnitude_pruning"] = "magnitude_pruning"
    amount: float = Field(0.5, ge=0, le=1)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        del supply, seed
        import torch

        from badnets.stressors._layers import compressible

        # Not torch.nn.utils.prune: its global pruning cannot view weights that are laid out channels last.
        weights = [layer.weight.detach() for layer in compressible(network, self.kind).values()]
        sizes = [weight.numel() for weight in weights]
        order = torch.cat([weight.abs().flatten() for weight in weights]).argsort(stable=True)
        kept = torch.ones(sum(sizes), dtype=torch.bool, device=order.device)
        kept[order[: round(self.amount * sum(sizes))]] = False
        for weight, part in zip(weights, kept.split(sizes), strict=True):
            weight[~part.view(weight.shape)] = 0.0
        return network
