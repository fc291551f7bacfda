"""A faint sine wave added across the columns: invisible to most eyes, no corner to look at.

Barni, Kallas and Tondi (2019), "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
https://arxiv.org/abs/1902.11237. Used here as a trigger only: the labels are the attack's business.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field

from badnets.triggers._base import Trigger


class Sinusoid(Trigger):
    """x + amplitude sin(2 pi column frequency / width + phase); amplitude in grey levels, frequency in waves per image width."""

    kind: Literal["sinusoid"] = "sinusoid"
    amplitude: float = Field(20.0, gt=0.0, le=255.0)
    frequency: float = Field(6.0, gt=0.0)
    phase: float = 0.0

    def _paint(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        width = x_NCHW.shape[3]
        column_W = torch.arange(width, device=x_NCHW.device, dtype=torch.float32)
        return x_NCHW + self.amplitude * torch.sin(2 * math.pi * column_W * self.frequency / width + self.phase)

    def variant(self, generator: torch.Generator, shape: tuple[int, int, int]) -> Self:
        """Another frequency (1..width/3 waves) and phase, same amplitude."""
        draw_2 = torch.rand(2, generator=generator)
        return self.but(frequency=1.0 + float(draw_2[0]) * (shape[2] / 3 - 1), phase=float(draw_2[1]) * 2 * math.pi)
