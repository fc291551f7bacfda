"""Says that nothing is bad: the null instrument without hits or false alarms.

Not a detector: it stands in tables beside those that are.
"""

from __future__ import annotations

from typing import Literal

from badnets.core.finding import Answer, Level
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._null import constant


class Never(Detector):
    """The same score for everything, whatever it is asked to judge."""

    kind: Literal["never"] = "never"
    null = True
    on: Level = Level.MODEL

    @property
    def level(self) -> Level:
        return self.on

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        return constant(self.on, view, 0.0)
