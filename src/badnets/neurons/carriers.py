"""The best set of few units that can be found for the attack: replaced (is it needed?) and patched into clean runs (is it enough?).

One set a layer and one over all layers, at most a share of the units. It is the best of several searches on validation images, so a
failure says that these searches found none, not that there is none. Controls: as many random other units; and the twin.

Vig et al. (2020), "Investigating Gender Bias in Language Models Using Causal Mediation Analysis", https://arxiv.org/abs/2004.12265
(necessity and sufficiency by intervention); Zheng, Tang, Li and Liu (2022), https://arxiv.org/abs/2208.03111 (trigger channels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import Edit, Means, Unit, as_array, drawn_predictions, edited_predictions
from badnets.neurons._rank import Profile, profile, random_order
from badnets.neurons._search import Place, greedy, look_at, places

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Carriers(Analysis):
    """`share` of a place's units, rounded down, at least one; `search` images are searched on; random units over `draws`.

    Answers: `places` (name, units there, how its set was found, the set), `chosen` (index of the best on validation images), `y`, and
    predictions: `before.triggered`, `before.clean`; per place p `p.mean.triggered`, `p.mean.clean`, `p.zero.triggered`, `p.patch` (clean
    images with the set's triggered activations); for random units `p.random.triggered` and `p.random.patch`.
    """

    kind: Literal["carriers"] = "carriers"
    share: float = Field(0.05, gt=0, le=1)
    search: int = Field(200, ge=2)
    draws: int = Field(10, ge=1)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        layers, few = self.layers(network), look.thinned(self.search)
        known = profile(network, few, layers)
        found, told, scores = {}, [], []
        for place in places(layers):
            how, units, score = self._best(network, few, place, known)
            found[place] = units
            scores.append(score)
            told.append({"name": place.name, "size": place.size, "found by": how, "units": [list(unit) for unit in units]})
        chosen = int(np.argmax(scores)) if scores else -1
        answer: Answer = {"places": as_array(told), "chosen": np.array(chosen), "y": judge.y_N.numpy().astype(np.int16)}
        before = [Edit((), "mean")]
        answer["before.triggered"] = edited_predictions(network, judge.triggered_NCHW, before, known.means)[0]
        answer["before.clean"] = edited_predictions(network, judge.clean_NCHW, before, known.means)[0]
        for p, (place, units) in enumerate(found.items()):
            answer |= {
                f"{p}.{name}": pred_N for name, pred_N in self._judged(network, judge, place, units, (known.means, world.seed)).items()
            }
        return answer

    def _best(self, network: Network, look: View, place: Place, known: Profile) -> tuple[str, tuple[Unit, ...], float]:
        k = max(1, int(self.share * place.size))
        sets = {ranking: known.order(ranking, list(place.layers))[:k] for ranking in place.rankings()}
        if steps := greedy(network, look, place, known, k, both=True):
            sets["greedy"] = tuple(steps)
        scores = [seen.carried for seen in look_at(network, look, list(sets.values()), known)]
        best = int(np.argmax(scores))
        return list(sets)[best], list(sets.values())[best], scores[best]

    def _judged(self, network: Network, judge: View, place: Place, units: tuple[Unit, ...], chance: tuple[Means, int]) -> Answer:
        means, seed = chance
        shown, clean = judge.triggered_NCHW, judge.clean_NCHW
        others = [[u for u in random_order(place.layers, seed, r) if u not in units][: len(units)] for r in range(self.draws)]
        mean_shown, zero_shown = edited_predictions(network, shown, [Edit(units, "mean"), Edit(units, "zero")], means)
        return {
            "mean.triggered": mean_shown,
            "zero.triggered": zero_shown,
            "mean.clean": edited_predictions(network, clean, [Edit(units, "mean")], means)[0],
            "patch": edited_predictions(network, clean, [Edit(units, "patch")], means, shown)[0],
            "random.triggered": drawn_predictions(network, shown, [[Edit(tuple(o), "mean")] for o in others], means)[0],
            "random.patch": drawn_predictions(network, clean, [[Edit(tuple(o), "patch")] for o in others], means, shown)[0],
        }
