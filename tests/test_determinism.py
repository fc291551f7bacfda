"""A run says the same whatever is true around it: folder, clock, umask, order, luck of the process. (Of training: `test_train`.)"""

from __future__ import annotations

import json
import locale
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from badnets.core import files
from badnets.core.engine import Engine, SerialEngine
from badnets.core.store import Store
from badnets.datasets.folder import Folder

PROCESS = """
import json, pathlib, sys
sys.path[:] = json.loads(sys.argv[1])
import tiny
from badnets.core import files
files._fsync = lambda fd: None
tiny.shrink(setattr)
store, data = map(pathlib.Path, sys.argv[2:4])
record = tiny.execute(tiny.plan(), store, data)
print(json.dumps({"record": tiny.essence(record), "keys": tiny.check_store(store)}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"), count=20)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    tiny.shrink(monkeypatch.setattr)


def said(store, data, engine=None, **changes):
    """The record without times, the key and the files of every result."""
    record = tiny.execute(tiny.plan(**changes), store, data, engine)
    return {"record": tiny.essence(record), "results": {key: Store(store).manifest(key)["files"] for key in tiny.check_store(store)}}


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_fsync", lambda fd: None)
        tiny.shrink(patch.setattr)
        return said(tmp_path_factory.mktemp("plain"), data)


class Shuffled(Engine):
    """Answers come in any order."""

    def run(self, jobs):
        mixed = list(jobs)
        random.Random(3).shuffle(mixed)
        yield from SerialEngine(tiny.perform).run(mixed)


def in_another_folder(patch, tmp_path):
    patch.chdir(tmp_path)


def in_another_time_zone(patch, tmp_path):
    patch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()


def under_another_umask(patch, tmp_path):
    os.umask(0o077)


def in_another_locale(patch, tmp_path):
    locale.setlocale(locale.LC_ALL, "C")


def after_other_draws(patch, tmp_path):
    random.seed(7)
    np.random.seed(7)


def with_folders_listed_backwards(patch, tmp_path):
    listdir, scandir = os.listdir, os.scandir
    patch.setattr(os, "listdir", lambda path=".": sorted(listdir(path), reverse=True))

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    patch.setattr(os, "scandir", lambda path=".": Backwards(sorted(scandir(path), key=lambda entry: entry.name, reverse=True)))


def with_other_numbers_printed(patch, tmp_path):
    np.set_printoptions(precision=2)


def next_year(patch, tmp_path):
    now = time.time
    patch.setattr(time, "time", lambda: now() + 4e7)


AROUND = [
    in_another_folder,
    in_another_time_zone,
    under_another_umask,
    in_another_locale,
    after_other_draws,
    with_folders_listed_backwards,
    with_other_numbers_printed,
    next_year,
]


@pytest.fixture
def put_back():
    """What a monkeypatch does not put back."""
    umask = os.umask(0o022)
    os.umask(umask)
    kept = locale.setlocale(locale.LC_ALL), np.get_printoptions()
    yield
    os.umask(umask)
    locale.setlocale(locale.LC_ALL, kept[0])
    np.set_printoptions(**kept[1])


@pytest.mark.parametrize("change", AROUND)
def test_the_same_whatever_is_around(change, data, plain, tmp_path, put_back):
    with pytest.MonkeyPatch.context() as patch:
        change(patch, tmp_path)
        found = said(tmp_path / "store", data)
    time.tzset()
    assert found == plain


def test_the_same_in_any_order_of_answers(data, plain, tmp_path):
    assert said(tmp_path, data, Shuffled()) == plain


def test_the_same_through_a_relative_path(data, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(data.parent)
    assert said(Path(os.path.relpath(tmp_path / "store")), data)["results"] == plain["results"]


def moved(data, tmp_path):
    """A copy made in another order, with other times and rights."""
    for path in sorted(data.rglob("*.png"), reverse=True):
        target = tmp_path / "elsewhere" / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        os.utime(target, (0, 0))
        target.chmod(0o400)
    return tmp_path / "elsewhere"


def test_pictures_are_known_by_what_they_show_and_not_by_where_they_are(data, plain, tmp_path):
    where = moved(data, tmp_path)
    assert Folder(size=8).load(where).sha256 == Folder(size=8).load(data).sha256
    assert said(tmp_path / "store", where)["results"] == plain["results"]


def test_a_plan_that_went_through_json_is_the_same(data, plain, tmp_path):
    wanted = tiny.plan()
    again = type(wanted).model_validate(dict(reversed(json.loads(wanted.model_dump_json()).items())))
    assert again == wanted
    assert tiny.essence(tiny.execute(again, tmp_path, data)) == plain["record"]


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_same_under_any_hash_seed(seed, data, plain, tmp_path):
    """In a process of its own, which is started elsewhere."""
    path = json.dumps([*(os.path.abspath(entry) for entry in sys.path)])  # noqa: PTH100
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C.UTF-8", "TZ": "Asia/Kolkata"}
    command = [sys.executable, "-c", PROCESS, path, str(tmp_path / "store"), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=50)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["record"] == json.loads(json.dumps(plain["record"]))
    assert found["keys"] == sorted(plain["results"])


def test_the_comparison_notices_a_difference(data, plain, tmp_path):
    assert said(tmp_path / "a", data, seeds=3)["results"] != plain["results"]
    assert said(tmp_path / "b", tiny.pictures(tmp_path / "other", count=20, seed=1))["results"] != plain["results"]
