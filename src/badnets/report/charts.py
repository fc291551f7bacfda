"""Charts as Vega-Lite specifications built by hand from a claim's cells: bands, dots, heat maps.

Maps, scatter charts and tables of figures have modules of their own. Nothing here is computed beyond the choice of what stands where.
Fields have fixed names and every text is data, so that no class name or note can become an expression. Colours are written in the light
theme; the page's style sheet maps each of them to its dark and its printed value, which is why they are constants and not taken from a
scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from badnets.core.errors import RefusedError
from badnets.core.types import Cell, Chart, Evidence, Scalar
from badnets.report import _format as show
from badnets.report._drawing import (
    CONTROL,
    GRID,
    HEAT,
    INK,
    MARGIN,
    MUTED,
    PALETTE,
    SHAPES,
    Drawing,
    Key,
    framed,
    margin_text,
    series_labels,
    titled,
)
from badnets.report._escape import plain
from badnets.report._map import map_drawing
from badnets.report._scatter import scatter_drawing
from badnets.report._table import table_drawings

__all__ = ["CONTROL", "GRID", "HEAT", "INK", "MARGIN", "MUTED", "PALETTE", "SHAPES", "Drawing", "Key", "drawings"]

_ROW = 34
_TICKS = ",.4~r"
_CONTROL_KEY = "\x00control"


@dataclass
class _Plot:
    """What one drawing shows: its rows and the names of its series in order."""

    chart: Chart
    unit: str
    control_name: str
    shares: frozenset[str] = frozenset()
    rows: list[dict[str, Any]] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    omitted: int = 0

    @property
    def has_control(self) -> bool:
        return any(row["s"] == _CONTROL_KEY for row in self.rows)


def drawings(evidence: Evidence) -> list[Drawing]:
    """The charts of a claim in order; over quantities of different units one drawing a unit, but for scatter charts and tables."""
    result = []
    for chart in evidence.charts:
        if chart.kind not in _KINDS:
            raise RefusedError("E-CHART", f"expected a chart of kind {', '.join(_KINDS)}, got {plain(chart.kind)!r:.60}.")
        cells = [c for c in evidence.cells if _belongs(c, chart)]
        if chart.kind == "table":
            result += table_drawings(chart, cells)
        elif chart.kind == "scatter":
            result += [scatter_drawing(chart, cells)] if cells else []
        else:
            result += _by_unit(chart, cells, evidence.control_name)
    return result


def _by_unit(chart: Chart, cells: Sequence[Cell], control_name: str) -> list[Drawing]:
    result = []
    for unit in dict.fromkeys(c.unit for c in cells):
        mine = [c for c in cells if c.unit == unit]
        result += _maps(chart, unit, mine) if chart.kind == "map" else [_drawing(chart, unit, mine, control_name)]
    return result


def _belongs(cell: Cell, chart: Chart) -> bool:
    wanted = [chart.x, chart.y] if chart.kind in ("heat", "map") else [chart.x]
    agrees = all(key in cell.condition and cell.condition[key] == value for key, value in chart.where.items())
    return agrees and cell.quantity in chart.quantities and all(key in cell.condition for key in wanted)


def _maps(chart: Chart, unit: str, cells: Sequence[Cell]) -> list[Drawing]:
    """One map; one for each label if cells would stand on top of one another."""
    labels = series_labels(chart, cells)
    if len(set(labels)) == 1:
        return [map_drawing(chart, unit, cells)]
    split = {label: [c for c, own in zip(cells, labels, strict=True) if own == label] for label in dict.fromkeys(labels)}
    return [map_drawing(chart, unit, mine, scope=label) for label, mine in split.items()]


def _drawing(chart: Chart, unit: str, cells: Sequence[Cell], control_name: str) -> Drawing:
    shares = frozenset(k for k in (chart.x, chart.y) if k is not None and _all_shares(k, cells))
    plot = _collect(_Plot(chart, unit, control_name, shares), cells)
    quantities = [show.words(q) for q in dict.fromkeys(c.quantity for c in cells)]
    title = plain(chart.title) or f"{' and '.join(quantities)} by {show.words(chart.x)}"
    summary = f"{_KINDS[chart.kind]}. {title}. {_in_words(plot)} All figures are in the table of this section."
    spec = _frame(plot, quantities) if plot.rows else None
    return Drawing(title, spec, _legend(plot), summary, plot.omitted, chart.kind, note=plain(chart.note))


def _collect(plot: _Plot, cells: Sequence[Cell]) -> _Plot:
    labels = series_labels(plot.chart, cells)
    for cell, label in zip(cells, labels, strict=True):
        place = _place(plot, cell)
        if cell.estimate.value is None or place is None:
            plot.omitted += 1
            continue
        if label not in plot.series:
            plot.series.append(label)
        tip = f"{show.condition(cell.condition)}: {plain(cell.quantity)} {show.figure(cell.estimate, plot.unit)}"
        plot.rows.append({**place, "s": label, "g": label, "tip": tip, **_numbers(cell, plot.unit)})
        comparable = cell.control_unit in (None, cell.unit) and cell.control_name is None
        if comparable and cell.control is not None and cell.control.value is not None and plot.chart.kind != "heat":
            tip = f"{show.condition(cell.condition)}: {plain(plot.control_name)} {show.figure(cell.control, plot.unit)}"
            plot.rows.append({**place, "s": _CONTROL_KEY, "g": label, "tip": tip, **_numbers(cell, plot.unit, control=True)})
    return plot


def _numbers(cell: Cell, unit: str, *, control: bool = False) -> dict[str, float | None]:
    estimate = cell.control if control and cell.control is not None else cell.estimate
    known = {"v": estimate.value, "lo": estimate.low, "hi": estimate.high}
    return {name: None if number is None else show.scaled(number, unit) for name, number in known.items()}


def _place(plot: _Plot, cell: Cell) -> dict[str, Any] | None:
    """Where a cell stands: numbers for bands and heat maps (None if they are no numbers), names for dots."""
    chart = plot.chart
    if chart.kind == "dots":
        return {"x": show.scalar(chart.x, cell.condition[chart.x]) or "(no name)"}
    keys = {"x": chart.x} | ({"y": chart.y} if chart.kind == "heat" and chart.y is not None else {})
    place = {name: _coordinate(cell.condition[key], share=key in plot.shares) for name, key in keys.items()}
    return None if None in place.values() else place


def _coordinate(item: Scalar, *, share: bool) -> float | None:
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    return float(f"{100 * item:.10g}") if share else item


def _all_shares(key: str, cells: Sequence[Cell]) -> bool:
    """One axis has one unit: per cent only if every number on it is a share (an integer 1 next to 0.5 is one, next to 9 is not)."""
    numbers = [v for v in (c.condition.get(key) for c in cells) if isinstance(v, int | float) and not isinstance(v, bool)]
    return any(show.is_share(key, v) for v in numbers) and all(0 <= v <= 1 for v in numbers)


def _legend(plot: _Plot) -> tuple[Key, ...]:
    if plot.chart.kind == "heat" or not plot.rows:
        return ()
    keys = [Key(name, f"c{i % len(PALETTE)}", SHAPES[i % len(SHAPES)]) for i, name in enumerate(plot.series)]
    if plot.has_control:
        keys.append(Key(f"control: {plain(plot.control_name)}", "control", "ring"))
    if plot.chart.margin is not None:
        keys.append(Key(f"margin: {margin_text(plot.chart.margin, plot.unit)}", "margin", "rule"))
    return tuple(keys)


def _in_words(plot: _Plot) -> str:
    """First and last point of the first series, for those who cannot see the chart."""
    if not plot.rows:
        return "No cell has a figure to draw."
    parts = []
    for name in plot.series[:3]:
        tips = [row["tip"] for row in plot.rows if row["s"] == name]
        parts.append(f"{name}: from {tips[0]} to {tips[-1]}." if len(tips) > 1 else f"{name}: {tips[0]}.")
    more = len(plot.series) - 3
    return " ".join(parts) + (f" And {show.plural(more, 'further series')}." if more > 0 else "")


def _frame(plot: _Plot, quantities: Sequence[str]) -> dict[str, Any]:
    named = "" if plot.chart.kind == "heat" else plot.chart.y_title
    marks = _MARKS[plot.chart.kind](plot, titled(named or " and ".join(quantities), show.axis_unit(plot.unit)))
    return framed(plot.rows, marks)


def _colour(plot: _Plot) -> dict[str, Any]:
    names = [*plot.series, _CONTROL_KEY]
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(plot.series))]
    return {"field": "s", "type": "nominal", "legend": None, "scale": {"domain": names, "range": [*colours, CONTROL]}}


def _shape(plot: _Plot) -> dict[str, Any]:
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(plot.series))]
    return {
        "field": "s",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": [*plot.series, _CONTROL_KEY], "range": [*shapes, "circle"]},
    }


def _value_scale(plot: _Plot) -> dict[str, Any]:
    """Rates stand on 0..100 % unless they are so close together that nothing could be seen; differences always show zero."""
    margin = [] if plot.chart.margin is None else [show.scaled(plot.chart.margin, plot.unit)]
    numbers = [*(row[k] for row in plot.rows for k in ("v", "lo", "hi") if row[k] is not None), *margin]
    if plot.unit == "rate" and max(numbers) - min(numbers) > 25:
        return {"domain": [0, 100]}
    return {"zero": plot.unit == "points", "nice": True, **({"domainMax": 100} if plot.unit == "rate" and max(numbers) > 98 else {})}


def _margin_layer(plot: _Plot, channel: str) -> list[dict[str, Any]]:
    if plot.chart.margin is None:
        return []
    at = {channel: {"datum": show.scaled(plot.chart.margin, plot.unit)}}
    return [{"data": {"values": [{}]}, "mark": {"type": "rule", "color": MARGIN, "strokeDash": [6, 4], "strokeWidth": 1.5}, "encoding": at}]


def _points(plot: _Plot, encoding: dict[str, Any]) -> list[dict[str, Any]]:
    """Filled marks for what was measured, rings for the control."""
    tip = {"field": "tip", "type": "nominal"}
    own = {
        "mark": {"type": "point", "filled": True, "size": 62, "opacity": 1},
        "transform": [{"filter": {"field": "s", "oneOf": plot.series}}],
    }
    ring = {"mark": {"type": "point", "filled": False, "size": 84, "strokeWidth": 1.8, "color": CONTROL, "shape": "circle"}}
    return [
        {**ring, "transform": [{"filter": {"field": "s", "equal": _CONTROL_KEY}}], "encoding": {**encoding, "tooltip": tip}},
        {**own, "encoding": {**encoding, "color": _colour(plot), "shape": _shape(plot), "tooltip": tip}},
    ]


def _band(plot: _Plot, title: str) -> dict[str, Any]:
    values = sorted({row["x"] for row in plot.rows})
    log = plot.chart.log_x and values[-1] > 0
    scale: dict[str, Any] = {"type": "log"} if log and values[0] > 0 else {"zero": False}
    if log and values[0] <= 0:
        # A logarithm has no zero; a symmetric one keeps it on the axis, at about one step below the smallest positive value.
        scale = {"type": "symlog", "constant": min(v for v in values if v > 0) / 2}
    axis: dict[str, Any] = {"title": _axis_title(plot, plot.chart.x, plot.chart.x_title), "grid": False, "format": _TICKS}
    if len(values) <= 9:
        # Vega thins out even explicit ticks beyond its count, and blanks labels on a log axis: we choose, it obeys.
        ticks = _apart(values, math.log if log and values[0] > 0 else math.log1p if log else float)
        axis |= {"values": ticks, "tickCount": 20, "labelExpr": f"format(datum.value, '{_TICKS}')", "labelOverlap": False}
    x = {"field": "x", "type": "quantitative", "scale": {**scale, "nice": False, "padding": 12}, "axis": axis}
    y = {"field": "v", "type": "quantitative", "scale": _value_scale(plot), "axis": {"title": title, "format": _TICKS}}
    colour = _colour(plot)
    area = {"x": x, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}, "color": colour, "detail": [{"field": "s"}, {"field": "g"}]}
    dash = {"condition": {"test": {"field": "s", "equal": _CONTROL_KEY}, "value": [2, 3]}, "value": [1, 0]}
    line = {"x": x, "y": y, "color": colour, "detail": [{"field": "s"}, {"field": "g"}], "strokeDash": dash}
    interval = {"x": x, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}, "color": colour}
    return {
        "height": 270,
        "layer": [
            {"mark": {"type": "area", "opacity": 0.18, "line": False}, "encoding": area},
            {"mark": {"type": "rule", "opacity": 0.55, "strokeWidth": 1.2}, "encoding": interval},
            *_margin_layer(plot, "y"),
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
            *_points(plot, {"x": x, "y": y}),
        ],
    }


def _apart(values: Sequence[float], scale: Callable[[float], float]) -> list[float]:
    """The values that leave a tenth of the axis between them, so that their labels fit a phone."""
    span = (scale(values[-1]) - scale(values[0])) or 1.0
    kept = [values[0]]
    for value in values[1:]:
        if (scale(value) - scale(kept[-1])) / span >= 0.1:
            kept.append(value)
    return kept


def _axis_title(plot: _Plot, key: str, title: str) -> str:
    return titled(title or key, "%" if key in plot.shares else "")


def _dots(plot: _Plot, title: str) -> dict[str, Any]:
    names = list(dict.fromkeys(row["x"] for row in plot.rows))
    groups = list(dict.fromkeys(row["g"] for row in plot.rows))
    above = max(map(len, names)) > 14
    row = _ROW + (12 if above else 0) + 12 * (len(groups) - 1)
    # Long names stand on a line of their own above their dots (with several groups: above the band of them), so that they fit a phone.
    # Short ones keep clear of a dot at nought.
    offset_px = -8 if len(groups) == 1 else -(row // 4 + 4)
    long = {"labelAlign": "left", "labelBaseline": "bottom", "labelPadding": 0, "labelOffset": offset_px, "labelLimit": 300}
    labels = long if above else {"labelPadding": 8}
    axis = {"title": None, "domain": False, "ticks": False, "grid": True, "labelColor": INK, **labels}
    spacing = {"scale": {"paddingInner": 0.5, "paddingOuter": 0.3}} if len(groups) > 1 else {}
    y = {"field": "x", "type": "nominal", "sort": names, "axis": axis, **spacing}
    offset = {"yOffset": {"field": "g", "type": "nominal", "sort": groups}} if len(groups) > 1 else {}
    x = {"field": "v", "type": "quantitative", "scale": _value_scale(plot), "axis": {"title": title, "format": _TICKS, "grid": True}}
    interval = {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}, "y": y, "color": _colour(plot), **offset}
    return {
        "height": row * len(names) + 12,
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45}, "encoding": interval},
            *_margin_layer(plot, "x"),
            *_points(plot, {"x": x, "y": y, **offset}),
        ],
    }


def _heat(plot: _Plot, title: str) -> dict[str, Any]:
    values = [row["v"] for row in plot.rows]
    columns, lines = ({row[k] for row in plot.rows} for k in ("x", "y"))
    domain = [0, 100] if plot.unit == "rate" else [min(values), max(values)]
    middle = (domain[0] + domain[1]) / 2
    x_title, y_title = _axis_title(plot, plot.chart.x, plot.chart.x_title), _axis_title(plot, plot.chart.y or "", plot.chart.y_title)
    x = {"field": "x", "type": "ordinal", "axis": {"title": x_title, "format": _TICKS, "labelAngle": 0}}
    y = {"field": "y", "type": "ordinal", "sort": "ascending", "axis": {"title": y_title, "format": _TICKS}}
    legend = {"title": title, "orient": "top", "gradientLength": 220, "gradientThickness": 10, "format": _TICKS, "direction": "horizontal"}
    fill = {"field": "v", "type": "quantitative", "scale": {"domain": domain, "range": list(HEAT)}, "legend": legend}
    text_colour = {"condition": {"test": {"field": "v", "gt": middle}, "value": "#ffffff"}, "value": "#10151a"}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rect"}, "encoding": {"x": x, "y": y, "fill": fill, "tooltip": {"field": "tip", "type": "nominal"}}}
    ]
    if len(columns) <= 11:
        digits = ".0f" if plot.unit == "rate" else ".3~g"
        label = {"field": "v", "type": "quantitative", "format": digits}
        layers.append({"mark": {"type": "text", "fontSize": 11}, "encoding": {"x": x, "y": y, "text": label, "color": text_colour}})
    return {"height": max(120, 34 * len(lines)), "layer": layers}


_MARKS = {"band": _band, "dots": _dots, "heat": _heat}
_KINDS = {
    "band": "Line chart with interval bands",
    "dots": "Dot chart with intervals",
    "heat": "Heat map",
    "map": "Map",
    "scatter": "Scatter chart",
    "table": "Table",
}
