"""The page of a scan: complete in itself, everything on it, no text of a stranger's more than text."""

from __future__ import annotations

import re

import pytest
import scan_samples as samples
from test_report import Page

from badnets.core.scanned import Item, State
from badnets.report import scan_page
from badnets.report.scan_page import render_scan


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL))


@pytest.mark.parametrize("make", [samples.record, lambda: samples.rows(flagged=True), lambda: samples.rows(flagged=False)])
def test_needs_nothing_else_and_runs_nothing(make):
    html = render_scan(make())
    assert html == render_scan(make())
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "default-src &#39;none&#39;" in html
    assert not re.search(r"url\(|@import", html)
    Page(html)  # well-formed


def test_says_what_was_found_and_what_was_not_looked_at():
    text = text_of(render_scan(samples.record()))
    for said in (
        "1 of 6 files flagged",
        "6 files: 2 analysed, 3 refused or not analysable, 1 failed. Flagged: 1 of 2 analysed.",
        "BACKDOORED",
        "p = 0.025 against 39 clean nets. Suspected target: dot.",
        "E-GLOBAL",
        "NOT ANALYSABLE",
        "picklescan 1.0.5: dangerous: os.system",
        "Of 39 clean nets (fast_cnn on mnist), each judged by a calibration without it, 2.6 % [0.5, 13.2] are flagged",
        "Refused and not analysable do not mean clean.",
        "other images",
        "m/README",
        "own process, Landlock 7",
        "ab" * 32,
    ):
        assert said in text, said


def test_findings_come_first():
    html = render_scan(samples.record())
    states = re.findall(r'class="badge state-([a-z-]+)"', html)[:6]
    assert states == ["flagged", "failed", "refused", "refused", "refused", "nothing-found"]


def test_the_picture_of_the_trigger_is_there():
    html = render_scan(samples.record())
    assert html.count('src="data:image/png;base64,') == 1
    bad = samples.items()[1].model_copy(update={"pictures": [samples.PICTURE.model_copy(update={"png_base64": "x"})]})
    assert "not a readable PNG" in render_scan(samples.record(chosen=[bad]))


def test_training_data():
    text = text_of(render_scan(samples.rows(flagged=True)))
    assert "POISONED" in text
    assert "2.5 % [0.4, 12.9]" in text
    assert "Of clean training sets that no threshold was chosen on, 0.0 % [0.0, 16.1] are flagged (20 sets)." in text
    assert "right labels" in text


def test_text_of_strangers_is_text():
    for record in (samples.record(samples.EVIL), samples.rows(flagged=True, text=samples.EVIL)):
        html = render_scan(record)
        Page(html)
        assert "<img src=x" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
        assert "</script>" not in html
        assert "&lt;/script&gt;" in html


def test_many_files_stay_light(monkeypatch):
    monkeypatch.setattr(scan_page, "MOST_SECTIONS", 5)
    many = [Item(path=f"m/{i}.pt", sha256="ab" * 32, state=State.NOTHING, verdict=samples.verdict(flagged=False)) for i in range(30)]
    html = render_scan(samples.record(chosen=many))
    assert html.count('<section class="claim"') == 5
    assert "25 further files" in html
    assert all(f"m/{i}.pt" in html for i in range(30))
    assert not set(re.findall(r'href="#(file-\d+)"', html)) - set(re.findall(r'id="(file-\d+)"', html))
