"""The scorecard in a terminal: verdict, sentence, figure with interval and control; the same figures as in the HTML report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from badnets.core.types import Event, Evidence, Record, Verdict
from badnets.report import _format as show
from badnets.report import _view as view
from badnets.report._escape import encodable, plain

STYLES = {Verdict.HOLDS: "bold blue", Verdict.FAILS: "bold yellow", Verdict.CONDITIONAL: "bold magenta", Verdict.UNDECIDED: "bold"}
_NARROW = 56
_MARK = 15
_WIDE, _FIGURE = 100, 28


@dataclass(frozen=True)
class Scorecard:
    """Claims as rows, decided or still pending (`name: state`); lays itself out for the width it is given."""

    claims: Sequence[Evidence]
    pending: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [(_mark(claim), _body(claim)) for claim in self.claims]
        rows += [(Text(plain(state), style="dim"), Text(plain(name), style="dim")) for name, state in self.pending]
        for mark, body in rows:
            yield _beside(mark, body) if options.max_width >= _NARROW else Group(mark, Padding(body, (0, 0, 0, 2)))


@dataclass(frozen=True)
class Board:
    """Claims on one line each, so that all of them fit a terminal's height: mark, sentence, and the figure where there is room."""

    claims: Sequence[Evidence]
    pending: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_wide = options.max_width >= _WIDE
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(min_width=_MARK, no_wrap=True)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        if is_wide:
            grid.add_column(min_width=_FIGURE, max_width=_FIGURE, no_wrap=True, overflow="ellipsis")
        for claim in self.claims:
            head = view.headline(claim)
            row = (_mark(claim), Text(plain(claim.sentence)), Text(f"{head.quantity} {head.value}".strip()))
            grid.add_row(*(row if is_wide else row[:2]))
        for name, state in self.pending:
            grid.add_row(Text(plain(state), style="dim"), Text(plain(name), style="dim"))
        yield grid


def scorecard(record: Record) -> RenderableType:
    """The scorecard of a record with its head line."""
    about = view.about(record)
    facts = _Flow([Text(f"{name} {text}", style="dim") for name, text in about.facts])
    return Group(Text(about.title, style="bold"), facts, Text(), Scorecard(record.claims), Text(), Text(about.tally))


def stories(record: Record) -> RenderableType | None:
    """What happened step by step in the claims that act something out; None when none does."""
    told = [claim for claim in record.claims if claim.story]
    if not told:
        return None
    return Group(
        *(part for claim in told for part in (Text(plain(claim.sentence), style="bold", overflow="fold"), _steps(claim.story), Text()))
    )


def _steps(story: Sequence[Event]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", width=3)
    grid.add_column(ratio=1, overflow="fold")
    for number, event in enumerate(story, start=1):
        state = show.passed(event.passed)
        line = Text.assemble((plain(event.actor), "bold"), f": {plain(event.action)} ", ("→ ", "dim"), plain(event.outcome))
        grid.add_row(f"{number}.", Text.assemble(line, "  ", (state, "bold")) if state else line)
    return grid


def scorecard_text(record: Record, *, width: int = 80, encoding: str = "utf-8") -> str:
    """The same as plain text without colour, in characters that `encoding` has."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(scorecard(record))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return encodable("\n".join(lines) + "\n", encoding)


def _mark(claim: Evidence) -> Text:
    return Text(show.verdict(claim.verdict), style=STYLES[claim.verdict])


def _beside(mark: Text, body: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=_MARK)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row(mark, body)
    return grid


def _body(claim: Evidence) -> RenderableType:
    """Sentence, figure and control on one line (or on two if they do not fit), and where it holds or fails."""
    head = view.headline(claim)
    figure = Text(f"{head.quantity} {head.figure}".strip())
    control = Text(f"control: {view.control_text(head)}", style="dim")
    why = [Text(plain(claim.reason), style="dim italic", overflow="fold")] if claim.reason else []
    return Group(Text(plain(claim.sentence), style="bold", overflow="fold"), _Flow([figure, control]), *why)


@dataclass(frozen=True)
class _Flow:
    """Texts side by side as far as the width allows; a text is broken only if it is wider than a line."""

    items: Sequence[Text]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for item in self.items:
            if line.cell_len and line.cell_len + 3 + item.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text.assemble(line, "   ", item) if line.cell_len else item.copy()
        yield line
