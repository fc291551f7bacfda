"""A whole-image pattern mixed in faintly: seeded random noise at a given opacity.

Chen, Liu, Li, Lu and Song (2017), "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
https://arxiv.org/abs/1712.05526. The paper also blends a cartoon picture; use `painted` for a picture of your own.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field

from badnets.triggers._base import Trigger


class Blend(Trigger):
    """x (1 - opacity) + pattern opacity, where the pattern is uniform noise drawn from `pattern_seed`, the same for every image."""

    kind: Literal["blend"] = "blend"
    opacity: float = Field(0.2, ge=0.0, le=1.0)
    pattern_seed: int = Field(0, ge=0)

    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        pattern_CHW = np.random.default_rng(self.pattern_seed).integers(0, 256, x_NCHW.shape[1:]).astype(np.float32)
        return x_NCHW + self.opacity * (pattern_CHW - x_NCHW)

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """Other noise at the same opacity."""
        return self.but(pattern_seed=int(generator.integers(2**31)))
