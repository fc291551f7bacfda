"""Confidence: scores an input by the largest softmax probability, the null instrument of input-level detection.

Not a detector of backdoors: whatever makes a net sure of itself scores high. A method that does no better has measured confidence.
D. Hendrycks, K. Gimpel (2016), A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks,
https://arxiv.org/abs/1610.02136 (which takes low confidence as the sign; a trigger raises it).
"""

from __future__ import annotations

from typing import Literal

from badnets.core.finding import Answer, Level
from badnets.core.view import View
from badnets.detectors._base import Detector


class MaxSoftmax(Detector):
    """max over classes of p(class | input)."""

    kind: Literal["max_softmax"] = "max_softmax"
    judges = Level.INPUTS
    null = True

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        return Answer(score_N=view.network.predict_logits(view.need_inputs()).softmax(dim=1).amax(dim=1).numpy())
