"""Where the names of points stand beside them: greedily, on the narrowest page of a kind; a wider one only gives them more room.

A name takes the best of twelve spots: near its point, clear of other names, points and lines, and of places where it would seem to be
another point's. Where every spot would hide another name it is left out. Widths are estimated: the page's font is not known here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

FONT, LONGEST = 12, 124
_LETTER, _WIDE_LETTER, _LINE = 6.4, 12.0, 13.0
_POINT, _HALO = 5.0, 15.0
_HIDDEN = 0.1


class Spot(NamedTuple):
    """Pixels from the point to the name's near end, at mid-height; and what it costs to stand there."""

    dx: int
    dy: int
    align: str
    cost: float


SPOTS = (
    *(Spot(dx, dy, align, 0) for dy in (-9, 10) for dx, align in ((8, "left"), (-8, "right"))),
    *(Spot(dx, 0, align, 10) for dx, align in ((10, "left"), (-10, "right"))),
    *(Spot(0, dy, "center", 10) for dy in (-16, 17)),
    *(Spot(dx, dy, align, 60) for dy in (-24, 25) for dx, align in ((8, "left"), (-8, "right"))),
)


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def shared(self, other: Box) -> float:
        """The area of both."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


def spots(names: Sequence[str], places: Sequence[tuple[float, float]], lines: Sequence[Box], size: tuple[float, float]) -> list[int | None]:
    """The number of the spot of each name, None where there is no room; the first names choose first."""
    plane, taken = Box(0.0, 0.0, *size), list[Box]()
    found: list[int | None] = []
    for i, name in enumerate(names):
        others = [place for j, place in enumerate(places) if j != i]
        boxes = [_box(name, places[i], spot) for spot in SPOTS]
        costs = [
            spot.cost + 4 * _shared(box, taken) + _shared(box, lines) + _mistaken(box, others) + 5 * (box.area - box.shared(plane))
            for spot, box in zip(SPOTS, boxes, strict=True)
        ]
        best = min(range(len(SPOTS)), key=costs.__getitem__)
        is_free = _shared(boxes[best], taken) <= _HIDDEN * boxes[best].area
        found.append(best if is_free else None)
        taken += [boxes[best]] if is_free else []
    return found


def _shared(box: Box, others: Sequence[Box]) -> float:
    return sum(box.shared(other) for other in others)


def _mistaken(box: Box, points: Sequence[tuple[float, float]]) -> float:
    """What it costs to hide other points, or to stand near them."""
    hidden, near = ([Box(x - r, y - r, x + r, y + r) for x, y in points] for r in (_POINT, _HALO))
    return 3 * _shared(box, hidden) + 0.2 * _shared(box, near)


def _box(name: str, place: tuple[float, float], spot: Spot) -> Box:
    wide = min(LONGEST, sum(_WIDE_LETTER if unicodedata.east_asian_width(c) in "WF" else _LETTER for c in name))
    near = place[0] + spot.dx
    left = {"left": near, "right": near - wide, "center": near - wide / 2}[spot.align]
    middle = place[1] + spot.dy
    return Box(left, middle - _LINE / 2, left + wide, middle + _LINE / 2)
