"""How much each unit's activation changes under the trigger, by its spread on clean images; and the scores that rank units.

Does not say that a unit matters: it may change and be ignored by what follows. That is the business of `ablation` and `patching`.

Zheng, Tang, Li and Liu (2022), "Data-free Backdoor Removal based on Channel Lipschitzness", https://arxiv.org/abs/2208.03111
(trigger-activated change, channel Lipschitz bound); Liu, Dolan-Gavitt and Garg (2018), "Fine-Pruning",
https://arxiv.org/abs/1805.12185 (dormant units); Syed, Rager and Conmy (2023), "Attribution Patching Outperforms Automated Circuit
Discovery", https://arxiv.org/abs/2310.10348 (attribution). We divide the change by the clean spread, so that layers can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import as_array
from badnets.neurons._rank import profile

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Selectivity(Analysis):
    """Scores on the judge's images, per layer `l`: `l.change`, `l.selectivity`, `l.attribution`, `l.lipschitz`, `l.clean activation`."""

    kind: Literal["selectivity"] = "selectivity"

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        del look, world
        layers = self.layers(network)
        known = profile(network, judge, layers)
        answer: Answer = {"layers": as_array(list(layers.items()))}
        for name, by_layer in known.scores.items():
            answer |= {f"{i}.{name}": by_layer[layer] for i, layer in enumerate(layers)}
        return answer
