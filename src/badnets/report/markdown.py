"""The report as Markdown: scorecard, cells, what was not decided, provenance; for a README, a pull request or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from badnets.core.types import Event, Evidence, Record
from badnets.report import _format as show
from badnets.report import _view as view
from badnets.report._drawing import Drawing
from badnets.report._escape import markdown as escaped
from badnets.report.charts import drawings


def render_markdown(record: Record) -> str:
    """The whole report without pictures and charts other than tables (those are in the HTML file)."""
    about = view.about(record)
    lines = [f"# {escaped(about.title)}", "", escaped(about.tally), ""]
    lines += ["; ".join(f"{escaped(name)} {escaped(text)}" for name, text in about.facts), ""]
    lines += ["## Scorecard", "", *_scorecard(record.claims), ""]
    for number, claim in enumerate(record.claims, start=1):
        lines += _claim(number, claim)
    lines += ["## What was not decided, and why", ""]
    lines += [f"- {escaped(line)}" for line in view.undecided(record)] or ["Every claim of this run was decided."]
    lines += ["", "## Where the figures come from", ""]
    if record.choices:
        lines += ["### Choices the machine made", "", *(f"- {escaped(choice)}" for choice in record.choices), ""]
    for title, items in view.provenance(record):
        lines += [f"### {title}", "", *_table(("name", "value"), items), ""]
    return "\n".join(lines).rstrip() + "\n"


def scorecard_markdown(record: Record) -> str:
    """The scorecard table alone."""
    return "\n".join(_scorecard(record.claims)) + "\n"


def _scorecard(claims: Sequence[Evidence]) -> list[str]:
    rows = []
    for claim in claims:
        head = view.headline(claim)
        figure = f"{head.quantity} {head.figure}".strip()
        rows.append((show.verdict(claim.verdict), claim.sentence, figure, view.control_text(head), claim.reason))
    return _table(("verdict", "claim", "figure [95 % interval]", "control", "in a sentence"), rows)


def _claim(number: int, claim: Evidence) -> list[str]:
    lines = [f"## {number}. {escaped(claim.sentence)}", "", f"**{show.verdict(claim.verdict)}** {escaped(claim.reason)}", ""]
    if claim.rule:
        lines += [f"Decided by {escaped(claim.rule)}", ""]
    lines += [line for drawing in _tables_of_figures(claim) for line in _pivot(drawing)]
    lines += _story(claim.story)
    cells = view.table(claim)
    return lines + ([*_table(cells.columns, cells.rows), ""] if cells.rows else [])


def _tables_of_figures(claim: Evidence) -> list[Drawing]:
    return drawings(claim.model_copy(update={"charts": [chart for chart in claim.charts if chart.kind == "table"]}))


def _pivot(drawing: Drawing) -> list[str]:
    assert drawing.pivot is not None, "a table has a pivot"
    scope = f" ({escaped(drawing.scope)})" if drawing.scope else ""
    rows = [(name, *map(str, entries)) for name, entries in drawing.pivot.rows]
    note = [escaped(drawing.note), ""] if drawing.note else []
    return [f"**{escaped(drawing.title)}**{scope}", "", *_table(drawing.pivot.columns, rows), "", *note]


def _story(story: Sequence[Event]) -> list[str]:
    if not story:
        return []
    steps = []
    for number, event in enumerate(story, start=1):
        state = show.passed(event.passed)
        steps.append(
            f"{number}. **{escaped(event.actor)}**: {escaped(event.action)} → {escaped(event.outcome)}" + (f" **{state}**" if state else "")
        )
    return ["### Step by step", "", *steps, ""]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A GitHub table; every cell is escaped here and nowhere else."""
    lines = [list(columns), ["---"] * len(columns), *([escaped(text) for text in row] for row in rows)]
    lines[0] = [escaped(text) for text in columns]
    return ["| " + " | ".join(line) + " |" for line in lines]
