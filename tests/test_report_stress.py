"""What schema 2 added to the report: maps, stories, pictures of a claim, sizes and times; and which schemas can be read."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess

import pytest
import record_samples as samples
import tiny
from rich.console import Console
from test_report import Page, contrast

from badnets.cli._scoreboard import Scoreboard
from badnets.core.errors import RefusedError
from badnets.core.store import Store
from badnets.core.types import Cell, Chart, Estimate, Evidence, Picture, Record, Verdict
from badnets.report import _format as show
from badnets.report import _map, charts
from badnets.report import _view as view
from badnets.report.html import PICTURE_BUDGET, render_html
from badnets.report.markdown import render_markdown
from badnets.report.text import Board, stories

MAP = Chart(title="t", kind="map", quantities=["ASR"], x="learning rate", y="clean share", margin=0.5)


@pytest.fixture(scope="module")
def html():
    return render_html(samples.stressed())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def cell(value, verdict=None, unit="rate", quantity="ASR", **condition):
    known = Estimate(value=value, low=value, high=value, n=9, num_seeds=3, method="m")
    names = {"lr": "learning rate", "share": "clean share"}
    return Cell(condition={names.get(k, k): v for k, v in condition.items()}, quantity=quantity, unit=unit, estimate=known, verdict=verdict)


def drawn(chart, cells):
    return charts.drawings(Evidence(name="n", sentence="s", verdict=Verdict.UNDECIDED, reason="r", cells=cells, charts=[chart]))


def places(drawing):
    return {(row["x"], row["y"]): row for row in drawing.spec["data"]["values"]}


def axes(drawing):
    encoding = drawing.spec["layer"][0]["encoding"]
    return encoding["x"]["scale"]["domain"], encoding["y"]["scale"]["domain"]


def edges(drawing):
    return [row for layer in drawing.spec["layer"] if layer["mark"].get("strokeWidth") == 3.5 for row in layer["data"]["values"]]


# Maps


def test_axes_have_the_values_that_occur_in_their_order_shares_in_percent_and_learning_rates_plain():
    (drawing,) = drawn(MAP, [cell(0.9, lr=lr, share=share) for lr in (0.1, 0.001, 0.01) for share in (0.05, 0.01, 1.0)])
    assert axes(drawing) == (["0.001", "0.01", "0.1"], ["100 %", "5 %", "1 %"])
    names = MAP.model_copy(update={"x": "layers"})
    (drawing,) = drawn(names, [cell(0.9, layers=name, share=0.1) for name in ("head", "all")])
    assert axes(drawing)[0] == ["head", "all"]


def test_a_learning_rate_is_no_share_and_a_poison_rate_is():
    assert show.condition({"learning rate": 0.01, "clean share": 0.01}) == "learning rate 0.01, clean share 1 %"
    assert show.condition({"share of units": 0.05}) == "share of units 5 %"
    assert show.condition({"learning_rate": 0.3, "poison_rate": 0.3}) == "learning rate 0.3, poison rate 30 %"


def test_where_chooses_the_cells_of_every_kind_of_chart():
    cells = [cell(v, lr=0.1, share=0.1, layers=layers, epochs=5) for v, layers in ((0.9, "all"), (0.2, "head"))]
    cells.append(cell(0.5, lr=0.1, share=0.1))
    for kind, field in (("map", "text"), ("band", "v"), ("dots", "v"), ("heat", "v")):
        chart = MAP.model_copy(update={"kind": kind, "where": {"layers": "head", "epochs": 5}})
        (drawing,) = drawn(chart, cells)
        assert [row[field] for row in drawing.spec["data"]["values"]] == ["20 %" if kind == "map" else 20.0]


def test_the_boundary_runs_between_neighbours_on_different_sides_only():
    values = {(0.01, 0.1): 0.9, (0.1, 0.1): 0.1, (0.01, 0.2): 0.9, (0.1, 0.2): 0.8}
    (drawing,) = drawn(MAP, [cell(v, lr=lr, share=share) for (lr, share), v in values.items()])
    assert edges(drawing) == [{"x": "0.01", "y": "10 %"}, {"x": "0.1", "y": "20 %"}]
    (alone,) = drawn(MAP, [cell(v, lr=lr, share=0.1) for lr, v in ((0.01, 0.9), (0.1, 0.8))])
    assert edges(alone) == []
    assert [key.shape for key in alone.legend] == ["cells"]
    (gap,) = drawn(MAP, [cell(0.9, lr=0.01, share=0.1), cell(0.1, lr=0.1, share=0.2)])
    assert edges(gap) == []


def test_the_sides_are_told_apart_in_words():
    (drawing,) = drawn(MAP, [cell(0.9, lr=0.01, share=0.1), cell(0.1, Verdict.UNDECIDED, lr=0.1, share=0.1), cell(0.1, lr=0.1, share=0.2)])
    assert [key.label for key in drawing.legend] == [
        "backdoor survives: 50 % or more",
        "backdoor removed: below 50 %",
        "the line between them",
        "undecided: the interval reaches across the line",
        "– no figure",
    ]
    (other,) = drawn(
        MAP.model_copy(update={"quantities": ["CA loss"], "margin": 0.05}),
        [cell(v, unit="points", quantity="CA loss", lr=v, share=0.1) for v in (0.01, 0.2)],
    )
    assert [key.label for key in other.legend][:2] == ["5 points or more", "below 5 points"]
    assert [row["text"] for row in other.spec["data"]["values"]] == ["+1.0", "+20.0"]


def test_undecided_cells_are_marked_and_cells_without_a_figure_stand_as_such():
    cells = [cell(0.47, Verdict.UNDECIDED, lr=0.01, share=0.1), cell(0.9, Verdict.HOLDS, lr=0.1, share=0.2)]
    unknown = Estimate(value=None, low=None, high=None, n=0, num_seeds=0, method="m")
    cells.append(cells[0].model_copy(update={"condition": {"learning rate": 0.1, "clean share": 0.1}, "estimate": unknown}))
    (drawing,) = drawn(MAP, cells)
    found = places(drawing)
    assert {place: row["text"] for place, row in found.items()} == {
        ("0.01", "10 %"): "47 ?",
        ("0.1", "10 %"): "–",
        ("0.01", "20 %"): "–",
        ("0.1", "20 %"): "90 %",
    }
    assert found["0.01", "10 %"]["open"] is True
    assert found["0.1", "20 %"]["open"] is False
    assert "fill" not in found["0.1", "10 %"]
    (nothing,) = drawn(MAP, cells[2:])
    assert (nothing.spec, nothing.omitted, nothing.legend) == (None, 1, ())


@pytest.mark.parametrize(
    ("value", "text"), [(0.4962, "49.6 %"), (0.4997, "49.97 %"), (0.5, "50 %"), (0.503, "50 %"), (1.0, "100 %"), (0.0, "0 %")]
)
def test_a_figure_is_never_rounded_across_the_margin(value, text):
    (drawing,) = drawn(MAP, [cell(value, lr=0.1, share=0.1)])
    (row,) = drawing.spec["data"]["values"]
    assert row["text"] == text
    assert (row["fill"] in _map.ABOVE) == (value >= 0.5)


def test_every_figure_reads_on_its_ground():
    for fill in (*_map.ABOVE, *_map.BELOW, *charts.HEAT):
        ink = _map.ON_DARK if fill in _map._DARK else _map.ON_LIGHT
        assert contrast(fill, ink) >= 4.5, fill


def test_the_sides_differ_on_grey_paper():
    for darkest in _map.BELOW:
        assert all(contrast(darkest, fill) >= 1.3 for fill in _map.ABOVE)


def test_more_of_the_backdoor_is_darker():
    (drawing,) = drawn(MAP, [cell(i / 20, lr=float(i), share=0.1) for i in range(21)])
    fills = [row["fill"] for row in drawing.spec["data"]["values"]]
    shades = [contrast(fill, "#ffffff") for fill in fills]
    assert shades == sorted(shades)
    assert set(fills) == {*_map.ABOVE, *_map.BELOW}
    assert all("%" not in row["text"] for row in drawing.spec["data"]["values"])


def test_a_map_without_a_margin_has_no_line():
    (drawing,) = drawn(MAP.model_copy(update={"margin": None}), [cell(v, lr=v, share=0.1) for v in (0.1, 0.9)])
    assert edges(drawing) == []
    assert {row["fill"] for row in drawing.spec["data"]["values"]} <= set(charts.HEAT)


def test_cells_that_would_stand_on_one_another_get_a_map_each():
    found = drawn(MAP, [cell(v, lr=0.1, share=0.1, layers=layers) for v, layers in ((0.9, "all"), (0.2, "head"))])
    assert [(d.scope, d.spec["data"]["values"][0]["text"]) for d in found] == [("layers all", "90 %"), ("layers head", "20 %")]


def test_a_map_is_told_row_by_row_to_those_who_cannot_see_it():
    (drawing,) = drawn(MAP, [cell(0.47, Verdict.UNDECIDED, lr=0.01, share=0.1), cell(0.9, Verdict.HOLDS, lr=0.1, share=0.2)])
    assert "clean share 20 %, learning rate 0.01: not measured; learning rate 0.1: 90.0 %." in drawing.summary
    assert "clean share 10 %, learning rate 0.01: 47.0 %, undecided; learning rate 0.1: not measured." in drawing.summary


def test_maps_of_one_claim_stand_in_one_panel(page, html):
    assert len(page.classed("panels")) == 1
    assert sum("chart" in a["class"].split() for a in page.classed("map")) == 3
    assert html.count("Darker means more of the backdoor is left.") == 2
    assert '<span class="scope">layers: head, epochs 5</span>' in html


# Stories, pictures, sizes


def test_a_story_is_an_ordered_list(page, html):
    (story,) = page.classed("story")
    assert story["aria-labelledby"] in {a["id"] for a in page.all("h3") if "id" in a}
    assert len(page.all("ol")) == 1
    assert len(page.classed("act")) == len(samples.STORY)
    assert [a["class"] for a in page.classed("state")] == ["state yes", "state no", "state yes"]
    assert html.index("writes weights") < html.index("flips one byte") < html.index("shows an image with the trigger")
    assert Page(render_html(samples.sample())).all("ol") == []


def test_a_story_in_markdown_and_in_the_terminal():
    text = render_markdown(samples.stressed())
    assert "### Step by step\n\n1. **publisher**: writes weights" in text
    assert "\n4. **customer**: flips one byte of a copy and compares again → the sum differs **✗ refused**\n" in text
    assert "\n6. **attacker**: shows an image with the trigger → 99.8 % of such images go to the target\n" in text
    assert stories(samples.sample()) is None
    out = io.StringIO()
    Console(file=out, width=80).print(stories(samples.stressed()))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0].startswith("A downloaded pre-trained model")
    assert sum(bool(re.match(r" \d\. ", line)) for line in lines) == len(samples.STORY)
    assert max(map(len, lines)) <= 80
    assert "passed" in out.getvalue()


def test_pictures_stand_with_their_claim(page, html):
    images = page.all("img")
    assert len(images) == 9 + sum(map(len, samples.stressed().gallery))
    assert images[0]["alt"] == "unit 0 sees: activation 3.5"
    assert html.index('id="claim-3"') < html.index("unit 0 sees") < html.index('id="gallery"')


def test_all_pictures_of_a_page_share_one_budget():
    data = samples.png(1, True)
    half = PICTURE_BUDGET // len(data) // 2 + 2
    row = [Picture(caption="x", png_base64=data)] * half
    claim = samples.supply_chain().model_copy(update={"pictures": [row]})
    text = render_html(samples.empty().model_copy(update={"claims": [claim, claim], "gallery": [row[:3]]}))
    assert text.count("data:image/png") == PICTURE_BUDGET // len(data)
    assert f"{3 + 2 * half - PICTURE_BUDGET // len(data)} further pictures left out" in text


def test_sizes_and_times_have_columns_only_where_they_are_known():
    table = view.table(samples.survives_compression())
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    size, time = "file size (of the first row)", "time per image (of the first row)"
    assert [row[size] for row in rows] == ["402.3 KiB (100 %)", "101.6 KiB (25 %)", "56.6 KiB (14 %)", "93.8 KiB (23 %)"]
    assert [row[time] for row in rows][:2] == ["61.0 µs (100 %)", "27.0 µs (44 %)"]
    for claim in samples.sample().claims:
        assert not {size, time} & set(view.table(claim).columns)
    partly = [c.model_copy(update={"size_bytes": None}) if i == 1 else c for i, c in enumerate(samples.survives_compression().cells)]
    table = view.table(samples.survives_compression().model_copy(update={"cells": partly}))
    assert table.rows[1][table.columns.index(size)] == ""


@pytest.mark.parametrize(("size", "text"), [(812, "812 B"), (86_221, "84.2 KiB"), (1_373_634, "1.31 MiB"), (2_576_980_378, "2.40 GiB")])
def test_size(size, text):
    assert show.size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.3e-6, "12.3 µs"), (1.42e-3, "1.42 ms"), (0.35, "350 ms"), (2.5, "2.50 s"), (1000, "16 min 40 s")]
)
def test_short_time(seconds, text):
    assert show.short_time(seconds) == text


def test_the_page_stays_light(html):
    assert len(render_html(samples.full()).encode()) <= 3_000_000


# The scoreboard


@pytest.mark.parametrize("width", [40, 80, 120])
def test_fifteen_claims_fit_a_terminal_of_twenty_lines(width):
    out = io.StringIO()
    claims = samples.full().claims
    Console(file=out, width=width).print(Board(claims[:11], [(c.sentence, "…") for c in claims[11:]]))
    lines = out.getvalue().splitlines()
    assert len(lines) == 15
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("◐ CONDITIONAL   Any input")
    assert lines[11].startswith("…               The backdoored")
    assert ("ASR 99.4 %" in lines[1]) == (width == 120)


def test_the_live_scoreboard_draws_one_line_a_claim():
    board = Scoreboard("quick on x")
    board.decided(samples.supply_chain())
    out = io.StringIO()
    Console(file=out, width=80).print(board._draw())
    assert len(out.getvalue().splitlines()) == 3


# The schema of a record


def stored(tmp_path, **changes):
    """A store that holds one record, written by this version and then changed as another version might have written it."""
    store, record = Store(tmp_path), samples.empty()
    data = {**json.loads(record.model_dump_json(by_alias=True)), **changes}

    class Other(Record):
        def model_dump(self, **_):
            return data

    store.put_record(Other.model_construct(**dict(record)))
    return store


def old_claim():
    """A claim as schema 1 had it."""
    claim = json.loads(samples.regardless_of_content().model_dump_json())
    for part, names in ((claim, ("story", "pictures")), *((c, ("where", "note")) for c in claim["charts"])):
        for name in names:
            del part[name]
    for part in claim["cells"]:
        del part["size_bytes"], part["seconds"]
    return without_schema_3(claim)


def without_schema_3(claim):
    """A claim as schema 2 had it."""
    for part in claim["charts"]:
        del part["x_margin"], part["x_line"], part["x_line_text"]
    for part in claim["cells"]:
        del part["memory_bytes"]
    return claim


def test_a_record_says_schema_3():
    assert json.loads(samples.empty().model_dump_json(by_alias=True))["schema"] == 3


def test_a_record_of_schema_1_is_read_as_what_it_means_now():
    data = json.loads(samples.empty().model_dump_json(by_alias=True)) | {"schema": 1, "claims": [old_claim()]}
    record = Record.read(json.dumps(data))
    assert record.claims == [samples.regardless_of_content()]
    assert record.schema_version == 3
    Page(render_html(record))


def test_a_record_of_schema_2_is_read_and_shown_as_it_was():
    data = json.loads(samples.stressed().model_dump_json(by_alias=True)) | {"schema": 2}
    for claim in data["claims"]:
        without_schema_3(claim)
    record = Record.read(json.dumps(data))
    assert record == samples.stressed()
    assert (render_html(record), render_markdown(record)) == (render_html(samples.stressed()), render_markdown(samples.stressed()))


@pytest.mark.parametrize("schema", [0, 4, -1, "2", None, True, 1.5, [1], {"a": 1}, 10**30])
def test_an_unknown_schema_is_refused(schema):
    data = json.loads(samples.empty().model_dump_json(by_alias=True)) | {"schema": schema, "unknown": 1}
    for read in (Record.read, Record.model_validate_json):
        with pytest.raises(RefusedError, match=r"E-SCHEMA expected a record of schema 1, 2 or 3, got .*`badnets run`") as caught:
            read(json.dumps(data))
        assert caught.value.exit_status == 3


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"schema": 2}', '{"schema": 2, "key": 1}', "[" * 5_000, "\x00"])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(RefusedError, match=r"E-RECORD expected a record of schema 3, got a document that does not read"):
        Record.read(text)


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["diff", "0", "1"]])
def test_the_commands_refuse_a_record_of_another_schema_in_one_line(tmp_path, command):
    store = stored(tmp_path, schema=4)
    store.put_record(samples.empty().model_copy(update={"key": "1" * 64, "created": "2020"}))
    said = tiny.cli(command[0], *(["0"] if command[0] == "show" else []), *command[1:], "--store", tmp_path)
    assert said.status == 3
    assert re.fullmatch(r"error E-SCHEMA expected a record of schema 1, 2 or 3, got 4\. Read it .*\n", said.err)
    assert said.out == ""
    assert tiny.cli("show", "--all", "--store", tmp_path).status == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_maps_are_drawn_in_a_browser_without_a_word_on_the_console(tmp_path, html):
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run(["chromium", *flags, path.as_uri()], capture_output=True, text=True, timeout=55, check=True)
    assert len(re.findall(r'class="chart[^"]*drawn', done.stdout)) == 5
    assert "CONSOLE" not in done.stderr
    body = done.stdout[done.stdout.index("<body>") : done.stdout.index('id="chart-data"')]
    assert body.count(">48 ?<") == 1
