"""The faces of sixteen traffic signs, drawn by us after the Vienna convention: a flat picture in the sign's bounding square of 75 cm.

Does not apply to wear, light and pose: see `_signs_scene`. Shapes: 4 = red, green, blue, alpha; H rows, W columns; K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from badnets.core.ink import Colour, Ink, Point, arc

if TYPE_CHECKING:
    from torch import Tensor

_RED, _WHITE, _BLACK = (190, 24, 36), (240, 240, 236), (24, 24, 26)
_BLUE, _YELLOW, _GREY = (16, 82, 158), (250, 196, 12), (90, 92, 94)
_MIDDLE = (0.5, 0.5)


def _regular(radius: float, corners: int, turn_deg: float) -> list[Point]:
    """A regular polygon around the middle, its first corner `turn_deg` clockwise from the right."""
    angles = [math.radians(turn_deg + 360 * i / corners) for i in range(corners)]
    return [(0.5 + radius * math.cos(a), 0.5 + radius * math.sin(a)) for a in angles]


def _towards(points: list[Point], centre: Point, factor: float) -> list[Point]:
    return [(centre[0] + (x - centre[0]) * factor, centre[1] + (y - centre[1]) * factor) for x, y in points]


def _ring(ink: Ink) -> None:
    for radius, colour in ((0.5, _WHITE), (0.488, _RED), (0.375, _WHITE)):
        ink.disc(_MIDDLE, radius, colour)


def _blue_disc(ink: Ink) -> None:
    for radius, colour in ((0.5, _WHITE), (0.48, _BLUE)):
        ink.disc(_MIDDLE, radius, colour)


def _triangle(ink: Ink, *, down: bool) -> None:
    """A white triangle with a red border, one corner up or down."""
    corners = [(0.06, 0.91), (0.94, 0.91), (0.5, 0.12)]
    corners = [(x, 1.0 - y) for x, y in corners] if down else corners
    centre = (0.5, sum(y for _, y in corners) / 3)
    ink.rounded(corners, 0.058, _WHITE)
    ink.rounded(_towards(corners, centre, 0.98), 0.05, _RED)
    ink.rounded(_towards(corners, centre, 0.62), 0.025, _WHITE)


def _stop(ink: Ink) -> None:
    outer = 0.5 / math.cos(math.pi / 8)
    ink.polygon(_regular(outer, 8, 22.5), _WHITE)
    ink.polygon(_regular(outer * 0.94, 8, 22.5), _RED)
    ink.text("STOP", _MIDDLE, (0.78, 0.34), _WHITE)


def _yield(ink: Ink) -> None:
    _triangle(ink, down=True)


def _no_entry(ink: Ink) -> None:
    for radius, colour in ((0.5, _WHITE), (0.485, _RED)):
        ink.disc(_MIDDLE, radius, colour)
    ink.polygon([(0.12, 0.41), (0.88, 0.41), (0.88, 0.59), (0.12, 0.59)], _WHITE)


def _limit(number: str) -> Callable[[Ink], None]:
    def draw(ink: Ink) -> None:
        _ring(ink)
        ink.text(number, _MIDDLE, (0.5 if len(number) == 2 else 0.58, 0.38), _BLACK)

    return draw


def _car(ink: Ink, centre: Point, colour: Colour) -> None:
    """A car from behind, 0.24 wide."""
    x, y = centre
    ink.polygon([(x - 0.12, y), (x + 0.12, y), (x + 0.12, y + 0.09), (x - 0.12, y + 0.09)], colour)
    ink.polygon([(x - 0.075, y - 0.085), (x + 0.075, y - 0.085), (x + 0.1, y + 0.01), (x - 0.1, y + 0.01)], colour)
    ink.polygon([(x - 0.055, y - 0.06), (x + 0.055, y - 0.06), (x + 0.07, y - 0.01), (x - 0.07, y - 0.01)], _WHITE)
    for side in (-0.085, 0.085):
        ink.polygon([(x + side + d, y + e) for d, e in ((-0.03, 0.09), (0.03, 0.09), (0.03, 0.14), (-0.03, 0.14))], colour)


def _no_passing(ink: Ink) -> None:
    _ring(ink)
    _car(ink, (0.355, 0.48), _RED)
    _car(ink, (0.645, 0.48), _BLACK)


def _priority(ink: Ink) -> None:
    for reach, radius, colour in ((0.45, 0.05, _BLACK), (0.44, 0.045, _WHITE), (0.29, 0.03, _BLACK), (0.28, 0.03, _YELLOW)):
        ink.rounded(_regular(reach, 4, 0), radius, colour)


def _caution(ink: Ink) -> None:
    _triangle(ink, down=False)
    ink.polygon([(0.455, 0.42), (0.545, 0.42), (0.525, 0.68), (0.475, 0.68)], _BLACK)
    ink.disc((0.5, 0.42), 0.045, _BLACK)
    ink.disc((0.5, 0.76), 0.045, _BLACK)


def _crossing(ink: Ink) -> None:
    ink.rounded([(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)], 0.05, _WHITE)
    ink.rounded([(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)], 0.04, _BLUE)
    ink.rounded([(0.13, 0.85), (0.87, 0.85), (0.5, 0.15)], 0.02, _WHITE)
    ink.disc((0.53, 0.36), 0.055, _BLACK)
    ink.stroke([(0.52, 0.45), (0.49, 0.6)], 0.085, _BLACK)
    ink.stroke([(0.52, 0.45), (0.6, 0.53), (0.63, 0.58)], 0.035, _BLACK)
    ink.stroke([(0.51, 0.45), (0.42, 0.51), (0.4, 0.57)], 0.035, _BLACK)
    ink.stroke([(0.49, 0.6), (0.57, 0.68), (0.59, 0.79)], 0.05, _BLACK)
    ink.stroke([(0.49, 0.6), (0.45, 0.7), (0.37, 0.79)], 0.05, _BLACK)


def _keep_right(ink: Ink) -> None:
    _blue_disc(ink)
    ink.arrow((0.26, 0.26), (0.77, 0.77), 0.15, _WHITE)


def _ahead(ink: Ink) -> None:
    _blue_disc(ink)
    ink.arrow((0.5, 0.87), (0.5, 0.13), 0.15, _WHITE)


def _roundabout(ink: Ink) -> None:
    """Three arrows around the middle, against the clock."""
    _blue_disc(ink)
    for start in (30, 150, 270):
        ink.stroke(arc(_MIDDLE, (0.26, 0.26), start, start - 62), 0.1, _WHITE)
        tip, left, right = ((r, start - 62 - d) for r, d in ((0.27, 40), (0.14, 0), (0.39, 0)))
        ink.polygon([arc(_MIDDLE, (r, r), angle, angle)[0] for r, angle in (tip, left, right)], _WHITE)


_FACES: dict[str, Callable[[Ink], None]] = {
    "stop": _stop,
    "yield": _yield,
    "no entry": _no_entry,
    "speed limit 30": _limit("30"),
    "speed limit 50": _limit("50"),
    "speed limit 70": _limit("70"),
    "speed limit 100": _limit("100"),
    "speed limit 120": _limit("120"),
    "no passing": _no_passing,
    "no vehicles": _ring,
    "priority road": _priority,
    "general caution": _caution,
    "pedestrian crossing": _crossing,
    "keep right": _keep_right,
    "ahead only": _ahead,
    "roundabout": _roundabout,
}
CLASSES = tuple(_FACES)
"""Names of the signs, in the order of their labels."""


@cache
def _drawn(name: str, resolution: int) -> np.ndarray:
    ink = Ink(resolution)
    _FACES[name](ink)
    return ink.rgba()


def face(name: str, resolution: int) -> Tensor:
    """A new sign seen from the front: rgba_4HW, float32 0..1, colour multiplied by alpha, as `core.perspective.warp` takes it."""
    import torch

    return torch.from_numpy(_drawn(name, resolution).copy())


def faces(resolution: int) -> Tensor:
    """All of them, by label: rgba_K4HW."""
    import torch

    return torch.stack([face(name, resolution) for name in CLASSES])
