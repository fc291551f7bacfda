"""What the claim about the physical world puts before the camera: signs as planes, with or without something stuck on them.

Drawn signs are flat and sharp; photographs of signs are taken for planes themselves, with the light and the sharpness they have.
Shapes: N signs, 3 or 4 = red, green, blue (, alpha), H rows, W columns; quad_N42: the sign's corners in its plane, in texels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np

from badnets.core.rng import numpy_generator
from badnets.datasets._base import ImageSet, Split

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.datasets._signs_scene import Part
    from badnets.triggers._base import Trigger
    from badnets.triggers.sticker import Sticker

DRAWN = "signs"
WHITE = 235 / 255
SIGN_M = 0.75
FINE = 64


@dataclass(frozen=True, eq=False)
class Subjects:
    """Planes, what is behind them, their labels, how wide each plane is in metres, and the light on each (1: white is white)."""

    plane_N4HW: Tensor
    ground_N3HW: Tensor
    y_N: np.ndarray
    wide_N: np.ndarray
    quad_N42: Tensor
    light_N: np.ndarray

    def stuck(self, trigger: Trigger | None) -> Tensor | None:
        """The sticker where it lies on each plane, premultiplied: one for all where all signs fill their planes."""
        import torch

        from badnets.core.perspective import homography, warp

        if trigger is None:
            return None
        size = self.plane_N4HW.shape[2:]
        layer_14HW = cast("Sticker", trigger).on_face(torch.zeros(4, *size))[None]
        if self.is_drawn:
            return layer_14HW
        colour_N3HW, alpha_N1HW = warp(layer_14HW, homography(self.quad_N42), (size[0], size[1]))
        light_N111 = torch.from_numpy(self.light_N.astype(np.float32))[:, None, None, None]
        return torch.cat([colour_N3HW * light_N111, alpha_N1HW], 1)

    @property
    def is_drawn(self) -> bool:
        return bool((self.wide_N == SIGN_M).all())


def subjects(data: ImageSet, count: int, classes: tuple[int, ...] | None, *, fine: int = FINE) -> Subjects:
    """`count` signs of the classes (None: all), the same for every net: drawn anew where the data set draws them, else test photographs."""
    chosen = classes if classes is not None else tuple(range(data.num_classes))
    return _drawn(np.resize(chosen, count), fine) if data.name == DRAWN else _photographed(data.test, count, chosen)


@cache
def _road(fine: int) -> Part:
    """Backgrounds and wear that no training or test image shares: they take a second to draw."""
    from badnets.datasets._signs_scene import part_of

    return part_of("on the road", fine, 0)


def _drawn(y_N: np.ndarray, fine: int) -> Subjects:
    from badnets.datasets._signs_scene import subjects as signs

    plane_N4HW, ground_N3HW = signs(_road(fine), y_N)
    return Subjects(plane_N4HW, ground_N3HW, y_N, np.full(len(y_N), SIGN_M), _whole(len(y_N), fine), np.ones(len(y_N)))


def _photographed(test: Split, count: int, classes: tuple[int, ...]) -> Subjects:
    import torch
    from torch.nn import functional

    assert test.quad_N42 is not None, "photographs must say where their signs are"
    rows = numpy_generator(0, "subjects").permutation(np.flatnonzero(np.isin(test.y_N, classes)))[:count]
    x_N3HW, quad_N42 = test.x_NCHW[rows], test.quad_N42[rows]
    share_N = (quad_N42.max(1) - quad_N42.min(1)).mean(1) / x_N3HW.shape[3]
    light_N = np.clip(np.quantile(x_N3HW.max(1).reshape(len(rows), -1), 0.9, axis=1) / 255 / WHITE, 0.3, 1.0)
    x = torch.from_numpy(x_N3HW.astype(np.float32) / 255)
    # Each pixel twice: the painter's averages give it back as it was.
    plane_N3HW = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    plane_N4HW = torch.cat([plane_N3HW, torch.ones_like(plane_N3HW[:, :1])], 1)
    blurred = functional.interpolate(functional.adaptive_avg_pool2d(x, 4), size=x.shape[2:], mode="bilinear")
    return Subjects(plane_N4HW, blurred, test.y_N[rows], SIGN_M / share_N, torch.from_numpy(2 * quad_N42), light_N)


def _whole(count: int, side: int) -> Tensor:
    import torch

    return torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).mul(side).repeat(count, 1, 1)
