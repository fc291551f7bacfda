"""How strongly each unit reacts to the trigger or is suspected of carrying it: the scores that rankings come from.

Shapes: N images, K classes, C units of a layer, ... positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from badnets.core.rng import numpy_generator
from badnets.neurons._base import View
from badnets.neurons._edits import Means, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

BATCH = 125
FLOOR = 0.01
"""Of the layer's largest clean spread: below it a unit is silent on clean images and its spread says nothing."""

Ranking = Literal["selectivity", "attribution", "lipschitz", "clean activation", "random"]
ACROSS_LAYERS: tuple[Ranking, ...] = ("selectivity", "attribution")
"""Rankings whose scores mean the same in every layer."""
WHOLE = "whole net"


@dataclass(frozen=True, eq=False)
class Profile:
    """Per layer: the clean mean (1, C, ...), and scores per ranking (higher = earlier in the ranking).

    selectivity: length of the change under the trigger over the positions, mean over images, by the clean spread of the same length.
    change: the same before division. attribution: change times gradient of the goal's margin, summed over positions (how much of the
    margin goes if the unit's change does, to first order). lipschitz: spectral norm of the incoming weights. clean activation:
    the least active on clean images first.
    """

    means: Means
    scores: dict[str, dict[str, np.ndarray]]

    def order(self, ranking: str, layers: Sequence[str]) -> tuple[Unit, ...]:
        """All units of these layers by falling score, ties in the order of definition."""
        units = [(layer, u) for layer in layers for u in range(len(self.scores[ranking][layer]))]
        score = np.concatenate([self.scores[ranking][layer] for layer in layers])
        return tuple(units[i] for i in np.argsort(-score, kind="stable"))


def random_order(layers: dict[str, int], seed: int, draw: int) -> tuple[Unit, ...]:
    """All units of these layers in an order that only chance decided."""
    units = [(layer, u) for layer, count in layers.items() for u in range(count)]
    return tuple(units[i] for i in numpy_generator(seed, "random units", draw, *layers).permutation(len(units)))


def profile(network: Network, view: View, layers: dict[str, int]) -> Profile:
    """Scores of every unit from these images, clean and with the trigger."""
    import torch

    means = _clean_means(network, view, layers)
    sums = {layer: torch.zeros(3, count, dtype=torch.float64) for layer, count in layers.items()}
    for rows in range(0, len(view.y_N), BATCH):
        part = slice(rows, rows + BATCH)
        _add(network, view.clean_NCHW[part].to(network.device), view.triggered_NCHW[part].to(network.device), means, sums)
    scores: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("change", "selectivity", "clean activation", "lipschitz")}
    for layer, (change_C, square_C, active_C) in sums.items():
        spread_C = (square_C / len(view.y_N)).sqrt().numpy()
        change = (change_C / len(view.y_N)).numpy()
        scores["change"][layer] = change
        scores["selectivity"][layer] = change / np.maximum(spread_C, max(FLOOR * float(spread_C.max()), 1e-12))
        scores["clean activation"][layer] = -(active_C / len(view.y_N)).numpy()
        scores["lipschitz"][layer] = _lipschitz_C(network, layer)
    scores["attribution"] = _attribution(network, view, layers)
    return Profile(means, {name: {layer: np.nan_to_num(s) for layer, s in by.items()} for name, by in scores.items()})


def _clean_means(network: Network, view: View, layers: dict[str, int]) -> Means:
    from badnets.nets._taps import record

    sums: Means = {}
    for part in view.clean_NCHW.split(BATCH):
        for layer, a in record(network, layers, part.to(network.device)).items():
            sums[layer] = sums[layer] + a.sum(0, keepdim=True) if layer in sums else a.sum(0, keepdim=True)
    return {layer: total / len(view.clean_NCHW) for layer, total in sums.items()}


def _add(network: Network, clean: Tensor, triggered: Tensor, means: Means, sums: dict[str, Tensor]) -> None:
    from badnets.nets._taps import record

    clean_by, shown_by = record(network, sums, clean), record(network, sums, triggered)
    for layer, c in clean_by.items():
        change_NC = (shown_by[layer] - c).flatten(2).norm(dim=2) if c.ndim > 2 else (shown_by[layer] - c).abs()
        centred = c - means[layer]
        square_NC = centred.square().flatten(2).sum(2) if c.ndim > 2 else centred.square()
        active_NC = c.flatten(2).mean(2) if c.ndim > 2 else c
        for i, value_NC in enumerate((change_NC, square_NC, active_NC)):
            sums[layer][i] += value_NC.sum(0).double().cpu()


def _lipschitz_C(network: Network, layer: str) -> np.ndarray:
    import torch

    from badnets.nets._taps import incoming

    weight = incoming(network, layer).float()
    matrices = weight.flatten(2) if weight.ndim > 2 else weight.reshape(len(weight), 1, -1)
    return torch.linalg.matrix_norm(matrices, ord=2).cpu().double().numpy()


def _attribution(network: Network, view: View, layers: dict[str, int]) -> dict[str, np.ndarray]:
    from badnets.nets._taps import gradients, record

    found = {layer: np.zeros(count) for layer, count in layers.items()}
    rows = view.attacked_N.nonzero()[:, 0]
    for part in rows.split(BATCH):
        goal_N = view.goal_N[part].to(network.device)
        values, grads, _ = gradients(network, layers, view.triggered_NCHW[part].to(network.device), _summed_margin(goal_N))
        clean = record(network, layers, view.clean_NCHW[part].to(network.device))
        for layer in layers:
            product = (values[layer] - clean[layer]) * grads[layer]
            found[layer] += product.transpose(0, 1).flatten(1).sum(1).double().cpu().numpy() / len(rows)
    return found


def _summed_margin(goal_N: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits_NK: margin(logits_NK, goal_N).sum()


def margin(logits_NK: Tensor, goal_N: Tensor) -> Tensor:
    """By how much the goal's logit exceeds the largest other one, over the last axis."""
    import torch

    is_goal = torch.nn.functional.one_hot(goal_N, logits_NK.shape[-1]).bool()
    others = logits_NK.masked_fill(is_goal, float("-inf")).amax(-1)
    return (logits_NK * is_goal).sum(-1) - others
