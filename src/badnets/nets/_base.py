"""The sealed base of every net: seeded building, 8-bit input, normalisation, batched inference.

An author writes `_body`, a plain torch module for normalised float input. Not for nets with a recurrent state or several inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self, final

import torch
from torch import Tensor, nn

from badnets.core.config import Config
from badnets.core.device import choose_layout
from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed

SMALLEST = 8

Shape = tuple[int, int, int]


class Network(nn.Module):
    """A body with its input contract: x_NCHW is uint8, or float in 0..1; the output is logits_NK in float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, shape: Shape, num_classes: int, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.shape, self.num_classes, self.body = shape, num_classes, body
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        layout = layout_of(torch.device("cpu"))
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = (unit_interval(x_NCHW) - self.mean[:, None, None]).div_(self.std[:, None, None])
        return self.body(x_NCHW.to(memory_format=layout_of(self.device)))

    def predict_logits(self, x_NCHW: Tensor, *, batch_size: int = 500) -> Tensor:
        """logits_NK of images in evaluation mode and float32, whatever it was trained in; the training mode is put back."""
        if not len(x_NCHW):
            return torch.zeros(0, self.num_classes, device=self.device)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                logits_NK = torch.cat([self(part.to(self.device)).float() for part in x_NCHW.split(batch_size)])
        finally:
            self.train(training)
        # Copied outside inference mode: an inference tensor could never take part in a gradient.
        return logits_NK.clone()


def unit_interval(x_NCHW: Tensor) -> Tensor:
    """8-bit pixels as float32 in 0..1; the one conversion, shared by training and evaluation."""
    return x_NCHW.to(torch.float32).div_(255.0) if x_NCHW.dtype == torch.uint8 else x_NCHW


def layout_of(device: torch.device) -> torch.memory_format:
    """The memory format that goes with `choose_layout`."""
    return torch.channels_last if choose_layout(device).value == "channels_last" else torch.contiguous_format


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The autocast context of a precision; float32 is no context at all."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


class Net(Config, ABC):
    """Configuration of an architecture. `build` is sealed; `_body` is what an author writes."""

    @final
    def build(
        self, shape: Shape, num_classes: int, *, seed: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Network:
        """A network on the CPU with weights from the stream (seed, "init"); the caller's random state is left alone."""
        channels, height, width = shape
        if min(height, width) < SMALLEST or channels < 1:
            raise UsageError("E-SHAPE", f"expected images of at least {SMALLEST}x{SMALLEST} pixels and a channel, got {shape}.")
        if num_classes < 2:
            raise UsageError("E-CLASSES", f"expected at least two classes, got {num_classes}.")
        mean, std = mean or [0.5] * channels, std or [0.5] * channels
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise UsageError("E-NORM", f"expected {channels} means and {channels} positive deviations, got {mean} and {std}.")
        # Not torch.manual_seed: it would also reseed the caller's CUDA generators, which this fork does not put back.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(stream_seed(seed, "init"))
            body = self._body(shape, num_classes)
            return Network(body, shape, num_classes, mean=mean, std=std).eval()

    @final
    def smaller(self) -> Self:
        """The same architecture at half its width, where it has one."""
        halves = {name: max(1, getattr(self, name) // 2) for name in ("width", "hidden") if name in type(self).model_fields}
        return self.but(**halves)

    @abstractmethod
    def _body(self, shape: Shape, num_classes: int) -> nn.Module:
        """A module from normalised float x_NCHW to logits_NK, freshly initialised from torch's default generator."""
