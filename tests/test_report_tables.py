"""What schema 3 added to the report: tables of figures, scatter charts, the upright line of a map, memory."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import record_samples as samples
from test_report import Page

from badnets.core.errors import RefusedError
from badnets.core.types import Cell, Chart, Estimate, Evidence, Record, Verdict
from badnets.report import _labels, charts
from badnets.report import _view as view
from badnets.report._labels import SPOTS, Box
from badnets.report.html import render_html
from badnets.report.markdown import render_markdown

TABLE = Chart(title="t", kind="table", quantities=["AUROC", "TPR"], x="detector")
SCATTER = Chart(title="t", kind="scatter", quantities=["CA loss", "ASR left"], x="repair")
MAP = Chart(title="t", kind="map", quantities=["ASR"], x="rate", y="size", x_line=0.05, x_line_text="half of the class is poison")


@pytest.fixture(scope="module")
def html():
    return render_html(samples.blind())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def cell(value, quantity="AUROC", unit="", half=0.01, **condition):
    bounds = {"low": None, "high": None} if value is None else {"low": value - half, "high": value + half}
    known = Estimate(value=value, **bounds, n=0 if value is None else 12, num_seeds=0 if value is None else 6, method="m")
    return Cell(condition=condition, quantity=quantity, unit=unit, estimate=known)


def drawn(chart, cells):
    return charts.drawings(Evidence(name="n", sentence="s", verdict=Verdict.UNDECIDED, reason="r", cells=cells, charts=[chart]))


def texts(drawing):
    return {name: [str(entry) for entry in entries] for name, entries in drawing.pivot.rows}


# Tables of figures


def test_a_table_has_its_rows_in_order_of_appearance_and_its_columns_as_asked():
    cells = [cell(0.9, detector="b"), cell(0.2, "TPR", "rate", detector="b"), cell(0.3, "TPR", "rate", detector="a"), cell(0.1, "other")]
    (drawing,) = drawn(TABLE, cells)
    assert drawing.pivot.columns == ("detector", "AUROC", "TPR", "n")
    assert texts(drawing) == {
        "b": ["0.900 [0.890, 0.910]", "20.0 % [19.0, 21.0]", "12 (6 seeds)"],
        "a": ["–", "30.0 % [29.0, 31.0]", "–"],
    }
    assert (drawing.spec, drawing.omitted, drawing.scope, drawing.pivot.folded) == (None, 0, "", False)


def test_a_figure_that_is_unknown_says_why():
    missing = [cell(None, detector="a").model_copy(update={"note": "too slow"}), cell(None, "TPR", detector="a")]
    (drawing,) = drawn(TABLE, missing)
    ((_, entries),) = drawing.pivot.rows
    assert [(e.value, e.why) for e in entries] == [("unknown", "too slow"), ("unknown", "no figure")]
    page = Page(render_html(record(TABLE, missing)))
    assert [a["title"] for a in page.all("span") if "title" in a] == ["too slow", "no figure"]


def test_what_it_cost_has_columns_only_where_it_is_known():
    dear = cell(0.9, detector="a").model_copy(update={"seconds": 2.5})
    large = cell(0.2, "TPR", "rate", detector="a").model_copy(update={"seconds": 9.0, "memory_bytes": 2048})
    (drawing,) = drawn(TABLE, [dear, large, cell(0.5, detector="b")])
    assert drawing.pivot.columns[3:] == ("time a net", "memory a net", "n")
    assert {name: entries[2:] for name, entries in texts(drawing).items()} == {
        "a": ["2.50 s", "2.0 KiB", "12 (6 seeds)"],
        "b": ["–", "–", "12 (6 seeds)"],
    }
    (drawing,) = drawn(TABLE, [cell(0.5, detector="b")])
    assert drawing.pivot.columns[3:] == ("n",)


def test_cells_on_one_entry_get_a_table_for_each_combination():
    cells = [cell(v, detector=d, trigger=t, net="x") for d, t, v in (("a", "patch", 0.9), ("a", "blend", 0.2), ("b", "blend", 0.3))]
    cells += [cell(0.05, "TPR", detector="a"), cell(0.5, detector="c", net="x")]
    first, second = drawn(TABLE, cells)
    assert (first.scope, second.scope) == ("trigger: patch", "trigger: blend")
    assert (first.pivot.folded, second.pivot.folded) == (False, True)
    assert {name: entries[0][:5] for name, entries in texts(first).items()} == {"a": "0.900", "c": "0.500"}
    assert {name: entries[0][:5] for name, entries in texts(second).items()} == {"a": "0.200", "b": "0.300", "c": "0.500"}
    assert [texts(d)["a"][1][:5] for d in (first, second)] == ["0.050", "0.050"], "what does not depend on the trigger is in both"


def test_a_key_that_one_of_two_cells_lacks_tells_them_apart():
    found = drawn(TABLE, [cell(0.9, detector="a"), cell(0.2, detector="a", trigger="patch"), cell(0.3, detector="b", trigger="patch")])
    assert [(d.scope, list(texts(d))) for d in found] == [("", ["a"]), ("trigger: patch", ["a", "b"])]


def test_no_cell_of_a_table_is_lost_in_silence():
    same = [cell(0.9, detector="a"), cell(0.2, detector="a")]
    (drawing,) = drawn(TABLE, same)
    assert drawing.omitted == 1
    assert texts(drawing)["a"][0].startswith("0.900")
    assert "Not shown: 1 further cell of the same condition and quantity" in render_html(record(TABLE, same))
    assert drawn(TABLE, []) == []


def test_where_chooses_the_cells_of_a_table_and_is_said():
    chart = TABLE.model_copy(update={"where": {"trigger": "blend"}})
    (drawing,) = drawn(chart, [cell(v, detector="a", trigger=t) for t, v in (("patch", 0.9), ("blend", 0.2))])
    assert drawing.scope == "trigger: blend"
    assert texts(drawing)["a"][0].startswith("0.200")


def test_a_table_on_the_page_can_be_read_without_eyes(page, html):
    shown = page.classed("pivot")
    assert len(shown) == 2
    assert html.count('<caption class="hidden">Table. What each detector sees. trigger: patch.</caption>') == 1
    body = html[html.index('<table class="pivot">') :]
    body = body[: body.index("</table>")]
    assert len(re.findall('<th scope="col">', body)) == 8
    assert len(re.findall('<th scope="row">', body)) == len(samples.DETECTORS)
    assert '<th scope="row">neural_<wbr>cleanse</th>' in body
    assert '<td>0.944 <span class="interval">[0.904, 0.984]</span></td>' in body
    assert '<span class="none" title="too few clean nets to fix a threshold">unknown</span>' in body
    assert '<span class="none" title="not measured">–</span>' in html
    assert "<summary>trigger: blend</summary>" in html


def test_a_table_in_markdown():
    text = render_markdown(samples.blind())
    assert "**What each detector sees** (trigger: patch)\n\n| detector | AUROC | TPR at 1 % FPR |" in text
    assert "| channel_lipschitz | 0.502 [0.462, 0.542] | unknown | unknown | unknown | 4.00 ms | – | 120 (60 seeds) |" in text
    assert text.index("Thresholds are fixed on clean nets.") < text.index("(trigger: blend)") < text.index("| condition | quantity |")
    assert text.count("Thresholds are fixed on clean nets.") == 1


def test_all_cells_have_time_and_memory_a_net_where_no_file_is_measured():
    table = view.table(samples.undetectable())
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["time a net"], row["memory a net"]) == ("31.0 s", "58.46 MiB")
    assert "time per image (of the first row)" not in table.columns
    assert not {"time a net", "memory a net"} & set(view.table(samples.survives_compression()).columns)


# Scatter charts


def pair(loss, left, half=0.01, **condition):
    return [cell(loss, "CA loss", "points", half, **condition), cell(left, "ASR left", "rate", half, **condition)]


def points(drawing):
    return {row["text"]: (row["x"], row["y"]) for row in drawing.spec["data"]["values"]}


def layers(drawing, kind):
    return [layer for layer in drawing.spec["layer"] if layer["mark"]["type"] == kind]


def record(chart, cells):
    claim = Evidence(name="n", sentence="s", verdict=Verdict.UNDECIDED, reason="r", cells=cells, charts=[chart])
    return Record(key="0" * 64, plan="quick", config={}, claims=[claim])


def test_a_point_for_each_condition_that_has_both_figures():
    cells = [*pair(0.01, 0.5, repair="a"), *pair(None, 0.4, repair="b"), *pair(0.02, None, repair="c"), cell(0.3, "CA loss", repair="d")]
    (drawing,) = drawn(SCATTER, cells)
    assert points(drawing) == {"a": (1.0, 50.0)}
    assert drawing.omitted == 5
    (tip,) = [row["tip"] for row in drawing.spec["data"]["values"]]
    assert tip == "repair: a: CA loss +1.00 points [0.00, +2.00], ASR left 50.0 % [49.0, 51.0]"
    (nothing,) = drawn(SCATTER, cells[2:])
    assert (nothing.spec, nothing.omitted) == (None, 5)
    assert drawn(SCATTER, []) == []


def test_each_axis_of_a_scatter_chart_has_its_own_unit_and_margin():
    chart = SCATTER.model_copy(update={"margin": 0.2, "x_margin": 0.03, "x_title": "accuracy lost"})
    (drawing,) = drawn(chart, [*pair(0.01, 0.9, repair="a"), *pair(0.02, 0.1, repair="b")])
    encoding = layers(drawing, "point")[0]["encoding"]
    assert (encoding["x"]["axis"]["title"], encoding["y"]["axis"]["title"]) == ("accuracy lost (points)", "ASR left (%)")
    assert encoding["y"]["axis"]["values"] == [0, 20, 40, 60, 80, 100]
    assert encoding["x"]["axis"]["values"][-1] == 3
    lines = [layer["encoding"] for layer in layers(drawing, "rule") if "data" in layer]
    assert lines == [{"x": {"datum": 3.0}}, {"y": {"datum": 20.0}}]
    assert [key.label for key in drawing.legend if key.style == "margin"] == [
        "margin for accuracy lost: 3 points",
        "margin for ASR left: 20 %",
    ]


@pytest.mark.parametrize("values", [(0.5, 0.5), (0.0, 1.0), (0.97, 0.995), (1e-9, 1.0)])
def test_a_share_never_has_a_tick_below_nothing_or_above_all(values):
    (drawing,) = drawn(SCATTER, [c for i, v in enumerate(values) for c in pair(v, v, half=1e-4, repair=str(i))])
    ticks = layers(drawing, "point")[0]["encoding"]["y"]["axis"]["values"]
    assert 2 <= len(ticks) <= 8
    assert all(0 <= tick <= 100 for tick in ticks)


def test_the_front_has_the_points_that_no_other_is_below_in_both():
    losses = {"a": (0.0, 0.9), "b": (0.01, 0.5), "c": (0.01, 0.6), "d": (0.02, 0.5), "e": (0.03, 0.1), "f": (0.04, 0.2)}
    (drawing,) = drawn(SCATTER, [c for name, (x, y) in losses.items() for c in pair(x, y, repair=name)])
    (line,) = layers(drawing, "line")
    corners = [(row["x"], row["y"]) for row in line["data"]["values"]]
    assert corners[1:-1] == [(0.0, 90.0), (1.0, 50.0), (3.0, 10.0)]
    assert (corners[0][0], corners[-1][1]) == (0.0, 10.0)
    assert line["mark"]["interpolate"] == "step-after"
    assert "No point is below these in both: a; b; e. a: CA loss 0.00 points, ASR left 90.0 %." in drawing.summary


def test_series_have_their_colours_and_names_are_said_with_them():
    chart = SCATTER.model_copy(update={"series": "clean share"})
    cells = [c for share in (0.01, 0.05) for c in pair(share, share, repair="a", **{"clean share": share})]
    (drawing,) = drawn(chart, cells)
    assert [(key.label, key.style) for key in drawing.legend][:2] == [("1 %", "c0"), ("5 %", "c1")]
    assert "a, 5 %: CA loss" in drawing.summary
    (plain,) = drawn(SCATTER, cells)
    assert [key.label for key in plain.legend][:2] == ["clean share 1 %", "clean share 5 %"]
    (single,) = drawn(SCATTER, pair(0.1, 0.1, repair="a"))
    assert [key.shape for key in single.legend] == ["step"]


def test_intervals_are_drawn_in_both_directions_where_there_are_any():
    cells = pair(0.01, 0.5, repair="a")
    cells[0] = cells[0].model_copy(update={"estimate": cells[0].estimate.model_copy(update={"low": None, "high": None})})
    (drawing,) = drawn(SCATTER, cells)
    (row,) = drawing.spec["data"]["values"]
    assert (row["x_low"], row["x_high"]) == (None, None)
    assert (row["y_low"], row["y_high"]) == (49.0, 51.0)
    crosses = [layer for layer in layers(drawing, "rule") if "transform" in layer]
    assert [[t["filter"]["field"] for t in layer["transform"]] for layer in crosses] == [["x_low", "x_high"], ["y_low", "y_high"]]


def test_a_scatter_chart_needs_two_quantities():
    with pytest.raises(RefusedError, match="E-CHART expected two quantities for a scatter chart, across and up, got 1"):
        drawn(SCATTER.model_copy(update={"quantities": ["CA loss"]}), pair(0.1, 0.1, repair="a"))


def box(name, place, number):
    return _labels._box(name, place, SPOTS[number])


def test_names_hide_neither_names_nor_points():
    places = [(20.0 * i, 100.0 + 9 * (i % 3)) for i in range(1, 10)]
    names = [f"repair_{i}" for i in range(9)]
    found = _labels.spots(names, places, [], (250, 320))
    boxes = [box(name, place, spot) for name, place, spot in zip(names, places, found, strict=True) if spot is not None]
    assert len(boxes) >= 7
    assert all(a.shared(b) <= 0.1 * b.area for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(b.left >= 0 and b.right <= 250 for b in boxes)


def test_a_name_keeps_off_lines_and_other_points_and_inside_the_plane():
    assert _labels.spots(["a"], [(100, 100)], [], (250, 320)) == [0]
    assert _labels.spots(["name"], [(245, 100)], [], (250, 320)) == [1]
    above = Box(60, 80, 140, 96)
    assert _labels.spots(["name"], [(100, 100)], [above], (250, 320)) == [2]
    assert _labels.spots(["name", "b"], [(100, 100), (118, 91)], [], (250, 320))[0] != 0


def test_names_without_room_are_counted():
    (drawing,) = drawn(SCATTER, [c for i in range(20) for c in pair(0.0, 0.99, repair=f"repair_{i}")])
    rows = drawing.spec["data"]["values"]
    left_out = sum(row["wide"] is None for row in rows)
    assert left_out > 0
    assert f"no room for {left_out} names" in [key.label for key in drawing.legend]
    assert len({row["wide"] for row in rows} - {None}) == 20 - left_out


# The upright line of a map


def upright(drawing):
    return [
        (layer["data"]["values"][0]["x"], layer["encoding"]["x"]["bandPosition"])
        for layer in layers(drawing, "rule")
        if layer["mark"].get("strokeWidth") == 4
    ]


@pytest.mark.parametrize(
    ("at", "column", "side"),
    [(0.05, "5 %", 1), (0.0556, "5 %", 1), (0.1, "10 %", 1), (0.05 * (1 - 1e-12), "5 %", 1), (9.0, "10 %", 1), (0.001, "1 %", 0)],
)
def test_the_upright_line_stands_behind_the_last_column_up_to_it(at, column, side):
    cells = [cell(0.5, "ASR", "rate", rate=rate, size=size) for rate in (0.1, 0.01, 0.05) for size in (1, 2)]
    (drawing,) = drawn(MAP.model_copy(update={"x_line": at}), cells)
    assert upright(drawing) == [(column, side)]
    assert [key.label for key in drawing.legend if key.shape == "upright"] == ["half of the class is poison"]
    assert f"An upright line {'behind' if side else 'before'} rate {column}: half of the class is poison." in drawing.summary


def test_the_upright_line_says_its_value_where_it_has_no_text_and_there_is_none_among_names():
    (drawing,) = drawn(MAP.model_copy(update={"x_line_text": ""}), [cell(0.5, "ASR", "rate", rate=0.05, size=1)])
    assert [key.label for key in drawing.legend if key.shape == "upright"] == ["rate 5 %"]
    (named,) = drawn(MAP, [cell(0.5, "ASR", "rate", rate=rate, size=1) for rate in ("low", "high")])
    (without,) = drawn(MAP.model_copy(update={"x_line": None}), [cell(0.5, "ASR", "rate", rate=0.05, size=1)])
    for drawing in (named, without):
        assert upright(drawing) == []
        assert "upright" not in {key.shape for key in drawing.legend}


# All of it


def test_every_id_of_the_page_is_there_once(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("figure")} <= set(ids)
    assert all(a.get("scope") for a in page.all("th"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in page.classed("scroll"))


def test_a_record_with_all_of_it_is_read_back():
    assert Record.read(samples.blind().model_dump_json(by_alias=True)) == samples.blind()


FRAME = """<iframe id="phone" src="report.html" style="border:0;width:360px;height:900px"></iframe>
<script>addEventListener("load", () => setTimeout(() => {
  const page = document.getElementById("phone").contentDocument;
  document.title = [page.documentElement.scrollWidth, page.querySelectorAll(".chart.drawn").length,
    page.querySelector(".chart.scatter svg").textContent.includes("fine_pruning")].join(" ");
}, 3000));</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_the_page_fits_a_phone_and_is_drawn_without_a_word_on_the_console(tmp_path, html):
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    flags += ["--allow-file-access-from-files", "--hide-scrollbars"]
    done = subprocess.run(["chromium", *flags, frame.as_uri()], capture_output=True, text=True, timeout=55, check=True)
    assert re.search(r"<title>(.*?)</title>", done.stdout).group(1) == "360 2 true"
    assert "CONSOLE" not in done.stderr
