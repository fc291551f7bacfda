"""What every chart has in common: the drawing handed to the page, its legend, the colours, and the frame of a specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from badnets.core.types import Cell, Chart
from badnets.report import _format as show

PALETTE = ("#0b63a5", "#b8540c", "#00795f", "#8a4f9e", "#7a5c00", "#b0305c")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
CONTROL, MARGIN, INK, MUTED, GRID = "#75808a", "#a1260d", "#1f2328", "#59636e", "#e1e4e8"
HEAT = ("#f2f6fb", "#c6dbef", "#85bcdb", "#4292c6", "#1f6cb0", "#08478c")


@dataclass(frozen=True)
class Key:
    """One line of a legend: `style` is `c0`..`c5`, `control`, `margin`, `front` or `map`, `shape` names the mark, `colors` fill cells."""

    label: str
    style: str
    shape: str
    colors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a table of figures; `why` says what is behind a figure that is missing."""

    value: str
    interval: str = ""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True)
class Pivot:
    """A table of figures: the heads of all columns, and each row's name with its entries. `folded`: shown when asked for."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    folded: bool = False


@dataclass(frozen=True)
class Drawing:
    """A chart ready for the page; `spec` is None when no cell has a figure to draw, and for a table, which has a `pivot` in its place.

    `scope`: which cells of the claim it shows.
    """

    title: str
    spec: dict[str, Any] | None
    legend: tuple[Key, ...]
    summary: str
    omitted: int
    kind: str = ""
    scope: str = ""
    note: str = ""
    pivot: Pivot | None = None


def framed(rows: list[dict[str, Any]], marks: dict[str, Any]) -> dict[str, Any]:
    """A whole specification: the rows and what draws them."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": "transparent",
        "data": {"values": rows},
        "config": CONFIG,
        **marks,
    }


def titled(title: str, unit: str) -> str:
    """An axis title with its unit, unless it names that already."""
    title = show.words(title)
    return f"{title} ({unit})" if unit and f"({unit})" not in title and not title.endswith(unit) else title


def series_labels(chart: Chart, cells: Sequence[Cell]) -> list[str]:
    """What tells the lines apart: quantity if there are several, the series value, and whatever else would make two cells collide."""
    several = len({c.quantity for c in cells}) > 1
    own = {chart.x, chart.y, chart.series}
    places = [(c.quantity, *(str(c.condition.get(k)) for k in own if k)) for c in cells]
    collide = len(set(places)) < len(places)
    rest = sorted({k for c in cells for k in c.condition if k not in own and len({str(d.condition.get(k)) for d in cells}) > 1})
    labels = []
    for cell in cells:
        parts = [show.words(cell.quantity)] if several else []
        if chart.series is not None:
            parts.append(show.scalar(chart.series, cell.condition.get(chart.series)))
        parts += [f"{show.words(k)} {show.scalar(k, cell.condition.get(k))}" for k in rest if collide]
        labels.append(", ".join(parts) or show.words(cell.quantity))
    return labels


def margin_text(margin: float | None, unit: str) -> str:
    """The decision line as text: `95 %`, `-1 points`."""
    number = f"{show.scaled(margin or 0.0, unit):.6g}".replace("-", show.MINUS)
    return f"{number} {show.axis_unit(unit)}".strip()


_FONT = "ui-sans-serif, system-ui, sans-serif"
CONFIG: dict[str, Any] = {
    "font": _FONT,
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelOverlap": "greedy",
        "tickCount": 5,
    },
    "legend": {"labelColor": MUTED, "titleColor": MUTED, "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12},
}
