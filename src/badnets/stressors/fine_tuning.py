"""Fine-tuning: the owner trains the net a little further on clean images of the task, whole or its last layer only.

Not for a change of task (a new head for other classes): that is transfer learning.

Y. Liu, Y. Xie, A. Srivastava (2017), Neural Trojans, https://arxiv.org/abs/1710.00942 (further training on clean images as a cure);
K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (tuning alone leaves the backdoor's neurons alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply
from badnets.stressors._tuning import tune
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network


class FineTuning(Stressor):
    """Gradient descent at learning rate `lr` for `epochs` passes over the supply.

    `layers`: all of them, or only the "head" (the last linear layer; everything before it stays as it is to the bit, the statistics of
    batch norms too). `keep_zeros`: weights that are exactly zero, as in a pruned net, stay zero.

    The rate starts at `lr` at once and falls linearly to zero: without a warm-up `lr` is what the first step takes, and with a fall the
    net has settled at the end, so that a loss of accuracy is not merely the noise of the last steps at a high rate.
    """

    kind: Literal["fine_tuning"] = "fine_tuning"
    lr: float = Field(0.01, gt=0)
    epochs: float = Field(5, gt=0, le=10_000)
    layers: Literal["head", "all"] = "all"
    batch_size: int = Field(32, ge=2)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    keep_zeros: bool = True

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        recipe = Recipe(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup=0.0,
            schedule="linear",
        )
        return tune(network, supply, recipe, who=self.kind, seed=seed, layers=self.layers, keep_zeros=self.keep_zeros)
