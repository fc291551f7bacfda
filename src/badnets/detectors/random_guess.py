"""Guesses: the null instrument whose scores know nothing, so that its AUROC is 0.5 in the long run.

Not a detector: a method whose interval holds this one's figures has found nothing.
"""

from __future__ import annotations

from typing import Literal

from badnets.core.finding import Answer, Level
from badnets.core.rng import numpy_generator
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._null import num_judged


class RandomGuess(Detector):
    """A uniform draw for the net, or for every input or row."""

    kind: Literal["random_guess"] = "random_guess"
    null = True
    on: Level = Level.MODEL

    @property
    def level(self) -> Level:
        return self.on

    def _scan(self, view: View, seed: int) -> Answer:
        draw = numpy_generator(seed, "guess")
        if self.on is Level.MODEL:
            return Answer(score=float(draw.random()))
        score_N = draw.random(num_judged(view))
        return Answer(score_N=score_N, flag_N=score_N > 0.5)
