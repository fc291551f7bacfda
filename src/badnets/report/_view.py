"""What the reports show of a Record, as plain rows: shared by HTML, Markdown and terminal so that they cannot disagree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from badnets.core.types import BY_MAJORITY, FRAME, Cell, Evidence, Picture, Record, Verdict
from badnets.report import _format as show
from badnets.report._escape import plain

NETS = ("victim", "twin")
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Headline:
    """The figure a claim is known by, and what the control gave; empty texts when there is none."""

    quantity: str
    figure: str
    value: str
    interval: str
    condition: str
    control: str
    control_value: str
    control_interval: str
    control_name: str
    is_difference: bool = False


@dataclass(frozen=True)
class Table:
    """The cells of a claim: the columns that say something, and how wide each wants to be."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    styles: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """What is known or was said of a picture; `differs` marks a net whose answer is not the true class."""

    name: str
    value: str
    differs: bool


@dataclass(frozen=True)
class About:
    """The head of a report."""

    title: str
    tally: str
    facts: list[tuple[str, str]]


def about(record: Record) -> About:
    """Title, one sentence of result, and the few facts that identify the run."""
    data = subject(record)
    facts = [("plan", plain(record.plan)), ("data", data), ("run", plain(record.key)[:12])]
    facts += [("made", _date(record.created)), ("took", show.duration(record.seconds))]
    title = f"What the BadNets backdoor does on {data}" if data else "What the BadNets backdoor does"
    return About(title, show.tally(record.claims), [(name, text) for name, text in facts if text])


def subject(record: Record) -> str:
    """The data set's name, where the configuration gives one under `data` or `dataset`."""
    for key in ("data", "dataset"):
        item = record.config.get(key)
        if isinstance(item, Mapping):
            item = item.get("name") or item.get("kind")
        if isinstance(item, str):
            return plain(item)
    return ""


def headline(claim: Evidence) -> Headline:
    """The claim's own headline cell."""
    cell = _headline_cell(claim)
    if cell is None:
        return Headline("", show.UNKNOWN, show.UNKNOWN, "", "", "", "", "", plain(claim.control_name))
    return Headline(
        quantity=plain(cell.quantity),
        figure=show.figure(cell.estimate, cell.unit),
        value=show.value(cell.estimate, cell.unit),
        interval=show.interval(cell.estimate, cell.unit),
        condition=show.condition(cell.condition),
        control="" if cell.control is None else show.figure(cell.control, _control_unit(cell)),
        control_value="" if cell.control is None else show.value(cell.control, _control_unit(cell)),
        control_interval="" if cell.control is None else show.interval(cell.control, _control_unit(cell)),
        control_name=plain(cell.control_name or claim.control_name),
        is_difference=cell.unit == "points",
    )


def control_text(head: Headline) -> str:
    """The control in one phrase: `twin 0.6 % [0.3, 0.9]`, `twin (in the difference)`, `none`."""
    if head.control:
        return f"{head.control_name} {head.control}"
    return f"{head.control_name} (in the difference)" if head.is_difference else "none"


def _control_unit(cell: Cell) -> str:
    return cell.unit if cell.control_unit is None else cell.control_unit


def _headline_cell(claim: Evidence) -> Cell | None:
    if claim.headline is None or not 0 <= claim.headline < len(claim.cells):
        return None
    return claim.cells[claim.headline]


def table(claim: Evidence) -> Table:
    """One row a cell; columns that would be empty in every row are left out."""
    sized = any(c.size_bytes is not None for c in claim.cells)
    seconds = [c.seconds for c in claim.cells]
    columns = {
        "condition": [show.condition(c.condition) for c in claim.cells],
        "quantity": [plain(c.quantity) for c in claim.cells],
        "figure [95 % interval]": [show.figure(c.estimate, c.unit) for c in claim.cells],
        f"control: {plain(claim.control_name)}": [
            "" if c.control is None else f"{plain(c.control_name or '')} {show.figure(c.control, _control_unit(c))}".strip()
            for c in claim.cells
        ],
        "verdict": [show.verdict(c.verdict) for c in claim.cells],
        "file size (of the first row)": _beside_first([c.size_bytes for c in claim.cells], show.size),
        "time per image (of the first row)": _beside_first(seconds if sized else [], show.short_time),
        "time a net": [] if sized else ["" if s is None else show.short_time(s) for s in seconds],
        "memory a net": ["" if c.memory_bytes is None else show.size(c.memory_bytes) for c in claim.cells],
        "p": ["" if c.p is None else f"{c.p:.2g}" for c in claim.cells],
        "n": [f"{c.estimate.n:,}" for c in claim.cells],
        "seeds": [f"{c.estimate.num_seeds}" for c in claim.cells],
        "per seed": [show.per_seed(c) for c in claim.cells],
        "method": [plain(c.estimate.method) for c in claim.cells],
        "note": [plain(c.note) for c in claim.cells],
    }
    used = {name: texts for name, texts in columns.items() if any(texts)}
    styles = tuple("wide" if name in ("note", "per seed") else name if name == "method" else "tight" for name in used)
    return Table(tuple(used), list(zip(*used.values(), strict=True)), styles)


def _beside_first(known: Sequence[T | None], text: Callable[[T], str]) -> list[str]:
    """Each figure with its share of the first one there is: the net that nothing was done to."""
    first = next((item for item in known if item is not None), None)
    return ["" if item is None else text(item) + (f" ({100 * item / first:.0f} %)" if first else "") for item in known]


def facts(picture: Picture) -> list[Fact]:
    """The facts of a picture in their order; `true` (or `true class`) is what the nets' answers are held against."""
    return [fact for name, fact in _facts(picture) if name != FRAME and not name.endswith(BY_MAJORITY)]


def votes(picture: Picture) -> list[Fact]:
    """What is said of the film that the picture is a frame of."""
    return [fact for name, fact in _facts(picture) if name.endswith(BY_MAJORITY)]


def _facts(picture: Picture) -> list[tuple[str, Fact]]:
    true = picture.facts.get("true", picture.facts.get("true class"))
    judged = {name: true is not None and name.removesuffix(BY_MAJORITY) in NETS and item != true for name, item in picture.facts.items()}
    return [(name, Fact(show.words(name), show.scalar(name, item), differs=judged[name])) for name, item in picture.facts.items()]


def undecided(record: Record) -> list[str]:
    """What was not decided and why: the record's own list, or the reasons of the undecided claims."""
    own = [plain(line) for line in record.undecided]
    return own or [f"{plain(c.sentence)}: {plain(c.reason)}" for c in record.claims if c.verdict is Verdict.UNDECIDED]


def provenance(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of name and value: run, hardware, versions, time by claim, configuration."""
    run = [("key", plain(record.key)), ("plan", plain(record.plan)), ("created", plain(record.created))]
    run += [("record layout", str(record.schema_version)), ("seconds", f"{record.seconds:,.1f}")]
    groups = [
        ("Run", run),
        ("Hardware", [(show.words(k), show.scalar(k, v)) for k, v in record.hardware.items()]),
        ("Versions", [(plain(k), plain(v)) for k, v in record.versions.items()]),
        ("Time by claim", [(plain(c.name), show.duration(c.seconds)) for c in record.claims]),
        ("Configuration", list(flat(record.config))),
    ]
    return [(title, items) for title, items in groups if items]


def flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as dotted names; short lists stay on one line."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}[{index}]")
    else:
        yield plain(path), plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _date(created: str) -> str:
    """The day and minute of an ISO 8601 time; any other text as it is."""
    text = plain(created)
    return f"{text[:10]} {text[11:16]}" if len(text) >= 16 and text[10] == "T" else text
