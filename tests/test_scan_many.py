"""`badnets scan` of many files: found by content, each with one line, sums that add up, stopped and resumed, one page and one document."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from making import call, checkpoint, pickled, table, tensor, text

from badnets.core import registry
from badnets.core.engine import Engine, SerialEngine
from badnets.core.errors import PartialError, RefusedError, UsageError
from badnets.core.scanned import Item, State, exit_status, path_text, summed
from badnets.intake import second_opinion
from badnets.intake.found import digest, find, is_pickle
from badnets.nets._weights import to_bytes
from badnets.plans import _null, _scan, _scan_many, _scan_work
from badnets.plans._null import Null
from badnets.plans._stop import Stopped

CHEAP = ("channel_lipschitz",)
EVIL = checkpoint(pickled(table([("w", tensor()), ("x", call("os", "system", text("true")))])))


def null(low, high):
    draw = np.random.default_rng(0)
    nets = [{CHEAP[0]: float(draw.uniform(low, high))} for _ in range(39)]
    return Null(nets, {CHEAP[0]: [[1.0, 2.0], []]}, {CHEAP[0]: 0.1}, "made up")


@cache
def net(seed):
    return tiny.taught(registry.parse("nets", "fast_cnn:width=4,hidden=16").build((1, 8, 8), 3, seed=seed))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def models(tmp_path):
    """A folder as they are found in the world."""
    root = tmp_path / "models"
    (root / "sub").mkdir(parents=True)
    (root / "a.safetensors").write_bytes(to_bytes(net(0)))
    torch.save(net(1).state_dict(), root / "sub" / "no_ending")
    (root / "copy.txt").write_bytes(to_bytes(net(0)))
    (root / "evil [x](y) {0}.pt").write_bytes(EVIL)
    (root / "README.md").write_text("# A model\n")
    (root / "empty.pt").write_bytes(b"")
    (root / "link.pt").symlink_to("a.safetensors")
    return root


@pytest.fixture
def command(pictures, tmp_path, monkeypatch):
    """`badnets scan PATHS` with one detector and made-up clean nets; `asked`: how many files workers were given."""
    monkeypatch.setattr(_scan, "DETECTORS", CHEAP)
    made = {"null": null(-1e9, -1e8), "perform": _scan_work.perform}
    monkeypatch.setattr(_null, "null_population", lambda *args: made["null"])
    asked = []

    class Counting(Engine):
        def run(self, jobs):
            asked.append(len(jobs))
            return SerialEngine(made["perform"]).run(jobs)

    monkeypatch.setattr(_scan_many, "_engine", lambda jobs: Counting())

    def run(*arguments):
        return tiny.cli("scan", *arguments, "--dataset", "folder:size=8", "--data", pictures, "--store", tmp_path / "store")

    run.made, run.asked, run.store = made, asked, tmp_path / "store"
    return run


def states(done):
    return {Path(item["path"]).name: item["state"] for item in json.loads(done.out)["items"]}


class TestFound:
    def test_by_content_and_not_by_name(self, models):
        found = find([models])
        names = [path.name for path in found.inputs]
        assert names == ["a.safetensors", "copy.txt", "evil [x](y) {0}.pt", "link.pt", "no_ending"]
        assert {path.name: why for path, why in found.passed_over} == {"README.md": "begins like no model file", "empty.pt": "empty"}

    def test_each_once_in_the_order_named(self, models):
        found = find([models / "sub" / "no_ending", models, models / "a.safetensors", models / "README.md"])
        names = [path.name for path in found.inputs]
        assert names[0] == "no_ending"
        assert len(names) == len(set(names)) == 5
        assert find([models / "README.md"]).inputs == [models / "README.md"], "what is named is always looked at"

    def test_links_to_folders_are_not_followed(self, models):
        (models / "round").symlink_to(models, target_is_directory=True)
        assert ("round", "a link to a folder, which is not followed") in [(p.name, why) for p, why in find([models]).passed_over]

    def test_what_nobody_can_read_counts(self, models):
        os.mkfifo(models / "pipe")
        assert "pipe" in [path.name for path in find([models]).inputs]

    def test_a_path_that_is_not_there(self, models):
        with pytest.raises(UsageError, match="E-FILE there is no file"):
            find([models / "absent"])

    def test_hash_is_of_the_bytes(self, models):
        assert digest(models / "copy.txt") == hashlib.sha256((models / "copy.txt").read_bytes()).hexdigest()
        with pytest.raises(RefusedError, match=r"E-LINK link.pt: "):
            digest(models / "link.pt")

    def test_which_files_hold_pickles(self, models):
        (models / "raw").write_bytes(b"\x80\x04N.")
        assert [is_pickle(models / name) for name in ("raw", "evil [x](y) {0}.pt", "a.safetensors")] == [True, True, False]


class TestSums:
    @pytest.mark.parametrize(
        ("given", "status"),
        [
            ("", 0),
            ("nn", 0),
            ("nr", 3),
            ("nf", 6),
            ("rf", 6),
            ("Frn", 1),
            ("Frf", 1),
            ("F", 1),
        ],
    )
    def test_a_finding_is_never_hidden(self, given, status):
        kinds = {"n": State.NOTHING, "r": State.REFUSED, "f": State.FAILED, "F": State.FLAGGED}
        summary = summed([Item(path="x", sha256="", state=kinds[one]) for one in given], 0)
        assert exit_status(summary) == status
        assert summary.analysed + summary.refused + summary.failed == summary.inputs == len(given)


class TestCommand:
    def test_one_line_a_file_and_sums(self, command, models):
        done = command(models)
        lines = done.out.splitlines()
        assert done.status == 1, done.err
        assert [line.split()[0] for line in lines[:5]] == ["BACKDOORED", "BACKDOORED", "REFUSED", "REFUSED", "BACKDOORED"]
        assert "5 files = 3 analysed + 2 refused or not analysable + 0 failed. Flagged: 3 of 3 analysed." in done.out
        assert "False positives: of 39 clean nets (made up), each judged by a calibration without it, " in done.out
        assert Path(lines[-1].removeprefix("page: ")).read_text().startswith("<!doctype html>")
        assert command.asked == [3], "the copy is the same file"

    def test_json_is_one_document_and_a_second_run_asks_nobody(self, command, models, tmp_path):
        command.made["null"] = null(1e8, 1e9)
        first = command(models, models / "a.safetensors", "--json", "--sarif", tmp_path / "o" / "s.sarif", "--html", tmp_path / "p.html")
        second = command(models, "--json")
        assert (first.status, second.status) == (3, 3)
        assert command.asked == [3, 1], "refusals are looked at again"
        one, two = json.loads(first.out), json.loads(second.out)
        assert [item["kept"] for item in two["items"]] == [True, True, False, False, True]
        for item in (*one["items"], *two["items"]):
            item["kept"] = None
        assert one["items"] == two["items"]
        assert one["summary"] == {"inputs": 5, "analysed": 3, "refused": 2, "failed": 0, "flagged": 0, "passed_over": 2}
        results = json.loads((tmp_path / "o" / "s.sarif").read_text())["runs"][0]["results"]
        assert [result["ruleId"] for result in results if result["ruleId"].startswith("E-")] == ["E-GLOBAL", "E-LINK"]
        assert (tmp_path / "p.html").exists()

    def test_stopped_in_between_it_goes_on(self, command, models, monkeypatch):
        def answers(jobs):
            for job in jobs:
                if any((command.store / "results").glob("*/*.json")) and len(command.asked) == 1:
                    raise Stopped(signal.SIGINT)
                yield from SerialEngine(_scan_work.perform).run([job])

        whole = _scan_many._engine(3)
        monkeypatch.setattr(type(whole), "run", lambda self, jobs: (command.asked.append(len(jobs)), answers(jobs))[1])
        done = command(models, "--json")
        assert (done.status, done.out) == (130, "")
        assert "the same command continues" in done.err
        done = command(models, "--json")
        assert command.asked == [3, 2]
        assert list(states(done).values()).count("flagged") == 3

    def test_a_worker_that_breaks_costs_its_file(self, command, models):
        broken = digest(models / "a.safetensors")

        def perform(payload):
            if broken in payload:
                raise RuntimeError("boom")
            return _scan_work.perform(payload)

        command.made |= {"perform": perform, "null": null(1e8, 1e9)}
        done = command(models, "--json")
        assert done.status == 6
        assert states(done)["a.safetensors"] == states(done)["copy.txt"] == "failed"
        assert states(done)["no_ending"] == "nothing found"
        command.made["perform"] = _scan_work.perform
        assert command(models, "--json").status == 3

    def test_no_clean_nets_fail_the_files_and_not_the_scan(self, command, models, monkeypatch):
        def none(*_):
            raise PartialError("E-PARTIAL", "3 of 39 trainings failed.", hint="Again.")

        monkeypatch.setattr(_null, "null_population", none)
        done = command(models)
        assert done.status == 6
        assert "5 files = 0 analysed + 2 refused or not analysable + 3 failed." in done.out

    def test_clean_nets_that_do_not_learn_are_no_failure_to_try_again(self, command, models, monkeypatch):
        def none(*_):
            raise RefusedError("E-CLEAN-NETS", "not analysable: they learned too little.", hint="Not clean.")

        monkeypatch.setattr(_null, "null_population", none)
        done = command(models)
        assert done.status == 3
        assert "5 files = 0 analysed + 5 refused or not analysable + 0 failed." in done.out

    @pytest.mark.parametrize(("jobs", "files", "said"), [(176, ["a.safetensors"], True), (0, ["a.safetensors"], False), (176, [""], False)])
    def test_what_was_opened_is_said_before_clean_nets_take_minutes(self, command, models, monkeypatch, jobs, files, said):
        def slow(*args):
            args[-1].started(39, jobs)
            return command.made["null"]

        monkeypatch.setattr(_null, "null_population", slow)
        done = command(*(models / file for file in files))
        assert ("as a net for " in done.err) == ("accuracy " in done.err) == ("Ctrl-C" in done.err) == said, done.err
        assert "39 clean nets to compare with" in done.err

    def test_damage_in_the_store_is_computed_again(self, command, models):
        command(models / "a.safetensors")
        for blob in (command.store / "blobs").glob("*/*"):
            blob.write_bytes(b"x")
        assert command(models / "a.safetensors").status == 1
        assert command.asked == [1, 1]

    def test_a_file_that_changes_is_refused(self, command, models):
        def perform(payload):
            (models / "a.safetensors").write_bytes(to_bytes(net(7)))
            return _scan_work.perform(payload)

        command.made["perform"] = perform
        done = command(models / "a.safetensors")
        assert (done.status, done.out) == (3, "")
        assert "E-CHANGED" in done.err

    def test_one_file_refused_still_gets_its_sarif(self, command, models, tmp_path):
        done = command(models / "evil [x](y) {0}.pt", "--sarif", tmp_path / "s.sarif")
        assert (done.status, done.out) == (3, "")
        assert "error E-GLOBAL" in done.err
        assert json.loads((tmp_path / "s.sarif").read_text())["runs"][0]["invocations"][0]["exitCode"] == 3

    def test_a_name_that_is_no_text(self, command, models):
        odd = Path(os.fsdecode(os.fsencode(models) + b"/\xff\n.pt"))
        odd.write_bytes(to_bytes(net(0)))
        done = command(odd, models / "a.safetensors", "--json")
        assert done.status == 1
        assert json.loads(done.out)["items"][0]["path"].endswith("\\xff\n.pt") == path_text(odd).endswith("\\xff\n.pt")
        assert command(odd, models / "a.safetensors").out.splitlines()[0].startswith("BACKDOORED")

    def test_the_data_set_may_stand_last(self, command, models, pictures, tmp_path):
        done = tiny.cli("scan", models / "a.safetensors", "folder:size=8", "--data", pictures, "--store", tmp_path / "store")
        assert done.status == 1, done.err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["{m}/absent.pt"], "E-FILE there is no file"),
            (["{m}/a.safetensors", "--sarif", "{m}"], "E-EXISTS --sarif .* is a folder"),
            (["{m}/a.safetensors", "--html", "{m}/a.safetensors/x.html"], "E-EXISTS --html .* is a file, expected a folder"),
            (["{p}"], "E-FILE expected a model file, found none among .*--dataset DIR"),
        ],
    )
    def test_wrong_arguments_cost_one_line_and_no_work(self, command, models, pictures, arguments, said):
        done = command(*(argument.format(m=models, p=pictures) for argument in arguments))
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert re.search(said, done.err), done.err
        assert not command.store.exists()

    def test_what_cannot_be_written_is_told_after_the_verdict(self, command, models, tmp_path, monkeypatch):
        from badnets.core import files

        real = files.write_text

        def full(path, content):
            if path.suffix == ".sarif":
                raise files.StoreError("E-FULL", "cannot write: no space.", hint="x")
            real(path, content)

        monkeypatch.setattr(files, "write_text", full)
        done = command(models, "--sarif", tmp_path / "x.sarif")
        assert done.status == 5
        assert "Flagged: 3 of 3 analysed" in done.out
        assert "E-FULL cannot write: no space. Name another place with --sarif." in done.err


STUB = """
import enum, socket, types
class SafetyLevel(enum.Enum):
    Innocuous, Suspicious, Dangerous = "innocuous", "suspicious", "dangerous"
def scan_bytes(data, file_id, file_ext):
    names = []
    for act in (lambda: open("/etc/passwd"), lambda: open("canary", "w"), socket.socket):
        try: act(); names.append("did it")
        except OSError: pass
    found = data.read().decode()
    if found == "die": raise RuntimeError
    level = SafetyLevel.Dangerous if found == "bad" else SafetyLevel.Innocuous
    made = [types.SimpleNamespace(module="os", name=one, safety=level) for one in ["system", *names]]
    return types.SimpleNamespace(globals=made, scan_err=found == "error")
"""


class TestSecondOpinion:
    def test_is_asked_in_a_process_that_can_do_nothing(self, tmp_path, monkeypatch):
        (tmp_path / "picklescan").mkdir()
        (tmp_path / "picklescan" / "__init__.py").write_text("")
        (tmp_path / "picklescan" / "scanner.py").write_text(STUB)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.setattr(second_opinion, "version", lambda: "0")
        for content, says, names in (("bad", "dangerous", ("os.system",)), ("good", "nothing found", ()), ("die", "failed", ())):
            (tmp_path / "x").write_text(content)
            opinion = second_opinion.ask(tmp_path / "x")
            assert (opinion.tool, opinion.says, opinion.names) == ("picklescan", says, names)

    def test_without_it_there_is_none(self, tmp_path, monkeypatch):
        monkeypatch.setattr(second_opinion, "version", lambda: None)
        assert second_opinion.ask(tmp_path / "absent") is None

    def test_decides_nothing(self, command, models, monkeypatch):
        from badnets.core.scanned import Opinion

        command.made["null"] = null(1e8, 1e9)
        monkeypatch.setattr(second_opinion, "ask", lambda path: Opinion(tool="picklescan", version="1", says="dangerous", names=("x.y",)))
        done = command(models / "sub" / "no_ending")
        assert done.status == 0
        assert "Second opinion, which decides nothing: picklescan 1 says dangerous: x.y." in " ".join(done.out.split())

    def test_the_real_one_agrees_on_the_plainest_case(self, models):
        pytest.importorskip("picklescan")
        opinion = second_opinion.ask(models / "evil [x](y) {0}.pt")
        assert (opinion.says, opinion.names) == ("dangerous", ("os.system",))


@pytest.mark.slow
def test_killed_and_run_again(pictures, models, tmp_path):
    """kill -9 after the first answer: the second run asks about the rest, and says what an undisturbed one says."""
    code = (
        "import sys, test_scan_many as t\n"
        "t._scan.DETECTORS = t.CHEAP\n"
        "t._null.null_population = lambda *args: t.null(-1e9, -1e8)\n"
        "from badnets.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here / "hostile"), *sys.path])

    def start(store):
        arguments = ["scan", models, "--json", "--dataset", "folder:size=8", "--data", pictures, "--store", store]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})

    killed = start(tmp_path / "killed")
    until = time.monotonic() + 120
    while not list((tmp_path / "killed" / "results").glob("*/*.json")) and time.monotonic() < until:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    outputs = []
    for store in ("killed", "whole"):
        process = start(tmp_path / store)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        outputs.append([{**item, "kept": None} for item in json.loads(out)["items"]])
    for items in outputs:
        for item in items:
            for line in (item["verdict"] or {"lines": []})["lines"]:
                line["seconds"] = 0
    assert outputs[0] == outputs[1]
