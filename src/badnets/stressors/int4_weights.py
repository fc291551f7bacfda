"""Four-bit weights: sixteen levels a group of weights, two weights a byte; arithmetic stays in floating point.

Not a test of integer arithmetic (that is int8), and no faster: weights are unpacked each time they are used.

E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh (2022), GPTQ, https://arxiv.org/abs/2210.17323 (the same grid; its correction of the
rounding errors is left out, so this is plain rounding to the nearest level).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Int4Weights(Stressor):
    """Each output channel's weights in groups of `group` with one float32 scale a group, levels -7..7, symmetric about zero."""

    kind: Literal["int4_weights"] = "int4_weights"
    group: int = Field(32, ge=1)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        del supply, seed
        from badnets.stressors._int4 import Int4
        from badnets.stressors._layers import compressible

        for name, layer in compressible(network, self.kind).items():
            network.set_submodule(name, Int4(layer, self.group))
        return network
