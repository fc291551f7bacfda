"""The attack as one direction among a layer's units: found as a difference of means, then taken out of every activation.

Where a backdoor is spread over all units no small set carries it, yet one direction may. Necessity only: that ASR falls without the
direction does not say that the direction alone would do. The same direction serves every position of a layer.

Marks and Tegmark (2023), "The Geometry of Truth", https://arxiv.org/abs/2310.06824 (difference of means); Arditi et al. (2024),
"Refusal in Language Models Is Mediated by a Single Direction", https://arxiv.org/abs/2406.11717 (projection).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.core.rng import numpy_generator
from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import as_array, predictions

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

BATCH = 125


class Direction(Analysis):
    """Per layer l: `l.triggered`, `l.clean` without the direction, `l.random.triggered`, `l.random.clean` without a random one.

    The direction is chosen on `search` validation images. Of triggered images only the attacked ones: sent to the goal? Clean: right?
    """

    kind: Literal["direction"] = "direction"
    search: int = Field(300, ge=2)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        import torch

        from badnets.nets._taps import Axis

        layers, few = self.layers(network), look.thinned(self.search)
        answer: Answer = {"layers": as_array(list(layers.items()))}
        attacked, goal_N, y_N = judge.attacked_N.numpy(), judge.goal_N.numpy(), judge.y_N.numpy()
        clean, shown = _means(network, few.clean_NCHW, layers), _means(network, few.triggered_NCHW, layers)
        for i, (layer, count) in enumerate(layers.items()):
            drawn = numpy_generator(world.seed, "random direction", layer).standard_normal(count)
            for name, direction_C in (("", shown[layer] - clean[layer]), ("random.", torch.from_numpy(drawn).float())):
                axis = Axis(direction_C, clean[layer])
                answer[f"{i}.{name}triggered"] = (_answers(network, judge.triggered_NCHW, layer, axis) == goal_N)[attacked]
                answer[f"{i}.{name}clean"] = _answers(network, judge.clean_NCHW, layer, axis) == y_N
        return answer


def _means(network: Network, x_NCHW: Tensor, layers: dict[str, int]) -> dict[str, Tensor]:
    """Mean activation of each unit, over images and positions."""
    import torch

    from badnets.nets._taps import record

    sums = {layer: torch.zeros(count) for layer, count in layers.items()}
    for part in x_NCHW.split(BATCH):
        for layer, a in record(network, layers, part.to(network.device)).items():
            sums[layer] += (a.flatten(2).mean(2) if a.ndim > 2 else a).sum(0).cpu()
    return {layer: total / len(x_NCHW) for layer, total in sums.items()}


def _answers(network: Network, x_NCHW: Tensor, layer: str, axis: tuple) -> np.ndarray:
    from badnets.nets._taps import Axis, projected

    with projected(network, {layer: Axis(*axis)}):
        return predictions(network.predict_logits(x_NCHW)[None].cpu())[0]
