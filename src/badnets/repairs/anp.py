"""Adversarial neuron pruning: units that do harm when their weights are perturbed are found with clean images, and removed.

Does not apply to a unit that no allowed perturbation wakes on clean images, nor to nets without marked units.
D. Wu, Y. Wang (2021), Adversarial Neuron Pruning Purifies Backdoored Deep Models, https://arxiv.org/abs/2110.14430
Departs from it: the threshold is not fixed but the highest that clean held-out accuracy allows (`max_loss`), and never chosen by triggered
images; fewer steps; a removed unit loses its bias too; batch norms keep their statistics while masks are learned.
Shapes: N images, C units of a layer (channels of images too), H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from badnets.core.rng import generator
from badnets.core.view import View
from badnets.nets._taps import unit_layers
from badnets.repairs._base import Repair
from badnets.repairs._channels import NO_UNITS, Scale, expendable, ranked, remove, scales
from badnets.repairs._tuning import Labelled, parts

if TYPE_CHECKING:
    from badnets.nets._base import Network

MOMENTUM, GRID = 0.9, 20

PerLayer = dict[str, Tensor]


class Anp(Repair):
    """Masks in 0..1 on the weights of every unit are learned in `steps` steps of rate `lr`.

    They minimise `alpha` times the clean loss plus 1 - `alpha` times the loss under the worst relative perturbation of weights and biases
    up to `epsilon` (one signed step from a random start). Then units are removed in the order of their masks, none above `highest`, for as
    long as clean accuracy has not fallen by more than `max_loss`.
    """

    kind: Literal["anp"] = "anp"
    epsilon: float = Field(0.4, gt=0, le=1)
    alpha: float = Field(0.2, ge=0, le=1)
    lr: float = Field(0.2, gt=0)
    steps: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    highest: float = Field(0.9, gt=0, lt=1)
    max_loss: float = Field(0.02, ge=0, lt=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        network = view.network
        if not unit_layers(network):
            return network, NO_UNITS
        learn, held = parts(view)
        order, masks = ranked(self._learn(network, learn, seed))
        thresholds = [self.highest * part / GRID for part in range(GRID + 1)]
        counts = [sum(mask <= threshold for mask in masks) for threshold in thresholds]
        pruned = expendable(network, order, sorted(set(counts) - {0}), held, self.max_loss)
        remove(network, pruned)
        last = f", masks up to {masks[len(pruned) - 1]:.2f}" if pruned else ""
        return network, f"pruned {len(pruned)} of {len(order)} units{last}"

    def _learn(self, network: Network, learn: Labelled, seed: int) -> PerLayer:
        """mask_C of every layer."""
        tilted, draw = _Tilted(network), generator(seed, self.kind)
        masks = {name: torch.ones(count, device=network.device) for name, count in unit_layers(network).items()}
        speeds = {name: torch.zeros_like(mask_C) for name, mask_C in masks.items()}
        for _ in range(self.steps):
            chosen_M = torch.randperm(len(learn[1]), generator=draw)[: self.batch_size]
            batch = tuple(part[chosen_M].to(network.device) for part in learn)
            sizes, offsets = self._worst(tilted, masks, batch, draw)
            own = {name: mask_C.requires_grad_() for name, mask_C in masks.items()}
            harmed = tilted.loss({name: own[name] + sizes[name] for name in own}, offsets, batch)
            loss = self.alpha * tilted.loss(own, {}, batch) + (1 - self.alpha) * harmed
            found = torch.autograd.grad(loss, list(own.values()))
            for name, grad_C in zip(own, found, strict=True):
                speeds[name].mul_(MOMENTUM).add_(grad_C)
                masks[name] = (own[name].detach() - self.lr * speeds[name]).clamp_(0.0, 1.0)
        return masks

    def _worst(self, tilted: _Tilted, masks: PerLayer, batch: tuple[Tensor, ...], draw: torch.Generator) -> tuple[PerLayer, PerLayer]:
        """Relative changes of sizes and offsets within `epsilon` that raise the loss."""
        start = [
            {name: _uniform(mask_C, self.epsilon, draw).requires_grad_() for name, mask_C in masks.items() if name in kept}
            for kept in (tilted.scales, tilted.with_bias)
        ]
        loss = tilted.loss({name: masks[name].detach() + start[0][name] for name in masks}, start[1], batch)
        found = iter(torch.autograd.grad(loss, [*start[0].values(), *start[1].values()], allow_unused=True))
        sizes, offsets = ({name: _stepped(change_C, next(found), self.epsilon) for name, change_C in part.items()} for part in start)
        return sizes, offsets


class _Tilted:
    """The net with every unit's weights and bias multiplied by factors; its own parameters stay as they are."""

    def __init__(self, network: Network) -> None:
        self.network, self.scales = network, scales(network)
        self.fixed = {name: p.detach() for name, p in network.named_parameters()}
        self.with_bias: Mapping[str, Scale] = {name: scale for name, scale in self.scales.items() if scale.bias is not None}

    def loss(self, factors: PerLayer, offsets: PerLayer, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean cross-entropy of the batch with weights times `factors` and biases times 1 + `offsets`."""
        x_NCHW, y_N = batch
        tilted = dict(self.fixed)
        for name, scale in self.scales.items():
            weight = self.fixed[scale.weight]
            tilted[scale.weight] = weight * factors[name].reshape([-1] + [1] * (weight.ndim - 1))
            if scale.bias is not None and name in offsets:
                tilted[scale.bias] = self.fixed[scale.bias] * (1 + offsets[name])
        return cross_entropy(functional_call(self.network, tilted, (x_NCHW,)).float(), y_N)


def _uniform(like_C: Tensor, reach: float, draw: torch.Generator) -> Tensor:
    return (torch.rand(like_C.shape, generator=draw).to(like_C.device) * 2 - 1) * reach


def _stepped(change_C: Tensor, grad_C: Tensor | None, reach: float) -> Tensor:
    change_C = change_C.detach()
    return change_C if grad_C is None else (change_C + reach * grad_C.sign()).clamp_(-reach, reach)
