"""Says that everything is bad: the null instrument with every hit and every false alarm.

Not a detector: it stands in tables so that a true-positive rate is read beside a false-positive rate.
"""

from __future__ import annotations

from typing import Literal

from badnets.core.finding import Answer, Level
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._null import constant


class Always(Detector):
    """The same score for everything, whatever it is asked to judge."""

    kind: Literal["always"] = "always"
    null = True
    on: Level = Level.MODEL

    @property
    def level(self) -> Level:
        return self.on

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        return constant(self.on, view, 1.0)
