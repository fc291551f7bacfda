"""A stranger's net runs where nothing else can be reached, and what it says there is what it would say here."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import wired

from badnets.core import registry
from badnets.core.confine import Level, _refuse_sockets
from badnets.core.errors import BadnetsError, RefusedError, UsageError
from badnets.core.rng import numpy_generator
from badnets.core.suspect import NO_LIMIT, Suspect
from badnets.intake import running
from badnets.intake.found import digest
from badnets.intake.running import Limits, run_confined
from badnets.nets._base import Network
from badnets.nets._weights import to_bytes
from badnets.plans import _repair, _scan, _scan_work
from badnets.plans._scan_work import Errand, Opening

needs_landlock = pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
SOON = Limits(memory=1 << 30, seconds=20)
ANSWER = Network.predict_logits


def said(work, **how):
    """All messages of a work that takes no level."""
    return list(run_confined(lambda level: work(), "net.pt", limits=how.pop("limits", SOON), **how))


def outcome(attempt):
    """What came of trying something: "done", or the error."""
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


class TestWhatIsSaid:
    def test_messages_come_in_order_with_their_bytes(self):
        def work():
            for number in range(3):
                yield {"number": number, "b": 1, "a": 2}, bytes([number]) * number

        found = said(work)
        assert found == [({"number": n, "b": 1, "a": 2}, bytes([n]) * n) for n in range(3)]
        assert list(found[0][0]) == ["number", "b", "a"], "in the order in which they were told"

    def test_a_large_body_comes_whole(self):
        body = bytes(range(256)) * (1 << 16)
        assert said(lambda: [({}, body)]) == [({}, body)]

    def test_nothing_is_also_an_answer(self):
        assert said(list) == []

    @pytest.mark.parametrize("error", [RefusedError("E-NAN", "n.pt: no.", hint="h"), UsageError("E-ARCH", "no such net.")])
    def test_an_error_of_ours_travels(self, error):
        def work():
            yield {}, b""
            raise error

        messages = run_confined(lambda level: work(), "net.pt", limits=SOON)
        assert next(messages) == ({}, b"")
        with pytest.raises(type(error)) as caught:
            next(messages)
        assert (caught.value.code, caught.value.message, caught.value.hint) == (error.code, error.message, error.hint)

    def test_any_other_error_is_a_defect_and_named(self):
        with pytest.raises(BadnetsError, match="ZeroDivisionError") as caught:
            said(lambda: [({}, bytes(1 // 0))])
        assert caught.value.code == "E-BUG"

    def test_a_net_answers_the_same_bits_as_here(self):
        network = wired.twin()
        x_NCHW = torch.rand(20, *network.shape, generator=torch.Generator().manual_seed(0))

        def logits():
            torch.set_num_threads(1)
            return network.predict_logits(x_NCHW).numpy().tobytes()

        ((_, there),) = said(lambda: [({}, logits())])
        assert there == logits()


@needs_landlock
class TestWhatItCanReach:
    def test_nothing(self, tmp_path):
        secret, code = tmp_path / "secret", Path(running.__file__).parent
        attempts = {
            "read": secret.read_bytes,
            "list": lambda: list(tmp_path.iterdir()),
            "write": (tmp_path / "new").touch,
            "change": lambda: os.truncate(secret, 0),
            "remove": secret.unlink,
            "run": lambda: os.execv("/bin/true", ["true"]),
            "read the system": Path("/etc/passwd").read_bytes,
            "write code": (code / "new.py").touch,
            "send": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
            "tell": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
        }
        secret.write_text("s")
        ((found, _),) = said(lambda: [({what: outcome(attempt) for what, attempt in attempts.items()}, b"")])
        assert all(what != "done" for what in found.values()), found
        assert secret.read_text() == "s"
        assert list(tmp_path.iterdir()) == [secret]

    def test_but_the_code_that_it_runs(self):
        def work():
            import colorsys  # nothing of ours imports it before

            yield {"found": colorsys.rgb_to_hsv(1, 1, 1)[2]}, b""

        assert said(work) == [({"found": 1}, b"")]

    def test_its_limits_are_for_good(self):
        import resource

        def raised():
            for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE"):
                with pytest.raises((ValueError, OSError)):
                    resource.setrlimit(getattr(resource, name), (1 << 40, 1 << 40))

        assert said(lambda: [({}, bytes(raised() or b""))]) == [({}, b"")]

    def test_no_descriptor_of_its_parent(self, tmp_path):
        (tmp_path / "secret").write_text("s")
        with (tmp_path / "secret").open() as held:
            ((found, _),) = said(lambda: [({"read": outcome(lambda: os.read(held.fileno(), 1))}, b"")])
        assert found == {"read": "OSError"}

    def test_the_level_is_told_to_the_work(self):
        ((found, _),) = run_confined(lambda level: [(level.to_json(), b"")], "net.pt", limits=SOON)
        assert Level(**found).process
        assert Level(**found).limits

    def test_no_socket_where_there_is_no_network_of_its_own(self):
        def work():
            _refuse_sockets()
            yield {"socket": outcome(socket.socket), "file": outcome(lambda: os.close(os.open(os.__file__, os.O_RDONLY)))}, b""

        assert said(work) == [({"socket": "PermissionError", "file": "done"}, b"")]


class TestEnds:
    def test_too_much_memory(self):
        with pytest.raises(RefusedError, match=r"net\.pt: not analysable: .* more memory") as caught:
            said(lambda: [({}, bytes(torch.zeros(1 << 33).numpy()[:1].tobytes()))], limits=Limits(1 << 30, 20))
        assert caught.value.code == "E-MEMORY"
        with pytest.raises(RefusedError) as caught:
            said(lambda: [({}, bytes(np.ones(1 << 32)[:1].tobytes()))], limits=Limits(1 << 30, 20))
        assert caught.value.code == "E-MEMORY"

    def test_too_long(self):
        def forever():
            while True:
                pass

        with pytest.raises(RefusedError, match=r"net\.pt: the process that ran it took longer than it may") as caught:
            said(forever, limits=Limits(1 << 30, 1))
        assert caught.value.code == "E-TIME"

    def test_killed(self):
        with pytest.raises(RefusedError, match="SIGSEGV") as caught:
            said(lambda: [({}, bytes(os.kill(os.getpid(), signal.SIGSEGV) or b"")), time.sleep(9)])
        assert caught.value.code == "E-CRASHED"

    def test_says_more_than_it_may(self, monkeypatch):
        monkeypatch.setattr(running, "_MOST_BYTES", 10)
        with pytest.raises(RefusedError, match="too much") as caught:
            said(lambda: [({}, bytes(11))])
        assert caught.value.code == "E-CRASHED"

    def test_ends_with_who_listens(self):
        def work():
            yield {"pid": os.getpid()}, b""
            time.sleep(60)

        messages = run_confined(lambda level: work(), "net.pt", limits=SOON)
        pid = next(messages)[0]["pid"]
        messages.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_dies_with_a_parent_that_is_killed(self):
        code = (
            "import os, sys, time\n"
            "from badnets.intake.running import run_confined\n"
            "def work(level):\n"
            "    yield {'pid': os.getpid()}, b''\n"
            "    time.sleep(60)\n"
            "for said, _ in run_confined(work, 'n'): print(said['pid'], flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
            pid = int(parent.stdout.readline())
            parent.kill()
        until = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < until, "it lives on"
            time.sleep(0.01)

    def test_an_interrupt_is_for_the_parent(self):
        def work():
            os.kill(os.getpid(), signal.SIGINT)
            yield {}, b""

        assert said(work) == [({}, b"")]


class TestRequired:
    def test_refused_where_anything_is_missing(self, monkeypatch):
        monkeypatch.setattr(running, "confine_reader", lambda *_, **__: Level(process=True, limits=True))
        with pytest.raises(RefusedError, match=r"net\.pt: the net would run without .*landlock") as caught:
            said(lambda: [({}, b"")], require=True)
        assert caught.value.code == "E-SANDBOX"
        assert said(lambda: [({}, b"")]) == [({}, b"")]

    def test_without_fork_it_runs_here_and_says_so(self, monkeypatch):
        monkeypatch.delattr(os, "fork")
        assert list(run_confined(lambda level: [({"level": str(level)}, b"")], "n")) == [({"level": "none: in this process"}, b"")]
        with pytest.raises(RefusedError):
            list(run_confined(lambda level: [({}, b"")], "n", require=True))


@pytest.fixture(scope="module")
def suspect():
    data = wired.image_set()
    return Suspect(wired.wire(), data.shape, data.num_classes, clean=(data.budget.x_NCHW, data.budget.y_N))


class TestWhoWorksThere:
    """Libraries open files as they go, and only what is known to be needed is left open."""

    @pytest.mark.parametrize("name", _scan.DETECTORS)
    def test_a_detector_says_what_it_says_here(self, name, suspect):
        def heard():
            torch.set_num_threads(1)
            found = registry.parse("detectors", {"kind": name}).scan(suspect, NO_LIMIT, rng=numpy_generator(0, name))
            return {"score": found.score, "target": found.target, "why_not": found.why_not}

        ((there, _),) = said(lambda: [(heard(), b"")])
        assert there == heard()

    @pytest.mark.parametrize("name", _repair.REPAIRS)
    def test_a_repair_makes_what_it_makes_here(self, name, suspect):
        def made():
            torch.set_num_threads(1)
            done = registry.parse("repairs", {"kind": name}).apply(suspect, rng=numpy_generator(0, name))
            return to_bytes(done.network) if done.network is not None else done.why_not.encode()

        ((_, there),) = said(lambda: [({}, made())])
        assert there == made()

    def test_nothing_is_computed_with_a_strangers_numbers_outside(self, monkeypatch, tmp_path):
        """Who runs the net in a scan is another process than who read the file."""
        pictures = tiny.pictures(tmp_path / "pictures")
        net = registry.parse("nets", "fast_cnn:width=4,hidden=16").build((1, 8, 8), 3, seed=0)
        (tmp_path / "n.safetensors").write_bytes(to_bytes(tiny.taught(net)))
        calls = []
        monkeypatch.setattr(Network, "predict_logits", lambda *_, **__: calls.append(os.getpid()) or ANSWER(*_, **__))
        errand = Errand(
            path=str(tmp_path / "n.safetensors"),
            sha256=digest(tmp_path / "n.safetensors"),
            dataset={"kind": "folder", "size": 8},
            data=str(pictures),
            opening=Opening(),
            detectors=("channel_lipschitz",),
        )
        files, info = _scan_work.perform(errand.model_dump_json())
        assert info["refused"] is None
        assert "for reading and for running it" in files[_scan_work.HEARD].decode()
        assert calls == [], "in this process"
