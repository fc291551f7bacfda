"""Pictures for stickers, drawn by us: a square, a circle, a flower, a bomb.

Does not apply to pictures of your own: a sticker reads those from a PNG. Shapes: 4 = red, green, blue, alpha; H rows, W columns.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from badnets.core.ink import Colour, Ink, Point, arc

_DARK, _PALE, _SPARK = (28, 28, 30), (235, 235, 230), (236, 92, 24)


def _square(ink: Ink, colour: Colour) -> None:
    ink.polygon([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)], colour)


def _circle(ink: Ink, colour: Colour) -> None:
    ink.disc((0.5, 0.5), 0.5, colour)


def _flower(ink: Ink, colour: Colour) -> None:
    """Eight petals around a dark heart."""
    for i in range(8):
        ink.disc(_around((0.5, 0.5), 0.34, 45.0 * i), 0.155, colour)
    ink.disc((0.5, 0.5), 0.34, colour)
    ink.disc((0.5, 0.5), 0.15, _DARK)


def _bomb(ink: Ink, colour: Colour) -> None:
    """A dark ball on a patch of the colour, its fuse burning."""
    ink.rounded([(0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)], 0.08, colour)
    ink.disc((0.44, 0.6), 0.31, _DARK)
    ink.polygon([(0.56, 0.27), (0.76, 0.47), (0.66, 0.55), (0.5, 0.38)], _DARK)
    ink.stroke(arc((0.83, 0.37), (0.17, 0.17), 180, 270), 0.05, _DARK)
    ink.disc((0.86, 0.2), 0.08, _SPARK)
    ink.stroke(arc((0.44, 0.6), (0.2, 0.2), 190, 250), 0.05, _PALE)


_DRAW = {"square": _square, "circle": _circle, "flower": _flower, "bomb": _bomb}


@cache
def picture(shape: str, colour: Colour, resolution: int) -> np.ndarray:
    """One of the four in a colour (levels 0..255): float32 rgba_4HW of 0..1, colour multiplied by alpha. Not to be written to."""
    ink = Ink(resolution)
    _DRAW[shape](ink, colour)
    return ink.rgba()


def _around(centre: Point, radius: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
