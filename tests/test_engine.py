"""Engine: results whole and once each, whatever dies; nothing outlives its parent."""

import ast
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from badnets.core import engine
from badnets.core.engine import Engine, Job, JobResult, ProcessEngine, SerialEngine
from badnets.core.errors import BadnetsError, PartialError, StoreError, UsageError

TESTS = Path(__file__).resolve().parent


def jobs(*payloads):
    return [Job(f"{number:064x}", payload if isinstance(payload, str) else json.dumps(payload)) for number, payload in enumerate(payloads)]


def gone(pid):
    """Dead or a zombie that only its (foreign) parent can remove."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends while the file is read
        return True


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def descendants():
    """Processes below this one, but for the reader of model files that other tests in this process keep warm."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if b"badnets.intake.server" in stat.with_name("cmdline").read_bytes():
                continue
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize(
    "chosen", [SerialEngine("engine_workers:square"), ProcessEngine("engine_workers:square", 2)], ids=["serial", "processes"]
)
def test_every_job_is_answered_once(chosen):
    results = list(chosen.run(jobs(*range(30))))
    assert {int(r.key, 16): r.files for r in results} == {n: {"square": str(n * n).encode()} for n in range(30)}
    assert len(results) == 30
    assert all(r.error is None and r.failure is None and r.info["number"] == int(r.key, 16) for r in results)


def test_results_do_not_depend_on_the_number_of_workers():
    def outcome(chosen):
        return sorted((r.key, sorted(r.files.items()), r.info["number"]) for r in chosen.run(jobs(*range(7))))

    reference = outcome(SerialEngine("engine_workers:square"))
    assert all(outcome(ProcessEngine("engine_workers:square", workers)) == reference for workers in (1, 3))


def test_jobs_start_in_the_given_order_and_come_back_as_they_finish():
    naps = jobs({"seconds": 0.7}, {"seconds": 0.0}, {"seconds": 0.05})
    assert [int(r.key, 16) for r in ProcessEngine("engine_workers:nap", 2).run(naps)] == [1, 2, 0]
    assert [int(r.key, 16) for r in ProcessEngine("engine_workers:nap", 1).run(naps)] == [0, 1, 2]


def test_no_more_processes_than_workers_or_jobs():
    pids = {r.info["pid"] for r in ProcessEngine("engine_workers:square", 2).run(jobs(*range(20)))}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_no_jobs_start_no_process():
    assert list(ProcessEngine("no_such_module:at_all", 2).run([])) == []


@linux
def test_workers_keep_busy_while_the_caller_commits():
    run = ProcessEngine("engine_workers:nap", 1).run(jobs({"seconds": 0.2}, {"seconds": 0.2}))
    next(run)
    time.sleep(0.6)
    start = time.monotonic()
    next(run)
    assert time.monotonic() - start < 0.18


def test_big_results_arrive_whole():
    (result,) = ProcessEngine("engine_workers:big", 1).run([Job("0", "30000000")])
    assert result.files["big"] == b"x" * 30_000_000
    assert result.files["empty"] == b""


@pytest.mark.parametrize("make", [SerialEngine, ProcessEngine])
def test_our_errors_keep_class_code_message_and_hint(make):
    (result,) = make("engine_workers:refuse").run([Job("k", "12")])
    assert isinstance(result.failure, UsageError)
    assert (result.failure.code, result.failure.message, result.failure.hint) == ("E-TARGET", "target 12 is no class.", "Use 0 to 9.")
    assert result.error == "E-TARGET target 12 is no class. Use 0 to 9."
    assert result.files == {}


@pytest.mark.parametrize("make", [SerialEngine, ProcessEngine])
def test_other_errors_come_as_traceback_marked_as_ours(make):
    good, bad = sorted(make("engine_workers:fail").run(jobs("1", "0")), key=lambda r: r.key)
    assert good.error is None
    assert type(bad.failure) is BadnetsError
    assert bad.failure.code == "E-BUG"
    assert "defect in badnets" in bad.error
    assert "engine_workers.py" in bad.error
    assert "ZeroDivisionError" in bad.error


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        ("nan", "E-BUG", "Out of range float"),
        ("text", "E-BUG", "returns bytes"),
        ("exit", "E-BUG", "SystemExit"),
        ("memory", "E-MEMORY", "12 GiB"),
    ],
)
def test_wrong_answers_are_errors(payload, code, text):
    (result,) = ProcessEngine("engine_workers:wrong", 1).run([Job("k", payload)])
    assert result.failure.code == code
    assert text in result.error


@pytest.mark.parametrize(("how", "text"), [("kill", "SIGKILL"), ("exit", "exit status 7")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_costs_its_job_and_no_other(how, text, workers):
    results = list(ProcessEngine("engine_workers:die", workers).run(jobs("1", how, "3", how, "5")))
    assert sorted(int(r.key, 16) for r in results) == [0, 1, 2, 3, 4]
    failed = {int(r.key, 16): r for r in results if r.error}
    assert sorted(failed) == [1, 3]
    assert all(isinstance(r.failure, PartialError) and r.failure.code == "E-KILLED" and text in r.error for r in failed.values())


@linux
def test_a_worker_that_dies_while_idle_costs_nothing():
    with engine._Pool("engine_workers:square") as pool:
        first, second = jobs(3, 4)
        pool.start(first)
        assert [r.files["square"] for r in pool.collect()] == [b"9"]
        (worker,) = pool._workers
        os.kill(worker.pid, signal.SIGKILL)
        assert wait_until(lambda: gone(worker.pid), 2)
        # A zombie's other threads may still hold the line open for a moment: wait until it is closed.
        assert select.select([worker.link], [], [], 2)[0]
        pool.start(second)
        assert [r.files["square"] for r in pool.collect()] == [b"16"]
        assert worker not in pool._workers


@linux
def test_the_server_that_dies_is_an_error_not_a_hang():
    start = time.monotonic()
    results = list(ProcessEngine("engine_workers:die", 2).run(jobs("server", "2", "3", "4", "5", "6")))
    assert time.monotonic() - start < 3
    assert sorted(int(r.key, 16) for r in results) == [0, 1, 2, 3, 4, 5]
    assert next(r for r in results if int(r.key, 16) == 0).failure.code == "E-KILLED"
    assert not descendants()


@linux
@pytest.mark.parametrize("gil", [False, True])
def test_closing_the_iterator_ends_the_children_at_once(tmp_path, gil):
    log = tmp_path / "pids"
    run = ProcessEngine("engine_workers:nap", 2).run(jobs({"seconds": 0}, *[{"seconds": 30, "log": str(log), "gil": gil}] * 3))
    next(run)
    assert wait_until(lambda: log.exists() and len(log.read_text().split()) == 2, 3)
    assert len(descendants()) == 3
    start = time.monotonic()
    run.close()
    assert time.monotonic() - start < 0.9
    assert not descendants()


@linux
def test_an_exception_in_the_caller_ends_the_children():
    def consume():
        for _ in ProcessEngine("engine_workers:nap", 2).run(jobs({"seconds": 0}, {"seconds": 30})):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert wait_until(lambda: not descendants(), 1)


@linux
def test_the_thread_that_began_may_end(tmp_path):
    """Linux tells children of the end of the thread that started them; that must not be taken for the parent's."""
    run, first = ProcessEngine("engine_workers:nap", 1).run(jobs({"seconds": 0}, {"seconds": 0.2})), []
    thread = threading.Thread(target=lambda: first.append(next(run)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert [r.error for r in [*first, *run]] == [None, None]


@linux
def test_children_ignore_the_interrupt(tmp_path):
    log = tmp_path / "pids"
    run = ProcessEngine("engine_workers:nap", 2).run(jobs({"seconds": 0}, *[{"seconds": 0.3, "log": str(log)}] * 2))
    next(run)
    assert wait_until(lambda: log.exists() and len(log.read_text().split()) == 2, 3)
    for pid in descendants():
        os.kill(pid, signal.SIGINT)
    assert [r.error for r in run] == [None, None]


PARENT = """
import json, sys
from badnets.core.engine import Job, ProcessEngine
jobs = [Job(str(n), json.dumps({"seconds": 60, "log": sys.argv[1], "gil": sys.argv[2]})) for n in range(4)]
for result in ProcessEngine("engine_workers:nap", 2).run(jobs):
    raise SystemExit("a nap of 60 s ended early")
"""


def start_parent(log, gil):
    path = os.pathsep.join([str(TESTS), *sys.path])
    return subprocess.Popen([sys.executable, "-c", PARENT, str(log), gil], env={**os.environ, "PYTHONPATH": path})


def below(pid):
    return {int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()}


@linux
@pytest.mark.parametrize("gil", ["", "gil"])
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_their_parent(tmp_path, signal_number, gil):
    log = tmp_path / "pids"
    with start_parent(log, gil) as parent:
        assert wait_until(lambda: log.exists() and len(log.read_text().split()) == 2, 4)
        family = {int(pid) for pid in log.read_text().split()} | below(parent.pid)
        assert len(family) == 3
        parent.send_signal(signal_number)
    assert wait_until(lambda: all(gone(pid) for pid in family), 2)


@linux
def test_children_die_with_a_parent_killed_during_the_import(tmp_path):
    (tmp_path / "slow_import_worker.py").write_text("import time\ntime.sleep(60)\n")
    script = PARENT.replace("engine_workers:", "slow_import_worker:")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", script, "unused", ""], env=env) as parent:
        assert wait_until(lambda: below(parent.pid), 4)
        family = below(parent.pid)
        time.sleep(0.2)
        parent.kill()
    assert wait_until(lambda: all(gone(pid) for pid in family), 2)


def test_workers_have_one_thread_and_keep_off_standard_output(tmp_path):
    """Also: the caller's main script has no `__main__` guard and is not run again."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from badnets.core.engine import Job, ProcessEngine\n"
        "print([r.info for r in ProcessEngine('engine_workers:seen', 1).run([Job('k', '')])])\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "7"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=20, check=True)
    (info,) = ast.literal_eval(done.stdout)
    assert info.pop("session") != os.getsid(0), "the terminal's Ctrl-C is for the parent alone"
    assert info == {"threads": "1", "main": "None"}
    assert "this must not reach" in done.stderr
    assert "nor must this" in done.stderr


@pytest.mark.parametrize(
    ("worker", "text"),
    [("no_such_module:f", "ModuleNotFoundError"), ("engine_workers:no_such", "AttributeError"), ("broken_worker:f", "SystemExit")],
)
def test_a_worker_that_cannot_be_imported_is_said_once(worker, text, tmp_path, monkeypatch):
    (tmp_path / "broken_worker.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadnetsError, match=text):
        next(ProcessEngine(worker, 2).run(jobs(1)))


def test_a_server_that_ends_during_the_import_is_said(tmp_path, monkeypatch):
    (tmp_path / "deadly_worker.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadnetsError, match="exit status 9") as caught:
        next(ProcessEngine("deadly_worker:f", 2).run(jobs(1)))
    assert caught.value.code == "E-WORKERS"


def test_without_fork_it_says_so(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(StoreError, match="E-PLATFORM"):
        next(ProcessEngine("engine_workers:square", 1).run(jobs(1)))


def test_a_number_of_workers_below_one_is_refused():
    with pytest.raises(UsageError, match="at least 1 worker, got 0"):
        ProcessEngine("engine_workers:square", 0)


def test_the_interface_has_one_method():
    assert Engine.__abstractmethods__ == {"run"}
    assert JobResult("k") == JobResult("k", {}, {}, None, None)


def test_no_descriptor_is_left_open():
    def opened():
        return len(list(Path("/dev/fd").iterdir()))

    list(ProcessEngine("engine_workers:square", 2).run(jobs(1, 2)))
    before = opened()
    for _ in range(3):
        list(ProcessEngine("engine_workers:die", 2).run(jobs("1", "kill", "2")))
    assert opened() == before
