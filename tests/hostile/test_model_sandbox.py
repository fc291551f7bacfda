"""The sandbox: what a reader can still do, files that are no files, readers that die, dawdle or lie, and a sandbox that is not whole."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import corpus_safetensors
import corpus_torch
import making_onnx
import numpy as np
import pytest
import tiny
from making import NUMBERS, checkpoint, safetensors

from badnets.core.confine import Level
from badnets.core.errors import BadnetsError, RefusedError, UsageError
from badnets.intake import sandbox as sandbox_module
from badnets.intake.opened import LARGEST, open_once, read_once
from badnets.intake.sandbox import Sandbox, read_model

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and namespaces are Linux's")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        yield found


@pytest.fixture(scope="module")
def complete(sandbox):
    if not sandbox.level.complete:
        pytest.skip(f"this system gives no whole sandbox: without {sandbox.level.missing}")
    return sandbox


class TestReading:
    @pytest.mark.parametrize("data", [checkpoint(), safetensors()], ids=["torch zip", "safetensors"])
    def test_gives_what_the_reader_gives(self, sandbox, tmp_path, data):
        import hashlib

        (tmp_path / "m").write_bytes(data)
        found = sandbox.read(tmp_path / "m")
        assert np.array_equal(found.weights.tensors["w"].data, np.arange(6, dtype=np.float32).reshape(2, 3))
        assert found.weights.sha256 == hashlib.sha256(data).hexdigest()
        assert found.level.process

    def test_reports_numbers_that_are_none(self, sandbox, tmp_path):
        (tmp_path / "m").write_bytes(safetensors(data=np.full(6, np.nan, np.float32).tobytes()))
        assert sandbox.read(tmp_path / "m").weights.not_finite == ("w",)

    def test_names_the_file_and_nothing_else_of_it(self, sandbox, tmp_path):
        path = tmp_path / "a\x1b[2Jb\n.pt"
        path.write_bytes(b"nonsense")
        with pytest.raises(RefusedError, match=r"^E-FORMAT a\\x1b\[2Jb\\n.pt: it begins with") as caught:
            sandbox.read(path)
        assert str(caught.value).isprintable()

    def test_many_in_turn(self, sandbox, tmp_path):
        """A sample of the whole corpus, honest files between; each answer is its own file's."""
        cases = {**corpus_torch.containers(), **corpus_torch.geometry(), **corpus_safetensors.cases()}
        for number, (data, code) in enumerate(list(cases.values())[::7]):
            (tmp_path / "bad").write_bytes(data)
            if code:
                with pytest.raises(RefusedError, match=f"^{code} bad: "):
                    sandbox.read(tmp_path / "bad")
            honest = NUMBERS[4:] + np.float32(number).tobytes()
            (tmp_path / "good").write_bytes(safetensors(data=honest))
            assert sandbox.read(tmp_path / "good").weights.tensors["w"].data.tobytes() == honest


class TestFileGames:
    def make(self, tmp_path, kind):
        path = tmp_path / "m.pt"
        if kind == "link":
            (tmp_path / "real.pt").write_bytes(checkpoint())
            path.symlink_to(tmp_path / "real.pt")
        elif kind == "dangling link":
            path.symlink_to(tmp_path / "nothing")
        elif kind == "link to itself":
            path.symlink_to(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.close()
        elif kind == "device":
            return Path("/dev/zero")
        elif kind == "empty":
            path.touch()
        elif kind in ("sparse, 10 GB", "sparse, 100 MB"):
            with path.open("wb") as file:
                file.write(checkpoint())
                file.truncate(10 << 30 if "GB" in kind else 100 << 20)
        return path

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            ("link", "E-LINK"),
            ("dangling link", "E-LINK"),
            ("link to itself", "E-LINK"),
            ("folder", "E-DIRECTORY"),
            ("pipe", "E-NOT-FILE"),
            ("socket", "E-NOT-FILE"),
            ("device", "E-NOT-FILE"),
            ("empty", "E-EMPTY"),
            ("sparse, 10 GB", "E-SIZE"),
            ("sparse, 100 MB", "E-SPARSE"),
        ],
    )
    def test_refused_at_once(self, sandbox, tmp_path, kind, code):
        path, start = self.make(tmp_path, kind), time.monotonic()
        with pytest.raises(RefusedError, match=f"^{code} ") as caught:
            sandbox.read(path)
        assert caught.value.hint
        assert time.monotonic() - start < 2

    def test_absent(self, sandbox, tmp_path):
        for path in (tmp_path / "absent", tmp_path / "absent" / "x"):
            with pytest.raises(UsageError, match=r"^E-FILE "):
                sandbox.read(path)

    def test_a_name_with_nul(self, sandbox):
        with pytest.raises(RefusedError, match=r"^E-UNREADABLE "):
            sandbox.read(Path("a\0b"))

    def test_the_limit_is_one_of_files_that_exist(self):
        assert LARGEST < 10 << 30

    @pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
    def test_changed_while_read(self, tmp_path, monkeypatch, change):
        """Between the first and the last look somebody writes."""
        path = tmp_path / "m"
        path.write_bytes(safetensors())
        os.utime(path, (1, 1))
        real = os.pread

        def pread(fd, size, offset):
            if change == "longer":
                path.write_bytes(safetensors() + b"x")
            elif change == "shorter":
                os.truncate(path, 10)
            elif offset == 0:
                path.write_bytes(safetensors(data=NUMBERS[::-1]))
            return real(fd, size, offset)

        fd = open_once(path)
        try:
            monkeypatch.setattr(os, "pread", pread)
            with pytest.raises(RefusedError, match=r"^E-CHANGED "):
                read_once(fd)
        finally:
            os.close(fd)

    def test_the_link_is_swapped_in_after_opening(self, tmp_path):
        """What was opened is what is read, whatever the name leads to by then."""
        path = tmp_path / "m"
        path.write_bytes(safetensors())
        fd = open_once(path)
        try:
            path.unlink()
            path.symlink_to("/etc/passwd")
            assert read_once(fd).data == safetensors()
        finally:
            os.close(fd)


EVIL = """
import os, signal, socket, sys, time
import badnets.intake.server as server
together = server.read_together

def real(data): return together(data, [])

def evil(data, others, *, confined):
    word = data.decode("latin-1")
    if word == "sleep": time.sleep(60)
    if word == "spin":
        while True: pass
    if word == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if word == "exit": os._exit(7)
    if word == "memory": bytearray(1 << 34)
    if word == "defect": raise ZeroDivisionError
    if word.startswith("try "):
        try: exec(word[4:], {"os": os, "socket": socket, "sys": sys})
        except BaseException as error: word = type(error).__name__
        else: word = "done"
        return type(real(SAMPLE))(real(SAMPLE).tensors, "x", notes=(word,))
    if word == "long": return type(real(SAMPLE))(real(SAMPLE).tensors, "x", notes=("a" * (5 << 20),))
    return real(SAMPLE)

server.read_together = evil
"""


@pytest.fixture(scope="module")
def broken():
    """A sandbox whose reader was broken into: what it does is what the file says."""
    boot = sandbox_module._BOOT.replace("from badnets", f"exec({EVIL!r}); SAMPLE = {safetensors()!r}; from badnets")
    patch = pytest.MonkeyPatch()
    patch.setattr(sandbox_module, "_BOOT", boot)
    found = Sandbox()
    patch.undo()
    yield found
    found.close()


class TestBrokenReaders:
    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch):
        monkeypatch.setattr(sandbox_module, "_SECONDS", 1)

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("sleep", "^E-TIME"),
            ("spin", "^E-TIME"),
            ("crash", "^E-CRASHED .*SIGSEGV"),
            ("exit", "^E-CRASHED .*exit status 7"),
            ("defect", "^E-CRASHED .*exit status 1"),
            ("memory", "^E-MEMORY"),
            ("long", "^E-CRASHED .*too much"),
        ],
    )
    def test_one_clear_line_and_the_next_file_is_read(self, broken, tmp_path, word, said):
        if word == "memory" and not broken.level.limits:
            pytest.skip("no limit on memory here")
        (tmp_path / "m").write_text(word)
        with pytest.raises(RefusedError, match=said):
            broken.read(tmp_path / "m")
        (tmp_path / "n").write_text("fine")
        assert list(broken.read(tmp_path / "n").weights.tensors) == ["w"]

    @LINUX
    @pytest.mark.parametrize(
        "act",
        [
            "os.open('/etc/passwd', os.O_RDONLY)",
            "os.listdir('/')",
            "open('{canary}', 'w').write('x')",
            "os.unlink('{victim}')",
            "os.rename('{victim}', '{victim}2')",
            "os.mkdir('{canary}')",
            "socket.socket()",
            "socket.create_connection(('127.0.0.1', 80))",
            "socket.socketpair()",
            "os.pipe()",
            "os.execv('/bin/sh', ['sh', '-c', 'touch {canary}'])",
            "os.memfd_create('x')",
            "os.kill(os.getppid(), 0) or os.kill({pid}, 9)",
            "import ctypes.util",
        ],
    )
    def test_a_reader_can_do_nothing(self, broken, complete, tmp_path, act):
        victim = tmp_path / "victim"
        victim.write_text("kept")
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"]) if "{pid}" in act else None
        try:
            words = act.format(canary=tmp_path / "canary", victim=victim, pid=sleeper.pid if sleeper else 0)
            (tmp_path / "m").write_text(f"try {words}")
            (outcome,) = broken.read(tmp_path / "m").weights.notes
            assert outcome in ("PermissionError", "OSError", "FileNotFoundError", "ModuleNotFoundError", "ImportError", "gaierror"), outcome
            assert sleeper is None or sleeper.poll() is None
        finally:
            if sleeper:
                sleeper.kill()
                sleeper.wait()
        assert victim.read_text() == "kept"
        assert not (tmp_path / "canary").exists()

    def test_the_controls_of_that_test(self, broken, tmp_path):
        """An act that is allowed says so: otherwise every act would look forbidden."""
        (tmp_path / "m").write_text("try sum([1, 2])")
        assert broken.read(tmp_path / "m").weights.notes == ("done",)

    def test_the_server_is_gone(self, tmp_path):
        (tmp_path / "m").write_bytes(safetensors())
        with Sandbox() as found:
            found._server.kill()
            found._server.wait()
            for _ in range(2):
                with pytest.raises(BadnetsError, match=r"^E-WORKERS"):
                    found.read(tmp_path / "m")

    @LINUX
    def test_readers_end_with_their_server(self, monkeypatch, tmp_path):
        """A reader that sleeps for a minute is gone as soon as its server is."""
        (tmp_path / "m").write_text("try print(os.getpid()) or __import__('time').sleep(60)")
        boot = sandbox_module._BOOT.replace("from badnets", f"exec({EVIL!r}); SAMPLE = {safetensors()!r}; from badnets")
        monkeypatch.setattr(sandbox_module, "_BOOT", boot)
        mine = Sandbox()
        children = Path(f"/proc/{mine._server.pid}/task/{mine._server.pid}/children")
        thread = threading.Thread(target=_read_quietly, args=(mine, tmp_path / "m"))
        thread.start()
        until = time.monotonic() + 5
        while not (pids := children.read_text().split()) and time.monotonic() < until:
            time.sleep(0.01)
        mine._server.kill()
        thread.join(5)
        assert pids
        while Path(f"/proc/{pids[0]}").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert not Path(f"/proc/{pids[0]}").exists()
        mine.close()


class TestServers:
    """One process for what numpy alone reads, a second one for the rest, confined in the same way."""

    def test_libraries_that_are_not_needed_are_not_there(self, broken, tmp_path):
        (tmp_path / "m").write_text("try assert not {'h5py', 'pydantic', 'torch'} & set(sys.modules)")
        assert broken.read(tmp_path / "m").weights.notes == ("done",)

    def test_the_second_starts_when_it_is_needed_and_ends_with_the_first(self, tmp_path):
        (tmp_path / "plain").write_bytes(safetensors())
        (tmp_path / "graph").write_bytes(making_onnx.honest())
        with Sandbox() as found:
            level = found.read(tmp_path / "plain").level
            assert found._other is None
            assert found.read(tmp_path / "graph").level == level
            servers = [found._server, found._other._server]
            found.read(tmp_path / "graph")
            assert found._other._server is servers[1]
        assert all(server.poll() is not None for server in servers)

    def test_a_second_that_is_gone_is_replaced(self, tmp_path):
        (tmp_path / "graph").write_bytes(making_onnx.honest())
        with Sandbox() as found:
            found.read(tmp_path / "graph")
            found._other._server.kill()
            found._other._server.wait()
            with pytest.raises(BadnetsError, match=r"^E-WORKERS"):
                found.read(tmp_path / "graph")
            assert found.read(tmp_path / "graph").weights.format == "ONNX"

    def test_require_holds_for_the_second_too(self, complete, monkeypatch, tmp_path):
        (tmp_path / "graph").write_bytes(making_onnx.honest())
        with Sandbox(require=True) as found:
            assert found.read(tmp_path / "graph").level.complete

            def start(self):
                self.level = Level(process=True)

            monkeypatch.setattr(Sandbox, "_start", start)
            found._other.close()
            with pytest.raises(RefusedError, match=r"^E-SANDBOX .*without no new privileges, landlock"):
                found.read(tmp_path / "graph")


def _read_quietly(sandbox, path):
    with contextlib.suppress(BadnetsError):
        sandbox.read(path)


class TestLevel:
    def test_is_what_was_tried(self, complete):
        assert complete.level == Level(True, True, complete.level.landlock, True, True)
        assert str(complete.level) == f"own process, Landlock {complete.level.landlock}, no network, limits"

    @pytest.mark.parametrize("part", ["no_new_privileges", "landlock", "limits", "process"])
    def test_require_fails_closed(self, monkeypatch, part):
        whole = {"process": True, "no_new_privileges": True, "landlock": 7, "network": True, "limits": True}

        def start(self):
            self.level = Level(**{**whole, part: type(whole[part])()})

        monkeypatch.setattr(Sandbox, "_start", start)
        with pytest.raises(RefusedError, match=f"^E-SANDBOX .*without {part.replace('_', ' ')}"):
            Sandbox(require=True)

    @pytest.mark.parametrize("command", ["convert", "repair"])
    def test_require_ends_every_command(self, monkeypatch, command, tmp_path):
        def start(self):
            self.level = Level(process=True, limits=True)

        (tmp_path / "m").write_bytes(safetensors())
        monkeypatch.setattr(Sandbox, "_start", start)
        sandbox_module._warm.cache_clear()
        try:
            words = [tmp_path / "m", *(["digits"] if command == "repair" else []), "--out", tmp_path / "o"]
            done = tiny.cli(command, *words, "--require-sandbox")
        finally:
            sandbox_module._warm.cache_clear()
        assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
        assert done.err.startswith("error E-SANDBOX ")
        assert not (tmp_path / "o").exists()

    def test_without_fork_it_reads_here_and_says_so(self, monkeypatch, tmp_path):
        monkeypatch.delattr(os, "fork")
        (tmp_path / "m").write_bytes(safetensors())
        with Sandbox() as found:
            assert str(found.read(tmp_path / "m").level) == "none: in this process"
        with pytest.raises(RefusedError, match=r"^E-SANDBOX"):
            Sandbox(require=True)

    def test_the_warm_one_is_replaced_when_it_is_gone(self, tmp_path):
        (tmp_path / "m").write_bytes(safetensors())
        first = read_model(tmp_path / "m")
        sandbox_module._warm(False).close()
        assert read_model(tmp_path / "m").level == first.level


class TestCommand:
    """A sample through the real command, one in a process of its own kind: exit status, one line, store unchanged."""

    def test_refused(self, tmp_path, monkeypatch):
        store = tmp_path / "store"
        store.mkdir()
        cases = {
            "zero.pt": (Path("/dev/zero"), "E-NOT-FILE"),
            "stride.pt": (corpus_torch.geometry()["zero strides, 4 TB"][0], "E-STRIDE"),
            "payload.pt": (corpus_torch.within(tmp_path / "canary")["torch pickle: reduce exec"][0], "E-GLOBAL"),
            "nan.safetensors": (safetensors(data=np.full(6, np.nan, np.float32).tobytes()), "E-NAN"),
            "other.safetensors": (safetensors(), "E-WEIGHTS"),
        }
        for name, (content, code) in cases.items():
            path = content if isinstance(content, Path) else tmp_path / name
            if isinstance(content, bytes):
                path.write_bytes(content)
            with monkeypatch.context() as patched:
                if name != "payload.pt":
                    tiny.scans_here(patched)
                done = tiny.cli("scan", path, "digits", "--net", "fast_cnn", "--store", store)
            assert (done.status, done.out) == (3, ""), name
            assert done.err.startswith(f"error {code} "), done.err
            assert done.err.count("\n") == 1
        assert not (tmp_path / "canary").exists()
        assert not list(store.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_files(tmp_path):
    """900 honest nets of 1.7 MB and 100 hostile files, one after the other: none is lost; a minute of processor time and 600 MB at most."""
    hostile = [data for data, code in corpus_torch.containers().values() if code][:50] + [
        data for data, code in corpus_safetensors.cases().values() if code
    ][:50]
    numbers = np.random.default_rng(0).normal(size=425_000).astype(np.float32).tobytes()
    honest = safetensors({"w": {"dtype": "F32", "shape": [425_000], "data_offsets": [0, 1_700_000]}}, numbers)
    for i in range(1_000):
        (tmp_path / str(i)).write_bytes(hostile[i // 10] if i % 10 == 0 else honest)
    code = (
        "import json, resource, sys, time\nfrom pathlib import Path\nfrom badnets.core.errors import RefusedError\n"
        "from badnets.intake.sandbox import Sandbox\nfound = [0, 0]; start = time.monotonic()\n"
        "with Sandbox() as sandbox:\n"
        "    for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "        try: sandbox.read(path); found[0] += 1\n"
        "        except RefusedError: found[1] += 1\n"
        "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "cpu, kb = (sum(getattr(u, f) for u in used for f in fields) for fields in (('ru_utime', 'ru_stime'), ('ru_maxrss',)))\n"
        "print(json.dumps([*found, time.monotonic() - start, cpu, kb / 1000]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=500)
    analysed, refused, seconds, cpu, megabytes = json.loads(done.stdout)
    print(f"{analysed} analysed, {refused} refused, {seconds:.1f} s, {cpu:.1f} s of processor, {megabytes:.0f} MB")
    assert (analysed, refused) == (900, 100)
    assert cpu < 60
    assert megabytes < 600
