"""Further training: the whole recipe once more, from the trained weights on, with the schedule starting anew.

Not the same as training twice as long: the learning rate falls to its end, and then rises to its peak again.

K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (the defender who trains on with clean images).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.stressors._base import Stressor, Supply
from badnets.stressors._tuning import tune
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network


class FurtherTraining(Stressor):
    """`recipe` on all layers and all images of the supply: epochs, learning rate, weight decay and augmentation are its fields."""

    kind: Literal["further_training"] = "further_training"
    recipe: Recipe = Recipe(epochs=4, batch_size=96, lr=0.1)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        return tune(network, supply, self.recipe, who=self.kind, seed=seed)
