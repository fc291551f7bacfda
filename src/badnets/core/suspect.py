"""What a defender is handed: a net, its input shape and classes, and the data that the threat model grants. No field for the secret."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np


class Access(StrEnum):
    """What the defender may look at besides the net."""

    MODEL = "model"
    CLEAN = "clean"
    TRAINING = "training"


@dataclass(frozen=True, eq=False)
class Suspect:
    """`network` maps uint8 or 0..1 float images to logits. `clean`: some clean labelled images; `training`: the training set, which
    may be poisoned; both are (uint8 x_NCHW, int64 y_N) or None where access was not granted."""

    network: Any
    shape: tuple[int, int, int]
    num_classes: int
    clean: tuple[np.ndarray, np.ndarray] | None = None
    training: tuple[np.ndarray, np.ndarray] | None = None
