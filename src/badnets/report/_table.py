"""A table of figures: one row for each value of a condition, one column for each quantity, and what it cost beside them.

Cells that would stand on one entry, because something else varies as well, get a table for each combination of that. A cell that
lacks what tells the tables apart, and has its entry to itself, stands in every table.
"""

from __future__ import annotations

from collections.abc import Sequence

from badnets.core.types import Cell, Chart, Scalar
from badnets.report import _format as show
from badnets.report._drawing import Drawing, Entry, Pivot
from badnets.report._escape import plain

_Combination = tuple[tuple[str, Scalar], ...]
_Row = dict[str, Cell]


def table_drawings(chart: Chart, cells: Sequence[Cell]) -> list[Drawing]:
    """The tables of one chart; all but the first are folded away."""
    title = plain(chart.title) or f"{', '.join(map(show.words, chart.quantities))} by {show.words(chart.x)}"
    found: list[Drawing] = []
    for combination, mine in _split(chart.x, cells).items():
        rows = _rows(chart.x, mine)
        settings = {**chart.where, **dict(combination)}
        scope = show.condition(settings) if settings else ""
        summary = f"Table. {title}.{f' {scope}.' if scope else ''}"
        omitted = len(mine) - sum(map(len, rows.values()))
        pivot = _pivot(chart, rows, folded=bool(found))
        note = "" if found else plain(chart.note)
        found.append(Drawing(title, None, (), summary, omitted, chart.kind, scope, note, pivot))
    return found


def _split(x: str, cells: Sequence[Cell]) -> dict[_Combination, list[Cell]]:
    """The cells of each table, by what tells it from the others."""
    entries: dict[tuple[Scalar, str], list[Cell]] = {}
    for cell in cells:
        entries.setdefault((cell.condition[x], cell.quantity), []).append(cell)
    keys = sorted({key for sharing in entries.values() for key in _varying(sharing)})
    own = [tuple((key, c.condition[key]) for key in keys if key in c.condition) for c in cells]
    is_shared = [len(entries[c.condition[x], c.quantity]) > 1 for c in cells]
    tables: dict[_Combination, set[int]] = {}
    for i in sorted(range(len(cells)), key=lambda i: (not is_shared[i], -len(own[i]))):
        fitting = [] if is_shared[i] else [combination for combination in tables if set(own[i]) <= set(combination)]
        for combination in fitting or [own[i]]:
            tables.setdefault(combination, set()).add(i)
    in_order = sorted(tables.items(), key=lambda table: min(table[1], key=lambda i: (own[i] != table[0], i)))
    return {combination: [cells[i] for i in sorted(mine)] for combination, mine in in_order}


def _varying(cells: Sequence[Cell]) -> set[str]:
    """The keys in which cells differ; not to have one is a difference."""
    keys = {key for c in cells for key in c.condition}
    return {key for key in keys if len({(key in c.condition, c.condition.get(key)) for c in cells}) > 1}


def _rows(x: str, cells: Sequence[Cell]) -> dict[Scalar, _Row]:
    """The cells by row and quantity; of two that agree in everything the first."""
    rows: dict[Scalar, _Row] = {}
    for cell in cells:
        rows.setdefault(cell.condition[x], {}).setdefault(cell.quantity, cell)
    return rows


def _pivot(chart: Chart, rows: dict[Scalar, _Row], *, folded: bool) -> Pivot:
    costs = [[_time(chart, row), _memory(chart, row), _sample(chart, row)] for row in rows.values()]
    used = [any(column) for column in zip(*costs, strict=True)]
    heads = [head for head, is_used in zip(("time a net", "memory a net", "n"), used, strict=True) if is_used]
    lines = []
    for (name, row), cost in zip(rows.items(), costs, strict=True):
        entries = [_entry(row.get(quantity)) for quantity in chart.quantities]
        entries += [Entry(text or "–", why="" if text else "not known") for text, is_used in zip(cost, used, strict=True) if is_used]
        lines.append((show.scalar(chart.x, name) or "(no name)", tuple(entries)))
    return Pivot((show.words(chart.x_title or chart.x), *map(show.words, chart.quantities), *heads), tuple(lines), folded)


def _entry(cell: Cell | None) -> Entry:
    if cell is None:
        return Entry("–", why="not measured")
    if cell.estimate.value is None:
        return Entry(show.UNKNOWN, why=plain(cell.note) or "no figure")
    return Entry(show.value(cell.estimate, cell.unit), show.interval(cell.estimate, cell.unit))


def _time(chart: Chart, row: _Row) -> str:
    found = next((row[q].seconds for q in chart.quantities if q in row and row[q].seconds is not None), None)
    return "" if found is None else show.short_time(found)


def _memory(chart: Chart, row: _Row) -> str:
    found = [row[q].memory_bytes for q in chart.quantities if q in row]
    known = [item for item in found if item is not None]
    return show.size(max(known)) if known else ""


def _sample(chart: Chart, row: _Row) -> str:
    """Of the first quantity: the models or images behind it, and the seeds."""
    first = row.get(chart.quantities[0])
    return "" if first is None or not first.estimate.n else f"{first.estimate.n:,} ({show.plural(first.estimate.num_seeds, 'seed')})"
