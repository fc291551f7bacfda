"""What is lost when the first k units of a ranking are replaced, by their clean mean or by zero, over k and layer by layer.

Says what units are needed, not that they do it alone (`patching` says that). A unit whose work others take over looks unneeded.

Zheng, Tang, Li and Liu (2022), "Data-free Backdoor Removal based on Channel Lipschitzness", https://arxiv.org/abs/2208.03111;
Liu, Dolan-Gavitt and Garg (2018), "Fine-Pruning", https://arxiv.org/abs/1805.12185 (the rankings).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import Edit, How, Unit, as_array, drawn_predictions
from badnets.neurons._rank import Profile, Ranking, profile, random_order
from badnets.neurons._search import log_grid

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Ablation(Analysis):
    """Per layer l: `l.ks`, and per way h and ranking r `l.h.r.triggered` (k x attacked images: sent to the goal?) and `l.h.r.clean`
    (k x images: right?), k = 0 first.

    `points` ks on a log grid up to all units. Zero-ablation is done for the first ranking only. For "random" each image meets one of
    `draws` orders.
    """

    kind: Literal["ablation"] = "ablation"
    rankings: tuple[Ranking, ...] = ("selectivity", "lipschitz", "clean activation", "random")
    ways: tuple[Literal["mean", "zero"], ...] = ("mean", "zero")
    points: int = Field(6, ge=2)
    draws: int = Field(3, ge=1)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        layers = self.layers(network)
        known = profile(network, look, layers)
        answer: Answer = {"layers": as_array(list(layers.items()))}
        attacked = judge.attacked_N.numpy()
        for i, (layer, count) in enumerate(layers.items()):
            ks = log_grid(count, self.points)
            answer[f"{i}.ks"] = ks
            for way, ranking in self._pairs():
                edits = [_edits(order, ks, way) for order in self._orders(known, ranking, {layer: count}, world.seed)]
                shown_MN, clean_MN = (
                    drawn_predictions(network, x_NCHW, edits, known.means) for x_NCHW in (judge.triggered_NCHW, judge.clean_NCHW)
                )
                answer[f"{i}.{way}.{ranking}.triggered"] = (shown_MN == judge.goal_N.numpy())[:, attacked]
                answer[f"{i}.{way}.{ranking}.clean"] = clean_MN == judge.y_N.numpy()
        return answer

    def _orders(self, known: Profile, ranking: Ranking, layer: dict[str, int], seed: int) -> list[tuple[Unit, ...]]:
        if ranking == "random":
            return [random_order(layer, seed, draw) for draw in range(self.draws)]
        return [known.order(ranking, list(layer))]

    def _pairs(self) -> list[tuple[Literal["mean", "zero"], Ranking]]:
        return [(way, r) for n, way in enumerate(self.ways) for r in (self.rankings if n == 0 else self.rankings[:1])]


def _edits(order: tuple[Unit, ...], ks: np.ndarray, way: How) -> list[Edit]:
    return [Edit(order[:k], way) for k in ks]
