"""What null instruments share: an answer of the right shape from numbers that are not about the suspect."""

from __future__ import annotations

import numpy as np

from badnets.core.finding import Answer, Level
from badnets.core.view import View


def constant(level: Level, view: View, value: float) -> Answer:
    """The same score for the net, or for every input or row."""
    if level is Level.MODEL:
        return Answer(score=value)
    count = num_judged(view)
    return Answer(score_N=np.full(count, value), flag_N=np.full(count, value > 0.5))


def num_judged(view: View) -> int:
    """How many inputs or rows are to be judged."""
    assert view.order_N is not None
    return len(view.order_N)
