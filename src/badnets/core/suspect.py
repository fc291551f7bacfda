"""What a defender is handed: a net, its input shape and classes, and the data that the threat model grants. No field for the secret.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

import numpy as np

from badnets.core.errors import UsageError


class Access(StrEnum):
    """What the defender may look at besides the net."""

    MODEL = "model"
    CLEAN = "clean"
    TRAINING = "training"


@dataclass(frozen=True, eq=False)
class Suspect:
    """`network` maps uint8 or 0..1 float images to logits. `clean`: some clean labelled images; `training`: the training set, which
    may be poisoned; both are (uint8 x_NCHW, int64 y_N) or None where access was not granted. `inputs`: uint8 images that came in at use
    and are to be judged one by one."""

    network: Any
    shape: tuple[int, int, int]
    num_classes: int
    clean: tuple[np.ndarray, np.ndarray] | None = None
    training: tuple[np.ndarray, np.ndarray] | None = None
    inputs: np.ndarray | None = None


@dataclass(frozen=True)
class Budget:
    """What a defender may spend; None: as much as it takes.

    `images`: images sent through the net, a pass that keeps gradients counted three times (forward, and a backward of twice the work).
    `seconds` is looked at whenever images are sent, so what a budget of seconds finds may differ from machine to machine.
    """

    images: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value, kind in (("whole number of images", self.images, Integral), ("number of seconds", self.seconds, Real)):
            if value is not None and not (isinstance(value, kind) and not isinstance(value, bool) and value > 0):
                raise UsageError("E-BUDGET", f"expected as a budget a positive {name}, got {value!r:.60}.")


NO_LIMIT = Budget()
