"""Running a Plan: engines agree, the store answers, what is missing is computed and no more, stops and failures keep what was done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from badnets.core import files
from badnets.core.engine import Engine, ProcessEngine, SerialEngine
from badnets.core.errors import BadnetsError, PartialError, RefusedError, StoreError
from badnets.core.store import Store
from badnets.core.types import Record
from badnets.plans._stop import Stopped, StopRequest

SMALL = {"claims": ("trigger_reaches_target",), "only_attack": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    for name in ("TINY_LOG", "TINY_NAP", "TINY_FAIL"):
        monkeypatch.delenv(name, raising=False)
    tiny.shrink(monkeypatch.setattr)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)  # power cuts have their own tests


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A store with one finished run in it, and its record."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch.setattr)
        store = tmp_path_factory.mktemp("finished")
        return store, tiny.execute(tiny.plan(), store, data)


class Forbidden(Engine):
    """Nothing may be trained here."""

    def run(self, jobs):
        assert not jobs, f"{len(jobs)} jobs were to be run"
        yield from ()


def counting(log):
    def work(payload):
        log.append(json.loads(payload)["trial"])
        return tiny.perform(payload)

    return SerialEngine(work)


# --- the record


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A store with one finished run of really trained nets, in this process; and its record."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch.setattr)
        store = tmp_path_factory.mktemp("trained")
        return store, tiny.execute(tiny.plan(**SMALL), store, data, SerialEngine(tiny.real))


def test_real_nets_learn_the_trigger_and_twins_do_not(trained):
    asr = trained[1].claims[0].cells[0]
    assert asr.quantity == "ASR"
    assert asr.estimate.value > 0.9
    assert asr.control.value < 0.3
    assert [[set(p.facts) for p in row] for row in trained[1].gallery] == [[{"true", "victim", "twin"}] * 2] * 2


def test_serial_and_process_engine_give_the_same_record(trained, data, tmp_path):
    store, record = trained
    other = tiny.execute(tiny.plan(**SMALL), tmp_path, data, ProcessEngine("badnets.plans._work:perform", num_workers=2))
    assert tiny.essence(other) == tiny.essence(record)
    assert tiny.check_store(tmp_path) == tiny.check_store(store)
    blobs = [{path.name for path in (folder / "blobs").glob("*/*")} for folder in (store, tmp_path)]
    assert blobs[0] - blobs[1] == {record_blob(store, record.key)}, "weights or outcomes differ in bits"


def record_blob(store, key):
    return json.loads((store / "records" / key[:2] / f"{key}.json").read_text())["files"]["record.json"]["sha256"]


def test_record_says_what_it_came_from(finished, data):
    _, record = finished
    assert Record.model_validate_json(record.model_dump_json(by_alias=True)) == record
    assert record.config["data"]["sha256"] == tiny.plan().dataset.load(data).sha256
    assert record.config["net"] == {"kind": "fast_cnn", "width": 4, "hidden": 16}
    assert {"train", "budget", "validation", "test"} == set(record.config["splits"])
    assert sum(s["images"] for s in record.config["splits"].values()) == 120
    assert record.config["seed_list"] == [0, 1]
    assert [c.name for c in record.claims] == list(tiny.CLAIMS)
    assert len(record.undecided) == 2, "two seeds of eighteen images decide nothing, and the record says so"
    assert {"torch", "python", "badnets"} <= set(record.versions)


def test_workers_answers_in_any_order_give_the_same_record(finished, data, tmp_path):
    class Backwards(Engine):
        def run(self, jobs):
            yield from SerialEngine(tiny.perform).run(list(jobs)[::-1])

    assert tiny.essence(tiny.execute(tiny.plan(), tmp_path, data, Backwards())) == tiny.essence(finished[1])


# --- the store answers


def test_unchanged_plan_is_answered_from_the_store(finished, data):
    store, record = finished
    audience, before = tiny.Watcher(), tiny.tree(store)
    assert tiny.execute(tiny.plan(), store, data, Forbidden(), audience) == record
    assert audience.calls == []
    assert {k: v for k, v in tiny.tree(store).items() if "index" not in k} == {k: v for k, v in before.items() if "index" not in k}


@pytest.mark.parametrize("change", [{"seeds": 3}, {"claims": tiny.CLAIMS[:1]}, {"attack": "badnets:rate=0.3"}, {"effort": "standard"}])
def test_changed_plan_has_another_key(change, finished, data, tmp_path):
    assert tiny.execute(tiny.plan(**change), tmp_path, data).key != finished[1].key


def test_changed_picture_changes_the_key(finished, tmp_path):
    other = tiny.pictures(tmp_path / "d", seed=1)
    assert tiny.execute(tiny.plan(), tmp_path / "s", other).key != finished[1].key


def test_added_claim_trains_only_what_is_missing(data, tmp_path, monkeypatch):
    """The twins come back for other probes, with their weights from the store; the run's own victims do not come back at all."""
    from badnets.plans import _work

    trained, jobs, train = [], [], _work.train

    def counted(trial, *rest):
        trained.append(trial)
        return train(trial, *rest)

    def work(payload):
        jobs.append(json.loads(payload)["trial"])
        return tiny.real(payload)

    monkeypatch.setattr(_work, "train", counted)
    less, more = SMALL, {"claims": ("trigger_reaches_target", "small_trigger_spares_learning"), "only_attack": True}
    tiny.execute(tiny.plan(**less), tmp_path, data, SerialEngine(work))
    assert len(trained) == len(jobs) == 4
    both = tiny.execute(tiny.plan(**more), tmp_path, data, SerialEngine(work))
    new = trained[4:]
    assert new
    assert all(trial.attack is not None and trial.attack.trigger.size != 3 for trial in new)
    assert {trial["seed"] for trial in jobs[4:] if trial["attack"] is None} == {0, 1}
    trained.clear()
    alone = tiny.execute(tiny.plan(**more), tmp_path / "alone", data, SerialEngine(work))
    assert tiny.essence(both) == tiny.essence(alone)
    assert len(trained) == 4 + len(new)


def test_dropped_claim_trains_nothing(finished, data):
    store, record = finished
    less = tiny.execute(tiny.plan(claims=tiny.CLAIMS[1:]), store, data, Forbidden())
    assert [c.name for c in less.claims] == ["trigger_reaches_target"]
    assert less.claims[0].cells == record.claims[1].cells


def test_choices_do_not_depend_on_what_was_trained_when(finished, data, tmp_path):
    """A run that is cut off after its last training, before its record, resumes to the same record."""

    class CutError(Exception):
        pass

    class Cutting(tiny.Watcher):
        def progress(self, done, jobs, seconds_left):
            if done == jobs:
                raise CutError

    with pytest.raises(CutError):
        tiny.execute(tiny.plan(), tmp_path, data, audience=Cutting())
    resumed = tiny.execute(tiny.plan(), tmp_path, data, Forbidden())
    assert "precision float32: a test" in resumed.choices
    assert tiny.essence(resumed) == tiny.essence(finished[1])


# --- the audience


def test_audience_is_told_everything_once(data, tmp_path):
    audience = tiny.Watcher()
    tiny.execute(tiny.plan(), tmp_path, data, audience=audience)
    assert audience.calls[0] == "started"
    assert (audience.jobs, audience.stored) == (12, 0)
    assert [c for c in audience.calls if c.startswith("progress")] == [f"progress {i}/12" for i in range(1, 13)]
    assert sorted(audience.names) == sorted(tiny.CLAIMS)


def test_claims_are_decided_in_order_of_readiness(data, tmp_path):
    """The claim named last needs the run's own nets only, so it is decided first; the record keeps the order asked for."""
    wanted, audience = tiny.plan(claims=("trigger_reaches_target", "validation_cannot_tell")), tiny.Watcher()
    record = tiny.execute(wanted, tmp_path, data, audience=audience)
    assert audience.names == ["validation_cannot_tell", "trigger_reaches_target"]
    assert audience.calls.index("decided validation_cannot_tell") < audience.calls.index(f"progress 4/{audience.jobs}")
    assert [c.name for c in record.claims] == ["trigger_reaches_target", "validation_cannot_tell"]


BRIEF = {
    "transfers_by_distillation": 'plain={"steps":4}',
    "undetectable": "detectors=neural_cleanse+mm_bd+strip+activation_clustering+max_softmax",
    "hard_to_remove_blind": "repairs=unlearning+fine_pruning+clp",
}
"""Fields that save time; every detector and repair is asked in tests of its own."""


@pytest.mark.parametrize("part", [0, 1, 2])
def test_all_claims_run_in_the_tiny_world_with_real_nets(part, tmp_path):
    from badnets.plans._plan import CLAIMS

    data = tiny.pictures(tmp_path / "pictures", count=16)
    few = {"seeds": 1, "arms_seeds": 1, "population": 2, "recipe": tiny.plan().recipe.but(epochs=1)}
    names = tuple(name for name in CLAIMS if name not in ("regardless_of_content",))[part::3]
    told = tuple(f"{name}:{BRIEF[name]}" if name in BRIEF else name for name in names)
    record = tiny.execute(tiny.plan(claims=told, **few), tmp_path / "store", data, SerialEngine(tiny.real))
    assert [c.name for c in record.claims] == list(names)
    assert all(c.cells for c in record.claims)


# --- failures


def test_failing_training_keeps_the_rest(data, tmp_path, monkeypatch, finished):
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(PartialError) as caught:
        tiny.execute(tiny.plan(), tmp_path, data)
    assert caught.value.code == "E-PARTIAL"
    assert "6 of 12" in caught.value.message
    assert "E-TEST" in caught.value.message
    assert tiny.check_store(tmp_path)
    assert Store(tmp_path).records() == []
    monkeypatch.delenv("TINY_FAIL")
    log = []
    record = tiny.execute(tiny.plan(), tmp_path, data, counting(log))
    assert {trial["seed"] for trial in log} == {1}
    assert len(log) == 6
    assert tiny.essence(record) == tiny.essence(finished[1])


def test_claims_that_need_nothing_of_the_failed_are_still_decided(data, tmp_path):
    def work(payload):
        if json.loads(payload)["trial"]["attack"] and json.loads(payload)["trial"]["attack"]["mapping"] == "all_to_all":
            raise RefusedError("E-TEST", "no.")
        return tiny.perform(payload)

    audience = tiny.Watcher()
    with pytest.raises(PartialError, match="2 of 12"):
        tiny.execute(tiny.plan(), tmp_path, data, SerialEngine(work), audience)
    assert audience.names == ["clean_accuracy_kept"]


def test_when_every_training_fails_the_first_reason_is_given(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "0,1")
    with pytest.raises(RefusedError) as caught:
        tiny.execute(tiny.plan(), tmp_path, data)
    assert caught.value.code == "E-TEST"


def test_failure_on_the_command_line(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "1")
    done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path / "s")
    assert done.status == 6
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith("error E-PARTIAL ")
    assert "Traceback" not in done.err


def test_killed_worker_costs_its_own_job_only(data, tmp_path, monkeypatch, finished):
    """Real processes; the one at seed 1's twin is killed by signal 9."""
    engine = ProcessEngine("run_killed:perform", num_workers=1)
    with pytest.raises(PartialError) as caught:
        tiny.execute(tiny.plan(), tmp_path, data, engine)
    assert caught.value.code == "E-PARTIAL"
    assert "E-KILLED" in caught.value.message
    assert "1 of 12" in caught.value.message
    log = []
    assert tiny.essence(tiny.execute(tiny.plan(), tmp_path, data, counting(log))) == tiny.essence(finished[1])
    assert [(trial["seed"], trial["attack"]) for trial in log] == [(1, None)]


# --- damage


def manifests(store):
    return sorted((store / "results").glob("*/*.json"))


@pytest.mark.parametrize("kind", ["answer", "weights.safetensors"])
@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_damaged_blob_is_recomputed(kind, how, finished, data, tmp_path):
    record = tiny.execute(tiny.plan(), tmp_path, data)
    entry = next(e["files"][kind] for e in (json.loads(p.read_text()) for p in manifests(tmp_path)) if kind in e["files"])
    blob = tmp_path / "blobs" / entry["sha256"][:2] / entry["sha256"]
    content = blob.read_bytes()
    if how == "delete":
        blob.unlink()
    else:
        blob.write_bytes(content[:-1] if how == "truncate" else content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "records" / record.key[:2] / f"{record.key}.json").unlink()
    again = tiny.execute(tiny.plan(), tmp_path, data)
    assert tiny.essence(again) == tiny.essence(record)
    if kind == "answer":
        assert blob.read_bytes() == content


@pytest.mark.parametrize("where", ["manifest", "blob"])
def test_damaged_record_is_made_again(where, data, tmp_path):
    record = tiny.execute(tiny.plan(), tmp_path, data)
    manifest = tmp_path / "records" / record.key[:2] / f"{record.key}.json"
    sha256 = record_blob(tmp_path, record.key)
    path = manifest if where == "manifest" else tmp_path / "blobs" / sha256[:2] / sha256
    path.write_bytes(path.read_bytes().replace(b"trigger", b"tr1gger"))
    again = tiny.execute(tiny.plan(), tmp_path, data, Forbidden())
    assert tiny.essence(again) == tiny.essence(record)
    assert Store(tmp_path).record() == again


# --- two at once


def test_same_key_at_once_is_refused(data, tmp_path):
    errors = []

    class Nested(tiny.Watcher):
        def progress(self, done, jobs, seconds_left):
            if done == 3:
                with pytest.raises(StoreError) as caught:
                    tiny.execute(tiny.plan(), tmp_path, data, Forbidden())
                errors.append(caught.value)

    tiny.execute(tiny.plan(), tmp_path, data, audience=Nested())
    assert [error.code for error in errors] == ["E-BUSY"]
    assert str(os.getpid()) in errors[0].message


def test_other_key_at_once_is_not_refused(data, tmp_path):
    class Nested(tiny.Watcher):
        def progress(self, done, jobs, seconds_left):
            if done == 3:
                tiny.execute(tiny.plan(claims=tiny.CLAIMS[:1]), tmp_path, data)

    tiny.execute(tiny.plan(), tmp_path, data, audience=Nested())
    assert len(Store(tmp_path).records()) == 2
    tiny.check_store(tmp_path)


# --- stopping


def test_stop_request_between_results_keeps_what_came(data, tmp_path, finished):
    stop = StopRequest()

    class Stopping(tiny.Watcher):
        def progress(self, done, jobs, seconds_left):
            if done == 5:
                stop.handle(signal.SIGTERM, None)

    with pytest.raises(Stopped) as caught:
        tiny.execute(tiny.plan(), tmp_path, data, audience=Stopping(), stop=stop)
    assert caught.value.signum == signal.SIGTERM
    log = []
    assert tiny.essence(tiny.execute(tiny.plan(), tmp_path, data, counting(log))) == tiny.essence(finished[1])
    assert len(log) == 7


class Running:
    """`badnets run` in a process of its own, with processes of its own around a worker without torch."""

    def __init__(self, data, tmp_path, *more, **environment):
        self.log = tmp_path / "log"
        values = {"TINY_LOG": self.log, "TINY_NAP": "0.15", "BADNETS_HOME": tmp_path / "store", **environment}
        command = [sys.executable, tiny.__file__, "run", tiny.DATASET, "--data", str(data), *more]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **{name: str(value) for name, value in values.items()}},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, count):
        end = time.monotonic() + 20
        while len(self.calls()) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "the run does not get on"
            time.sleep(0.01)

    def end(self):
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err

    def survivors(self):
        """Workers (their process ids stand in the log) that outlive the run by a second."""
        pids, end = {int(line.split()[1]) for line in self.calls()}, time.monotonic() + 1
        while (alive := [pid for pid in pids if Path(f"/proc/{pid}/stat").exists()]) and time.monotonic() < end:
            time.sleep(0.02)
        return alive


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_and_the_same_command_resumes(number, status, data, tmp_path, finished):
    with Running(data, tmp_path, TINY_SEEDS=2) as run:
        run.wait_for(5)
        run.process.send_signal(number)
        code, out, err = run.end()
        assert (code, out) == (status, "")
        assert err.splitlines()[-1] == "Stopped. What is done is kept: the same command continues."
        assert "Traceback" not in err
        assert not run.survivors()
        kept = tiny.check_store(tmp_path / "store")
        assert kept
        log = []
        record = tiny.execute(tiny.plan(), tmp_path / "store", data, counting(log))
        assert 0 < len(log) < 12
        assert tiny.essence(record) == tiny.essence(finished[1])


def test_second_signal_ends_at_once(data, tmp_path):
    """The first comes while a result is being written (here for half a minute), so it is not obeyed at once; the second is."""
    with Running(data, tmp_path, TINY_SLOW_COMMIT=30, TINY_NAP=0) as run:
        run.wait_for(3)
        time.sleep(0.3)
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert run.process.poll() is None, "the first signal tore a commit"
        start = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        code, out, err = run.end()
        assert (code, out) == (130, "")
        assert time.monotonic() - start < 1
        assert "Traceback" not in err
        assert not run.survivors()
        tiny.check_store(tmp_path / "store")


def test_second_run_of_the_same_key_is_busy_and_the_first_is_not_hurt(data, tmp_path, finished):
    with Running(data, tmp_path, "--json", TINY_SEEDS=2) as run:
        run.wait_for(2)
        second = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path / "store")
        assert (second.status, second.out) == (5, "")
        assert second.err.startswith("error E-BUSY ")
        assert str(run.process.pid) in second.err
        code, out, err = run.end()
        assert code == 0, err
        assert tiny.essence(json.loads(out)) == tiny.essence(finished[1])
        assert len({line.split()[0] for line in run.calls()}) == len(run.calls()) == 12, "a net was trained twice"
        lines = err.splitlines()
        assert lines[0] == "quick on folder: 2 claims, 12 jobs to do; in the store already: 0 nets"
        assert lines[-1].startswith("Report: ")
        assert Path(lines[-1].removeprefix("Report: ")).is_file()


def test_error_of_ours_has_no_traceback_over_the_process_border(data, tmp_path):
    engine = ProcessEngine("run_killed:refuse", num_workers=1)
    with pytest.raises(BadnetsError) as caught:
        tiny.execute(tiny.plan(**SMALL), tmp_path, data, engine)
    assert (caught.value.code, caught.value.exit_status) == ("E-TEST", 3)
