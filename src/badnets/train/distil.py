"""Distillation: a student learns from a teacher's answers to some images; nobody's labels are needed.

Does not apply to nets without a linear head, whose features could not be matched, nor together with augmentation: the teacher is asked
once, about the images as they are.
G. Hinton, O. Vinyals, J. Dean (2015), Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531 (logits);
A. Romero et al. (2014), FitNets: Hints for Thin Deep Nets, https://arxiv.org/abs/1412.6550 (features, with a linear map for a student of
another width).
Shapes: N images, C channels, H rows, W columns, K classes, F features of the teacher (what its last linear layer reads), E of the student.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.nets._base import Network
from badnets.nets._taps import overheard
from badnets.train.fit import FitReport, fit
from badnets.train.recipe import Recipe

On = Literal["logits", "features"]
TOLD_AT_ONCE = 500


@dataclass(frozen=True)
class Lesson:
    """How a student learns: from the teacher's `logits` softened by `temperature`, or from its `features` and its logits."""

    on: On = "logits"
    temperature: float = 4.0


def distil(student: Network, teacher: Network, x_NCHW: Tensor, recipe: Recipe, *, lesson: Lesson, seed: int) -> FitReport:
    """Trains `student` in place to answer the uint8 images as `teacher` does; the teacher is left as it was."""
    if recipe.flip or recipe.shift or recipe.cutout:
        raise UsageError("E-CONFIG", "expected a recipe without augmentation: the teacher is asked once, about the images as they are.")
    answers_NF, logits_NK = answers(teacher, x_NCHW)
    if lesson.on == "logits":
        return fit(student, x_NCHW, logits_NK, recipe, seed=seed, objective=_Logits(lesson.temperature))
    with _mapped(student, answers_NF, seed) as objective:
        return fit(student, x_NCHW, torch.cat([logits_NK, answers_NF], dim=1), recipe, seed=seed, objective=objective)


def answers(teacher: Network, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """What the teacher's head reads (N x F) and says (N x K), in evaluation mode."""
    features, logits = [], []
    training = teacher.training
    teacher.eval()
    try:
        with torch.no_grad(), overheard(teacher, head(teacher)) as heard:
            for part in x_NCHW.split(TOLD_AT_ONCE):
                logits.append(teacher(part.to(teacher.device)).float())
                features.append(heard.pop().float())
    finally:
        teacher.train(training)
    return torch.cat(features), torch.cat(logits)


def head(network: Network) -> nn.Linear:
    """The last linear layer; it reads the features and gives the logits."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UsageError("E-HEAD", "expected a net with a linear head, got one without.", hint="Distil it before it is quantised.")
    return linear[-1]


@dataclass(frozen=True)
class _Logits:
    """Cross-entropy to the teacher's tempered probabilities, times its square, so that the gradient's size does not depend on it."""

    temperature: float

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        return self.of(network(x_NCHW).float(), y_N)

    def of(self, logits_NK: Tensor, wanted_NK: Tensor) -> Tensor:
        t = self.temperature
        return t * t * cross_entropy(logits_NK / t, (wanted_NK / t).softmax(dim=1))

    def constant_loss(self, y_N: Tensor) -> float:
        t = self.temperature
        return t * t * float(torch.special.entr((y_N / t).softmax(dim=1).mean(dim=0).double()).sum())


@dataclass(frozen=True, eq=False)
class _Features:
    """Mean squared error of the features (after the map, if there is one) in units of the teacher's own variance, plus the cross-entropy
    of the logits at temperature 1, without which the student's head would learn nothing."""

    heard: list[Tensor]
    bridge: nn.Module
    variance: float
    num_classes: int

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        logits_NK = network(x_NCHW).float()
        wanted_NK, wanted_NF = y_N[:, : self.num_classes], y_N[:, self.num_classes :]
        off_NF = self.bridge(self.heard.pop()).float() - wanted_NF
        return off_NF.square().mean() / self.variance + _Logits(1.0).of(logits_NK, wanted_NK)

    def constant_loss(self, y_N: Tensor) -> float:
        return 1.0 + _Logits(1.0).constant_loss(y_N[:, : self.num_classes])


@contextmanager
def _mapped(student: Network, answers_NF: Tensor, seed: int) -> Generator[_Features]:
    """The objective; a student of another width gets a linear map from its features to the teacher's, trained with it and then dropped."""
    own, wanted = head(student).in_features, answers_NF.shape[1]
    variance = float((answers_NF - answers_NF.mean(dim=0)).square().mean().clamp_min(1e-12))
    bridge: nn.Module = nn.Identity()
    if own != wanted:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, "distil", "map"))
            bridge = nn.Linear(own, wanted).to(student.device)
    with overheard(student, head(student)) as heard:
        # A child of the student, so that the one optimiser of the training finds its weights.
        student.add_module("bridge", bridge)
        try:
            yield _Features(heard, bridge, variance, student.num_classes)
        finally:
            del student.bridge
