"""Which images, with which trigger, are shown to a trained net; and the showing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from badnets.core.rng import numpy_generator
from badnets.datasets._base import ImageSet, Split
from badnets.measure.outcome import UNKNOWN, Outcome
from badnets.measure.question import Answer, Question, World
from badnets.triggers._base import AnyTrigger
from badnets.triggers.patch import Patch

if TYPE_CHECKING:
    from badnets.nets._base import Network

NUM_BLANK = 256


class Probe(Question):
    """`images`: the judge's "test" split, the customer's "validation" split, the test images "inverted", uniform "noise", "blank"
    (every grey level once), or "other" (test images of another data set, passed by the caller).

    `trigger` None shows them clean; `num_patterns` as in Attack. `limit` shows only the first so many of a fixed shuffle.
    `shifts`: the same images once per (dx, dy), each time with the trigger moved by so much (patch triggers only).
    """

    kind: Literal["probe"] = "probe"
    heavy: ClassVar[bool] = False

    images: Literal["test", "validation", "inverted", "noise", "blank", "other"] = "test"
    trigger: AnyTrigger | None = None
    num_patterns: int | None = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    shifts: tuple[tuple[int, int], ...] = ()
    keep_logits: bool = False

    @property
    def wants_other(self) -> bool:
        return self.images == "other"

    def arrays(self, network: Network, world: World) -> Answer:
        """The outcome's fields, as `Outcome.from_arrays` reads them."""
        return self.answer(network, world.data, world.other, seed=world.seed).arrays()

    def split(self, data: ImageSet, other: ImageSet | None, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The images (uint8 NCHW, triggered if asked) and their labels (UNKNOWN for images that show no class)."""
        shown = self._source(data, other)
        if self.limit is not None and self.limit < len(shown):
            shown = shown.take(np.sort(numpy_generator(0, "probe", self.images).permutation(len(shown))[: self.limit]))
        x_NCHW, y_N = shown.x_NCHW, shown.y_N
        if self.shifts:
            assert isinstance(self.trigger, Patch), "only a patch can be shifted"
            moved = [self.trigger.but(dx=self.trigger.dx + dx, dy=self.trigger.dy + dy) for dx, dy in self.shifts]
            return np.concatenate([trigger.stamp(x_NCHW) for trigger in moved]), np.tile(y_N, len(moved))
        if self.trigger is not None:
            x_NCHW = self.trigger.stamp_varied(x_NCHW, self.num_patterns, shown.quad_N42, seed=seed, purpose="test")
        return x_NCHW, y_N

    def _source(self, data: ImageSet, other: ImageSet | None) -> Split:
        """The images; those without an object of their own carry a trigger where the objects of the test images are."""
        if self.images in ("test", "validation"):
            return data.test if self.images == "test" else data.validation
        if self.images == "inverted":
            return replace(data.test, x_NCHW=255 - data.test.x_NCHW)
        quad_N42 = None
        if self.images == "blank":
            x_NCHW = np.broadcast_to(np.arange(NUM_BLANK, dtype=np.uint8).reshape(-1, 1, 1, 1), (NUM_BLANK, *data.shape))
        elif self.images == "noise":
            x_NCHW = numpy_generator(0, "noise", data.name).integers(0, 256, data.test.x_NCHW.shape, dtype=np.uint8)
        else:
            assert other is not None, "a probe of another data set needs that data set"
            x_NCHW, quad_N42 = fit_to(other.test.x_NCHW, data.shape), fit_quads(other.test, data.test)
        quad_N42 = data.test.quads_for(len(x_NCHW)) if quad_N42 is None else quad_N42
        return Split(x_NCHW, np.full(len(x_NCHW), UNKNOWN), np.arange(len(x_NCHW)), quad_N42)

    def answer(self, network: Network, data: ImageSet, other: ImageSet | None, *, seed: int) -> Outcome:
        """Show the images to the net."""
        x_NCHW, y_N = self.split(data, other, seed=seed)
        return Outcome.from_logits(predict(network, x_NCHW), y_N, keep_logits=self.keep_logits)


def predict(network: Network, x_NCHW: np.ndarray) -> np.ndarray:
    """Logits (N, K) as float32 NumPy of uint8 images, on the net's own device."""
    import torch

    return network.predict_logits(torch.from_numpy(np.ascontiguousarray(x_NCHW))).float().cpu().numpy()


def fit_to(x_NCHW: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 images resized (bilinear) and with grey repeated or colour averaged, to fit `shape` = (C, H, W)."""
    import torch

    channels, height, width = shape
    x = torch.from_numpy(np.ascontiguousarray(x_NCHW)).float()
    x = torch.nn.functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    if x.shape[1] != channels:
        x = x.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    return x.round().clamp(0, 255).to(torch.uint8).numpy()


def fit_quads(split: Split, like: Split) -> np.ndarray | None:
    """quad_N42 of a split's images once they have been resized to those of `like`; where it knows none, those of `like` in turn."""
    if split.quad_N42 is None:
        return like.quads_for(len(split))
    scale_2 = np.array(like.x_NCHW.shape[:1:-1], dtype=np.float32) / np.array(split.x_NCHW.shape[:1:-1], dtype=np.float32)
    return split.quad_N42 * scale_2
