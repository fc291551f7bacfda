"""The report as one HTML file that needs nothing else: no request, no font, no script from elsewhere, no eval."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import jinja2
from markupsafe import Markup

from badnets.core.types import FRAME, Evidence, Picture, Record
from badnets.report import _format as show
from badnets.report import _view as view
from badnets.report._escape import json_in_html, plain
from badnets.report.charts import Drawing, drawings

PICTURE_BUDGET = 1_000_000
_SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-interpreter.js", "report.js")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class _Figure:
    """A drawing with its place on the page."""

    id: str
    drawing: Drawing


@dataclass(frozen=True)
class _Row:
    """Pictures that belong together; `film`: they are the frames of one, `votes`: what is said of it as a whole."""

    pictures: list[dict[str, Any]]
    film: bool
    votes: list[view.Fact]


@dataclass(frozen=True)
class _Section:
    """One claim as the page shows it."""

    id: str
    number: int
    claim: Evidence
    figures: list[_Figure]
    table: view.Table
    head: view.Headline
    pictures: list[_Row]
    left_out: int

    @property
    def panels(self) -> list[list[_Figure]]:
        """The figures in order, maps that follow one another together: they are to be compared."""
        groups = groupby(self.figures, key=lambda figure: figure.drawing.kind == "map")
        return [panel for is_map, found in groups for panel in ([list(found)] if is_map else [[figure] for figure in found])]


def render_html(record: Record) -> str:
    """The whole page; the same record gives the same bytes."""
    album = _Album()
    gallery, left_out = album.rows(record.gallery)
    sections = [_section(number, claim, album) for number, claim in enumerate(record.claims, start=1)]
    specs = {f.id: f.drawing.spec for s in sections for f in s.figures if f.drawing.spec is not None}
    style = _asset("report.css")
    scripts = [_asset(name) for name in _SCRIPTS] if specs else [_asset("report.js")]
    page = _template().render(
        record=record,
        about=view.about(record),
        sections=sections,
        gallery=gallery,
        left_out=left_out,
        undecided=view.undecided(record),
        provenance=view.provenance(record),
        policy=_policy(style, scripts),
        style=Markup(style),  # our own file
        scripts=[Markup(script) for script in scripts],  # our own files
        chart_data=Markup(json_in_html(specs)),  # escaped for this sink
        show=show,
        meanings=show.MEANINGS,
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _section(number: int, claim: Evidence, album: _Album) -> _Section:
    figures = [_Figure(f"chart-{number}-{i}", drawing) for i, drawing in enumerate(drawings(claim), start=1)]
    return _Section(f"claim-{number}", number, claim, figures, view.table(claim), view.headline(claim), *album.rows(claim.pictures))


class _Album:
    """The pictures of the page: all of them together may weigh so much, those that come first come in."""

    def __init__(self) -> None:
        self._spent = 0

    def rows(self, rows: Iterable[list[Picture]]) -> tuple[list[_Row], int]:
        """Pictures with their facts, as far as the page's weight allows; the rest is counted."""
        left_out, shown = 0, []
        for row in rows:
            kept = []
            for picture in row:
                self._spent += len(picture.png_base64)
                if self._spent > PICTURE_BUDGET:
                    left_out += 1
                    continue
                kept.append(_picture(picture))
            if kept:
                film = len(row) > 1 and all(FRAME in picture.facts for picture in row)
                shown.append(_Row(kept, film, view.votes(row[0]) if film else []))
        return shown, left_out


def _picture(picture: Picture) -> dict[str, Any]:
    facts = view.facts(picture)
    said = ", ".join(f"{fact.name} {fact.value}" for fact in facts)
    alt = f"{plain(picture.caption)}{': ' if said else ''}{said}"
    return {"caption": picture.caption, "source": _source(picture.png_base64), "alt": alt, "facts": facts}


def _source(text: str) -> Markup | None:
    """A data address if `text` really is a PNG in base64, otherwise None (the page then says so)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return Markup(f"data:image/png;base64,{text}") if data.startswith(_PNG) else None  # base64 letters only


def _policy(style: str, scripts: Iterable[str]) -> str:
    """A content security policy that names by hash what may run and allows no connection at all."""
    allowed = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return files("badnets.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("report.html.j2"))


def _finalize(value: object) -> object:
    """Every text that reaches the page loses its control characters; markup of our own passes."""
    return value if isinstance(value, Markup | Mapping) else plain(value)
