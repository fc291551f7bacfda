"""Optimisers by name, the schedule, and Muon.

Muon does not apply to biases, norms and the last layer: those get SGD with the same momentum, at `lr` times `SGD_SHARE`.
Muon: K. Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks, https://kellerjordan.github.io/posts/muon/
One-cycle schedule: L. Smith, N. Topin (2017), Super-Convergence, https://arxiv.org/abs/1708.07120
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from badnets.train.recipe import Recipe

SGD_SHARE = 0.2


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


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over all parameters; no weight decay on biases and norms. Each group keeps its peak in `peak`."""
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    if recipe.optimizer == "muon":
        hidden = [m.weight for m in list(network.modules()) if isinstance(m, nn.Linear | nn.Conv2d)][1:-1]
        chosen = {id(p) for p in hidden}
        rest = [p for p in [*matrices, *vectors] if id(p) not in chosen]
        return _peaked(Muon(hidden, rest, recipe))
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return _peaked(AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.99), fused=True))
    return _peaked(SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True))


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Sets every group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _peaked(optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


class Muon(Optimizer):
    """Nesterov momentum whose update of a hidden weight is replaced by the nearest orthogonal matrix; SGD for the rest."""

    def __init__(self, hidden: Sequence[Tensor], rest: Sequence[Tensor], recipe: Recipe) -> None:
        common: dict[str, Any] = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
        groups: list[dict[str, Any]] = [
            {"params": hidden, "lr": recipe.lr, "orthogonal": True, **common},
            {"params": rest, "lr": recipe.lr * SGD_SHARE, "orthogonal": False, **common},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # ty: ignore[incompatible-method-override]
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
                update = p.grad.add(momentum, alpha=group["momentum"])
                if group["orthogonal"]:
                    update = orthogonalized(update.reshape(len(update), -1)).reshape(p.shape)
                if p.ndim >= 2:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"])


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
