"""ABL isolation: trains a fresh net without letting any loss fall low, and suspects the rows that get there all the same.

Not for triggers that are learned after the content, as faint ones and those of few rows may be: their rows then have the highest losses,
and the order is reversed.
Y. Li, X. Lyu, N. Koren, L. Lyu, B. Li, X. Ma (2021), Anti-Backdoor Learning: Training Clean Models on Poisoned Data,
https://arxiv.org/abs/2110.11571
The suspect lends its architecture alone: its weights are drawn anew. Departures: losses are held batch by batch (the gradient of local
ascent on a batch's mean is that of flooding), since ascent row by row holds the losses of poison up as well; few epochs instead of the
paper's twenty, since small nets and small images are learned sooner; the last layer starts at zero, so that no class is ahead of another
by luck (and the answer cannot depend on the order of classes); a net with layer norms, which plain descent hardly moves, is trained with
AdamW. The paper names no class: `score_K` is how many times more often a class has isolated rows than it would if they fell at random.
Unlearning, the second stage of the paper, is a repair.
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from badnets.core.finding import Answer, Level
from badnets.core.rng import generator, stream_seed
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._rows import Judged, answer, lacks_head, members_of, top
from badnets.train.distil import head
from badnets.train.fit import fit
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Abl(Detector):
    """`gamma`: where losses are held. `how`: "flooding" climbs with batches whose mean is below it, "ascent" with every row below it,
    "none" lets losses fall. `isolation`: the share of rows that is flagged."""

    kind: Literal["abl"] = "abl"
    judges = Level.ROWS
    access = Access.TRAINING
    epochs: float = Field(default=5.0, gt=0, le=1000)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.1, gt=0)
    how: Literal["flooding", "ascent", "none"] = "flooding"
    gamma: float = Field(default=0.5, ge=0)
    isolation: float = Field(default=0.01, gt=0, le=0.5)

    def _scan(self, view: View, seed: int) -> Answer:
        x_NCHW, y_N = view.need_training()
        if lacks_head(view):
            return Answer(why_not="needs a net with a linear head")
        labels_N = y_N.numpy()
        members = members_of(labels_N, view.num_classes, 1)
        if sum(len(index) for index in members.values()) < max(2, len(labels_N)):
            return Answer(why_not=f"needs two rows or more, with labels in 0..{view.num_classes - 1}")
        fresh = forget(view.network, stream_seed(seed, "abl", "fresh"))
        report = fit(fresh, x_NCHW, y_N, self._recipe(fresh), seed=stream_seed(seed, "abl"), objective=_Held(self.how, self.gamma))
        if report.diverged:
            return Answer(why_not="the fresh net's training diverged")
        score_N = -cross_entropy(fresh.predict_logits(x_NCHW), y_N.to(fresh.device), reduction="none").double().cpu().numpy()
        if not np.isfinite(score_N).all():
            return Answer(why_not="the fresh net's losses are not finite")
        bad_N = top(score_N, self.isolation)
        usual = bad_N.mean()
        found = {k: Judged(score_N[index], bad_N[index], float(bad_N[index].mean() / usual)) for k, index in members.items()}
        return answer(labels_N, view.num_classes, members, found)

    def _recipe(self, network: Network) -> Recipe:
        plain = Recipe(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=1e-4, warmup=0.0, schedule="constant")
        if any(isinstance(module, nn.LayerNorm) for module in network.modules()):
            return plain.but(optimizer="adamw", lr=self.lr / 100, weight_decay=0.01)
        return plain


@dataclass(frozen=True)
class _Held:
    """Cross-entropy that is not to fall below `gamma`."""

    how: Literal["flooding", "ascent", "none"]
    gamma: float

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        loss_N = cross_entropy(network(x_NCHW).float(), y_N, reduction="none")
        if self.how == "ascent":
            return (torch.sign(loss_N.detach() - self.gamma) * loss_N).mean()
        return (loss_N.mean() - self.gamma).abs() + self.gamma if self.how == "flooding" else loss_N.mean()

    def constant_loss(self, y_N: Tensor) -> float:
        share_K = torch.bincount(y_N).double() / len(y_N)
        return max(self.gamma, float(torch.special.entr(share_K).sum()))


def forget(network: Network, seed: int) -> Network:
    """The same net with weights drawn anew, all of which learn; its head gives zeros."""
    draw = generator(seed, "parameters")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(stream_seed(seed, "layers"))
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for p in module.parameters(recurse=False):
                    p.copy_(0.02 * torch.randn(p.shape, generator=draw))
        for p in head(network).parameters():
            p.zero_()
    return network.requires_grad_()
