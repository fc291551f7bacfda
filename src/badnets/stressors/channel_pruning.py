"""Channel pruning: whole units (channels of a convolution, coordinates of a hidden layer) are removed, the least needed first.

The units are zeroed where they are made, so a dense kernel computes as long as before; a file shrinks, since zeros deflate.

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf (2016), Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710
(by norm); K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (by clean activation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

BATCH = 250


class ChannelPruning(Stressor):
    """Removes the share `amount` of the units of every layer, or of the last one only. `by`: the norm of the weights that make a unit, or
    its mean absolute activation on at most `images` of the owner's images."""

    kind: Literal["channel_pruning"] = "channel_pruning"
    amount: float = Field(0.5, ge=0, lt=1)
    by: Literal["norm", "activation"] = "norm"
    layers: Literal["all", "last"] = "all"
    images: int = Field(500, ge=1)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        from badnets.nets._taps import zero_units
        from badnets.stressors._layers import sample

        network.eval()
        names = _layers(network, self.kind)
        names = names if self.layers == "all" else names[-1:]
        if self.by == "norm":
            scores = {name: _norms(network, name) for name in names}
        else:
            x_NCHW = sample(supply, self.images, who=self.kind, seed=seed).to(network.device)
            scores = _activations(network, names, x_NCHW)
        # Scores are those of the whole net: removing a unit must not make another one look idle.
        for name, score_C in scores.items():
            zero_units(network, name, score_C.argsort(stable=True)[: round(self.amount * len(score_C))])
        return network


def _layers(network: Network, who: str) -> list[str]:
    from badnets.core.errors import UsageError
    from badnets.nets._taps import unit_layers

    found = list(unit_layers(network))
    if not found:
        raise UsageError("E-LAYER", f"{who} expected a net with marked units, got one without (a net that runs elsewhere?).")
    return found


def _norms(network: Network, layer: str) -> Tensor:
    """score_C: root of the sum of squares of what makes each unit (a norm right before it included)."""
    from badnets.nets._taps import incoming

    weight = incoming(network, layer)
    return weight.reshape(len(weight), -1).norm(dim=1)


def _activations(network: Network, layers: list[str], x_NCHW: Tensor) -> dict[str, Tensor]:
    """score_C per layer."""
    from badnets.nets._taps import record

    total: dict[str, Tensor] = {}
    for part_NCHW in x_NCHW.split(BATCH):
        for name, seen in record(network, layers, part_NCHW).items():
            score_C = seen.abs().reshape(*seen.shape[:2], -1).mean(dim=2).sum(dim=0)
            total[name] = total[name] + score_C if name in total else score_C
    return total
