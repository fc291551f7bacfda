"""Adversarial unlearning: learns clean images under the worst universal perturbation, by an implicit hypergradient (I-BAU).

Does not apply where no small change of all images alike moves the net: a trigger unit that is silent on clean images has no gradient.
Y. Zeng, S. Chen, W. Park, Z. M. Mao, M. Jin, R. Jia (2022), Adversarial Unlearning of Backdoors via Implicit Hypergradient,
https://arxiv.org/abs/2110.03735. Departures: perturbed pixels stay in 0..1; the radius is per pixel, so it means the same for images of all
sizes (the authors' 10 on 3x32x32); a round that costs more than `max_loss` of clean validation accuracy is undone and the radius halved:
what is small in photographs is large in drawings; the ascent takes steps of fixed length; of the outer loss a `share` is of perturbed
images; 10 rounds of small batches over hundreds of images, for 5 of large ones over thousands.
Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from badnets.core.rng import generator
from badnets.core.view import View
from badnets.nets._base import unit_interval
from badnets.repairs._base import Repair
from badnets.repairs._tuning import Labelled, hits, parts
from badnets.train.optim import make_optimizer
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from badnets.nets._base import Network

PENALTY, INNER_LR, SMALLEST_NORM = 1e-3, 0.1, 1e-12


class IBau(Repair):
    """`rounds` of: find the perturbation by `steps` of ascent, then one pass over the clean images with Adam at `lr`.

    `radius`: root of the mean square of the perturbation at first. `fixed_points`: iterations for the implicit part of the gradient.
    """

    kind: Literal["i_bau"] = "i_bau"
    rounds: int = Field(10, ge=1, le=1000)
    steps: int = Field(10, ge=1, le=10_000)
    batch_size: int = Field(32, ge=2)
    lr: float = Field(1e-3, gt=0)
    radius: float = Field(0.18, gt=0, le=1)
    share: float = Field(0.5, gt=0, le=1)
    fixed_points: int = Field(5, ge=0, le=100)
    max_loss: float = Field(0.04, ge=0, le=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        network = view.network.requires_grad_()
        (x_NCHW, y_N), held = parts(view)
        learn = (unit_interval(x_NCHW).to(network.device), y_N.to(network.device))
        least = hits(network, held) - self.max_loss * len(held[1]) - 1e-6
        kept, good, radius = copy.deepcopy(network.state_dict()), 0, self.radius
        optimizer = make_optimizer(network, Recipe(epochs=1, optimizer="adamw", lr=self.lr, weight_decay=0.0))
        for number in range(self.rounds):
            batches = [*self._batches(learn, seed, number)]
            # Fused attention has no second derivative.
            with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
                delta_CHW = self.worst(network, batches, radius)
                for batch in batches:
                    for p, slope in zip(optimizer.parameters, self.hypergradient(network, batch, batches[0], delta_CHW), strict=True):
                        p.grad = slope
                    optimizer.step(1.0)
            if hits(network, held) >= least:
                # A copy: what state_dict() gives is the net's own memory.
                kept, good = copy.deepcopy(network.state_dict()), good + 1
            else:
                network.load_state_dict(kept)
                radius /= 2
        optimizer.zero_grad()
        return network, f"{good} of {self.rounds} rounds kept, the last radius {radius:.3f}"

    def _batches(self, learn: Labelled, seed: int, number: int) -> Iterator[Labelled]:
        order_N = torch.randperm(len(learn[1]), generator=generator(seed, self.kind, number))
        for rows in order_N.split(self.batch_size):
            yield learn[0][rows], learn[1][rows]

    def worst(self, network: Network, batches: list[Labelled], radius: float) -> Tensor:
        """delta_CHW: what added to all images raises their loss most, found by normalised ascent within the ball; one batch a step."""
        delta_CHW = torch.zeros(network.shape, device=network.device)
        length = radius * math.sqrt(delta_CHW.numel())
        for batch in itertools.islice(itertools.cycle(batches), self.steps):
            (up_CHW,) = torch.autograd.grad(perturbed_loss(network, batch, delta_CHW.requires_grad_()), [delta_CHW])
            moved_CHW = delta_CHW.detach() + 2 * length / self.steps * up_CHW / up_CHW.norm().clamp_min(SMALLEST_NORM)
            delta_CHW = moved_CHW * (length / moved_CHW.norm().clamp_min(length))
        return delta_CHW

    def hypergradient(self, network: Network, batch: Labelled, inner: Labelled, delta_CHW: Tensor) -> list[Tensor]:
        """The gradient of the outer loss with respect to the net's parameters, through the dependence of the perturbation on them too.

        A perturbation that ascent leaves alone is a fixed point of F = delta - a grad(g), g the inner loss; so d delta / d theta =
        (1 - dF/d delta)^-1 dF/d theta, whose inverse is summed up to the power `fixed_points`.
        """
        parameters = [p for p in network.parameters() if p.requires_grad]
        delta_CHW = delta_CHW.detach().requires_grad_()
        plain = cross_entropy(network(batch[0]), batch[1]) if self.share < 1 else torch.zeros(())
        outer = (1 - self.share) * plain + self.share * perturbed_loss(network, batch, delta_CHW)
        first_CHW, *direct = torch.autograd.grad(outer, [delta_CHW, *parameters], allow_unused=True, materialize_grads=True)
        g = PENALTY * delta_CHW.square().sum() - perturbed_loss(network, inner, delta_CHW)
        (slope_CHW,) = torch.autograd.grad(g, [delta_CHW], create_graph=True)
        adjoint_CHW = first_CHW
        for _ in range(self.fixed_points):
            (bent_CHW,) = torch.autograd.grad(slope_CHW, [delta_CHW], adjoint_CHW, retain_graph=True)
            adjoint_CHW = first_CHW + adjoint_CHW - INNER_LR * bent_CHW
        mixed = torch.autograd.grad(slope_CHW, parameters, adjoint_CHW, allow_unused=True, materialize_grads=True)
        return [d - INNER_LR * m for d, m in zip(direct, mixed, strict=True)]


def perturbed_loss(network: Network, batch: Labelled, delta_CHW: Tensor) -> Tensor:
    """The mean cross-entropy of the batch with the perturbation added to every image."""
    x_NCHW, y_N = batch
    return cross_entropy(network((x_NCHW + delta_CHW).clamp(0.0, 1.0)), y_N)
