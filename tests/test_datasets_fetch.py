"""Downloads, against a server on loopback: verified before kept, bounded, resumable file by file, wrong bytes set aside."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import data_makers as make
import pytest

from badnets.cli import data as cli
from badnets.core import files
from badnets.core.errors import RefusedError, StoreError
from badnets.datasets import _places
from badnets.datasets._fetch import Origin, Remote
from badnets.datasets.mnist import Mnist


class Server:
    """Serves `content` by name; `faults` say what goes wrong for a name; `asked` are the requests seen."""

    def __init__(self):
        self.content, self.faults, self.asked = {}, {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                outer.asked.append(name)
                outer.answer(self, name, outer.content.get(name), outer.faults.get(name))

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/set/"

    @staticmethod
    def answer(handler, name, content, fault):
        if content is None or fault in (404, 500, 403):
            handler.send_error(fault or 404)
            return
        handler.send_response(200)
        if fault != "no-length":
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if fault == "cut":
            content = content[: len(content) // 2]
        handler.wfile.write(content)
        handler.close_connection = True

    def close(self):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def mnist(server, tmp_path, monkeypatch):
    """A small MNIST at the server's address and an empty cache."""
    make.idx_set(tmp_path / "origin", gz=True)
    server.content = {path.name: path.read_bytes() for path in sorted((tmp_path / "origin").iterdir())}
    remotes = tuple(Remote(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in server.content.items())
    monkeypatch.setattr(Mnist, "origin", Origin(server.url, remotes))
    monkeypatch.setattr(Mnist, "content", None)
    monkeypatch.delenv("BADNETS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_places, "SYSTEM", tmp_path / "system")
    return Mnist()


def _cache(tmp_path):
    folder = tmp_path / "cache" / "badnets" / "mnist"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_load_downloads_once(mnist, server, tmp_path):
    first = mnist.load()
    assert first.source == str(tmp_path / "cache" / "badnets" / "mnist")
    assert sorted(server.asked) == sorted(server.content)
    assert mnist.load().sha256 == first.sha256
    assert len(server.asked) == 4
    assert mnist.where() == first.source
    assert _cache(tmp_path) == set(server.content)


def test_another_address(mnist, server, tmp_path, monkeypatch):
    monkeypatch.setattr(Mnist, "origin", Origin("https://invalid.invalid/", mnist.origin.files))
    mnist.fetch(server.url, progress=False)
    assert _cache(tmp_path) == set(server.content)


def test_fetch_command(mnist, server, capsys):
    cli.fetch("mnist")
    assert "mnist is verified" in capsys.readouterr().out
    cli.fetch("mnist")
    assert len(server.asked) == 4


def test_progress_bar_goes_to_stderr(mnist, capsys):
    mnist.fetch(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


def test_cut_download_is_refused_and_the_same_command_continues(mnist, server, tmp_path):
    name = sorted(server.content)[2]
    server.faults[name] = "cut"
    with pytest.raises(RefusedError, match=r"E-NETWORK .*badnets data fetch mnist"):
        mnist.load()
    assert _cache(tmp_path) == set(sorted(server.content)[:2])
    server.faults.clear()
    server.asked.clear()
    assert mnist.load().shape == (1, 8, 8)
    assert server.asked == sorted(server.content)[2:]


def test_wrong_bytes_are_refused_and_kept_aside(mnist, server, tmp_path):
    name = sorted(server.content)[0]
    right = server.content[name]
    server.content[name] = bytes(len(right))
    with pytest.raises(RefusedError, match=r"E-HASH .*Kept aside as .*refused") as caught:
        mnist.load()
    assert str(caught.value).isprintable()
    assert _cache(tmp_path) == {name + ".refused"}
    server.content[name] = right
    assert mnist.load().num_classes == 10


def test_too_many_bytes_are_not_taken(mnist, server, tmp_path):
    name = sorted(server.content)[0]
    server.content[name] += bytes(1 << 20)
    with pytest.raises(RefusedError, match=r"E-HASH .*more than the expected"):
        mnist.load()
    assert _cache(tmp_path) == set()


def test_short_answer_without_a_length(mnist, server, tmp_path):
    name = sorted(server.content)[0]
    server.faults[name] = "no-length"
    server.content[name] = server.content[name][:100]
    with pytest.raises(RefusedError, match=r"E-HASH .*\(100 bytes\)"):
        mnist.load()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_server_refuses(status, mnist, server, tmp_path):
    server.faults = dict.fromkeys(server.content, status)
    with pytest.raises(RefusedError, match=rf"E-NETWORK .*HTTP {status}.*--data FOLDER") as caught:
        mnist.load()
    assert caught.value.exit_status == 3
    assert _cache(tmp_path) == set()


def test_nobody_answers(mnist, server, monkeypatch):
    monkeypatch.setattr(Mnist, "origin", Origin("http://127.0.0.1:9/", mnist.origin.files))
    with pytest.raises(RefusedError, match=r"E-NETWORK mnist is not on this machine .*\(ConnectionError\)") as caught:
        mnist.load()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url", ["http://example.org/", "ftp://127.0.0.1/", "file:///etc/", "//example.org/", "http://127.0.0.1.example.org/"]
)
def test_only_https(url, mnist, server):
    with pytest.raises(RefusedError, match="https"):
        mnist.fetch(url)
    assert server.asked == []


def test_damaged_cache_is_kept_aside(mnist, server, tmp_path):
    mnist.load()
    name = sorted(server.content)[1]
    path = tmp_path / "cache" / "badnets" / "mnist" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(RefusedError, match=rf"E-HASH .*{name}.*has changed.*badnets data fetch mnist"):
        mnist.load()
    assert name + ".refused" in _cache(tmp_path)
    server.asked.clear()
    cli.fetch("mnist")
    assert server.asked == [name]


def test_verify_command_names_a_damaged_cache(mnist, tmp_path, capsys):
    mnist.load()
    path = tmp_path / "cache" / "badnets" / "mnist" / (make.IDX[0] + ".gz")
    path.write_bytes(b"")
    with pytest.raises(RefusedError, match=r"1 of 3 .*mnist"):
        cli.verify()
    assert "BAD  E-HASH" in capsys.readouterr().out


def test_no_download_when_told(mnist, server):
    from badnets.core.errors import UsageError

    with pytest.raises(UsageError, match="E-DATA"):
        mnist.load(download=False)
    assert server.asked == []


def test_no_home(mnist, server, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    with pytest.raises(StoreError, match=r"E-HOME .*XDG_CACHE_HOME"):
        mnist.load()


def test_cache_that_may_not_be_written(mnist, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError):
        mnist.load()


def test_full_disk_leaves_nothing_half_written(mnist, tmp_path, monkeypatch):
    import errno

    def full(name, path):
        if name == "write":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "_op", full)
    with pytest.raises(StoreError, match="E-FULL"):
        mnist.load()
    assert _cache(tmp_path) == set()
