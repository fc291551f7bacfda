"""Flat drawings in the unit square: polygons, discs, round strokes, letters and digits of our own, smoothed by drawing them too large.

Does not apply to text: it has the digits of speed limits and the letters of STOP. Coordinates are (x, y), x right, y down, 0..1.
Shapes: 4 = red, green, blue, alpha; H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

_LARGER = 4
_STROKE = 0.18
_GAP = 0.13


def arc(centre: Point, radii: Point, start_deg: float, end_deg: float) -> list[Point]:
    """Points along an ellipse; 0 degrees is right, 90 is down."""
    steps = max(2, round(abs(end_deg - start_deg) / 8))
    angles = [math.radians(start_deg + (end_deg - start_deg) * i / steps) for i in range(steps + 1)]
    return [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]


_TOP, _LOW, _ROUND = (0.3, 0.3), (0.3, 0.7), (0.21, 0.21)
_LOOP = [*arc(_TOP, _ROUND, 180, 360), *arc(_LOW, _ROUND, 0, 180), (0.09, 0.3)]
_GLYPHS: dict[str, tuple[float, list[list[Point]]]] = {
    "0": (0.6, [_LOOP]),
    "1": (0.42, [[(0.06, 0.27), (0.29, 0.09), (0.29, 0.91)]]),
    "2": (0.6, [[*arc(_TOP, _ROUND, 190, 395), (0.1, 0.91), (0.53, 0.91)]]),
    "3": (0.6, [[*arc((0.29, 0.29), (0.2, 0.2), 200, 450), *arc((0.29, 0.7), (0.22, 0.21), 270, 520)]]),
    "5": (0.6, [[(0.49, 0.09), (0.15, 0.09), (0.12, 0.47), *arc((0.29, 0.65), (0.22, 0.26), 230, 510)]]),
    "7": (0.6, [[(0.08, 0.09), (0.52, 0.09), (0.24, 0.91)]]),
    "S": (0.6, [[*arc(_TOP, _ROUND, 335, 90), *arc(_LOW, _ROUND, 270, 515)]]),
    "T": (0.6, [[(0.06, 0.09), (0.54, 0.09)], [(0.3, 0.09), (0.3, 0.91)]]),
    "O": (0.6, [_LOOP]),
    "P": (0.6, [[(0.1, 0.91), (0.1, 0.09), (0.3, 0.09), *arc(_TOP, _ROUND, 270, 450), (0.1, 0.51)]]),
}
"""Width and strokes of each letter, in a box of height 1."""


class Ink:
    """A transparent square of `resolution` pixels to draw on; later shapes cover earlier ones."""

    def __init__(self, resolution: int) -> None:
        self._side = resolution * _LARGER
        self._image = Image.new("RGBA", (self._side, self._side))
        self._pen = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._pen.polygon([self._at(point) for point in points], fill=(*colour, 255))

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        (x, y), r = self._at(centre), radius * self._side
        self._pen.ellipse((x - r, y - r, x + r - 1, y + r - 1), fill=(*colour, 255))

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line with round ends and joints."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
            self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], colour)
        for point in points:
            self.disc(point, width / 2, colour)

    def rounded(self, points: Sequence[Point], radius: float, colour: Colour) -> None:
        """A convex polygon with round corners, reaching `radius` beyond these points."""
        self.polygon(points, colour)
        self.stroke([*points, points[0]], 2 * radius, colour)

    def arrow(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A straight arrow; its head is 2.6 widths wide and ends at `end`."""
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        head, half = 1.7 * width, width / 2
        outline = ((0, -half), (length - head, -half), (length - head, -1.3 * width), (length, 0))
        both = [*outline, *((forward, -side) for forward, side in reversed(outline[:-1]))]
        self.polygon([(start[0] + f * along[0] - s * along[1], start[1] + f * along[1] + s * along[0]) for f, s in both], colour)

    def text(self, text: str, centre: Point, size: Point, colour: Colour) -> None:
        """Letters in a box of `size` = (width, height); strokes are as thick as the height says."""
        height = size[1]
        advance = sum(_GLYPHS[letter][0] for letter in text) + _GAP * (len(text) - 1)
        squeeze, left = size[0] / advance, centre[0] - size[0] / 2
        for letter in text:
            width, strokes = _GLYPHS[letter]
            for points in strokes:
                placed = [(left + x * squeeze, centre[1] + (y - 0.5) * height) for x, y in points]
                self.stroke(placed, _STROKE * min(height, 1.15 * squeeze), colour)
            left += (width + _GAP) * squeeze

    def rgba(self) -> np.ndarray:
        """The drawing as float32 (4, H, W) of 0..1, colour multiplied by alpha."""
        pixels_HW4 = np.asarray(self._image, dtype=np.float32) / 255
        pixels_HW4[..., :3] *= pixels_HW4[..., 3:]
        side = self._side // _LARGER
        return pixels_HW4.reshape(side, _LARGER, side, _LARGER, 4).mean(axis=(1, 3)).transpose(2, 0, 1)

    def _at(self, point: Point) -> Point:
        return point[0] * self._side, point[1] * self._side
