"""A scatter chart of two quantities of which less is better: a point for each condition that has both, its name beside it.

Thin lines through a point are its intervals. The step line is the front: the points that no other is below in both, by the values
alone. Every point's condition and figures are in its tooltip and, for those who cannot see the chart, in its description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from badnets.core.errors import RefusedError
from badnets.core.types import Cell, Chart
from badnets.report import _format as show
from badnets.report._drawing import MARGIN, MUTED, PALETTE, SHAPES, Drawing, Key, framed, margin_text, series_labels, titled
from badnets.report._escape import plain
from badnets.report._labels import FONT, LONGEST, SPOTS, Box, spots

_WIDTHS = {"narrow": 250, "wide": 480}
"""The least width of the plane on a page of each kind, in pixels; names have their spots for each."""
_LOWEST, _HIGHEST = 320, 560
_TOLD = 24
_ROOM = 0.08


@dataclass(frozen=True)
class _Point:
    """A condition with both its cells."""

    name: str
    series: str
    across: Cell
    up: Cell

    @property
    def place(self) -> tuple[float, float]:
        x, y = (show.scaled(c.estimate.value or 0.0, c.unit) for c in (self.across, self.up))
        return x, y


@dataclass(frozen=True)
class _Axis:
    """One direction: what stands on it, from where to where, its decision line, all as shown."""

    name: str
    unit: str
    low: float
    high: float
    margin: float | None

    @property
    def ticks(self) -> list[float]:
        """Round numbers on it; no share of less than nothing or more than all."""
        rough = (self.high - self.low) / 6
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        low, high = (max(self.low, 0.0), min(self.high, 100.0)) if self.unit == "rate" else (self.low, self.high)
        return [float(f"{i * step:.10g}") for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass(frozen=True)
class _Plane:
    """What is drawn where."""

    x: _Axis
    y: _Axis
    points: tuple[_Point, ...]
    series: tuple[str, ...]
    front: tuple[_Point, ...]
    height: int

    def pixels(self, x: float, y: float, width: int) -> tuple[float, float]:
        """Where a figure stands if the plane is so wide."""
        across, up = (x - self.x.low) / (self.x.high - self.x.low), (y - self.y.low) / (self.y.high - self.y.low)
        return across * width, (1 - up) * self.height


def scatter_drawing(chart: Chart, cells: Sequence[Cell]) -> Drawing:
    """One chart from the cells of its two quantities."""
    if len(chart.quantities) != 2:
        raise RefusedError("E-CHART", f"expected two quantities for a scatter chart, across and up, got {len(chart.quantities)}.")
    points = _points(chart, cells)
    names = [show.words(q) for q in chart.quantities]
    title = plain(chart.title) or f"{names[1]} against {names[0]} by {show.words(chart.x)}"
    scope = show.condition(chart.where) if chart.where else ""
    omitted = len(cells) - 2 * len(points)
    if not points:
        return Drawing(title, None, (), f"Scatter chart. {title}.", omitted, chart.kind, scope, plain(chart.note))
    plane = _plane(chart, points)
    rows = _rows(plane)
    where = f" {scope}." if scope else ""
    summary = f"Scatter chart. {title}.{where} {' '.join(_in_words(plane))} All figures are in the table of this section."
    spec = framed(rows, _marks(plane, rows))
    return Drawing(title, spec, _legend(chart, plane, rows), summary, omitted, chart.kind, scope, plain(chart.note))


def _points(chart: Chart, cells: Sequence[Cell]) -> tuple[_Point, ...]:
    """The conditions that have a figure of both quantities, each in the unit of the first of its quantity."""
    sides: list[dict[tuple[Any, ...], Cell]] = []
    for quantity in chart.quantities:
        mine = [c for c in cells if c.quantity == quantity]
        known = [c for c in mine if c.estimate.value is not None and c.unit == mine[0].unit]
        sides.append({tuple(sorted(c.condition.items())): c for c in reversed(known)})
    both = [(sides[0][key], sides[1][key]) for key in reversed(sides[1]) if key in sides[0]]
    labels = series_labels(chart, [up for _, up in both])
    return tuple(
        _Point(show.scalar(chart.x, up.condition[chart.x]) or "(no name)", label, across, up)
        for (across, up), label in zip(both, labels, strict=True)
    )


def _plane(chart: Chart, points: tuple[_Point, ...]) -> _Plane:
    x = _axis(chart.x_title, [p.across for p in points], chart.x_margin)
    y = _axis(chart.y_title, [p.up for p in points], chart.margin)
    series = tuple(dict.fromkeys(p.series for p in points))
    return _Plane(x, y, points, series, _front(points), min(_HIGHEST, max(_LOWEST, 22 * len(points))))


def _axis(title: str, cells: Sequence[Cell], margin: float | None) -> _Axis:
    """Rates from 0 to 100 % unless they are so close that nothing could be seen; differences always with zero; room at the ends."""
    unit, estimates = cells[0].unit, [c.estimate for c in cells]
    numbers = [show.scaled(v, unit) for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    line = None if margin is None else show.scaled(margin, unit)
    low, high = min([*numbers, *([] if line is None else [line])]), max([*numbers, *([] if line is None else [line])])
    if unit == "rate" and high - low > 25:
        low, high = 0.0, 100.0
    elif unit == "points":
        low, high = min(low, 0.0), max(high, 0.0)
    room = _ROOM * (high - low) or 1.0
    return _Axis(show.words(title or cells[0].quantity), unit, low - room, high + room, line)


def _front(points: Sequence[_Point]) -> tuple[_Point, ...]:
    """The points, from left to right, that no other is below in both."""
    found: list[_Point] = []
    for point in sorted(points, key=lambda p: p.place):
        if not found or point.place[1] < found[-1].place[1]:
            found.append(point)
    return tuple(found)


def _rows(plane: _Plane) -> list[dict[str, Any]]:
    """One row a point, with the spots of its name; points on the front choose first."""
    rows = []
    for point in plane.points:
        across, up = point.across, point.up
        said = ", ".join(f"{plain(c.quantity)} {show.figure(c.estimate, c.unit)}" for c in (across, up))
        ends = {f"{name}_{end}": getattr(c.estimate, end) for name, c in (("x", across), ("y", up)) for end in ("low", "high")}
        units = {"x": across.unit, "y": up.unit}
        lines = {name: None if v is None else show.scaled(v, units[name[0]]) for name, v in ends.items()}
        x, y = point.place
        rows.append({"x": x, "y": y, "s": point.series, "text": point.name, "tip": f"{show.condition(up.condition)}: {said}", **lines})
    first = {id(p) for p in plane.front}
    order = sorted(range(len(rows)), key=lambda i: id(plane.points[i]) not in first)
    names = [plane.points[i].name for i in order]
    for kind, width in _WIDTHS.items():
        places = [plane.pixels(*plane.points[i].place, width) for i in order]
        for i, spot in zip(order, spots(names, places, _lines(plane, rows, width), (width, plane.height)), strict=True):
            rows[i][kind] = spot
    return rows


def _lines(plane: _Plane, rows: Sequence[dict[str, Any]], width: int) -> list[Box]:
    """What a name had better not stand on: the intervals and the decision lines."""
    ends = [((r["x_low"], r["y"]), (r["x_high"], r["y"])) for r in rows if None not in (r["x_low"], r["x_high"])]
    ends += [((r["x"], r["y_high"]), (r["x"], r["y_low"])) for r in rows if None not in (r["y_low"], r["y_high"])]
    x, y = plane.x, plane.y
    ends += [] if x.margin is None else [((x.margin, y.high), (x.margin, y.low))]
    ends += [] if y.margin is None else [((x.low, y.margin), (x.high, y.margin))]
    pixels = [(*plane.pixels(*start, width), *plane.pixels(*end, width)) for start, end in ends]
    return [Box(left - 1, top - 1, right + 1, bottom + 1) for left, top, right, bottom in pixels]


def _marks(plane: _Plane, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    x, y = (_channel(name, axis) for name, axis in (("x", plane.x), ("y", plane.y)))
    place, tip = {"x": x, "y": y}, {"tooltip": {"field": "tip", "type": "nominal"}}
    colour, shape = _by_series(plane, PALETTE), _by_series(plane, SHAPES)
    thin = {"type": "rule", "strokeWidth": 1, "opacity": 0.55}
    known = [[{"filter": {"field": f"{name}_{end}", "valid": True}} for end in ("low", "high")] for name in "xy"]
    used = sorted({row[kind] for row in rows for kind in _WIDTHS if row[kind] is not None})
    return {
        "height": plane.height,
        "layer": [
            _step_line(plane, x, y),
            *_decision_lines(plane),
            {"mark": thin, "transform": known[0], "encoding": {**place, **_ends("x", x), "color": colour}},
            {"mark": thin, "transform": known[1], "encoding": {**place, **_ends("y", y), "color": colour}},
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {**place, "color": colour, "shape": shape, **tip},
            },
            *(_names(spot, {**place, "color": colour, **tip}) for spot in used),
        ],
    }


def _channel(name: str, axis: _Axis) -> dict[str, Any]:
    shown = {
        "title": titled(axis.name, show.axis_unit(axis.unit)),
        "values": axis.ticks,
        "tickCount": 20,
        "format": ",.4~r",
        "grid": name == "y",
    }
    return {"field": name, "type": "quantitative", "scale": {"domain": [axis.low, axis.high], "nice": False, "zero": False}, "axis": shown}


def _ends(name: str, channel: dict[str, Any]) -> dict[str, Any]:
    return {name: {**channel, "field": f"{name}_low"}, f"{name}2": {"field": f"{name}_high"}}


def _by_series(plane: _Plane, looks: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(plane.series), "range": [looks[i % len(looks)] for i in range(len(plane.series))]}
    return {"field": "s", "type": "nominal", "legend": None, "scale": scale}


def _step_line(plane: _Plane, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """From the upper edge down to the first point of the front, and from its last to the right edge."""
    places = [point.place for point in plane.front]
    corners = [(places[0][0], plane.y.high), *places, (plane.x.high, places[-1][1])]
    return {
        "data": {"values": [{"x": across, "y": up, "i": i} for i, (across, up) in enumerate(corners)]},
        "mark": {"type": "line", "interpolate": "step-after", "stroke": MUTED, "strokeWidth": 1.5, "opacity": 0.55},
        "encoding": {"x": x, "y": y, "order": {"field": "i", "type": "quantitative"}},
    }


def _decision_lines(plane: _Plane) -> list[dict[str, Any]]:
    mark = {"type": "rule", "color": MARGIN, "strokeDash": [6, 4], "strokeWidth": 1.5}
    return [
        {"data": {"values": [{}]}, "mark": mark, "encoding": {name: {"datum": axis.margin}}}
        for name, axis in (("x", plane.x), ("y", plane.y))
        if axis.margin is not None
    ]


def _names(number: int, encoding: dict[str, Any]) -> dict[str, Any]:
    spot = SPOTS[number]
    mark = {"type": "text", "fontSize": FONT, "limit": LONGEST, "dx": spot.dx, "dy": spot.dy, "align": spot.align}
    return {
        "mark": {**mark, "baseline": "middle"},
        "transform": [{"filter": f"(width < {_WIDTHS['wide']} ? datum.narrow : datum.wide) === {number}"}],
        "encoding": {**encoding, "text": {"field": "text", "type": "nominal"}},
    }


def _legend(chart: Chart, plane: _Plane, rows: Sequence[dict[str, Any]]) -> tuple[Key, ...]:
    keys = []
    if chart.series is not None or len(plane.series) > 1:
        keys = [Key(name, f"c{i % len(PALETTE)}", SHAPES[i % len(SHAPES)]) for i, name in enumerate(plane.series)]
    keys.append(Key("front: no point is below these in both", "front", "step"))
    for axis, margin in ((plane.x, chart.x_margin), (plane.y, chart.margin)):
        if margin is not None:
            keys.append(Key(f"margin for {axis.name}: {margin_text(margin, axis.unit)}", "margin", "rule"))
    narrow, wide = (sum(row[kind] is None for row in rows) for kind in _WIDTHS)
    if wide:
        keys.append(Key(f"no room for {show.plural(wide, 'name')}", "front", "none"))
    if narrow > wide:
        keys.append(Key(f"on a narrow page no room for {show.plural(narrow, 'name')}", "front", "none"))
    return tuple(keys)


def _in_words(plane: _Plane) -> list[str]:
    """Point by point, the front first."""
    told = []
    for point in plane.points:
        figures = ", ".join(f"{plain(c.quantity)} {show.value(c.estimate, c.unit)}" for c in (point.across, point.up))
        told.append(f"{_called(plane, point)}: {figures}.")
    more = len(told) - _TOLD
    front = "; ".join(_called(plane, p) for p in plane.front)
    sentences = [f"No point is below these in both: {front}.", *told[:_TOLD]]
    return [*sentences, f"And {show.plural(more, 'further point')}."] if more > 0 else sentences


def _called(plane: _Plane, point: _Point) -> str:
    return f"{point.name}, {point.series}" if len(plane.series) > 1 else point.name
