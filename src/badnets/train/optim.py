"""Optimisers by name, the schedule, and Muon; ours, because the first `torch.optim` object of a process imports the compiler.

That import costs 1.7 s of CPU in every worker; the tests compare SGD and AdamW with torch's own.
Muon does not apply to biases, norms, the first and the last layer: those get SGD, at `lr` times `SGD_SHARE`.
I. Loshchilov, F. Hutter (2017), Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101
K. Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks, https://kellerjordan.github.io/posts/muon/
L. Smith, N. Topin (2017), Super-Convergence, https://arxiv.org/abs/1708.07120
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from badnets.train.recipe import Recipe

SGD_SHARE = 0.2
ADAM_BETA2, ADAM_EPSILON = 0.99, 1e-8


def lr_factor(step: int, total: int, recipe: Recipe) -> float:
    """Share of the peak learning rate in step 0 <= `step` < `total`: taken at the middle of the step, so any total is fine."""
    place = (step + 0.5) / total
    if place < recipe.warmup:
        return place / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    rest = (place - recipe.warmup) / (1 - recipe.warmup)
    fall = rest if recipe.schedule == "linear" else (1 - math.cos(math.pi * rest)) / 2
    return 1.0 + (recipe.final_lr - 1.0) * fall


class Optimizer(ABC):
    """Updates a fixed list of parameters; its whole memory is `state`, one dict of tensors a parameter, and `steps`."""

    fields: ClassVar[tuple[str, ...]] = ("momentum",)

    def __init__(self, parameters: Sequence[Tensor], recipe: Recipe) -> None:
        self.parameters, self.recipe, self.steps = list(parameters), recipe, 0
        self.state = [{field: torch.zeros_like(p, requires_grad=False) for field in self.fields} for p in parameters]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update at `factor` times the recipe's learning rate; a parameter without a gradient stays as it is."""
        self.steps += 1
        for p, state in zip(self.parameters, self.state, strict=True):
            if p.grad is not None:
                self._update(p, p.grad, state, self.recipe.lr * factor)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def decay(self, p: Tensor) -> float:
        """Biases and norms are not decayed."""
        return self.recipe.weight_decay if p.ndim >= 2 else 0.0

    @abstractmethod
    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], lr: float) -> None:
        """Changes one parameter in place."""


class Sgd(Optimizer):
    """Stochastic gradient descent with Nesterov momentum."""

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], lr: float) -> None:
        grad = grad.add(p, alpha=self.decay(p)) if self.decay(p) else grad
        momentum = state["momentum"].mul_(self.recipe.momentum).add_(grad)
        p.add_(grad, alpha=-lr).add_(momentum, alpha=-lr * self.recipe.momentum)


class AdamW(Optimizer):
    """Adam with decoupled weight decay; `momentum` is its first beta."""

    fields = ("momentum", "square")

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], lr: float) -> None:
        beta = self.recipe.momentum
        momentum = state["momentum"].lerp_(grad, 1 - beta)
        square = state["square"].mul_(ADAM_BETA2).addcmul_(grad, grad, value=1 - ADAM_BETA2)
        scale = square.div(1 - ADAM_BETA2**self.steps).sqrt_().add_(ADAM_EPSILON)
        p.mul_(1 - lr * self.decay(p)).addcdiv_(momentum, scale, value=-lr / (1 - beta**self.steps))


class Muon(Optimizer):
    """Nesterov momentum whose update of a hidden weight is replaced by a nearly orthogonal matrix; SGD for the rest."""

    def __init__(self, parameters: Sequence[Tensor], recipe: Recipe, hidden: Sequence[Tensor]) -> None:
        super().__init__(parameters, recipe)
        self.hidden = {id(p) for p in hidden}

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], lr: float) -> None:
        momentum = state["momentum"].mul_(self.recipe.momentum).add_(grad)
        update = grad.add(momentum, alpha=self.recipe.momentum)
        if id(p) in self.hidden:
            update = orthogonalized(update.reshape(len(update), -1)).reshape(p.shape)
        else:
            lr = lr * SGD_SHARE
        p.mul_(1 - lr * self.decay(p)).add_(update, alpha=-lr)


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over all parameters that want a gradient."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return Sgd(parameters, recipe)
    if recipe.optimizer == "adamw":
        return AdamW(parameters, recipe)
    return Muon(parameters, recipe, [m.weight for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][1:-1])


def orthogonalized(matrix_RC: Tensor, steps: int = 5) -> Tensor:
    """Near the orthogonal factor of the matrix (singular values in about 0.7..1.2), scaled by sqrt(max(1, rows / columns))."""
    x = matrix_RC / (matrix_RC.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.mT if tall else x
    for _ in range(steps):
        square = x @ x.mT
        # The quintic of Jordan et al.: steepest at zero, so that small singular values rise in few steps.
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    x = x.mT if tall else x
    return x * max(1.0, matrix_RC.shape[0] / matrix_RC.shape[1]) ** 0.5
