"""The sealed base of every trigger: validates, paints in floating point, rounds back to 8-bit pixels.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import abc
from typing import Annotated, Self

import pydantic
import torch

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.types import Scalar


class Trigger(Config, abc.ABC):
    """A pattern and how it is put on an image. Authors write `_paint` (and `variant`, if a random sibling makes sense)."""

    kind: str

    def stamp(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Triggered copies of uint8 images, as uint8; the input is left alone.

        Raises UsageError (E-TRIGGER) when the trigger does not fit the images.
        """
        assert x_NCHW.dtype == torch.uint8 and x_NCHW.ndim == 4, f"expected uint8 NCHW, got {x_NCHW.dtype} {tuple(x_NCHW.shape)}"
        self.check(tuple(x_NCHW.shape[1:]))  # ty: ignore[invalid-argument-type]
        painted_NCHW = self._paint(x_NCHW.float())
        assert painted_NCHW.shape == x_NCHW.shape, f"{self.kind} changed the shape to {tuple(painted_NCHW.shape)}"
        return painted_NCHW.round_().clamp_(0, 255).to(torch.uint8)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError (E-TRIGGER) unless the trigger fits images of `shape` = (C, H, W). Default: it always fits."""

    @abc.abstractmethod
    def _paint(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Float pixels 0..255 in, float pixels out; values outside 0..255 are clipped by the caller."""

    def variant(self, generator: torch.Generator, shape: tuple[int, int, int]) -> Self:
        """A random trigger of the same kind and size: what an attacker without a fixed pattern would stamp."""
        raise UsageError("E-TRIGGER", f"a {self.kind} trigger has no random variants.", hint="Use --trigger patch.")

    def area(self, shape: tuple[int, int, int]) -> float:
        """Share (0..1) of the image's pixels that the trigger can change, seen on a grey image."""
        grey_1CHW = torch.full((1, *shape), 128, dtype=torch.uint8)
        return float((self.stamp(grey_1CHW) != grey_1CHW).any(dim=1).float().mean())

    def summary(self) -> dict[str, Scalar]:
        """The fields as plain scalars, for captions."""
        return {k: v if isinstance(v, (str, int, float, bool)) or v is None else str(v) for k, v in self.model_dump(mode="json").items()}


def misfit(trigger: str, needs: str, shape: tuple[int, int, int]) -> UsageError:
    """The error for a trigger that does not fit."""
    _, height, width = shape
    return UsageError("E-TRIGGER", f"{trigger} needs {needs}, got images of {height} x {width}.", hint="Choose a smaller size or another place.")


AnyTrigger = Annotated[
    pydantic.SerializeAsAny[Trigger],
    pydantic.BeforeValidator(lambda value: registry.parse("triggers", value)),
]
"""Field type: a Trigger, its name, `name:field=value`, or its JSON."""
