"""What a detector says of a suspect: scores, never a verdict; the verdict is the harness's, from scores of nets known to be clean.

Shapes: N inputs or rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class Level(StrEnum):
    """What a detector judges: the net as a whole, inputs one by one, or rows of the training set."""

    MODEL = "model"
    INPUTS = "inputs"
    ROWS = "rows"


@dataclass(frozen=True, eq=False)
class Answer:
    """What an author's `_scan` returns. Larger scores are more suspicious, always.

    `score`: of the net (level model). `score_N`: of each input or row, in the order of the view. `flag_N`: the rows or inputs that the
    paper's own rule calls bad, where it has one; `score_K`: of each class as the target. `target`: the class that triggered inputs
    are suspected to go to. `pictures`: name -> image in 0..1, CHW (an inverted trigger, its mask). `why_not`: why nothing can be said.
    """

    score: float | None = None
    score_N: np.ndarray | None = None
    flag_N: np.ndarray | None = None
    score_K: np.ndarray | None = None
    target: int | None = None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ""
    why_not: str = ""


@dataclass(frozen=True, eq=False)
class Finding(Answer):
    """An Answer with its cost, in the order in which the suspect's images were given.

    `images`: sent through the net, gradients counted (see Budget). `seconds`: on this machine. `memory`: not measured here.
    """

    detector: str = ""
    level: Level = Level.MODEL
    images: int = 0
    seconds: float = 0.0

    @property
    def analysable(self) -> bool:
        """Whether there is a score. "Not analysable" is never "clean"."""
        return not self.why_not
