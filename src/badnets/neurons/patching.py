"""Whether k units are enough: their activations from triggered images are put into the runs of the same images without the trigger.

Does not apply where no activation at a layer is the attack's (a skip around the layer carries it): then even all units are not enough.

Vig et al. (2020), "Investigating Gender Bias in Language Models Using Causal Mediation Analysis", https://arxiv.org/abs/2004.12265;
Meng, Bau, Andonian and Belinkov (2022), "Locating and Editing Factual Associations in GPT", https://arxiv.org/abs/2202.05262.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import Edit, as_array, drawn_predictions, edited_predictions
from badnets.neurons._rank import Ranking, profile, random_order
from badnets.neurons._search import log_grid

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Patching(Analysis):
    """Per layer l: `l.ks`, and per ranking r `l.r` (k x attacked images: clean, yet sent to the goal?), k = 0 first.

    For "random" each image meets one of `draws` orders.
    """

    kind: Literal["patching"] = "patching"
    rankings: tuple[Ranking, ...] = ("selectivity", "random")
    points: int = Field(6, ge=2)
    draws: int = Field(3, ge=1)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        layers = self.layers(network)
        known = profile(network, look, layers)
        answer: Answer = {"layers": as_array(list(layers.items()))}
        rows = judge.attacked_N
        clean, shown, goal_N = judge.clean_NCHW[rows], judge.triggered_NCHW[rows], judge.goal_N[rows].numpy()
        for i, (layer, count) in enumerate(layers.items()):
            ks = log_grid(count, self.points)
            answer[f"{i}.ks"] = ks
            for ranking in self.rankings:
                if ranking == "random":
                    orders = [random_order({layer: count}, world.seed, r) for r in range(self.draws)]
                    edits = [[Edit(order[:k], "patch") for k in ks] for order in orders]
                    pred_MN = drawn_predictions(network, clean, edits, known.means, shown)
                else:
                    order = known.order(ranking, [layer])
                    pred_MN = edited_predictions(network, clean, [Edit(order[:k], "patch") for k in ks], known.means, shown)
                answer[f"{i}.{ranking}"] = pred_MN == goal_N
        return answer
