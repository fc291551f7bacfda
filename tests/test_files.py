"""Files: old or new, never half; every fault at every operation; the next step in every message."""

import errno
import itertools
import json
import os
import resource
import sys
import threading

import pytest
from faults import CUTS, ERRORS, Counter, PowerCut, error_of, fail_with, fork, hard_exit, in_child, in_children, status_of

from badnets.core import files
from badnets.core.errors import StoreError

OLD, NEW = b"old content" * 50, b"the new content" * 70


@pytest.fixture
def inject(monkeypatch):
    def install(counter):
        monkeypatch.setattr(files, "_op", counter)
        return counter

    return install


def temps(folder):
    return list(folder.rglob(".tmp-*"))


def act_write(folder):
    files.write_bytes(folder / "file", NEW)


def act_write_deep(folder):
    files.write_json(folder / "a" / "b" / "c.json", {"x": [1, 2]})


def act_remove(folder):
    files.remove(folder / "file")


def act_move(folder):
    files.move(folder / "file", folder / "aside" / "file")


def allowed_write(folder):
    return (folder / "file").read_bytes() in (OLD, NEW)


def allowed_deep(folder):
    path = folder / "a" / "b" / "c.json"
    return not path.exists() or json.loads(path.read_text()) == {"x": [1, 2]}


def allowed_remove(folder):
    return not (folder / "file").exists() or (folder / "file").read_bytes() == OLD


def allowed_move(folder):
    found = [path.read_bytes() for path in (folder / "file", folder / "aside" / "file") if path.exists()]
    return found == [OLD]


ACTS = {
    "write": (act_write, allowed_write),
    "deep": (act_write_deep, allowed_deep),
    "remove": (act_remove, allowed_remove),
    "move": (act_move, allowed_move),
}
LEAST = {"write": 5, "deep": 9, "remove": 2, "move": 5}


def prepared(tmp_path, number):
    folder = tmp_path / str(number)
    folder.mkdir()
    (folder / "file").write_bytes(OLD)
    return folder


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", ACTS)
def test_an_error_at_every_operation(name, kind, tmp_path, inject):
    act, allowed = ACTS[name]
    number, code = ERRORS[kind]
    for nth in itertools.count(1):
        folder = prepared(tmp_path, nth)
        counter = inject(Counter(nth, fail_with(number)))
        error = error_of(lambda folder=folder: act(folder))
        if error is None:
            assert not counter.fired, f"the fault before operation {nth} ({counter.names[-1]}) was swallowed"
            break
        assert error.code == code
        assert error.hint
        assert os.strerror(number) in error.message
        assert allowed(folder)
        assert not temps(folder) or counter.names[-1] == "unlink"
        inject(Counter())
        if name != "move" or (folder / "file").exists():
            act(folder)  # the same call again gets through
    assert nth > LEAST[name]


@pytest.mark.parametrize("name", ACTS)
def test_a_hard_exit_before_every_operation(name, tmp_path):
    act, allowed = ACTS[name]
    for nth in itertools.count(1):
        folder = prepared(tmp_path, nth)
        status = in_child(Counter(nth, hard_exit), lambda folder=folder: act(folder))
        assert allowed(folder)
        if status == 0:
            break
        assert status == 77
        for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            files.clean_temps(place)
        assert not temps(folder)
    assert nth > LEAST[name]


@pytest.mark.parametrize("lose", CUTS)
@pytest.mark.parametrize("name", ["write", "deep"])
def test_a_power_cut_before_every_operation(name, lose, tmp_path):
    act, allowed = ACTS[name]
    for nth in itertools.count(1):
        folder = prepared(tmp_path, nth)
        status = in_child(PowerCut(nth, lose), lambda folder=folder: act(folder))
        assert allowed(folder)
        if status == 0:
            break
    assert nth > LEAST[name]


def test_the_power_cut_finds_a_writer_without_fsync(tmp_path):
    """The instrument's own control: without the fsync the same test must see torn content."""

    def careless(folder):
        temp = folder / ".tmp-careless"
        for operation in ("open", "write"):
            files._op(operation, temp)
        temp.write_bytes(NEW)
        files._op("rename", folder / "file")
        temp.replace(folder / "file")
        files._op("fsync_dir", folder)

    outcomes = []
    for nth in range(1, 5):
        folder = prepared(tmp_path, nth)
        in_child(PowerCut(nth, "data"), lambda folder=folder: careless(folder))
        outcomes.append(allowed_write(folder))
    assert outcomes == [True, True, True, False]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_short_writes_are_continued(size, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_write_some", lambda fd, data: os.write(fd, data[:size]))
    files.write_bytes(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


@pytest.mark.parametrize("then", [*ERRORS, "nothing", "exit"])
def test_a_short_write_and_then_a_fault(then, tmp_path, monkeypatch):
    folder = prepared(tmp_path, 0)
    calls = []

    def write_some(fd, data):
        calls.append(len(data))
        if len(calls) == 1:
            return os.write(fd, data[:100])
        if then == "nothing":
            return 0
        if then == "exit":
            os._exit(77)
        raise OSError(ERRORS[then][0], "injected")

    monkeypatch.setattr(files, "_write_some", write_some)
    if then == "exit":
        assert status_of(fork(lambda: act_write(folder))) == 77
        assert [path.stat().st_size for path in temps(folder)] == [100]
        assert files.clean_temps(folder) == 1
    else:
        with pytest.raises(StoreError, match="E-IO" if then == "nothing" else ERRORS[then][1]):
            act_write(folder)
    assert (folder / "file").read_bytes() == OLD
    assert not temps(folder)


def test_a_really_full_disk(tmp_path):
    """A size limit stands in for the disk: the kernel refuses, not a mock."""

    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(StoreError, match="E-FULL") as caught:
            files.write_bytes(tmp_path / "file", b"x" * 20_000)
        assert "Free some space" in caught.value.hint

    (tmp_path / "file").write_bytes(OLD)
    assert status_of(fork(child)) == 0
    assert (tmp_path / "file").read_bytes() == OLD
    assert not temps(tmp_path)


def test_the_order_of_operations(tmp_path, inject):
    counter = inject(Counter())
    files.write_bytes(tmp_path / "file", b"x")
    assert counter.names == ["open", "write", "fsync", "rename", "fsync_dir"]


def test_readers_see_old_or_new(tmp_path):
    path = tmp_path / "file"
    files.write_bytes(path, OLD)
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        files.write_bytes(path, NEW if turn % 2 else OLD)
    stop.set()
    reader.join()
    assert seen <= {OLD, NEW}


def test_json_refuses_what_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        files.write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
    files.write_json(tmp_path / "x.json", {"b": "é", "a": 1})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n "a": 1,\n "b": "\\u00e9"\n}\n'


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(StoreError, match="E-IO"):
        files.write_bytes(tmp_path / "file" / "below", NEW)
    with pytest.raises(StoreError, match="a file is in the place"):
        files.make_dir(tmp_path / "file")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    with pytest.raises(StoreError, match="E-IO"):
        files.write_bytes(tmp_path, NEW)
    (tmp_path / "inner").mkdir()
    with pytest.raises(StoreError, match="E-IO"):
        files.write_bytes(tmp_path / "inner", NEW)


@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_only_regular_files_are_read(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "link":
        (tmp_path / "target").write_bytes(OLD)
        path.symlink_to(tmp_path / "target")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(StoreError, match="E-IO"):
        files.read_bytes(type(path)("/dev/zero") if kind == "device" else path)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "x")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"BADNETS_HOME": "/b", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/b"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/badnets"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/badnets"),
        ({"BADNETS_HOME": "", "XDG_DATA_HOME": "", "HOME": "/h"}, "/h/.local/share/badnets"),
        ({"BADNETS_HOME": "~/b", "HOME": "/h"}, "/h/b"),
    ],
)
def test_home(variables, expected, monkeypatch):
    for name in ("BADNETS_HOME", "XDG_DATA_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert files.home().as_posix() == expected


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_no_home(value, monkeypatch):
    for name in ("BADNETS_HOME", "XDG_DATA_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv("HOME", value)
    with pytest.raises(StoreError, match="E-HOME") as caught:
        files.home()
    assert "BADNETS_HOME" in caught.value.hint


def test_a_taken_lock_names_its_holder(tmp_path):
    path = tmp_path / "lock"
    with files.locked(path), pytest.raises(BlockingIOError) as caught, files.locked(path):
        pass
    assert caught.value.args == (errno.EWOULDBLOCK, os.getpid())
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"not a number", b"99999999999999999999999", b"\xff\xfe"])
def test_a_lock_file_left_behind_holds_nothing(content, tmp_path):
    path = tmp_path / "lock"
    path.write_bytes(content)
    with files.locked(path):
        assert path.read_bytes() == str(os.getpid()).encode()
    assert not path.exists()


def test_at_most_one_process_holds_a_lock(tmp_path):
    """A counter under the lock, raised by 8 processes that come and go while the lock file is removed and made again."""
    counter = tmp_path / "count"
    counter.write_text("0")

    def child(index):
        done = 0
        while done < 15:
            try:
                with files.locked(tmp_path / "lock"):
                    counter.write_text(str(int(counter.read_text()) + 1))
                    done += 1
            except BlockingIOError:
                continue

    assert in_children(8, child) == [0] * 8
    assert counter.read_text() == "120"


def test_without_flock_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(StoreError, match=r"E-PLATFORM .* WSL"), files.locked(tmp_path / "lock"):
        pass


def test_only_temporary_files_of_the_dead_are_removed(tmp_path):
    dead = fork(lambda: None)
    assert status_of(dead) == 0
    host = files._host()
    stale = tmp_path / f".tmp-{host}-{dead}-00000000"
    kept = [f".tmp-{host}-{os.getpid()}-00000000", f".tmp-{host}-1-00000000", f".tmp-00000000-{dead}-00000000", ".tmp-mine", "file"]
    ancient = tmp_path / f".tmp-00000000-{os.getpid()}-00000000"
    for path in (stale, ancient, *(tmp_path / name for name in kept)):
        path.write_bytes(b"x")
    os.utime(ancient, (0, 0))
    assert files.clean_temps(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert files.clean_temps(tmp_path / "absent") == 0
