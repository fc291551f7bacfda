"""A map of where a property ends: two settings in steps, every cell coloured and with its figure in it, a bold line along the margin.

Colours get darker with the value and change their hue at the margin, so that the two sides also differ for the colour-blind and
on grey paper; every fill carries the text colour that reads on it, in all themes. An undecided cell has a dashed frame and a "?". The
upright line of the chart's `x_line` is blue with light dashes in it, and lies above the line of the margin where both run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from badnets.core.types import Cell, Chart, Scalar, Verdict
from badnets.report import _format as show
from badnets.report._drawing import HEAT, INK, MUTED, Drawing, Key, framed, margin_text, titled
from badnets.report._escape import plain

BELOW = ("#eaf6f2", "#cfeae0", "#abd9c8")
ABOVE = ("#e39ab5", "#b03868", "#7d1540")
ON_LIGHT, ON_DARK, UPRIGHT = "#10151a", "#ffffff", "#1d4ed8"
_ROW = 46
_DARK = {*ABOVE[1:], *HEAT[4:]}
_SIDES = {"ASR": ("backdoor survives", "backdoor removed"), "ASR in photographs": ("attack works", "attack fails")}
_HIGHEST = 12


@dataclass(frozen=True)
class _Grid:
    """The cells by place; `xs` from left to right, `ys` from top to bottom, both as texts.

    `line`: the column that the upright line stands by, with 0 for before it and 1 for behind it.
    """

    chart: Chart
    unit: str
    xs: tuple[str, ...]
    ys: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    low: float
    high: float
    line: tuple[str, int] | None = None

    def value(self, place: tuple[str, str]) -> float | None:
        return self.cells[place].estimate.value if place in self.cells else None

    def side(self, place: tuple[str, str]) -> bool | None:
        """Whether a cell stands on the upper side of the margin; None where there is nothing to compare."""
        value, margin = self.value(place), self.chart.margin
        return None if value is None or margin is None else value >= margin


def map_drawing(chart: Chart, unit: str, cells: Sequence[Cell], scope: str = "") -> Drawing:
    """One map from the cells that have both coordinates, each place at most once."""
    grid = _grid(chart, unit, cells)
    quantity = plain(cells[0].quantity)
    title = plain(chart.title) or f"{quantity} by {show.words(chart.x)} and {show.words(chart.y or '')}"
    where = scope or (show.condition(chart.where) if chart.where else "")
    parts = [f"Map. {title}.", f"{where}." if where else "", *_in_words(grid), "All figures are in the table of this section."]
    known = [place for place in grid.cells if grid.value(place) is not None]
    spec = framed(_rows(grid), _marks(grid)) if known else None
    legend = _legend(grid, quantity) if known else ()
    summary = " ".join(part for part in parts if part)
    omitted = 0 if known else len(grid.cells)  # a place without a figure is drawn, as one
    return Drawing(title, spec, legend, summary, omitted, chart.kind, where, plain(chart.note))


def _grid(chart: Chart, unit: str, cells: Sequence[Cell]) -> _Grid:
    columns = _steps(chart.x, [c.condition[chart.x] for c in cells])
    y = chart.y or ""
    lines = _steps(y, [c.condition.get(y) for c in cells], falling=True)
    placed = {(columns[c.condition[chart.x]], lines[c.condition.get(y)]): c for c in cells}
    values = [c.estimate.value for c in cells if c.estimate.value is not None]
    low, high = (0.0, 1.0) if unit == "rate" or not values else (min(values), max(values))
    xs, ys = (tuple(dict.fromkeys(texts.values())) for texts in (columns, lines))
    return _Grid(chart, unit, xs, ys, placed, low, high, _upright(chart.x_line, columns))


def _upright(at: float | None, columns: Mapping[Scalar, str]) -> tuple[str, int] | None:
    """Behind the last column up to `at`, before the first where none is; no line among names."""
    numbers = {v: text for v, text in columns.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    if at is None or len(numbers) < len(columns):
        return None
    reached = [text for v, text in numbers.items() if v <= at or math.isclose(v, at)]
    return (reached[-1], 1) if reached else (next(iter(numbers.values())), 0)


def _steps(key: str, values: Sequence[Scalar], *, falling: bool = False) -> dict[Scalar, str]:
    """The values that occur, as text: numbers in their order, names as they come."""
    found = list(dict.fromkeys(values))
    numbers = [v for v in found if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(found):
        found = sorted(numbers, reverse=falling)
    return {v: show.scalar(key, v) or "(no name)" for v in found}


def _rows(grid: _Grid) -> list[dict[str, Any]]:
    """One row a place: what stands in it, on which ground, in which ink."""
    rows = []
    for x in grid.xs:
        for y in grid.ys:
            cell, value = grid.cells.get((x, y)), grid.value((x, y))
            if cell is None or value is None:
                rows.append({"x": x, "y": y, "text": "–", "known": False, "tip": "not measured" if cell is None else show.UNKNOWN})
                continue
            fill = _fill(grid, value)
            is_open = cell.verdict is Verdict.UNDECIDED
            tip = f"{show.condition(cell.condition)}: {plain(cell.quantity)} {show.figure(cell.estimate, cell.unit)}"
            tip += f", {show.verdict(cell.verdict)}" if cell.verdict else ""
            text = _figure(grid, value)
            text = f"{text.removesuffix(' %')} ?" if is_open else text
            ink = ON_DARK if fill in _DARK else ON_LIGHT
            rows.append({"x": x, "y": y, "text": text, "known": True, "fill": fill, "ink": ink, "open": is_open, "tip": tip})
    return rows


def _fill(grid: _Grid, value: float) -> str:
    margin = grid.chart.margin
    if margin is None:
        return _step(HEAT, value, grid.low, grid.high)
    return _step(ABOVE, value, margin, grid.high) if value >= margin else _step(BELOW, value, grid.low, margin)


def _step(colors: Sequence[str], value: float, low: float, high: float) -> str:
    part = (value - low) / (high - low) if high > low else 1.0
    return colors[min(len(colors) - 1, max(0, int(part * len(colors))))]


def _figure(grid: _Grid, value: float) -> str:
    """Short enough for a cell on a phone, and never rounded onto the other side of the margin."""
    margin = grid.chart.margin
    number, decimals = show.scaled(value, grid.unit), 0 if grid.unit == "rate" else 1
    if grid.unit not in ("rate", "points"):
        return f"{number:.3g}".replace("-", show.MINUS)
    while margin is not None and decimals < 3 and (float(f"{number:.{decimals}f}") >= show.scaled(margin, grid.unit)) != (value >= margin):
        decimals += 1
    text = f"{number:{'+' if grid.unit == 'points' else ''}.{decimals}f}"
    text = text if text.strip("+-0.") else text.lstrip("+-")
    return text.replace("-", show.MINUS) + (" %" if grid.unit == "rate" and len(grid.xs) <= 6 else "")


def _marks(grid: _Grid) -> dict[str, Any]:
    x_axis = {"title": titled(grid.chart.x_title or grid.chart.x, ""), "labelAngle": 0, "labelOverlap": False, **_QUIET}
    y_axis = {"title": titled(grid.chart.y_title or grid.chart.y or "", ""), **_QUIET, **_ABOVE_THE_MAP}
    x = {"field": "x", "type": "ordinal", "scale": {"type": "band", "domain": list(grid.xs), "padding": 0}, "axis": x_axis}
    y = {"field": "y", "type": "ordinal", "scale": {"type": "band", "domain": list(grid.ys), "padding": 0}, "axis": y_axis}
    tip = {"field": "tip", "type": "nominal"}
    fill = {"field": "fill", "type": "nominal", "scale": None, "legend": None}
    ink = {"field": "ink", "type": "nominal", "scale": None, "legend": None}
    text = {"x": x, "y": y, "text": {"field": "text", "type": "nominal"}, "tooltip": tip}
    known, unknown = ([{"filter": {"field": "known", "equal": state}}] for state in (True, False))
    dashed = {"type": "rect", "fillOpacity": 0, "strokeWidth": 1.6, "strokeDash": [4, 3], "width": {"band": 0.84}, "height": {"band": 0.74}}
    return {
        "height": _ROW * len(grid.ys),
        "layer": [
            {
                "mark": {"type": "rect", "stroke": ON_DARK, "strokeWidth": 1},
                "transform": known,
                "encoding": {"x": x, "y": y, "fill": fill, "tooltip": tip},
            },
            {
                "mark": {**dashed, "cornerRadius": 3},
                "transform": [{"filter": {"field": "open", "equal": True}}],
                "encoding": {"x": x, "y": y, "stroke": ink, "tooltip": tip},
            },
            *_boundary(grid, x, y),
            *_upright_line(grid, x),
            {"mark": {"type": "text", "fontSize": 13, "fontWeight": 600}, "transform": known, "encoding": {**text, "color": ink}},
            {"mark": {"type": "text", "fontSize": 13, "color": MUTED}, "transform": unknown, "encoding": text},
        ],
    }


def _boundary(grid: _Grid, x: dict[str, Any], y: dict[str, Any]) -> list[dict[str, Any]]:
    """Bold edges between neighbours on different sides: dark with a light seam, which shows on every ground."""
    columns, lines = list(zip(grid.xs, grid.xs[1:], strict=False)), list(zip(grid.ys, grid.ys[1:], strict=False))
    right = [{"x": a, "y": j} for a, b in columns for j in grid.ys if _differ(grid, (a, j), (b, j))]
    under = [{"x": i, "y": a} for a, b in lines for i in grid.xs if _differ(grid, (i, a), (i, b))]
    whole_x = {"x": {**x, "bandPosition": 0}, "x2": {"field": "x", "bandPosition": 1}}
    whole_y = {"y": {**y, "bandPosition": 0}, "y2": {"field": "y", "bandPosition": 1}}
    edges = [(right, {"x": {**x, "bandPosition": 1}, **whole_y}), (under, {**whole_x, "y": {**y, "bandPosition": 1}})]
    return [
        {
            "data": {"values": rows},
            "mark": {"type": "rule", "stroke": color, "strokeWidth": width, "strokeCap": "square"},
            "encoding": encoding,
        }
        for color, width in ((ON_DARK, 7), (ON_LIGHT, 3.5))
        for rows, encoding in edges
        if rows
    ]


def _upright_line(grid: _Grid, x: dict[str, Any]) -> list[dict[str, Any]]:
    if grid.line is None:
        return []
    column, side = grid.line
    return [
        {
            "data": {"values": [{"x": column}]},
            "mark": {"type": "rule", "stroke": color, "strokeWidth": width, "strokeDash": dash},
            "encoding": {"x": {**x, "bandPosition": side}},
        }
        for color, width, dash in ((ON_DARK, 7, [1, 0]), (UPRIGHT, 4, [1, 0]), (ON_DARK, 1.6, [5, 5]))
    ]


def _differ(grid: _Grid, a: tuple[str, str], b: tuple[str, str]) -> bool:
    sides = grid.side(a), grid.side(b)
    return None not in sides and sides[0] != sides[1]


def _legend(grid: _Grid, quantity: str) -> tuple[Key, ...]:
    """What the colours and marks that occur mean, in words."""
    margin = margin_text(grid.chart.margin, grid.unit)
    above, below = _SIDES.get(quantity) or next((words for term, words in _SIDES.items() if term in quantity.split()), ("", ""))
    sides = {grid.side((x, y)) for x in grid.xs for y in grid.ys}
    rows = _rows(grid)
    keys = []
    if True in sides:
        keys.append(Key(f"{above}{': ' if above else ''}{margin} or more", "map", "cells", ABOVE))
    if False in sides:
        keys.append(Key(f"{below}{': ' if below else ''}below {margin}", "map", "cells", BELOW))
    if grid.chart.margin is None:
        keys.append(Key("low to high", "map", "cells", HEAT))
    if {True, False} <= sides:
        keys.append(Key("the line between them", "map", "edge"))
    if grid.line is not None:
        keys.append(Key(_line_text(grid.chart), "map", "upright", (UPRIGHT,)))
    if any(row.get("open") for row in rows):
        keys.append(Key("undecided: the interval reaches across the line", "map", "open"))
    if any(not row["known"] for row in rows):
        keys.append(Key("– no figure", "map", "none"))
    return tuple(keys)


def _line_text(chart: Chart) -> str:
    return plain(chart.x_line_text) or f"{show.words(chart.x)} {show.scalar(chart.x, chart.x_line)}"


def _in_words(grid: _Grid) -> list[str]:
    """Row by row, for those who cannot see the map."""
    x, y = show.words(grid.chart.x), show.words(grid.chart.y or "")
    sentences = []
    if grid.line is not None:
        column, side = grid.line
        sentences.append(f"An upright line {'behind' if side else 'before'} {x} {column}: {_line_text(grid.chart)}.")
    for line in grid.ys[:_HIGHEST]:
        told = [
            f"{x} {column}: {'not measured' if (column, line) not in grid.cells else _told(grid.cells[column, line])}" for column in grid.xs
        ]
        sentences.append(f"{y} {line}, {'; '.join(told)}.")
    more = len(grid.ys) - _HIGHEST
    return [*sentences, f"And {show.plural(more, 'further row')}."] if more > 0 else sentences


def _told(cell: Cell) -> str:
    return show.value(cell.estimate, cell.unit) + (", undecided" if cell.verdict is Verdict.UNDECIDED else "")


# A map is often lower than its axis title is long, so the title lies above it.
_ABOVE_THE_MAP = {"titleAngle": 0, "titleAnchor": "end", "titleAlign": "left", "titleBaseline": "bottom", "titleX": 0, "titleY": -10}
_QUIET: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelColor": INK, "labelPadding": 6}
