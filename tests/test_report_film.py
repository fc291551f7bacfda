"""A film in the report: a strip of frames that a slider leads through, and a plain strip where there is no script."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import record_samples as samples
from test_report import Page

from badnets.core.types import Picture
from badnets.report.html import render_html

FRAMES = 4


def frame(number, *, votes=True):
    facts = {"frame": f"{number} of {FRAMES}", "true": "stop", "victim": "stop" if number == 1 else "speed limit 50", "twin": "stop"}
    facts |= {"victim by majority": "speed limit 50", "twin by majority": "stop"} if votes else {}
    return Picture(caption=f"{70 - 10 * number} m", png_base64=samples.png(number, True), facts=facts)


STRIP = [frame(number) for number in range(1, FRAMES + 1)]


def html_of(*rows):
    claim = samples.supply_chain().model_copy(update={"pictures": list(rows)})
    return render_html(samples.empty().model_copy(update={"claims": [claim]}))


def test_a_film_is_a_strip_with_every_frame_and_what_most_of_them_say():
    html = html_of(STRIP)
    page = Page(html)
    (film,) = page.classed("film")
    assert film["aria-label"] == "Film of 4 frames, first: 60 m"
    assert [image["alt"] for image in page.all("img")] == [
        "60 m: true stop, victim stop, twin stop",
        *(f"{m} m: true stop, victim speed limit 50, twin stop" for m in (50, 40, 30)),
    ]
    told = re.sub(r"<[^>]+>", "", re.search(r'<p class="votes">(.*?)</p>', html)[1])
    assert told == "victim by majority: ≠ speed limit 50, twin by majority: stop"
    assert html.count("by majority") == 2
    assert "away" not in {name for _, a in page.elements for name in (a.get("class") or "").split()}, "only the script hides frames"
    assert page.all("input") == []


@pytest.mark.parametrize(
    "row",
    [STRIP[:1], [Picture(caption="x", png_base64=samples.png(1, True)), STRIP[0]]],
    ids=["one frame", "not all are frames"],
)
def test_other_rows_are_no_films(row):
    assert Page(html_of(row)).classed("film") == []


def test_a_film_without_a_vote_says_none():
    html = html_of([frame(1, votes=False), frame(2, votes=False)])
    assert len(Page(html).classed("film")) == 1
    assert 'class="votes"' not in html


LOOK = """<!doctype html><title>waiting</title><iframe id="f" src="report.html" style="width:360px;height:900px;border:0"></iframe><script>
addEventListener("load", () => setTimeout(() => {
    const page = document.getElementById("f").contentDocument;
    const slider = page.querySelector(".film input[type=range]");
    const frames = [...page.querySelectorAll(".film li")];
    const seen = () => frames.filter((li) => li.offsetHeight).map((li) => li.textContent.trim().split(" ")[0]);
    const first = seen().join("+");
    slider.value = 3;
    slider.dispatchEvent(new Event("input"));
    const told = [first, seen().join("+"), slider.getAttribute("aria-valuetext")];
    document.title = [...told, slider.tabIndex, page.documentElement.scrollWidth].join("|");
}, 2000));</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_the_slider_shows_one_frame_at_a_time_and_fits_a_phone(tmp_path):
    (tmp_path / "report.html").write_text(html_of(STRIP), encoding="utf-8")
    (tmp_path / "look.html").write_text(LOOK, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    flags += ["--allow-file-access-from-files", "--hide-scrollbars"]
    look = (tmp_path / "look.html").as_uri()
    done = subprocess.run(["chromium", *flags, look], capture_output=True, text=True, timeout=55, check=True)
    said = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    assert said == "60|40|Frame 3 of 4: 40 m: true stop, victim speed limit 50, twin stop|0|360"
    assert "CONSOLE" not in done.stderr
