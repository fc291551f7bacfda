"""The sealed base of every trigger: validates, paints in floating point, rounds back to 8-bit pixels.

Shapes: N images, C channels, H rows, W columns; quad_N42: where the object lies in each image, four corners (top left, top right, bottom
right, bottom left) of two coordinates in pixels (x right, y down; pixel i covers i to i + 1).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self, final

import numpy as np
import pydantic

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.rng import numpy_generator
from badnets.core.types import Scalar


class Trigger(Config, abc.ABC):
    """A pattern and how it is put on an image. Authors write `_paint` (and `variant`, if a random sibling makes sense).

    A trigger that sticks to the object says so in `needs_quads` and writes `_paint_on` as well.
    """

    kind: str
    needs_quads: ClassVar[bool] = False

    @final
    def stamp(self, x_NCHW: np.ndarray, quad_N42: np.ndarray | None = None) -> np.ndarray:
        """Triggered copies of uint8 images, as uint8; the input is left alone.

        Raises UsageError (E-TRIGGER) when the trigger does not fit the images, or must know where the object lies and is not told.
        """
        assert (x_NCHW.dtype, x_NCHW.ndim) == (np.uint8, 4), f"expected uint8 NCHW, got {x_NCHW.dtype} {x_NCHW.shape}"
        self.check(x_NCHW.shape[1:])
        self._check_quads(x_NCHW, quad_N42)
        return _to_bytes(self._painted(x_NCHW.astype(np.float32), quad_N42))

    @final
    def stamp_varied(
        self, x_NCHW: np.ndarray, num_patterns: int | None, quad_N42: np.ndarray | None = None, *, seed: int, purpose: str
    ) -> np.ndarray:
        """Like `stamp`, but each image carries one of `num_patterns` random variants (None: its own).

        A finite set of variants is the same for every `purpose` ("train", "test"); which image carries which is not.
        `num_patterns` = 1 is the trigger itself.
        """
        if num_patterns == 1:
            return self.stamp(x_NCHW, quad_N42)
        shape = x_NCHW.shape[1:]
        self.check(shape)
        self._check_quads(x_NCHW, quad_N42)
        count, scope = (len(x_NCHW), purpose) if num_patterns is None else (num_patterns, "all")
        variants = [self.variant(numpy_generator(seed, "pattern", scope, i), shape) for i in range(count)]
        if num_patterns is None:
            painted_NCHW = self._paint_each(variants, x_NCHW.astype(np.float32), quad_N42)
            assert painted_NCHW.shape == x_NCHW.shape, f"{self.kind} changed the shape to {painted_NCHW.shape}"
            return _to_bytes(painted_NCHW)
        drawn_N = numpy_generator(seed, "which pattern", purpose).integers(0, count, len(x_NCHW))
        stamped_NCHW = x_NCHW.copy()
        for i, variant in enumerate(variants):
            rows = np.flatnonzero(drawn_N == i)
            if len(rows):
                stamped_NCHW[rows] = variant.stamp(x_NCHW[rows], None if quad_N42 is None else quad_N42[rows])
        return stamped_NCHW

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError (E-TRIGGER) unless the trigger fits images of `shape` = (C, H, W). Default: it always fits."""

    @abc.abstractmethod
    def _paint(self, x_NCHW: np.ndarray) -> np.ndarray:
        """Float pixels 0..255 in, float pixels out; values outside 0..255 are clipped by the caller."""

    def _paint_on(self, x_NCHW: np.ndarray, quad_N42: np.ndarray) -> np.ndarray:
        """Like `_paint`, on the objects at `quad_N42`; for a trigger that `needs_quads`; its `_paint` takes the whole image for one."""
        raise NotImplementedError(f"{self.kind} says that it needs quads")

    def _paint_each(self, variants: Sequence[Self], x_NCHW: np.ndarray, quad_N42: np.ndarray | None) -> np.ndarray:
        """Image i painted by variant i of this trigger; override it where all at once are quicker."""
        painted_NCHW = np.zeros_like(x_NCHW)
        for i, variant in enumerate(variants):
            painted_NCHW[i : i + 1] = variant._painted(x_NCHW[i : i + 1], None if quad_N42 is None else quad_N42[i : i + 1])
        return painted_NCHW

    @final
    def _painted(self, x_NCHW: np.ndarray, quad_N42: np.ndarray | None) -> np.ndarray:
        painted_NCHW = self._paint_on(x_NCHW, quad_N42) if self.needs_quads and quad_N42 is not None else self._paint(x_NCHW)
        assert painted_NCHW.shape == x_NCHW.shape, f"{self.kind} changed the shape to {painted_NCHW.shape}"
        return painted_NCHW

    @final
    def _check_quads(self, x_NCHW: np.ndarray, quad_N42: np.ndarray | None) -> None:
        assert quad_N42 is None or quad_N42.shape == (len(x_NCHW), 4, 2), f"expected {len(x_NCHW)} quads, got {quad_N42.shape}"
        if not self.needs_quads:
            return
        if quad_N42 is None:
            raise UsageError(
                "E-TRIGGER",
                f"a {self.kind} lies on an object, and this data set does not say where its objects are.",
                hint="Choose --attack badnets:trigger=patch, or a data set that says where its signs are: signs, gtsrb.",
            )
        bad_N = ~_in_sight(quad_N42, x_NCHW.shape[2:])
        if bad_N.any():
            row = int(np.flatnonzero(bad_N)[0])
            points = ", ".join(f"({x:.4g}, {y:.4g})" for x, y in quad_N42[row].tolist())
            message = f"a {self.kind} needs an object that shows its front within the frame; in image {row} its corners are {points}."
            raise UsageError("E-TRIGGER", message, hint="Give corners as top left, top right, bottom right, bottom left, in pixels.")

    def variant(self, generator: np.random.Generator, shape: tuple[int, int, int]) -> Self:
        """A random trigger of the same kind and size: what an attacker without a fixed pattern would stamp."""
        raise UsageError("E-TRIGGER", f"a {self.kind} trigger has no random variants.", hint="Use --trigger patch.")

    def area(self, shape: tuple[int, int, int]) -> float:
        """Share (0..1) of the image's pixels that the trigger can change, seen on a grey image that the object fills."""
        grey_1CHW = np.full((1, *shape), 128, dtype=np.uint8)
        return float((self.stamp(grey_1CHW, whole_image(1, shape)) != grey_1CHW).any(axis=1).mean())

    def summary(self) -> dict[str, Scalar]:
        """The fields as plain scalars, for captions."""
        return {k: v if isinstance(v, (str, int, float, bool)) or v is None else str(v) for k, v in self.model_dump(mode="json").items()}


def whole_image(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """quad_N42 of objects that fill their images of `shape` = (C, H, W)."""
    _, height, width = shape
    return np.tile(np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32), (count, 1, 1))


def _in_sight(quad_N42: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which quads are convex, clockwise on the screen, of some area, and overlap a picture of `size` = (H, W)."""
    before_N42, after_N42 = quad_N42 - np.roll(quad_N42, 1, axis=1), np.roll(quad_N42, -1, axis=1) - quad_N42
    with np.errstate(invalid="ignore", over="ignore"):
        turn_N4 = before_N42[..., 0] * after_N42[..., 1] - before_N42[..., 1] * after_N42[..., 0]
        inside_N = (quad_N42.max(axis=1) > 0).all(axis=1) & (quad_N42.min(axis=1) < size[::-1]).all(axis=1)
        return (turn_N4 > 1e-3).all(axis=1) & inside_N & np.isfinite(quad_N42).all(axis=(1, 2))


def _to_bytes(painted_NCHW: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(painted_NCHW), 0, 255).astype(np.uint8)


def misfit(trigger: str, needs: str, shape: tuple[int, int, int]) -> UsageError:
    """The error for a trigger that does not fit."""
    _, height, width = shape
    return UsageError(
        "E-TRIGGER", f"{trigger} needs {needs}, got images of {height} x {width}.", hint="Choose a smaller size or another place."
    )


AnyTrigger = Annotated[
    pydantic.SerializeAsAny[Trigger],
    pydantic.BeforeValidator(lambda value: registry.parse("triggers", value)),
]
"""Field type: a Trigger, its name, `name:field=value`, or its JSON."""
