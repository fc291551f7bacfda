"""Trigger inversion: for all classes at once, the smallest change that sends clean images of every other class there.

Two kinds of change. `invert` looks for a mask and a pattern, x + mask (pattern - x), with the smallest sum over the mask: few pixels, of
any colour. `shorten` looks for something to add, x + delta cut to 0..1, of the smallest Euclidean length: faint changes of all pixels, too.
A further goal, `away`, asks for one change after which no image is what the net took it for, wherever it goes: what a backdoor with many
targets does, and what no search for a single target can find. Does not apply to a net that gives one class to everything: nothing is left
to be moved. Where images come from is the net's own answer to them, so no labels are needed.
B. Wang et al. (2019), Neural Cleanse, https://sites.cs.ucsb.edu/~bolunwang/assets/docs/backdoor-sp19.pdf (mask, pattern, a cost that
follows the success); J. Rony et al. (2019), Decoupling Direction and Norm, https://arxiv.org/abs/1811.09600 (the length that follows the
success; there for one image).
We depart from both in that every goal has a cost or length, a best answer and an end of its own while one batch serves all of them (no
goal can see another, so the order of the classes means nothing); the cost moves a little in every step instead of much in every fifth;
each class that images come from weighs the same; the same images are used in every step, so nothing is drawn.
Shapes: G goals (the K classes in their order, then `away`, as asked for), K classes, B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from badnets.core.config import Config
from badnets.nets._base import Network, unit_interval

Goals = Literal["classes", "away", "both"]
AT_ONCE = 2_000
"""Changed images in one pass; more only need more memory."""
RISE = 1.5 ** (1 / 5)
"""The paper's factor, spread over the steps that it waits; after a first success a cost falls by the power 1.5 of it."""


class Search(Config):
    """How long and how hard to look. `threshold`: the share of images that must go where they should. `patience`: a goal ends when its best
    answer has shrunk by less than a hundredth in so many steps. `start`: what a mask holds at first; `cost`: of a mask's sum, at first."""

    steps: int = Field(200, ge=1)
    threshold: float = Field(0.95, gt=0, le=1)
    lr: float = Field(0.2, gt=0)
    cost: float = Field(1e-3, gt=0)
    start: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(40, ge=1)


@dataclass(frozen=True, eq=False)
class Inversion:
    """The smallest trigger found for each goal: stamped images are x + mask (pattern - x).

    `norm_G`: the sum over the mask; infinite where nothing reached the threshold (what was tried last is there to be seen) and NaN where
    no image had to be moved. `success_G`: the share that went there. `steps_G`: steps taken.
    """

    mask_G1HW: Tensor
    pattern_GCHW: Tensor
    norm_G: Tensor
    success_G: Tensor
    steps_G: Tensor

    def stamp(self, goal: int, x_NCHW: Tensor) -> Tensor:
        """The images (uint8, or 0..1) with the trigger of one goal, as floats in 0..1."""
        x_NCHW = unit_interval(x_NCHW)
        return x_NCHW + self.mask_G1HW[goal] * (self.pattern_GCHW[goal] - x_NCHW)


@dataclass(frozen=True, eq=False)
class Shift:
    """The shortest addition found for each goal; the rest as in Inversion, with the Euclidean length as `norm_G`."""

    delta_GCHW: Tensor
    norm_G: Tensor
    success_G: Tensor
    steps_G: Tensor

    def stamp(self, goal: int, x_NCHW: Tensor) -> Tensor:
        """The images (uint8, or 0..1) with the addition of one goal, as floats in 0..1."""
        return (unit_interval(x_NCHW) + self.delta_GCHW[goal]).clamp(0, 1)


def few_of_each(x_NCHW: Tensor, y_N: Tensor, count: int) -> Tensor:
    """Up to about `count` images, the first of each class alike, in the given order."""
    if not len(y_N):
        return x_NCHW
    classes = y_N.unique()
    each = max(1, -(-count // len(classes)))
    rows = torch.cat([(y_N == k).nonzero()[:each, 0] for k in classes])
    return x_NCHW[rows.sort().values]


def invert(network: Network, x_NCHW: Tensor, search: Search, *, goals: Goals = "classes") -> Inversion:
    """The smallest masks; the net is left as it was, and its parameters get no gradient."""
    with _evaluating(network):
        aims = _Aims(network, x_NCHW, goals)
        seeker = _Masks(aims, search)
        seeker.run()
    shapes = (x_NCHW.shape[2], x_NCHW.shape[3])
    mask, pattern = seeker.best_GV.split((math.prod(shapes), seeker.best_GV.shape[1] - math.prod(shapes)), dim=1)
    return Inversion(mask.reshape(-1, 1, *shapes), pattern.reshape(-1, *x_NCHW.shape[1:]), seeker.norm_G, seeker.success_G, seeker.steps_G)


def shorten(network: Network, x_NCHW: Tensor, search: Search, *, goals: Goals = "classes") -> Shift:
    """The shortest additions; of `search`, `lr`, `cost` and `start` do not matter. The net is left as it was."""
    with _evaluating(network):
        aims = _Aims(network, x_NCHW, goals)
        seeker = _Additions(aims, search)
        seeker.run()
    return Shift(seeker.best_GV.reshape(-1, *x_NCHW.shape[1:]), seeker.norm_G, seeker.success_G, seeker.steps_G)


@contextmanager
def _evaluating(network: Network) -> Generator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


class _Aims:
    """The images, and where each goal wants them."""

    def __init__(self, network: Network, x_NCHW: Tensor, goals: Goals) -> None:
        self.network, num_classes = network, network.num_classes
        self.x_BCHW = unit_interval(x_NCHW.to(network.device))
        own_B = network.predict_logits(x_NCHW).argmax(dim=1)
        own_BK = one_hot(own_B, num_classes).bool()
        by_class_KBK = torch.eye(num_classes, dtype=torch.bool, device=own_B.device)[:, None].expand(-1, len(own_B), -1)
        self.wanted_GBK = torch.cat([*([by_class_KBK] if goals != "away" else []), *([~own_BK[None]] if goals != "classes" else [])])
        # Each class that images come from weighs the same, however many of its images there are; those already there weigh nothing.
        share_B = 1 / own_BK.sum(dim=0)[own_B]
        weight_GB = share_B * ~self.wanted_GBK[:, torch.arange(len(own_B)), own_B]
        self.weight_GB = weight_GB / weight_GB.sum(dim=1, keepdim=True)

    @property
    def num_goals(self) -> int:
        return len(self.weight_GB)

    def ask(self, goal_G: Tensor, changed_GBCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient (G B C H W) of each goal's loss with respect to its changed images, and the share that is where it should be.

        The loss of an image is -log of the probability of the classes where it should be.
        """
        changed = changed_GBCHW.flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            logits_GBK = self.network(changed).float().unflatten(0, changed_GBCHW.shape[:2])
            there_GB = logits_GBK.masked_fill(~self.wanted_GBK[goal_G], -math.inf).logsumexp(dim=2)
            loss = ((logits_GBK.logsumexp(dim=2) - there_GB) * self.weight_GB[goal_G]).sum()
        (found,) = torch.autograd.grad(loss, [changed])
        arrived_GB = self.wanted_GBK[goal_G].gather(2, logits_GBK.detach().argmax(dim=2, keepdim=True))[..., 0]
        return found.unflatten(0, changed_GBCHW.shape[:2]), (arrived_GB * self.weight_GB[goal_G]).sum(dim=1)


class _Seeker:
    """The search for all goals together. V: the numbers that describe one goal's change. A subclass knows how they change an image."""

    def __init__(self, aims: _Aims, search: Search, size: int) -> None:
        count, device = aims.num_goals, aims.x_BCHW.device
        self.aims, self.search, self.step = aims, search, 0
        self.best_GV = torch.zeros(count, size, device=device)
        self.norm_G = torch.full((count,), math.inf, device=device)
        self.success_G, self.mark_G = torch.zeros(count, device=device), torch.full((count,), math.inf, device=device)
        self.steps_G, self.since_G = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        self.tight_G = torch.zeros(count, dtype=torch.bool, device=device)
        self.open_G = aims.weight_GB.isfinite().all(dim=1)
        self.norm_G[~self.open_G] = math.nan

    def run(self) -> None:
        each = max(1, AT_ONCE // len(self.aims.x_BCHW))
        with torch.no_grad():
            while self.step < self.search.steps:
                self.step += 1
                goals_G = self.open_G.nonzero()[:, 0]
                if not len(goals_G):
                    return
                for goal_G in goals_G.split(each):
                    self._move(goal_G)
                self.steps_G[goals_G] = self.step

    def _move(self, goal_G: Tensor) -> None:
        raise NotImplementedError

    def _note(self, goal_G: Tensor, found_GV: Tensor, norm_G: Tensor, success_G: Tensor) -> Tensor:
        """Keeps what is the smallest so far at the moment it is seen, ends goals that have come to rest; which goals were reached."""
        reached_G = success_G >= self.search.threshold - 1e-6
        better_G = reached_G & (norm_G < self.norm_G[goal_G])
        # Before anything was reached, what was tried last.
        shown_G = better_G | self.norm_G[goal_G].isinf()
        self.best_GV[goal_G[shown_G]], self.success_G[goal_G[shown_G]] = found_GV[shown_G], success_G[shown_G]
        self.norm_G[goal_G[better_G]] = norm_G[better_G]
        much_G = self.norm_G[goal_G] < 0.99 * self.mark_G[goal_G]
        self.mark_G[goal_G] = torch.where(much_G, self.norm_G[goal_G], self.mark_G[goal_G])
        # Rest counts only after smaller was tried and failed: before, the cost is still too low to press.
        self.tight_G[goal_G] |= ~reached_G & self.norm_G[goal_G].isfinite()
        self.since_G[goal_G] = torch.where(much_G | ~self.tight_G[goal_G], 0, self.since_G[goal_G] + 1)
        self.open_G[goal_G] = self.since_G[goal_G] < self.search.patience
        return reached_G


class _Masks(_Seeker):
    """Mask and pattern are sigmoids of free numbers, moved by Adam, which treats every number (and so every goal) by itself."""

    def __init__(self, aims: _Aims, search: Search) -> None:
        _, channels, *plane = aims.x_BCHW.shape
        self.pixels = math.prod(plane)
        super().__init__(aims, search, self.pixels * (1 + channels))
        self.free_GV = torch.zeros_like(self.best_GV)
        self.free_GV[:, : self.pixels] = math.log(search.start / (1 - search.start))
        self.mean_GV, self.square_GV = (torch.zeros_like(self.best_GV) for _ in range(2))
        self.cost_G = torch.full_like(self.norm_G, search.cost)

    def _move(self, goal_G: Tensor) -> None:
        x_BCHW = self.aims.x_BCHW
        value_GV = self.free_GV[goal_G].sigmoid()
        mask_G1HW = value_GV[:, : self.pixels].reshape(-1, 1, *x_BCHW.shape[2:])
        pattern_GCHW = value_GV[:, self.pixels :].reshape(-1, *x_BCHW.shape[1:])
        changed_GBCHW = torch.lerp(x_BCHW[None], pattern_GCHW[:, None], mask_G1HW[:, None])
        wish_GBCHW, success_G = self.aims.ask(goal_G, changed_GBCHW)
        norm_G = mask_G1HW.sum(dim=(1, 2, 3))
        reached_G = self._note(goal_G, value_GV, norm_G, success_G)
        total_GCHW = wish_GBCHW.sum(dim=1)
        by_mask_G1HW = (pattern_GCHW * total_GCHW - (wish_GBCHW * x_BCHW).sum(dim=1)).sum(dim=1, keepdim=True)
        by_mask_GV, by_pattern_GV = by_mask_G1HW.flatten(1) + self.cost_G[goal_G, None], (total_GCHW * mask_G1HW).flatten(1)
        fall_G = torch.where(self.norm_G[goal_G].isfinite(), RISE**-1.5, 1.0)
        self.cost_G[goal_G] *= torch.where(reached_G, RISE, fall_G)
        self._adam(goal_G, torch.cat([by_mask_GV, by_pattern_GV], dim=1) * value_GV * (1 - value_GV))

    def _adam(self, goal_G: Tensor, slope_GV: Tensor, first: float = 0.5, second: float = 0.9) -> None:
        """With the paper's short memories."""
        mean_GV = self.mean_GV[goal_G].lerp_(slope_GV, 1 - first)
        square_GV = self.square_GV[goal_G].lerp_(slope_GV.square(), 1 - second)
        self.mean_GV[goal_G], self.square_GV[goal_G] = mean_GV, square_GV
        size_GV = (square_GV / (1 - second**self.step)).sqrt_().add_(1e-12)
        self.free_GV[goal_G] -= self.search.lr * (mean_GV / (1 - first**self.step)) / size_GV


class _Additions(_Seeker):
    """Direction and length apart: the gradient turns the addition, success shortens it and failure lengthens it."""

    def __init__(self, aims: _Aims, search: Search) -> None:
        super().__init__(aims, search, math.prod(aims.x_BCHW.shape[1:]))
        self.delta_GV = torch.zeros_like(self.best_GV)
        # A length that is a small part of the image's, so that it is not too long for any net.
        self.length_G = torch.full_like(self.norm_G, 0.03 * math.sqrt(self.best_GV.shape[1]))

    def _move(self, goal_G: Tensor) -> None:
        x_BCHW = self.aims.x_BCHW
        delta_GV = self.delta_GV[goal_G]
        changed_GBCHW = x_BCHW[None] + delta_GV.reshape(-1, 1, *x_BCHW.shape[1:])
        inside_GBCHW = (changed_GBCHW >= 0) & (changed_GBCHW <= 1)
        wish_GBCHW, success_G = self.aims.ask(goal_G, changed_GBCHW.clamp_(0, 1))
        reached_G = self._note(goal_G, delta_GV, delta_GV.norm(dim=1), success_G)
        turn_GV = (wish_GBCHW * inside_GBCHW).sum(dim=1).flatten(1)
        left = 0.5 * (1 + math.cos(math.pi * self.step / self.search.steps))
        length_G = self.length_G[goal_G] * torch.where(reached_G, 0.99 - 0.1 * left, 1.01 + 0.1 * left)
        delta_GV = delta_GV - (0.02 + 0.5 * left) * length_G[:, None] * _unit(turn_GV)
        self.delta_GV[goal_G], self.length_G[goal_G] = length_G[:, None] * _unit(delta_GV), length_G


def _unit(v_GV: Tensor) -> Tensor:
    return v_GV / v_GV.norm(dim=1, keepdim=True).clamp_min(1e-20)
