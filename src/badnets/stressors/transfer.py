"""Transfer learning: the trunk is kept as it is, a new head is trained for the classes of other images.

Not for telling an ASR afterwards: the classes are others, so the backdoor's target is gone; what may stay is accuracy lost to the trigger.

Yosinski, Clune, Bengio, Lipson (2014), "How transferable are features in deep neural networks?", https://arxiv.org/abs/1411.1792;
Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733, section 5.3 (convolutions kept, linear layers trained anew).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply
from badnets.stressors._head import Cut, cut_of, sizes_of, train_heads, trunk_of

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Transfer(Stressor):
    """`layers`: which are new, only the "last" or all "dense" ones behind the last convolution. `hidden`: width of a hidden layer in the
    new head (0: none; None: as the old head has them). The supply's labels say the new classes: 0 up to the largest."""

    kind: Literal["transfer"] = "transfer"
    layers: Cut = "last"
    epochs: int = Field(30, ge=1)
    lr: float = Field(1e-3, gt=0)
    batch_size: int = Field(128, ge=1)
    hidden: int | None = Field(None, ge=0)

    def widths(self, network: Network, cut: int) -> list[int]:
        """Widths of the hidden layers of the new head."""
        return sizes_of(network, cut) if self.hidden is None else [self.hidden] if self.hidden else []

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        from torch import nn

        x_NCHW, y_N = supply.labelled(self.kind)
        cut, num_classes = cut_of(network, self.layers), int(y_N.max()) + 1
        # The trunk runs in evaluation mode, once: frozen weights give the same features in every epoch, and batch norm counts nothing.
        features_NF = trunk_of(network, cut).predict_logits(x_NCHW)
        (head,) = train_heads(features_NF[None], y_N, self.widths(network, cut), num_classes, self, seed=seed)
        network.body = nn.Sequential(*list(network.body.children())[:cut], head)
        network.num_classes = num_classes
        return network
