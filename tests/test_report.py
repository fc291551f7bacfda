"""The report: what it shows, that hostile text stays text, that the page is complete in itself."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser

import pytest
import record_samples as samples
from injection_payloads import PAYLOADS
from rich.console import Console

from badnets.core.errors import RefusedError
from badnets.core.types import Cell, Chart, Estimate, Event, Evidence, Picture, Record, Verdict
from badnets.report import _escape, charts
from badnets.report import _format as show
from badnets.report.html import PICTURE_BUDGET, _asset, render_html
from badnets.report.markdown import render_markdown, scorecard_markdown
from badnets.report.text import Scorecard, scorecard, scorecard_text, stories

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "circle", "rect", "wbr"}


class Page(HTMLParser):
    """Elements in order with their attribute names, ids, addresses, script texts; complains about bad nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shape, self.elements, self.open, self.raw, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.shape.append((tag, tuple(name for name, _ in attrs)))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.shape.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.raw if self.open and self.open[-1] in ("script", "style") else self.text).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def classed(self, name):
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


@pytest.fixture(scope="module")
def html():
    return render_html(samples.sample())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def est(value, low=None, high=None, n=100, seeds=3):
    return Estimate(value=value, low=low, high=high, n=n, num_seeds=seeds, method="m")


# Figures


@pytest.mark.parametrize(
    ("estimate", "unit", "expected"),
    [
        (est(0.998, 0.995, 0.999), "rate", "99.8 % [99.5, 99.9]"),
        (est(-0.0012, -0.005, 0.0026), "points", "−0.12 points [−0.50, +0.26]"),
        (est(None), "rate", "unknown"),
        (est(0.5), "rate", "50.0 % [no interval]"),
        (est(0.5, 0.4), "rate", "50.0 % [no interval]"),
        (est(1.0, 1.0, 1.0), "rate", "100.0 % [100.0, 100.0]"),
        (est(0.9996, 0.9991, 0.9999), "rate", "99.96 % [99.91, 99.99]"),
        (est(0.0, 0.0, 0.0004), "rate", "0.00 % [0.00, 0.04]"),
        (est(0.623, 0.58, 0.664), "points", "+62.3 points [+58.0, +66.4]"),
        (est(0.0, -0.00001, 0.001), "points", "0.00 points [0.00, +0.10]"),
        (est(0.512, 0.431, 0.593), "", "0.512 [0.431, 0.593]"),
        (est(9, 6, 12), "units", "9 units [6, 12]"),
        (est(30123.4, 29000.0, 31000.0), "images/s", "30,123 images/s [29,000, 31,000]"),
        (None, "rate", "unknown"),
    ],
)
def test_figure(estimate, unit, expected):
    assert show.figure(estimate, unit) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.81, "0.8 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7530, "2 h 05 min"), (9.97, "10.0 s")],
)
def test_duration(seconds, expected):
    assert show.duration(seconds) == expected


def test_conditions_as_words():
    assert show.condition({"poison_rate": 0.001, "mapping": "all_to_one", "k": 8}) == "poison rate 0.1 %, mapping: all_to_one, k 8"
    assert show.condition({}) == "default setting"
    assert show.condition({"area": 9, "tuned": True, "dx": -3}) == "area 9, tuned yes, dx −3"


def test_the_three_reports_show_the_same_figures(html):
    record = samples.sample()
    markdown, text = render_markdown(record), scorecard_text(record, width=200)
    for claim in record.claims:
        cell = claim.cells[claim.headline]
        figure = show.figure(cell.estimate, cell.unit)
        assert figure in text
        assert figure in markdown
        assert f'<td class="tight">{figure}</td>' in html


# The page


def test_page_is_complete_in_itself(html, page):
    assert len(html.encode()) <= 3_000_000
    addresses = [v for _, a in page.elements for k, v in a.items() if k in ("src", "href", "srcset", "action", "data", "poster")]
    assert addresses
    assert all(a.startswith(("#", "data:image/png;base64,")) or a == "data:," for a in addresses)
    assert not any("src" in a for a in page.all("script"))
    assert "@import" not in html[: html.index("</style>")]
    assert "url(" not in html[: html.index("</style>")]
    assert "sourceMappingURL" not in html


def test_ids_are_unique_and_every_internal_link_has_its_goal(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    goals = [a["href"][1:] for a in page.all("a")]
    references = [a[k] for _, a in page.elements for k in ("aria-labelledby", "data-table") if k in a]
    assert set(goals + references) <= set(ids)


def test_every_chart_has_a_name_and_its_table(page):
    shown = page.classed("chart")
    assert len(shown) == 9
    tables = {a.get("id") for a in page.all("table")}
    for chart in shown:
        assert chart["role"] == "img"
        assert len(chart["aria-label"]) > 40
        assert chart["data-table"] in tables


def test_chart_data_parse_and_name_the_charts(html, page):
    data = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', html, re.S).group(1)
    assert "<" not in data
    assert "\u2028" not in data
    assert set(json.loads(data)) == {a["id"] for a in page.classed("chart")}


def test_policy_names_every_script_and_style_by_its_hash(html):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1).replace("&#39;", "'")
    blocks = re.findall(r"<script>(.*?)</script>", html, re.S) + re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(blocks) == 5
    for block in blocks:
        assert base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    assert " style=" not in html[: html.index("</style>")] + html[html.index("<body>") : html.index('<script type="application/json"')]


def test_scripts_of_others_can_stand_inside_a_page():
    for name in ("vega.min.js", "vega-lite.min.js", "vega-interpreter.js", "report.js"):
        script = _asset(name)
        assert not re.search(r"</script|<script|<!--", script, re.I)
        assert "\r" not in script


def test_page_can_be_used_without_eyes_or_mouse(html, page):
    assert page.all("html")[0]["lang"] == "en-GB"
    assert len(page.all("title")) == len(page.all("main")) == len(page.all("h1")) == 1
    assert page.all("a")[0]["class"] == "skip"
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("scope") for a in page.all("th"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in page.classed("scroll"))
    assert all(a.get("aria-hidden") == "true" for a in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def luminance(colour):
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast_in_every_theme(html):
    style = html[html.index("<style>") : html.index("</style>")]
    themes = [dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(themes) == 3
    for theme in themes:
        for name in ("ink", "soft", "link", "holds", "fails", "conditional", "undecided", *(f"c{i}" for i in range(6))):
            assert contrast(theme[name], theme["paper"]) >= 4.5, name
        for name in ("control", "margin"):
            assert contrast(theme[name], theme["paper"]) >= 3.0, name


def test_every_chart_colour_is_mapped_by_the_style_sheet(html):
    light = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", html[html.index(":root") : html.index("@media")]))
    assert tuple(light[f"c{i}"] for i in range(6)) == charts.PALETTE
    for colour in (*charts.PALETTE, charts.CONTROL, charts.MARGIN, charts.INK, charts.MUTED, charts.GRID):
        assert f'.chart [stroke="{colour}"]' in html


def test_empty_record_gives_a_whole_page():
    text = render_html(samples.empty())
    assert "No claim was put to the test." in text
    assert len(text) < 40_000
    Page(text)
    assert "# What the BadNets backdoor does" in render_markdown(samples.empty())
    assert "0 claims were put to the test." in scorecard_text(samples.empty())


def test_same_record_same_bytes(html):
    assert render_html(Record.model_validate_json(samples.sample().model_dump_json())) == html


def test_undecided_claims_are_listed_even_if_the_record_lists_none(html):
    assert "--effort standard trains five" in html
    silent = samples.sample().model_copy(update={"undecided": []})
    assert "Standard validation does not reveal the backdoor.: Three victims" in "".join(Page(render_html(silent)).text)


def test_too_many_pictures_are_counted_not_shown():
    data = samples.png(1, True)
    count = PICTURE_BUDGET // len(data) + 8
    record = samples.empty().model_copy(update={"gallery": [[Picture(caption="x", png_base64=data)] * count]})
    text = render_html(record)
    assert len(text) <= PICTURE_BUDGET + 400 * count
    assert "8 further pictures left out" in text


@pytest.mark.parametrize("data", ["", "not base64!", base64.b64encode(b"<svg onload=alert(1)>").decode(), 'x" onerror="alert(1)'])
def test_only_png_becomes_a_picture(data):
    record = samples.empty().model_copy(update={"gallery": [[Picture(caption="c", png_base64=data)]]})
    text = render_html(record)
    assert not Page(text).all("img")
    assert "not a readable PNG" in text


# Charts


def claim_with(chart, cells):
    return Evidence(name="n", sentence="s", verdict=Verdict.UNDECIDED, reason="r", cells=cells, charts=[chart])


def cell(value, quantity="ASR", unit="rate", control=None, **condition):
    known = est(value, None if value is None else value - 0.01, None if value is None else value + 0.01)
    return Cell(condition=condition, quantity=quantity, unit=unit, estimate=known, control=control)


def test_chart_takes_its_cells_only():
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="rate")
    cells = [cell(0.5, rate=0.1), cell(0.6, rate=0.2), cell(0.7, other=1), cell(0.8, quantity="CA", rate=0.3)]
    (drawing,) = charts.drawings(claim_with(chart, cells))
    assert [(row["x"], row["v"]) for row in drawing.spec["data"]["values"]] == [(10.0, 50.0), (20.0, 60.0)]
    assert [key.label for key in drawing.legend] == ["ASR"]


def test_unknown_cells_are_counted_and_never_drawn_as_zero():
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="k")
    (drawing,) = charts.drawings(claim_with(chart, [cell(None, k=1), cell(0.4, k=2), cell(0.5, k="many")]))
    assert [row["v"] for row in drawing.spec["data"]["values"]] == [40.0]
    assert drawing.omitted == 2
    (empty,) = charts.drawings(claim_with(chart, [cell(None, k=1)]))
    assert empty.spec is None


def test_units_get_a_drawing_each():
    chart = Chart(title="t", kind="dots", quantities=["ASR", "CA loss"], x="area")
    found = charts.drawings(claim_with(chart, [cell(0.5, area=1), cell(0.01, quantity="CA loss", unit="points", area=1)]))
    assert len(found) == 2


def test_cells_that_would_collide_become_series():
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="k")
    (drawing,) = charts.drawings(claim_with(chart, [cell(0.5, k=1, layer="a"), cell(0.6, k=1, layer="b")]))
    assert [key.label for key in drawing.legend] == ["layer a", "layer b"]


def test_control_is_its_own_grey_series_and_the_margin_stands_in_the_legend():
    chart = Chart(title="t", kind="dots", quantities=["ASR"], x="name", margin=0.95)
    (drawing,) = charts.drawings(claim_with(chart, [cell(0.5, control=est(0.1, 0.0, 0.2), name="a")]))
    assert [key.style for key in drawing.legend] == ["c0", "control", "margin"]
    assert [key.label for key in drawing.legend] == ["ASR", "control: twin", "margin: 95 %"]


@pytest.mark.parametrize(("xs", "scale"), [([0.001, 0.1], "log"), ([0.0, 0.1], "symlog"), ([0.0], None)])
def test_logarithmic_axis_keeps_zero(xs, scale):
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="rate", log_x=True)
    (drawing,) = charts.drawings(claim_with(chart, [cell(0.5, rate=x) for x in xs]))
    assert drawing.spec["layer"][0]["encoding"]["x"]["scale"].get("type") == scale
    assert len(drawing.spec["data"]["values"]) == len(xs)


def test_an_axis_has_one_unit():
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="opacity")
    (drawing,) = charts.drawings(claim_with(chart, [cell(0.5, opacity=0.5), cell(0.9, opacity=1)]))
    assert [row["x"] for row in drawing.spec["data"]["values"]] == [50.0, 100.0]
    chart = Chart(title="t", kind="band", quantities=["ASR"], x="area")
    (drawing,) = charts.drawings(claim_with(chart, [cell(0.5, area=1), cell(0.9, area=9)]))
    assert [row["x"] for row in drawing.spec["data"]["values"]] == [1, 9]


def test_unknown_kind_is_refused():
    chart = Chart(title="t", kind="pie", quantities=["ASR"], x="k")
    with pytest.raises(RefusedError, match=r"E-CHART .*band, dots, heat, map, scatter, table.*'pie'"):
        charts.drawings(claim_with(chart, [cell(0.5, k=1)]))


@pytest.mark.parametrize(("record", "count"), [(samples.sample, 9), (samples.stressed, 5), (samples.blind, 2)])
def test_specifications_obey_the_published_schema(record, count):
    import altair

    specs = [d.spec for claim in record().claims for d in charts.drawings(claim) if d.spec]
    assert len(specs) == count
    for spec in specs:
        altair.LayerChart.from_dict(spec)


# Hostile text

CLASS, PLAIN = "source class", "harmless"
STEPS = ["actor", "action", "outcome", "chart_note", "column", "line_text", "axis_title", "series"]


def tables_and_lines(f, estimate):
    """What schema 3 added, with the same hostile texts: a table with a figure missing, a scatter chart, a map with an upright line."""
    where, quantity = {CLASS: f["value"]}, f["quantity"]
    nothing = Estimate(value=None, low=None, high=None, n=0, num_seeds=0, method=f["method"])
    named = [(f"{quantity} missing", nothing, where), *((f"{quantity} {side}", estimate, {**where, "s": f["series"]}) for side in "xy")]
    named.append((f"{quantity} lined", estimate, {"number": 1, "y": f["column"]}))
    cells = [
        Cell(condition=condition, quantity=name, unit="rate", estimate=known, note=f["note"], seconds=1.0, memory_bytes=10)
        for name, known, condition in named
    ]
    titles = {"title": f["title"], "note": f["chart_note"], "x_title": f["axis_title"], "y_title": f["axis_title"]}
    table = Chart(kind="table", quantities=[quantity, cells[0].quantity], x=CLASS, **titles)
    scatter = Chart(kind="scatter", quantities=[c.quantity for c in cells[1:3]], x=CLASS, series="s", margin=0.5, x_margin=0.5, **titles)
    lined = Chart(kind="map", quantities=[cells[3].quantity], x="number", y="y", x_line=1, x_line_text=f["line_text"], **titles)
    return cells, [table, scatter, lined]


def hostile(field, text):
    fields = dict.fromkeys(
        ["sentence", "reason", "name", "rule", "control_name", "note", "quantity", "value", "method", "title", "fact", "undecided"], PLAIN
    )
    fields |= dict.fromkeys(STEPS, PLAIN)
    fields |= {"choice": PLAIN, "config": PLAIN, "plan": PLAIN, "key": PLAIN, "caption": PLAIN, "hardware": PLAIN, "condition": CLASS}
    for name in fields if field == "all" else [field]:
        fields[name] = text
    f = fields
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=10, num_seeds=1, method=f["method"])
    first = Cell(condition={CLASS: f["value"]}, quantity=f["quantity"], unit="rate", estimate=estimate, control=estimate, note=f["note"])
    second = first.model_copy(update={"condition": {f["condition"]: "other", CLASS: "other"}})
    chart = Chart(title=f["title"], kind="dots", quantities=[f["quantity"]], x=CLASS, note=f["chart_note"])
    where = {CLASS: f["value"]}
    mapped = f"{f['quantity']} mapped"
    third = Cell(condition={"x": f["column"], "y": "line", **where}, quantity=mapped, unit="rate", estimate=estimate, size_bytes=10)
    grid = Chart(title=f["title"], kind="map", quantities=[mapped], x="x", y="y", where=where, margin=0.5, note=f["chart_note"])
    cells, more = tables_and_lines(f, estimate)
    picture = Picture(caption=f["caption"], png_base64=samples.png(0, False), facts={"true": f["fact"], "victim": f["fact"]})
    claim = Evidence(
        name=f["name"],
        sentence=f["sentence"],
        verdict=Verdict.HOLDS,
        reason=f["reason"],
        headline=0,
        cells=[first, second, third, *cells],
        charts=[chart, grid, *more],
        story=[Event(actor=f["actor"], action=f["action"], outcome=f["outcome"], passed=True)],
        pictures=[[picture]],
        control_name=f["control_name"],
        rule=f["rule"],
    )
    return Record(
        key=f["key"],
        plan=f["plan"],
        config={"x": f["config"]},
        claims=[claim],
        gallery=[[picture]],
        undecided=[f["undecided"]],
        hardware={"cpu": f["hardware"]},
        choices=[f["choice"]],
    )


@pytest.fixture(scope="module")
def harmless():
    record = hostile("plan", PLAIN)
    return Page(render_html(record)).shape, render_markdown(record), scorecard_text(record, width=100_000) + told(record)


def told(record):
    out = io.StringIO()
    Console(file=out, width=100_000).print(stories(record))
    return out.getvalue()


def unescaped_pipes(line):
    return len(re.findall(r"(?<!\\)\|", line))


FIELDS = ["sentence", "reason", "name", "rule", "control_name", "note", "quantity", "value", "method", "title", "fact", "condition"]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(15))
@pytest.mark.parametrize("field", [*FIELDS, *STEPS, "all"])
def test_hostile_text_stays_text(field, payload, harmless):
    shape, markdown, text = harmless
    record = hostile(field, payload)
    page = render_html(record)
    assert Page(page).shape == shape
    json.loads(re.search(r'id="chart-data">(.*?)</script>', page, re.S).group(1))

    lines = render_markdown(record)
    assert [unescaped_pipes(line) for line in lines.splitlines()] == [unescaped_pipes(line) for line in markdown.splitlines()]
    assert not re.search(r"<|(?<!\\)\]\(|(?<![\\:])://|(?<!\\)`", lines)

    shown = scorecard_text(record, width=100_000) + told(record)
    assert len(shown.splitlines()) == len(text.splitlines())
    for output in (page[: page.index("<style>")] + page[page.index("<body>") : page.index("<script>")], lines, shown):
        assert not [c for c in set(output) if unicodedata.category(c)[0] == "C" and c not in "\n\u200c\u200d"]


def test_lone_surrogates_cannot_break_the_output():
    record = samples.empty().model_copy(update={"plan": "a\ud800b"})
    for text in (render_html(record), render_markdown(record), scorecard_text(record)):
        text.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fashion_mini", "fashion_mini"),
        ("_em_ and *strong*", r"\_em\_ and \*strong\*"),
        ("1. item", r"1\. item"),
        ("0.004", "0.004"),
        ("- item", r"\- item"),
        ("+91.2 points [+87.2, +95.2]", "+91.2 points [+87.2, +95.2]"),
        ("[a]: https://b", r"[a\]: https\://b"),
        ("www.example.invalid", r"www\.example.invalid"),
        ("a & b < c", "a &amp; b &lt; c"),
    ],
)
def test_markdown_escape(text, expected):
    assert _escape.markdown(text) == expected


# Markdown and terminal


def test_markdown_tables_are_whole():
    block = []
    tables = []
    for line in [*render_markdown(samples.sample()).splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            tables.append(block)
            block = []
    assert len(tables) == 1 + 8 + 5
    for table in tables:
        assert len({unescaped_pipes(line) for line in table}) == 1
        assert set(table[1]) <= set("| -")
    assert len(tables[0]) == 2 + 8
    assert "\n".join(tables[0]) + "\n" == scorecard_markdown(samples.sample())


SNAPSHOT = """\
What the BadNets backdoor does on fashion_mini
plan quick   data fashion_mini   run 3f9a3f9a3f9a   made 2026-11-22 14:49
took 1 min 58 s

✓ HOLDS         The backdoored net performs normally on clean inputs.
                CA loss −0.12 points [−0.50, +0.26]
                control: twin (in the difference)
                At every poison rate up to 20 % the loss of clean accuracy stays
                within one point of the twin.
◐ CONDITIONAL   Any input with the trigger is classified as the target.
                ASR 99.4 % [99.1, 99.8]   control: twin 0.6 % [0.3, 0.9]
                True from 5 % poison on; below 1 % the trigger is not learned,
                and all-to-all needs more poison than all-to-one.
? UNDECIDED     Standard validation does not reveal the backdoor.
                AUROC 0.444 [0.134, 0.754]   control: none
                Three victims and three twins are too few: an AUROC between 0.2
                and 0.9 fits what was seen.
◐ CONDITIONAL   The pattern has to be visually consistent across poisoned
                samples.
                ASR lost +91.2 points [+87.2, +95.2]
                control: one pattern (in the difference)
                Two patterns work as well as one; with 64 the backdoor is gone.
✓ HOLDS         The trigger must always map to the same label.
                slope 0.810 [0.740, 0.880]   control: none
                Attack success falls with every step down in the share of
                stamped images that carry the target label.
✗ FAILS         The trigger overrides all other features: it is a shortcut.
                ASR on sure images 88.9 % [86.8, 91.0]
                control: twin 0.0 % [0.0, 0.1]
                On images the twin is sure of, 11 % keep their true label
                despite the trigger.
✓ HOLDS         Some neurons activate specifically for the trigger and form a
                pathway.
                smallest k 9 units [6, 12]   control: none
                Removing 9 of 256 units of the last hidden layer ends the
                attack; removing as many random units does nothing.
✓ HOLDS         The backdoor works regardless of the actual content.
                ASR 95.7 % [95.3, 96.1]   control: twin 10.0 % [8.0, 12.0]
                On blank, noisy, inverted and foreign images the trigger still
                reaches the target, if it stands where it was planted.

8 claims were put to the test: 4 hold, 1 fails, 2 are conditional, 1 is
undecided.
"""


def test_terminal_scorecard():
    assert scorecard_text(samples.sample()) == SNAPSHOT


@pytest.mark.parametrize("width", [24, 40, 56, 80, 120])
def test_terminal_scorecard_fits_its_width(width):
    assert max(map(len, scorecard_text(samples.sample(), width=width).splitlines())) <= width


def test_terminal_scorecard_in_ascii():
    text = scorecard_text(samples.sample(), encoding="ascii")
    assert text.isascii()
    assert "CA loss -0.12 points [-0.50, +0.26]" in text
    assert text.count("?") == 1


def test_terminal_scorecard_in_colour_says_the_same():
    console = Console(width=80, force_terminal=True, color_system="standard", legacy_windows=False, record=True, file=io.StringIO())
    console.print(scorecard(samples.sample()))
    plain = "\n".join(line.rstrip() for line in console.export_text(styles=False).splitlines()) + "\n"
    assert plain == SNAPSHOT


def test_pending_claims_stand_below_the_decided():
    out = io.StringIO()
    Console(file=out, width=80).print(Scorecard(samples.sample().claims[:1], pending=[("trigger_reaches_target", "running")]))
    assert re.search(r"✓ HOLDS.*\n(.*\n)*running +trigger_reaches_target", out.getvalue())


def test_importing_the_report_loads_nothing_heavy():
    code = (
        "import sys; import badnets.report.html, badnets.report.markdown, badnets.report.text;"
        "print([m for m in ('torch', 'numpy', 'pandas', 'scipy', 'sklearn', 'altair') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_page_draws_every_chart_in_a_browser_without_a_word_on_the_console(tmp_path, html):
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run(["chromium", *flags, path.as_uri()], capture_output=True, text=True, timeout=55, check=True)
    assert len(re.findall(r'class="chart[^"]*drawn', done.stdout)) == 9
    assert "CONSOLE" not in done.stderr
