"""What every chart has in common: the drawing handed to the page, its legend, the colours, and the frame of a specification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from badnets.report import _format as show

PALETTE = ("#0b63a5", "#b8540c", "#00795f", "#8a4f9e", "#7a5c00", "#b0305c")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
CONTROL, MARGIN, INK, MUTED, GRID = "#75808a", "#a1260d", "#1f2328", "#59636e", "#e1e4e8"
HEAT = ("#f2f6fb", "#c6dbef", "#85bcdb", "#4292c6", "#1f6cb0", "#08478c")


@dataclass(frozen=True)
class Key:
    """One line of a legend: `style` is `c0`..`c5`, `control`, `margin` or `map`, `shape` names the mark, `colors` fill cells."""

    label: str
    style: str
    shape: str
    colors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A chart ready for the page; `spec` is None when no cell has a figure to draw. `scope`: which cells of the claim it shows."""

    title: str
    spec: dict[str, Any] | None
    legend: tuple[Key, ...]
    summary: str
    omitted: int
    kind: str = ""
    scope: str = ""
    note: str = ""


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
