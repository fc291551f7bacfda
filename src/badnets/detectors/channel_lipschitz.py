"""Channel Lipschitzness: asks of the weights alone whether one unit could react far more strongly than the rest of its layer.

Data-free, no image is judged. Does not apply to nets without marked units. It cannot see a backdoor that is spread over many units, and a
clean net may well have one strong unit: the score means something beside those of clean nets of the same architecture.
R. Zheng, R. Tang, J. Li, L. Liu (2022), Data-free Backdoor Removal based on Channel Lipschitzness, https://arxiv.org/abs/2208.03111
Departures: the paper prunes channels above mean + u standard deviations, here the largest deviation is the score, in units of the median
absolute deviation (one huge channel widens the standard deviation it is measured by). With `reach` "logit" the bound goes on through
the head: the last layer's bound times what the unit adds to one logit beyond the mean of all, which also names the class. Weights are
folded with a norm behind them. In a transformer the units are the rows of the MLP; the LayerNorm before them is not bounded.
Shapes: U units of a layer, I inputs of a unit, J positions of a kernel, K classes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from badnets.core.finding import Answer, Level
from badnets.core.view import View
from badnets.detectors._base import Detector

if TYPE_CHECKING:
    from badnets.nets._base import Network

FEWEST = 4
"""Units without which a layer has no spread to speak of."""
TIGHTEST = 0.01
"""A layer's spread is taken to be at least this share of its median."""


class ChannelLipschitz(Detector):
    """Score: the largest robust z of a unit's bound within its layer. `reach`: image to `channel`, in every layer (the paper), or image to
    `logit`, through the last layer of units."""

    kind: Literal["channel_lipschitz"] = "channel_lipschitz"
    judges = Level.MODEL
    reach: Literal["channel", "logit"] = "logit"

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        from badnets.nets._taps import unit_layers

        layers = [name for name, count in unit_layers(view.network).items() if count >= FEWEST]
        if not layers:
            return Answer(why_not=f"needs a layer of at least {FEWEST} marked units")
        bound = {name: bounds(view.network, name) for name in layers}
        z, unit, where = max((*_strongest(bound_U), name) for name, bound_U in bound.items())
        if self.reach == "channel":
            return Answer(score=z, note=f"unit {unit} of {where}")
        answer = _to_logits(view.network, bound[layers[-1]])
        return dataclasses.replace(answer, note=f"{answer.note}; by channels unit {unit} of {where}, z {z:.3g}")


def _to_logits(network: Network, bound_U: Tensor) -> Answer:
    from badnets.train.distil import head

    reader = head(network)
    if reader.in_features != len(bound_U):
        return Answer(why_not="the head does not read the last layer of units one by one")
    written_KU = reader.weight.detach().double()
    reach_KU = bound_U * (written_KU - written_KU.mean(dim=0)).clamp_min(0)
    z_KU = robust_z(reach_KU.amax(dim=0), reach_KU)
    score_K = z_KU.amax(dim=1)
    target = int(score_K.argmax())
    unit = int(z_KU[target].argmax())
    return Answer(score=float(score_K[target]), score_K=score_K.cpu().numpy(), target=target, note=f"unit {unit} of the last layer")


def bounds(network: Network, layer: str) -> Tensor:
    """bound_U: the largest factor by which a layer's unit can answer a change of what it reads (the spectral norm of its kernel)."""
    from badnets.nets._taps import incoming

    weight = incoming(network, layer).double()
    if weight.ndim == 1:
        return weight.abs()
    kernel_UIJ = weight.reshape(weight.shape[0], weight.shape[1], -1)
    return kernel_UIJ.norm(dim=1)[:, 0] if kernel_UIJ.shape[2] == 1 else torch.linalg.matrix_norm(kernel_UIJ, ord=2)


def robust_z(null_U: Tensor, values: Tensor) -> Tensor:
    """How many robust standard deviations of the null the values lie above its median."""
    middle = null_U.median()
    spread = 1.4826 * (null_U - middle).abs().median()
    return (values - middle) / spread.clamp_min(TIGHTEST * float(middle.abs()) + 1e-12)


def _strongest(bound_U: Tensor) -> tuple[float, int]:
    z_U = robust_z(bound_U, bound_U)
    return float(z_U.max()), int(z_U.argmax())
