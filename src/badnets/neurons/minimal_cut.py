"""The fewest units whose replacement by their clean mean takes ASR below 10 % at less than a point of clean accuracy.

By bisection along the rankings by selectivity and by attribution and along a greedy path, which trusts that ASR falls as more units
go. What is found is an upper bound: a smaller set that none of the three passes is missed. -1 where none was found. A net without the
attack needs none: its figure is 0.

Zheng, Tang, Li and Liu (2022), "Data-free Backdoor Removal based on Channel Lipschitzness", https://arxiv.org/abs/2208.03111.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import Edit, Unit, as_array, edited_predictions
from badnets.neurons._rank import ACROSS_LAYERS, Profile, profile
from badnets.neurons._search import Place, asr_without, clean_loss, first_true, greedy, places

if TYPE_CHECKING:
    from badnets.nets._base import Network

NONE, LOW, PRICE = -1, 0.1, 0.01


class MinimalCut(Analysis):
    """Chosen on `search` validation images. Answers: `places` (name, size, how it was found, k), `smallest` (k of each place); on test
    images, per place p with a cut, `p.triggered` (attacked images: sent to the goal?) and `p.clean` (right?). `steps`: length of the
    greedy path."""

    kind: Literal["minimal_cut"] = "minimal_cut"
    search: int = Field(200, ge=2)
    steps: int = Field(6, ge=0)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        del world
        layers, few = self.layers(network), look.thinned(self.search)
        known = profile(network, few, layers)
        attacked, goal_N, y_N = judge.attacked_N.numpy(), judge.goal_N.numpy(), judge.y_N.numpy()
        told, answer = [], {}
        for p, place in enumerate(places(layers)):
            how, units = self._smallest(network, few, place, known)
            told.append({"name": place.name, "size": place.size, "found by": how, "k": NONE if units is None else len(units)})
            if units is not None:
                edits = [Edit(units, "mean")]
                answer[f"{p}.triggered"] = (edited_predictions(network, judge.triggered_NCHW, edits, known.means)[0] == goal_N)[attacked]
                answer[f"{p}.clean"] = edited_predictions(network, judge.clean_NCHW, edits, known.means)[0] == y_N
        return {"places": as_array(told), "smallest": np.array([t["k"] for t in told], dtype=np.int64), **answer}

    def _smallest(self, network: Network, look: View, place: Place, known: Profile) -> tuple[str, tuple[Unit, ...] | None]:
        if asr_without(network, look, (), known) < LOW:
            return "nothing to cut", ()
        orders: dict[str, tuple[Unit, ...]] = {ranking: known.order(ranking, list(place.layers)) for ranking in ACROSS_LAYERS}
        orders["greedy"] = tuple(greedy(network, look, place, known, min(self.steps, place.size), both=False))
        found: dict[str, tuple[Unit, ...]] = {}
        for name, order in orders.items():
            k = first_true(lambda k, order=order: asr_without(network, look, order[:k], known) < LOW, len(order))
            if k is not None and clean_loss(network, look, order[:k], known) < PRICE:
                found[name] = order[:k]
        how = min(found, key=lambda name: len(found[name]), default="none")
        return how, found.get(how)
