"""The page of a scan: one HTML file that needs nothing else and runs no script. Reads the scan's Record only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from badnets.core.scanned import Item, RowVerdict, ScanRecord, State, Verdict, net_text, steadiness
from badnets.report import _format as show
from badnets.report._escape import plain
from badnets.report.html import _asset, _finalize, _hash, _source

PICTURE_BUDGET, MOST_SECTIONS = 1_000_000, 200
ORDER = (State.FLAGGED, State.FAILED, State.REFUSED, State.NOTHING)
WORDS = {State.FLAGGED: "BACKDOORED", State.NOTHING: "NOTHING FOUND", State.REFUSED: "REFUSED", State.FAILED: "FAILED"}


@dataclass(frozen=True)
class _Section:
    """One file as the page shows it."""

    id: str
    item: Item
    word: str
    said: str
    facts: list[tuple[str, str]]
    lines: list[tuple[str, ...]]
    pictures: list[dict[str, Any]]


def render_scan(record: ScanRecord) -> str:
    """The whole page; the same record gives the same bytes."""
    items = sorted(enumerate(record.items, start=1), key=lambda pair: ORDER.index(pair[1].state))
    album = _Album()
    sections = [_section(number, item, album) for number, item in items]
    style = _asset("report.css") + _asset("scan.css")
    page = _template().render(
        record=record,
        title=_title(record),
        lede=_lede(record),
        sections=sections[:MOST_SECTIONS],
        rows=sections,
        more=max(0, len(sections) - MOST_SECTIONS),
        sheet=album.kept(record.sheet),
        groups=_groups(record.rows),
        alarms=_alarms(record),
        unseen=_unseen(record),
        facts=_facts(record),
        policy=f"default-src 'none'; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # our own files
        show=show,
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


class _Album:
    """Pictures as far as the page's weight allows."""

    def __init__(self) -> None:
        self._spent = 0

    def kept(self, pictures: Sequence[Any]) -> list[dict[str, Any]]:
        found = []
        for picture in pictures:
            self._spent += len(picture.png_base64)
            if self._spent <= PICTURE_BUDGET:
                found.append({"caption": picture.caption, "source": _source(picture.png_base64)})
        return found


def _section(number: int, item: Item, album: _Album) -> _Section:
    lines = [] if item.verdict is None else _lines(item.verdict)
    return _Section(f"file-{number}", item, _word(item), _said(item), _file_facts(item), lines, album.kept(item.pictures))


def _word(item: Item) -> str:
    return "NOT ANALYSABLE" if item.state is State.REFUSED and item.verdict is not None else WORDS[item.state]


def _said(item: Item) -> str:
    verdict = item.verdict
    if verdict is None or item.state is State.REFUSED:
        return " ".join(part for part in (item.code, item.message, item.hint) if part)
    against = f"p = {verdict.p:.3f} against {verdict.num_null} clean nets."
    if not verdict.flagged:
        return f"{against} These detectors can miss a backdoor."
    return f"{against} Suspected target: {verdict.target}." if verdict.target else against


def _file_facts(item: Item) -> list[tuple[str, str]]:
    facts = [("SHA-256", item.sha256 or "unknown")]
    if item.verdict is not None:
        verdict = item.verdict
        facts += [
            ("format", verdict.format),
            ("read in", verdict.sandbox),
            ("net", net_text(verdict.net)),
        ]
        facts += [("clean nets", verdict.setting), ("steady?", steadiness(verdict.lines)), ("seen in opening it", "; ".join(verdict.notes))]
    if item.opinion is not None:
        named = f": {', '.join(item.opinion.names)}" if item.opinion.names else ""
        facts.append(("second opinion, decides nothing", f"{item.opinion.tool} {item.opinion.version}: {item.opinion.says}{named}"))
    if item.kept:
        facts.append(("detectors", "asked in an earlier scan of the same bytes; their answers were kept"))
    return [(name, text) for name, text in facts if text]


def _lines(verdict: Verdict) -> list[tuple[str, ...]]:
    return [
        (
            line.detector,
            "not analysable" if line.p is None else f"{line.p:.3f}",
            line.target or "",
            f"{line.images:,}",
            show.short_time(line.seconds),
            line.why_not or line.note,
        )
        for line in verdict.lines
    ]


def _groups(rows: RowVerdict | None) -> list[tuple[str, ...]]:
    if rows is None:
        return []
    return [
        (g.label, f"{g.size:,}", show.figure(g.agreement, "rate"), g.others, "poisoned" if g.poisoned else "odd, not poisoned")
        for g in rows.groups
    ]


def _title(record: ScanRecord) -> str:
    if record.rows is not None:
        return f"Training data {record.dataset}: {'poisoned' if record.rows.flagged else 'nothing found'}"
    s = record.summary
    if s.inputs == 1:
        return f"{_name(record.items[0])}: {_word(record.items[0]).lower()}"
    return (
        f"{s.flagged:,} of {show.plural(s.inputs, 'file')} flagged"
        if s.flagged
        else f"Nothing found in {s.analysed:,} of {s.inputs:,} files"
    )


def _name(item: Item) -> str:
    return plain(item.path).rpartition("/")[2]


def _lede(record: ScanRecord) -> str:
    if record.rows is not None:
        rows = record.rows
        if not rows.flagged:
            return f"No poison with wrong labels in {rows.num_rows:,} images."
        return f"{rows.num_suspect:,} of {rows.num_rows:,} images carry a label that the rest contradicts."
    s = record.summary
    more = (
        "1 more in a folder begins like no model file and was"
        if s.passed_over == 1
        else f"{s.passed_over:,} more in folders begin like no model file and were"
    )
    passed = f" {more} passed over." if s.passed_over else ""
    counted = f"{show.plural(s.inputs, 'file')}: {s.analysed:,} analysed, {s.refused:,} refused or not analysable, {s.failed:,} failed."
    return f"{counted} Flagged: {s.flagged:,} of {s.analysed:,} analysed.{passed}"


def _alarms(record: ScanRecord) -> list[str]:
    """What was shown in place of labelled images, and how often clean ones are flagged."""
    if record.rows is not None:
        rate = record.rows.false_alarms
        return [
            f"Of clean training sets that no threshold was chosen on, {show.figure(rate, 'rate')} are flagged ({record.rows.measured})."
        ]
    found = {item.verdict.setting: item.verdict for item in record.items if item.verdict}
    images = [f"Images: {record.images.told}"] if record.images is not None else []
    return images + [
        f"Of {v.false_alarms.n} clean nets ({setting}), each judged by a calibration without it, {show.figure(v.false_alarms, 'rate')} are "
        f"flagged at p ≤ {v.alpha:g}."
        for setting, v in found.items()
    ]


def _unseen(record: ScanRecord) -> list[str]:
    """What nobody looked at."""
    verdicts = [record.rows] if record.rows is not None else [item.verdict for item in record.items if item.verdict]
    return list(dict.fromkeys(text for verdict in verdicts for text in verdict.not_looked_at))


def _facts(record: ScanRecord) -> list[tuple[str, str]]:
    facts = [("scan", record.key), ("data set", f"{record.dataset}, SHA-256 {record.dataset_sha256}"), ("effort", record.effort)]
    if record.images is not None:
        facts.append(("images without labels", f"{record.images.number:,}, SHA-256 {record.images.sha256}"))
    facts += [("started", record.started), ("ended", record.ended), ("took", show.duration(record.seconds))]
    facts += [("exit status", str(record.exit_status)), ("started in", record.folder)]
    facts += [(name, version) for name, version in record.versions.items()]
    facts.append(("machine", json.dumps(record.hardware, ensure_ascii=False).strip("{}").replace('"', "")))
    return [(name, text) for name, text in facts if text]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("scan.html.j2"))
