"""A body that computes in a short float type, whatever the precision around it. Imports torch: import this late."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Half(nn.Module):
    """`inner` and its input in `dtype`; float32 out."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, x_NCHW: Tensor) -> Tensor:
        # A net is evaluated in the machine's own mixed precision; here every operation shall be in this one.
        with torch.autocast(x_NCHW.device.type, enabled=False):
            return self.inner(x_NCHW.to(self.dtype)).float()
