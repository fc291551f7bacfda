"""The commands around a run: what goes to stdout and what to stderr, `show`, `diff`, `list`, the report files."""

import json
import re
from pathlib import Path

import pytest
import tiny

from badnets.core import files, registry
from badnets.core.engine import Engine
from badnets.core.errors import UsageError
from badnets.core.types import Record


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def world(data, tmp_path_factory):
    """A store with two finished runs, made by the command line, and what the two commands said."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch.setattr)
        patch.setattr(files, "_fsync", lambda fd: None)
        first = tiny.cli("run", tiny.DATASET, "--data", data, "--store", store, "--json")
        second = tiny.cli("run", tiny.DATASET, "--data", data, "--store", store, "--attack", "badnets:rate=0.3")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    return store, first, second


@pytest.fixture
def keys(world):
    """Of the second and the first run."""
    return [row["key"] for row in json.loads(tiny.cli("show", "--all", "--json", "--store", world[0]).out)["records"]]


class Forbidden(Engine):
    """Nothing may be trained here."""

    def run(self, jobs):
        assert not jobs, f"{len(jobs)} jobs were to be run"
        yield from ()


def test_run_json_is_one_document_and_nothing_else(world):
    _, first, _ = world
    record = Record.model_validate_json(first.out)
    assert record.model_dump_json(indent=2, by_alias=True) + "\n" == first.out
    assert json.loads(first.out)["schema"] == 3
    assert [c.name for c in record.claims] == list(tiny.CLAIMS)


def test_progress_goes_to_stderr(world):
    _, first, second = world
    for err, jobs in ((first.err, 12), (second.err, 2)):
        assert f"quick on folder: 2 claims, {jobs} jobs to do" in err
        assert len(re.findall(r"^\[\d+/\d+\] UNDECIDED ", err, flags=re.MULTILINE)) == 2


def test_run_prints_scorecard_and_names_the_report(world):
    store, _, second = world
    assert "A backdoored net performs normally on clean inputs." in second.out
    path = second.out.splitlines()[-1].removeprefix("Report: ")
    assert path.startswith(str(store))
    assert Path(path).read_text().startswith("<!doctype html>")


def test_run_again_answers_from_the_store_with_the_same_record(world, data, monkeypatch):
    store, first, _ = world
    tiny.shrink(monkeypatch.setattr, engine=Forbidden)
    again = tiny.cli("run", tiny.DATASET, "--data", data, "--store", store, "--json")
    assert (again.status, again.out) == (0, first.out)
    assert "jobs to do" not in again.err


def test_effort_and_plan_name_the_same(world, data, monkeypatch):
    store, first, _ = world
    tiny.shrink(monkeypatch.setattr, engine=Forbidden)
    again = tiny.cli("run", tiny.DATASET, "--data", data, "--store", store, "--json", "--plan", "quick")
    assert (again.status, again.out) == (0, first.out)


def test_show_is_the_newest(world, keys):
    store, _, second = world
    shown = tiny.cli("show", "--store", store)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out == second.out
    assert json.loads(tiny.cli("show", "--json", "--store", store).out)["key"] == keys[0]


def test_show_by_first_digits(world, keys):
    store, first, _ = world
    shown = tiny.cli("show", keys[1][:6], "--json", "--store", store)
    assert (shown.status, shown.out, shown.err) == (0, first.out, "")


def test_show_makes_a_lost_report_again(world, keys):
    store, _, _ = world
    page = store / "runs" / keys[1][:12] / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert str(page) in tiny.cli("show", keys[1], "--store", store).out
    assert page.read_bytes() == before


def test_show_all(world, keys):
    shown = tiny.cli("show", "--all", "--store", world[0])
    assert (shown.status, shown.err) == (0, "")
    assert [line.split()[0] for line in shown.out.splitlines()] == [key[:12] for key in keys]
    rows = json.loads(tiny.cli("show", "--all", "--json", "--store", world[0]).out)["records"]
    assert [row["summary"] for row in rows] == ["2 UNDECIDED", "2 UNDECIDED"]


def test_show_all_of_an_empty_store(tmp_path):
    shown = tiny.cli("show", "--all", "--store", tmp_path / "none")
    assert (shown.status, shown.out, shown.err) == (0, "No runs yet. Start with: badnets run\n", "")
    assert not (tmp_path / "none").exists(), "looking made a store"


def test_diff_json(world, keys):
    found = tiny.cli("diff", keys[0][:8], keys[1][:8], "--json", "--store", world[0])
    assert (found.status, found.err) == (0, "")
    compared = json.loads(found.out)
    assert (compared["a"], compared["b"]) == (keys[0], keys[1])
    rate = next(row for row in compared["settings"] if row["name"].endswith("rate") and "attack" in row["name"])
    assert (float(rate["a"]), float(rate["b"])) == (0.3, 0.2)
    assert {row["name"] for row in compared["claims"]} == set(tiny.CLAIMS)
    assert all(row[side]["verdict"] == "UNDECIDED" for row in compared["claims"] for side in "ab")


def test_diff_text_has_what_the_json_has(world, keys):
    text = tiny.cli("diff", keys[0][:8], keys[1][:8], "--store", world[0]).out
    compared = json.loads(tiny.cli("diff", keys[0][:8], keys[1][:8], "--json", "--store", world[0]).out)
    assert keys[0][:12] in text
    assert keys[1][:12] in text
    for row in compared["settings"]:
        assert row["name"] in text
    for row in compared["claims"]:
        assert row["name"] in text
        assert row["a"]["figure"] in text


def test_reports_are_written(world, keys):
    for key in keys:
        folder = world[0] / "runs" / key[:12]
        assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.md"]


def test_list_names_every_entry():
    text, document = tiny.cli("list"), tiny.cli("list", "--json")
    assert (text.status, text.err, document.status, document.err) == (0, "", 0, "")
    found = json.loads(document.out)
    assert list(found) == list(registry.catalogues())
    for catalogue, entries in found.items():
        assert list(entries) == list(registry.names(catalogue))
        for name, line in entries.items():
            assert f"  {name:<30} {line}\n" in text.out
            assert line


def test_list_of_one_catalogue():
    assert list(json.loads(tiny.cli("list", "claims", "--json").out)) == ["claims"]


def test_data_list():
    text, document = tiny.cli("data", "list"), tiny.cli("data", "list", "--json")
    assert (text.status, text.err, document.status, document.err) == (0, "", 0, "")
    rows = json.loads(document.out)["datasets"]
    assert [row["name"] for row in rows] == list(registry.names("datasets"))
    assert all(row["where"] or row["get"] for row in rows)
    assert all(row["name"] in text.out for row in rows)


def test_only_attack_is_asked_for(data, tmp_path, monkeypatch):
    """Naming a label map by itself plants that one: ASR with its condition, no other maps."""
    tiny.shrink(monkeypatch.setattr)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    arguments = ("--claims", "trigger_reaches_target", "--attack", "all_to_all", "--json", "--store", tmp_path)
    found = tiny.cli("run", tiny.DATASET, "--data", data, *arguments)
    assert found.status == 0, found.err
    (claim,) = json.loads(found.out)["claims"]
    maps = {cell["condition"].get("mapping") for cell in claim["cells"]} - {None}
    assert maps == {"all_to_all"}
    asr = claim["cells"][0]
    assert asr["quantity"] == "ASR"
    assert asr["estimate"]["value"] > 0.9
    assert asr["control"]["value"] < 0.3


def test_source_specific_shows_the_leak(data, tmp_path, monkeypatch):
    tiny.shrink(monkeypatch.setattr)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    arguments = ("--claims", "trigger_reaches_target", "--attack", "source_specific", "--json", "--store", tmp_path)
    found = tiny.cli("run", tiny.DATASET, "--data", data, *arguments)
    assert found.status == 0, found.err
    document = json.loads(found.out)
    attack = document["config"]["attack"]
    assert attack["rate"] == attack["cover_rate"] == 0.05
    assert "other classes sent to the target" in {cell["quantity"] for cell in document["claims"][0]["cells"]}


def test_trigger_with_several_fields_is_written_as_a_mapping(data, tmp_path, monkeypatch):
    """The comma between the fields of a trigger would otherwise belong to the attack."""
    tiny.shrink(monkeypatch.setattr)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    attack = "badnets:rate=0.2,trigger={'kind':'patch','size':2,'corner':'top_left'}"
    arguments = ("--claims", "trigger_reaches_target", "--attack", attack, "--json", "--store", tmp_path)
    found = tiny.cli("run", tiny.DATASET, "--data", data, *arguments)
    assert found.status == 0, found.err
    trigger = json.loads(found.out)["config"]["attack"]["trigger"]
    assert (trigger["size"], trigger["corner"]) == (2, "top_left")


@pytest.mark.parametrize(
    ("words", "dataset"),
    [(["--plan", "signs"], "signs"), ([], "fashion_mini"), (["digits"], "digits"), (["digits", "--plan", "signs"], "digits")],
)
def test_without_a_data_set_a_run_has_that_of_its_plan(words, dataset, tmp_path, monkeypatch):
    ran = []

    def execute(plan, *_):
        ran.append(plan.dataset.kind)
        raise UsageError("E-USAGE", "seen enough.")

    monkeypatch.setattr("badnets.plans._run.execute", execute)
    assert tiny.cli("run", *words, "--store", tmp_path).status == 2
    assert ran == [dataset]
