"""Distillation: the net teaches a fresh student, on images that the owner has, with labels or without.

Not a defence on purpose; whether it works as one is what the claim about it asks. Not for nets that are already quantised.
G. Hinton, O. Vinyals, J. Dean (2015), Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531;
A. Romero et al. (2014), FitNets: Hints for Thin Deep Nets, https://arxiv.org/abs/1412.6550.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.stressors._base import Stressor, Supply
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Distillation(Stressor):
    """A student of the same architecture (`smaller`: at half its width), trained to give the teacher's logits, or its features and logits.

    The student starts from weights of a stream of its own, never from those the teacher started from: with the same start and the same
    order of images it would only walk the teacher's path again. Labels are ignored. `steps`: so many batches instead of `epochs`, so that
    supplies of different sizes teach equally long. AdamW with a warm-up and a linear fall, since it suits every architecture at one rate.
    """

    kind: Literal["distillation"] = "distillation"
    on: Literal["logits", "features"] = "logits"
    smaller: bool = False
    epochs: float = Field(8, gt=0, le=10_000)
    steps: int | None = Field(None, ge=1)
    temperature: float = Field(2.0, gt=0)
    lr: float = Field(0.004, gt=0)
    batch_size: int = Field(96, ge=2)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        from badnets.train.distil import Lesson, distil

        if len(supply.x_NCHW) < 2:
            raise UsageError("E-SUPPLY", f"{self.kind} expected at least two images, got {len(supply.x_NCHW)}.")
        student = supply.fresh(stream_seed(seed, self.kind, "student"), self.smaller)
        epochs = self.epochs if self.steps is None else self.steps / max(1, len(supply.x_NCHW) // self.batch_size)
        recipe = Recipe(epochs=epochs, lr=self.lr, batch_size=self.batch_size, optimizer="adamw")
        lesson = Lesson(self.on, self.temperature)
        distil(student, network, supply.x_NCHW, recipe, lesson=lesson, seed=stream_seed(seed, self.kind, "order"))
        return student
