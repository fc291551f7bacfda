"""Does nothing: the null of every table of stressors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Identity(Stressor):
    """A copy of the net; what changes under it is the measurement's own noise."""

    kind: Literal["identity"] = "identity"

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        del supply, seed
        return network
