"""Looking for sets of units that carry the attack: a place and a number in, the candidates and how good each is out.

Shapes: M edits, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from badnets.neurons._base import View
from badnets.neurons._edits import Edit, Unit, edited_logits, edited_predictions
from badnets.neurons._rank import ACROSS_LAYERS, WHOLE, Profile, margin

if TYPE_CHECKING:
    from badnets.nets._base import Network

MOST_STEPS, GREEDY_IMAGES = 8, 48


@dataclass(frozen=True, eq=False)
class Place:
    """One layer, or all of them together."""

    name: str
    layers: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.layers.values())

    def rankings(self) -> tuple[str, ...]:
        """The rankings that can be used here."""
        return ACROSS_LAYERS if self.name == WHOLE else (*ACROSS_LAYERS, "lipschitz", "clean activation")


def places(layers: dict[str, int]) -> list[Place]:
    """Each layer, and where there are several all of them."""
    found = [Place(layer, {layer: count}) for layer, count in layers.items()]
    return [*found, Place(WHOLE, layers)] if len(found) > 1 else found


@dataclass(frozen=True)
class Looks:
    """Rates on the images that choices are made on: `asr`, `ca` of the net as it is and with units replaced by their mean; `sent`: clean
    images sent to the goal when the units are patched in."""

    asr_before: float
    ca_before: float
    asr: float
    ca: float
    sent: float

    @property
    def carried(self) -> float:
        """The smaller of necessity and sufficiency, less the price in clean accuracy; the other one breaks ties."""
        lost = self.asr_before - self.asr
        return min(lost, self.sent) + 0.01 * (lost + self.sent) - max(0.0, self.ca_before - self.ca)


def look_at(network: Network, view: View, sets: Sequence[tuple[Unit, ...]], known: Profile) -> list[Looks]:
    """How good each set is, on these images."""
    attacked = view.attacked_N.numpy()
    goal_N, y_N = view.goal_N.numpy(), view.y_N.numpy()
    replaced = [Edit((), "mean"), *(Edit(units, "mean") for units in sets)]
    asr_M = _share(edited_predictions(network, view.triggered_NCHW, replaced, known.means) == goal_N, attacked)
    ca_M = (edited_predictions(network, view.clean_NCHW, replaced, known.means) == y_N).mean(1)
    patched = [Edit(units, "patch") for units in sets]
    sent_M = _share(edited_predictions(network, view.clean_NCHW, patched, known.means, view.triggered_NCHW) == goal_N, attacked)
    return [Looks(asr_M[0], float(ca_M[0]), asr_M[m + 1], float(ca_M[m + 1]), sent_M[m]) for m in range(len(sets))]


def asr_without(network: Network, view: View, units: tuple[Unit, ...], known: Profile) -> float:
    """ASR on these images with the units replaced by their mean."""
    rows = view.attacked_N
    pred_MN = edited_predictions(network, view.triggered_NCHW[rows], [Edit(units, "mean")], known.means)
    return float((pred_MN[0] == view.goal_N[rows].numpy()).mean()) if len(pred_MN[0]) else 0.0


def clean_loss(network: Network, view: View, units: tuple[Unit, ...], known: Profile) -> float:
    """Clean accuracy lost on these images with the units replaced by their mean."""
    before, after = edited_predictions(network, view.clean_NCHW, [Edit((), "mean"), Edit(units, "mean")], known.means)
    return float((before == view.y_N.numpy()).mean() - (after == view.y_N.numpy()).mean())


def _share(hit_MN: np.ndarray, attacked_N: np.ndarray) -> list[float]:
    return [float(hit_N[attacked_N].mean()) if attacked_N.any() else 0.0 for hit_N in hit_MN]


def greedy(network: Network, view: View, place: Place, known: Profile, steps: int, *, both: bool) -> list[Unit]:
    """`steps` units, one after the other the one that lowers the goal's margin on triggered images most when replaced by its mean (`both`:
    and raises it on clean images when patched in). Candidates are the first of each ranking. No units when `steps` are too many.
    """
    if steps > MOST_STEPS:
        return []
    few = view.thinned(GREEDY_IMAGES)
    pool = dict.fromkeys(unit for r in ACROSS_LAYERS for unit in known.order(r, list(place.layers))[: steps + 2])
    chosen: list[Unit] = []
    while len(chosen) < steps and len(chosen) < len(pool):
        left = [unit for unit in pool if unit not in chosen]
        sets = [(*chosen, unit) for unit in left]
        chosen.append(left[int(np.argmax(_gains(network, few, sets, known, both=both)))])
    return chosen


def _gains(network: Network, view: View, sets: Sequence[tuple[Unit, ...]], known: Profile, *, both: bool) -> np.ndarray:
    rows = view.attacked_N
    goal_N, shown, clean = view.goal_N[rows], view.triggered_NCHW[rows], view.clean_NCHW[rows]
    if not len(goal_N):
        return np.zeros(len(sets))
    lowered = -margin(edited_logits(network, shown, [Edit(s, "mean") for s in sets], known.means), goal_N.expand(len(sets), -1)).mean(1)
    if not both:
        return lowered.numpy()
    raised = margin(edited_logits(network, clean, [Edit(s, "patch") for s in sets], known.means, shown), goal_N.expand(len(sets), -1))
    # The worse of the two counts, as in the decision.
    return np.minimum(lowered.numpy(), raised.mean(1).numpy())


def log_grid(count: int, points: int) -> np.ndarray:
    """0, and about `points` numbers of units from 1 to all, evenly spaced in their logarithm."""
    return np.unique([0, *np.round(np.geomspace(1, count, points)).astype(int)])


def first_true(test: Callable[[int], bool], last: int) -> int | None:
    """Smallest k in 1..last for which a test that never turns false again is true, by bisection; None if it is not even at `last`."""
    if not test(last):
        return None
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high
