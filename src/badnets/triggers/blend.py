"""A whole-image pattern mixed in faintly: seeded random noise at a given opacity.

Chen, Liu, Li, Lu and Song (2017), "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
https://arxiv.org/abs/1712.05526. The paper also blends a cartoon picture; use `painted` for a picture of your own.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field

from badnets.triggers._base import Trigger


class Blend(Trigger):
    """x (1 - opacity) + pattern opacity, where the pattern is uniform noise drawn from `pattern_seed`, the same for every image."""

    kind: Literal["blend"] = "blend"
    opacity: float = Field(0.2, ge=0.0, le=1.0)
    pattern_seed: int = Field(0, ge=0)

    def _paint(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(self.pattern_seed)
        pattern_CHW = torch.randint(0, 256, tuple(x_NCHW.shape[1:]), generator=drawn).float().to(x_NCHW.device)
        return x_NCHW.lerp(pattern_CHW.expand_as(x_NCHW), self.opacity)

    def variant(self, generator: torch.Generator, shape: tuple[int, int, int]) -> Self:
        """Other noise at the same opacity."""
        return self.but(pattern_seed=int(torch.randint(0, 2**31, (), generator=generator)))
