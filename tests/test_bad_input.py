"""Whatever is wrong with the request, the data, the store or the machine: one line with code and next step, the right exit status, no
traceback, nothing lost."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest
import tiny
from data_makers import idx_set

from badnets.core import files
from badnets.core.store import Store

OURS = ("index.sqlite", "index.lock")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The badnets home of somebody who has run something before."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch.setattr)
        patch.setattr(files, "_fsync", lambda fd: None)
        tiny.execute(tiny.plan(), home, data)
    return home


@pytest.fixture(autouse=True)
def small_world(monkeypatch, finished, tmp_path):
    tiny.shrink(monkeypatch.setattr)
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    monkeypatch.setenv("BADNETS_HOME", str(finished))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("BADNETS_DATA", "BADNETS_DEBUG", "TINY_LOG", "TINY_NAP", "TINY_FAIL"):
        monkeypatch.delenv(name, raising=False)


def kept(folder):
    """What a store holds, without the list that can be made again."""
    return {name: content for name, content in tiny.tree(folder).items() if name not in OURS}


def assert_refused(done, status, code, *words):
    """Exit status, one line on stderr that begins with the code and ends with a next step, nothing on stdout."""
    assert done.status == status, done.err
    assert done.out == ""
    assert done.err.endswith("\n")
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith(f"error {code} "), done.err
    assert "Traceback" not in done.err
    assert done.err.isprintable() or done.err[:-1].isprintable()
    for word in words:
        assert word in done.err
    sentences = [part for part in done.err.strip().split(". ") if part]
    assert len(sentences) > 1 or "? " in done.err or done.err.strip().endswith("?"), f"no next step: {done.err}"


# --- the request

TINY = ("run", tiny.DATASET, "--data", "DATA")
REQUESTS = {
    "data set": (("run", "fashion_min"), "E-NAME", "fashion_mini"),
    "data set, like none": (("run", "zzz"), "E-NAME", "gtsrb"),
    "data set's field": (("run", "digits:size=3"), "E-CONFIG", "digits has no fields"),
    "folder's size": (("run", "folder:size=4", "--data", "DATA"), "E-CONFIG", "Fields of folder: size."),
    "claim": ((*TINY, "--claims", "trigger_reaches_targ"), "E-NAME", "Did you mean 'trigger_reaches_target'?"),
    "second claim": ((*TINY, "--claims", "clean_accuracy_kept,regardless"), "E-NAME", "regardless_of_content"),
    "no claims": ((*TINY, "--claims", ""), "E-USAGE", "clean_accuracy_kept"),
    "commas for claims": ((*TINY, "--claims", " , ,"), "E-USAGE", "clean_accuracy_kept"),
    "attack": ((*TINY, "--attack", "badnet"), "E-NAME", "Did you mean 'badnets'?"),
    "label map": ((*TINY, "--attack", "all_to_al"), "E-NAME", "Did you mean 'all_to_all'?"),
    "trigger": ((*TINY, "--attack", "badnets:trigger=patsh"), "E-NAME", "Did you mean 'patch'?"),
    "attack's field": ((*TINY, "--attack", "badnets:rat=0.1"), "E-CONFIG", "Fields of badnets: ", "rate"),
    "attack's field without a value": ((*TINY, "--attack", "badnets:rate"), "E-CONFIG", "field=value"),
    "net": ((*TINY, "--net", "fast_cn"), "E-NAME", "Did you mean 'fast_cnn'?"),
    "no net": ((*TINY, "--net", ""), "E-NAME", "fast_cnn"),
    "net's field": ((*TINY, "--net", "fast_cnn:widht=3"), "E-CONFIG", "Fields of fast_cnn: width"),
    "net's value": ((*TINY, "--net", "fast_cnn:width=0"), "E-CONFIG", "got 0"),
    "plan": ((*TINY, "--plan", "quik"), "E-NAME", "Did you mean 'quick'?"),
    "effort": ((*TINY, "--effort", "medium"), "E-USAGE", "standard"),
    "catalogue": (("list", "claim"), "E-NAME", "Did you mean 'claims'?"),
    "command": (("rum",), "E-USAGE", "run"),
    "command of data": (("data", "lst"), "E-USAGE", "list"),
    "data set to fetch": (("data", "fetch", "mnis"), "E-NAME", "Did you mean 'mnist'?"),
    "net of plant": (("plant", "digits", "--out", "OUT", "--net", "fast_cn"), "E-NAME", "Did you mean 'fast_cnn'?"),
    "attack of plant": (("plant", "digits", "--out", "OUT", "--attack", "badnet"), "E-NAME", "Did you mean 'badnets'?"),
    "rate above 1": ((*TINY, "--attack", "badnets:rate=1.5"), "E-CONFIG", "rate", "1.5"),
    "rate below 0": ((*TINY, "--attack", "badnets:rate=-0.1"), "E-CONFIG", "rate", "-0.1"),
    "rate no number": ((*TINY, "--attack", "badnets:rate=nan"), "E-CONFIG", "rate", "nan"),
    "rate in per cent": ((*TINY, "--attack", "badnets:rate=10"), "E-CONFIG", "rate", "got 10"),
    "rate in words": ((*TINY, "--attack", "badnets:rate=much"), "E-CONFIG", "rate", "much"),
    "rate of no image": ((*TINY, "--attack", "badnets:rate=0.001"), "E-RATE", "Use at least"),
    "rate of too many images": ((*TINY, "--attack", "badnets:rate=0.9"), "E-RATE", "Use a rate of at most"),
    "target outside": ((*TINY, "--attack", "badnets:target=3"), "E-TARGET", "0..2"),
    "target negative": ((*TINY, "--attack", "badnets:target=-1"), "E-CONFIG", "target", "-1"),
    "source outside": ((*TINY, "--attack", "source_specific:source=7"), "E-TARGET", "0..2"),
    "source is target": ((*TINY, "--attack", "source_specific:source=0"), "E-TARGET", "differ"),
    "trigger too large": ((*TINY, "--attack", "badnets:trigger=patch:size=9"), "E-TRIGGER", "9 x 9", "8 x 8"),
    "trigger of no size": ((*TINY, "--attack", "badnets:trigger=patch:size=0"), "E-CONFIG", "size"),
    "trigger outside": ((*TINY, "--attack", "badnets:trigger=patch:dx=40"), "E-TRIGGER", "column"),
    "painted from nowhere": ((*TINY, "--attack", "badnets:trigger=painted:png=/nowhere.png"), "E-FILE", "/nowhere.png"),
    "unknown option": ((*TINY, "--rate", "0.1"), "E-USAGE", "--rate"),
    "misspelt option": ((*TINY, "--claim", "x"), "E-USAGE", "--claims"),
    "json with a value": ((*TINY, "--json", "yes"), "E-USAGE", "yes"),
    "json equals nonsense": ((*TINY, "--json=maybe"), "E-USAGE", "--json"),
    "one word too many": ((*TINY, "extra"), "E-USAGE", "got 'extra'", "badnets run --help"),
    "option without a value": ((*TINY, "--claims"), "E-USAGE", "--claims"),
    "seed negative": (("plant", "digits", "--out", "OUT", "--seed", "-1"), "E-SEED", "-1"),
    "seed in words": (("plant", "digits", "--out", "OUT", "--seed", "one"), "E-USAGE", "one"),
    "plant without out": (("plant", "digits"), "E-USAGE", "--out"),
    "out is a file": (("plant", "digits", "--out", "FILE"), "E-EXISTS", "Name another --out"),
    "out exists": (("plant", "digits", "--out", "MODEL"), "E-EXISTS", "Name another --out"),
    "key that is none": (("show", "xyz"), "E-KEY", "newest is"),
    "key of nothing": (("show", "ffffffffffff"), "E-KEY", "newest is"),
    "key too long": (("show", "f" * 65), "E-KEY", "newest is"),
    "diff with itself": (("diff", "KEY", "KEY"), "E-SAME", "badnets show --all"),
    "diff with nothing": (("diff", "KEY", "ffffffffffff"), "E-KEY", "newest is"),
    "diff of one": (("diff", "KEY"), "E-USAGE", "expected B (--b)", "badnets diff --help"),
    "trigger as an attack": ((*TINY, "--attack", "patch"), "E-NAME", "patch is a trigger", "badnets:trigger=patch"),
    "field that is none": ((*TINY, "--attack", "badnets:rat=0.1"), "E-CONFIG", "BadNets.rat: there is no such field", "label_share"),
    "training data that are nowhere": (("scan", "--dataset", "no/where"), "E-DATA", "no folder", "badnets list datasets"),
    "data folder missing": (("run", "--data", "NOWHERE"), "E-DATA", "no folder"),
    "data folder is a file": (("run", "--data", "FILE"), "E-DATA", "expected a folder"),
    "data folder empty": (("run", "--data", "EMPTY"), "E-DATA", "class"),
    "digits from a folder": (("run", "digits", "--data", "DATA"), "E-DATA", "Leave --data out"),
    "mnist in a folder without it": (("run", "mnist", "--data", "DATA"), "E-DATA", "data fetch mnist"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_request_refused(case, data, finished, tmp_path):
    arguments, code, *words = REQUESTS[case]
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "victim.safetensors").touch()
    places = {"DATA": data, "OUT": tmp_path / "out", "FILE": tmp_path / "file", "MODEL": tmp_path / "model"}
    places |= {"NOWHERE": tmp_path / "nowhere", "EMPTY": tmp_path / "empty", "KEY": Store(finished).records()[0].key[:12]}
    before, beside = kept(finished), tiny.tree(tmp_path)
    assert_refused(tiny.cli(*(places.get(a, a) for a in arguments)), 2, code, *words)
    assert kept(finished) == before
    assert tiny.tree(tmp_path) == beside
    assert not (tmp_path / "out").exists()


def test_name_with_control_characters_stays_in_its_line():
    assert_refused(tiny.cli("run", "a\nb\x1b[2J\u202ec"), 2, "E-NAME")


def test_long_name_is_cut():
    done = tiny.cli("run", "x" * 5000)
    assert_refused(done, 2, "E-NAME")
    assert len(done.err) < 500


# --- the data


def one_class(root, data):
    (root / "only").mkdir(parents=True)
    for i in range(12):
        (root / "only" / f"{i}.png").write_bytes((data / "bar" / "000.png").read_bytes())


def corrupt_png(root, data):
    tiny.pictures(root, count=12)
    path = root / "dot" / "003.png"
    path.write_bytes(path.read_bytes()[:40])


def not_a_png(root, data):
    tiny.pictures(root, count=12)
    (root / "box" / "000.png").write_text("no picture")


def few_images(root, data):
    tiny.pictures(root, count=3)


def truncated_idx(root, data):
    idx_set(root)
    path = root / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])


def corrupt_gz(root, data):
    idx_set(root, gz=True)
    path = root / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[15] ^= 0xFF
    path.write_bytes(bytes(content))


def wrong_hash(root, data):
    idx_set(root)


def truncated_archive(root, data):
    root.mkdir()
    (root / "gtsrb32.npz").write_bytes(b"PK\x03\x04 and no more")


DATA = {
    one_class: ((), "E-FOLDER", "at least 2 class folders"),
    corrupt_png: ((), "E-IMAGE", "003.png"),
    not_a_png: ((), "E-IMAGE", "000.png"),
    few_images: ((), "E-FEW", "at least 10"),
    truncated_idx: (("mnist",), "E-", "train-images"),
    corrupt_gz: (("mnist",), "E-", "train-labels"),
    wrong_hash: (("mnist",), "E-HASH", "SHA-256"),
    truncated_archive: (("gtsrb",), "E-", "gtsrb32.npz"),
}


@pytest.mark.parametrize("make", DATA, ids=lambda make: make.__name__)
def test_data_refused(make, data, finished, tmp_path):
    name, code, word = DATA[make]
    root = tmp_path / "data"
    make(root, data)
    before, beside = kept(finished), tiny.tree(root)
    done = tiny.cli("run", *name, "--data", root)
    assert_refused(done, 3, done.err.split()[1] if code == "E-" else code, word)
    assert done.err.split()[1].startswith("E-")
    assert kept(finished) == before
    assert tiny.tree(root) == beside, "somebody else's data were touched"


def test_no_network(monkeypatch, finished, tmp_path):
    """A loopback port that nobody listens on stands in for the official address."""
    from dataclasses import replace

    from badnets.datasets import _places
    from badnets.datasets.mnist import Mnist

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(Mnist, "origin", replace(Mnist.origin, base_url=f"http://127.0.0.1:{port}/"))
    monkeypatch.setattr(_places, "SYSTEM", tmp_path / "none")
    before = kept(finished)
    for arguments in (("run", "mnist"), ("data", "fetch", "mnist"), ("plant", "mnist", "--out", tmp_path / "out")):
        done = tiny.cli(*arguments)
        assert_refused(done, 3, "E-NETWORK", "data fetch mnist", "--data")
    assert kept(finished) == before
    assert tiny.tree(tmp_path) == {}


# --- the store and the machine


def fail_at(what, number):
    def act(name, path):
        if name == what:
            raise OSError(number, os.strerror(number), str(path))

    return act


DISK = {"ENOSPC": "E-FULL", "EDQUOT": "E-FULL", "EROFS": "E-READONLY", "EACCES": "E-READONLY", "EIO": "E-IO"}


@pytest.mark.parametrize("number", DISK)
@pytest.mark.parametrize("what", ["mkdir", "open", "write", "fsync", "rename", "fsync_dir"])
def test_disk_refuses_to_write(what, number, data, monkeypatch, tmp_path):
    """Whichever operation fails first: no half result, and once the disk is well again the same command gives the same record."""
    home = tmp_path / "home"
    if what != "mkdir":
        for name in ("locks", "blobs", "results", "records", "runs"):
            (home / name).mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_op", fail_at(what, getattr(errno, number)))
        done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", home)
    assert done.status == 5, done.err
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith(f"error {DISK[number]} ")
    assert "Traceback" not in done.err
    assert not tiny.check_store(home)
    assert_recovers(home, data)


def test_figures_are_printed_although_the_report_cannot_be_written(data, monkeypatch, tmp_path):
    def full(name, path):
        if name == "mkdir" and "runs" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "_op", full)
    done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path, "--json")
    assert done.status == 5
    assert [c["name"] for c in json.loads(done.out)["claims"]] == list(tiny.CLAIMS)
    assert done.err.splitlines()[-1].startswith("error E-FULL ")


def assert_recovers(home, data):
    done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", home, "--json")
    assert done.status == 0, done.err
    assert tiny.check_store(home)
    assert not [name for name in tiny.tree(home) if ".tmp-" in name]


@pytest.mark.parametrize("nth", [1, 2, 5, 20, 50, 70])
def test_interrupted_write(nth, data, monkeypatch, tmp_path):
    """The disk fills up at the n-th file: what was committed before stays, and only the rest is computed."""
    count = 0

    def act(name, path):
        nonlocal count
        count += name == "open"
        if name == "write" and count == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_op", act)
        done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path)
    assert done.status == 5, done.err
    assert done.err.splitlines()[-1].startswith("error E-FULL ")
    before = tiny.check_store(tmp_path)
    assert len(before) >= (nth - 2) // 2 - 1
    assert_recovers(tmp_path, data)


def test_store_that_can_only_be_read_is_still_answered_from(data, finished, monkeypatch):
    key = Store(finished).records()[0].key
    for number in (errno.EROFS, errno.EACCES):
        for what in ("mkdir", "rename", "unlink", "fsync_dir", "open"):
            monkeypatch.setattr(files, "_op", fail_at(what, number))
            shown = tiny.cli("show", key[:12], "--json")
            assert (shown.status, json.loads(shown.out)["key"], shown.err) == (0, key, "")
    shown = tiny.cli("show", key[:12])
    assert "A backdoored net performs normally on clean inputs." in shown.out
    assert (shown.status, len(shown.err.splitlines())) == (5, 1), "the report could not be written, and that is said"
    assert shown.err.startswith("error E-READONLY ")


def test_store_under_a_file(data, tmp_path):
    (tmp_path / "file").touch()
    done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path / "file" / "store")
    assert_refused(done, 5, "E-IO", "file is in the place of the folder")


@pytest.mark.parametrize("arguments", [TINY, ("show",), ("diff", "a", "b")], ids=lambda a: a[0])
def test_home_is_a_file(arguments, data, monkeypatch, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    monkeypatch.setenv("BADNETS_HOME", str(path))
    assert_refused(tiny.cli(*(data if a == "DATA" else a for a in arguments)), 5, "E-STORE", "BADNETS_HOME")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("arguments", [TINY, ("show",), ("show", "--all")], ids=" ".join)
def test_no_home(arguments, data, monkeypatch):
    for name in ("BADNETS_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert_refused(tiny.cli(*(data if a == "DATA" else a for a in arguments)), 5, "E-HOME", "Set BADNETS_HOME")


def test_no_home_but_a_store_is_enough(data, monkeypatch, tmp_path):
    for name in ("BADNETS_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path).status == 0


def test_same_key_twice(data, tmp_path):
    from badnets.plans import _run

    key = _run.run_key(tiny.plan(), [_run._claim(name) for name in tiny.CLAIMS], tiny.plan().dataset.load(data), _run.device_name())
    with Store(tmp_path).lock(key):
        done = tiny.cli("run", tiny.DATASET, "--data", data, "--store", tmp_path)
    assert_refused(done, 5, "E-BUSY", f"process {os.getpid()}", "Wait for it")
    assert_recovers(tmp_path, data)


def test_empty_store_has_nothing_to_show(tmp_path):
    for arguments in (("show",), ("show", "abc"), ("diff", "a", "b")):
        assert_refused(tiny.cli(*arguments, "--store", tmp_path / "s"), 5, "E-EMPTY", "badnets run")
    assert not (tmp_path / "s").exists()


# --- our own bugs, and pipes


def test_our_bug_is_one_line_too(data, monkeypatch):
    from badnets.plans import _run

    monkeypatch.setattr(_run, "execute", lambda *_: 1 / 0)
    done = tiny.cli("run", tiny.DATASET, "--data", data)
    assert_refused(done, 4, "E-BUG", "ZeroDivisionError", "BADNETS_DEBUG=1")
    monkeypatch.setenv("BADNETS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        tiny.cli("run", tiny.DATASET, "--data", data)


def test_reader_that_goes_away_is_no_error(finished):
    """`badnets show --json | head -1`: status 0 and silence. `-m badnets` is the program itself."""
    command = f"{sys.executable} -m badnets show --json --store {finished} | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{\n  "schem', "")


def test_error_of_the_program_itself(tmp_path):
    """The same through a real process: exit status, streams."""
    done = subprocess.run(
        [sys.executable, "-m", "badnets", "run", "fashion_min"],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "BADNETS_HOME": str(tmp_path / "home")},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error E-NAME no data set is called 'fashion_min'. Did you mean 'fashion_mini'?\n"
    assert not (tmp_path / "home").exists()
