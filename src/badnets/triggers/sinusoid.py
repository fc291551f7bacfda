"""A faint sine wave added across the columns: invisible to most eyes, no corner to look at.

Barni, Kallas and Tondi (2019), "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
https://arxiv.org/abs/1902.11237. Used here as a trigger only: the labels are the attack's business.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from pydantic import Field

from badnets.triggers._base import Trigger


class Sinusoid(Trigger):
    """x + amplitude sin(2 pi column frequency / width + phase); amplitude in grey levels, frequency in waves per image width."""

    kind: Literal["sinusoid"] = "sinusoid"
    amplitude: float = Field(20.0, gt=0.0, le=255.0)
    frequency: float = Field(6.0, gt=0.0)
    phase: float = 0.0

    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        width = x_NCHW.shape[3]
        wave_W = np.sin(2 * math.pi * np.arange(width) * self.frequency / width + self.phase)
        return x_NCHW + np.float32(self.amplitude) * wave_W.astype(np.float32)

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """Another frequency (1..width/3 waves) and phase, same amplitude."""
        return self.but(frequency=float(generator.uniform(1, shape[2] / 3)), phase=float(generator.uniform(0, 2 * math.pi)))
