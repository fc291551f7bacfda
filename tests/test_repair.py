"""`badnets repair`: what is chosen, by clean criteria alone; what is written; what is refused."""

from __future__ import annotations

import json
import os

import pytest
import tiny

from badnets import BadNets
from badnets.cli import _verdicts
from badnets.core import files, stats
from badnets.core.errors import StoreError
from badnets.datasets.folder import Folder
from badnets.nets._weights import read_metadata, to_bytes
from badnets.plans import _repair
from badnets.plans._model_file import open_model
from badnets.plans._plant import plant_seeds
from badnets.plans._repair import REPORT, WEIGHTS, Tried, choose

NET = {"kind": "fast_cnn", "width": 4, "hidden": 16}


def tried(name, accuracy, inverted):
    """One repair on 1,000 images."""
    figures = [None if rate is None else stats.wilson(round(1000 * rate), 1000) for rate in (accuracy, inverted)]
    return Tried(repair=name, accuracy=figures[0], inverted=figures[1], seconds=0.0, images=0, note="", why_not="")


BEFORE = tried("as it came", 0.90, 0.95)


class TestChoice:
    def test_least_of_the_inverted_trigger_wins(self):
        assert choose(BEFORE, [tried("a", 0.90, 0.50), tried("b", 0.89, 0.01), tried("c", 0.90, 0.20)]) == "b"

    def test_a_repair_that_costs_too_much_does_not_count(self):
        assert choose(BEFORE, [tried("a", 0.87, 0.0), tried("b", 0.885, 0.30)]) == "b"

    def test_of_equal_ones_the_more_accurate(self):
        assert choose(BEFORE, [tried("a", 0.89, 0.01), tried("b", 0.90, 0.01)]) == "b"

    @pytest.mark.parametrize("others", [[], [tried("a", 0.90, 0.95)], [tried("a", 0.5, 0.0)], [tried("a", None, None)]])
    def test_nothing_better_is_nothing(self, others):
        assert choose(BEFORE, others) is None

    def test_unknown_is_not_zero(self):
        assert choose(tried("as it came", 0.90, None), [tried("a", 0.90, 0.0)]) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tiny.pictures(tmp_path_factory.mktemp("pictures"))
    data = Folder(size=8).load(folder)
    pair = plant_seeds(data, BadNets(rate=0.2), [0], net=NET, recipe=tiny.plan().recipe)
    model = tmp_path_factory.mktemp("models") / "victim.safetensors"
    model.write_bytes(to_bytes(pair.victims[0].network, {"badnets.planted": "true"}))
    return folder, data, model


@pytest.fixture
def command(world, monkeypatch, tmp_path):
    monkeypatch.setattr(_repair, "REPAIRS", ("clp", "fine_tuning"))
    folder, _, model = world

    def run(*arguments):
        net = "fast_cnn:width=4,hidden=16"
        return tiny.cli("repair", model, "folder:size=8", "--data", folder, "--net", net, "--out", tmp_path / "out", *arguments)

    return run


class TestCommand:
    def test_writes_a_net_and_a_report(self, command, world, tmp_path, monkeypatch):
        monkeypatch.setattr(_repair, "choose", lambda before, others: "fine_tuning")
        before = world[2].read_bytes()
        done = command()
        assert (done.status, done.err) == (0, "")
        assert "Kept fine_tuning" in done.out
        report = (tmp_path / "out" / REPORT).read_text()
        assert "| fine_tuning (kept) |" in report
        assert report.index("Before: accuracy") < report.index("After: accuracy") < report.index("| as it came |")
        assert "does not prove" in report
        assert world[2].read_bytes() == before
        content = (tmp_path / "out" / WEIGHTS).read_bytes()
        assert read_metadata(content)["badnets.repaired_by"] == "fine_tuning"
        assert open_model(tmp_path / "out" / WEIGHTS, world[1], NET).sha256 != open_model(world[2], world[1], NET).sha256

    def test_nothing_better_writes_no_net(self, command, tmp_path, monkeypatch):
        monkeypatch.setattr(_repair, "choose", lambda before, others: None)
        done = command()
        assert done.status == 0
        assert "Nothing was kept" in done.out
        assert not (tmp_path / "out" / WEIGHTS).exists()
        assert (tmp_path / "out" / REPORT).exists()

    def test_json_is_one_document(self, command):
        done = command("--json")
        found = json.loads(done.out)
        assert [one["repair"] for one in found["tried"]] == ["clp", "fine_tuning"]

    def test_twice_is_the_same(self, command, tmp_path):
        first = json.loads(command("--json").out)
        (tmp_path / "out").rename(tmp_path / "first")
        second = json.loads(command("--json").out)
        for report in (first, second):
            report["seconds"] = 0
            for one in (report["before"], *report["tried"]):
                one["seconds"] = 0
        assert first == second

    def test_nothing_is_overwritten(self, command, tmp_path):
        assert command().status == 0
        done = command()
        assert done.status == 2
        assert "E-EXISTS" in done.err

    def test_a_place_that_cannot_be_is_told_before_the_work(self, command, world, tmp_path, monkeypatch):
        monkeypatch.setattr(_repair, "repair_file", lambda *_: pytest.fail("it worked first"))
        (tmp_path / "file").write_text("x")
        folder, _, model = world
        for out in (tmp_path / "file" / "out", tmp_path / "file"):
            done = tiny.cli("repair", model, "folder:size=8", "--data", folder, "--out", out)
            assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
            assert "E-EXISTS" in done.err
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        done = tiny.cli("repair", model, "folder:size=8", "--data", folder, "--out", tmp_path / "out")
        assert (done.status, "E-READONLY --out" in done.err) == (2, True), done.err

    def test_stopped_it_leaves_no_report(self, command, tmp_path, monkeypatch):
        def stopped(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(_verdicts, "print_tried", stopped)
        done = command()
        assert done.status == 130
        assert "Stopped. No report was written" in done.err
        assert not (tmp_path / "out").exists()

    def test_a_full_disk_and_then_again(self, command, tmp_path, monkeypatch):
        real = files.write_text

        def full(path, text):
            if path.name == REPORT:
                raise StoreError("E-FULL", "cannot write: no space.", hint="x")
            real(path, text)

        monkeypatch.setattr(files, "write_text", full)
        done = command()
        assert done.status == 5
        assert "E-FULL cannot write: no space. Name another place with --out." in done.err
        monkeypatch.setattr(files, "write_text", real)
        assert command().status == 0, "what is not finished is no report"

    def test_what_a_spent_budget_left_out_is_said(self, command, tmp_path, monkeypatch):
        """A repair that was not tried is no repair that did not help."""
        monkeypatch.setattr(_repair, "BUDGET_SECONDS", 0.0)
        found = json.loads(command("--json").out)
        said = "not tried: the budget of 0 seconds was spent"
        assert [(one["repair"], one["accuracy"], one["why_not"]) for one in found["tried"]] == [
            ("clp", None, said),
            ("fine_tuning", None, said),
        ]
        assert (found["chosen"], found["files"]) == (None, {})
        assert f"| clp | unknown | unknown | 0 | 0.0 | {said} |" in (tmp_path / "out" / REPORT).read_text()
