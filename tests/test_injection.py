"""Hostile text that leaves by a terminal, a CSV, a log line or a file name stays text. (Pages and Markdown: `test_report`.)"""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
import rich.console
from injection_payloads import PAYLOADS, SPREADSHEET, TERMINAL

from badnets.cli import _verdicts, main
from badnets.core.errors import RefusedError
from badnets.core.scanned import Group, Line, RowVerdict, Verdict
from badnets.core.sheet import cell, csv_text
from badnets.core.types import Estimate
from badnets.datasets._open import show

PLAIN = "harmless"
SURE = Estimate(value=0.5, low=0.4, high=0.6, n=10, num_seeds=1, method="wilson")
LINE = Line(detector="mm_bd", p=0.5, score=1.0, target=PLAIN, note=PLAIN, why_not="", images=1, seconds=1.0, unsteady=None)
VERDICT = Verdict(
    file="m.safetensors", sha256="0", format="safetensors", sandbox="none", notes=(PLAIN,), net={"kind": "fast_cnn", "width": PLAIN},
    dataset="digits", setting="fast_cnn on digits", flagged=True, p=0.01, alpha=0.05, num_null=99, false_alarms=SURE, target=PLAIN,
    lines=[LINE], why_not="",
)  # fmt: skip
GROUP = Group(label=PLAIN, size=9, agreement=SURE, others=PLAIN, poisoned=True)
ROWS = RowVerdict(dataset=PLAIN, sha256="0", flagged=True, num_rows=1000, num_suspect=9, groups=[GROUP], false_alarms=SURE, measured=PLAIN)


def with_line(text, name):
    return VERDICT.model_copy(update={"lines": [LINE.model_copy(update={name: text})]})


SHOWN = {
    "target": lambda text: VERDICT.model_copy(update={"target": text}),
    "note of the reader": lambda text: VERDICT.model_copy(update={"notes": (text,)}),
    "field of the net": lambda text: VERDICT.model_copy(update={"net": {"kind": "fast_cnn", "width": text}}),
    "why not": lambda text: VERDICT.model_copy(update={"flagged": None, "p": None, "why_not": text}),
    "target of a detector": lambda text: with_line(text, "target"),
    "note of a detector": lambda text: with_line(text, "note"),
    "why a detector did not": lambda text: with_line(text, "why_not"),
    "class with suspects": lambda text: ROWS.model_copy(update={"groups": [GROUP.model_copy(update={"label": text})]}),
    "what others say": lambda text: ROWS.model_copy(update={"groups": [GROUP.model_copy(update={"others": text})]}),
}


@pytest.fixture
def terminal(monkeypatch):
    """What a colour terminal of great width is sent."""

    def sent(found):
        out = io.StringIO()

        def console(**options):
            return rich.console.Console(file=out, width=100_000, force_terminal=True, **options)

        monkeypatch.setattr(_verdicts, "Console", console)
        if isinstance(found, Verdict):
            _verdicts.print_verdict(found, {}, {})
        else:
            _verdicts.print_rows(found, {})
        return out.getvalue()

    return sent


@pytest.mark.parametrize("payload", TERMINAL, ids=range(len(TERMINAL)))
@pytest.mark.parametrize("field", SHOWN)
def test_a_verdict_sends_the_terminal_no_order(field, payload, terminal):
    harmless, hostile = terminal(SHOWN[field](PLAIN)), terminal(SHOWN[field](payload))
    assert orders(hostile) == orders(harmless)
    assert len(hostile.splitlines()) == len(harmless.splitlines())
    if payload.isprintable() and len(payload) < 100:
        assert payload in hostile, "what is mere text is shown as it is"


def orders(text):
    """Everything in it that is neither text nor the end of a line: escape sequences without their words."""
    parts = text.split("\x1b")[1:]
    kept = ["\x1b" + (part[: part.index("m") + 1] if part.startswith("[") else part) for part in parts]
    others = [c for c in text if c not in "\x1b\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    return kept, others


@pytest.mark.parametrize("payload", SPREADSHEET, ids=range(len(SPREADSHEET)))
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_csv_has_no_formula_and_no_more_rows(column, payload):
    row = [PLAIN, PLAIN, PLAIN, 7]
    row[column] = payload
    written = csv_text(["a", "b", "c", "n"], [row, [PLAIN, PLAIN, PLAIN, -8]])
    assert written.replace("\n", "").isprintable()
    assert written.count("\n") == 3
    read = list(csv.reader(io.StringIO(written)))
    assert [len(cells) for cells in read] == [4, 4, 4]
    assert not read[1][column].lstrip().startswith(("=", "+", "-", "@"))
    assert read[2] == [PLAIN, PLAIN, PLAIN, "-8"], "numbers stay numbers"


def test_cells_that_are_mere_text_stay_as_they_are():
    for text in ("plain", "speed limit 30", "a=b", "1-2", "ünïcode 日本", ""):
        assert cell(text) == text


@pytest.mark.parametrize("payload", [*PAYLOADS, *TERMINAL], ids=range(len(PAYLOADS) + len(TERMINAL)))
def test_an_error_is_one_line(payload, capsys):
    with pytest.raises(SystemExit) as caught:
        main._leave(RefusedError("E-TEST", f"expected nothing, got {payload}.", hint="Send none."))
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (3, "")
    assert err.startswith("error E-TEST ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()


@pytest.mark.parametrize("payload", [*PAYLOADS, *TERMINAL], ids=range(len(PAYLOADS) + len(TERMINAL)))
def test_a_file_name_in_a_message_is_printable(payload):
    assert show(payload).isprintable()
    assert len(show(payload)) < 200
