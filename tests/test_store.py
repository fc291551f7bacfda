"""Store: every visible result is whole and there once, whatever is killed, flipped, raced or taken away."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from faults import CUTS, ERRORS, Counter, PowerCut, error_of, fail_with, fork, hard_exit, in_child, in_children, status_of

from badnets.core import files, index
from badnets.core.errors import BadnetsError, RefusedError, StoreError, UsageError
from badnets.core.store import Store, pack, unpack
from badnets.core.types import Evidence, Record, Verdict


def key(number):
    return f"{number * 2654435761 % 2**32:08x}{number:056x}"


def content(number):
    return {"weights": f"weights {number % 7}".encode() * 40, "outcomes": f"outcomes {number}".encode()}


def put(store, number):
    store.put(key(number), {"seed": number}, content(number), {"seconds": number / 4})


def record(number, created="2026-11-22T10:00:00Z", verdicts=("HOLDS", "HOLDS", "FAILS")):
    claims = [Evidence(name=f"c{i}", sentence="s", verdict=Verdict(v), reason="r") for i, v in enumerate(verdicts)]
    return Record(key=key(number), plan="quick", config={"effort": "quick"}, claims=claims, created=created, seconds=0.1)


def is_whole(store, number):
    return store.get(key(number)) == content(number) and store.info(key(number)) == {"seconds": number / 4}


def temps(store):
    return list(store.root.rglob(".tmp-*"))


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Nothing here but the simulated power cut depends on it, and that one watches the operations; `test_files` syncs for real."""
    assert index._SYNCHRONOUS == "FULL"
    monkeypatch.setattr(files, "_fsync", lambda fd: None)
    monkeypatch.setattr(index, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def inject(monkeypatch):
    def install(counter):
        monkeypatch.setattr(files, "_op", counter)
        return counter

    return install


# --- what it does when nothing goes wrong


def test_put_and_get(store):
    assert not store.has(key(1))
    put(store, 1)
    assert store.has(key(1))
    assert is_whole(store, 1)
    assert store.manifest(key(1))["config"] == {"seed": 1}
    assert sorted(store.manifest(key(1))) == ["config", "files", "info", "key"]
    assert store.missing([key(2), key(1), key(0), key(2)]) == [key(2), key(0)]


def test_a_result_may_have_no_files_and_a_file_no_bytes(store):
    store.put(key(1), {}, {}, {})
    store.put(key(2), {}, {"empty": b""}, {})
    assert store.get(key(1)) == {}
    assert store.get(key(2)) == {"empty": b""}


def test_names_of_files_are_no_paths(store):
    names = {"../../outside": b"1", "/etc/passwd": b"2", "a/b": b"3", "": b"4", "\x00": b"5"}
    store.put(key(1), {}, names, {})
    assert store.get(key(1)) == names
    assert not (store.root.parent / "outside").exists()


def test_config_is_kept_in_its_canonical_form(store):
    store.put(key(1), {"b": (1, 2), "n": {10: "ten", 9: "nine"}, "text": "é\U0001f600\udcff"}, {}, {})
    assert store.manifest(key(1))["config"] == {"b": [1, 2], "n": {"10": "ten", "9": "nine"}, "text": "é\U0001f600\udcff"}


def test_put_again_writes_nothing(store, inject):
    put(store, 1)
    counter = inject(Counter())
    put(store, 1)
    assert set(counter.names) == {"read"}


def test_equal_bytes_are_kept_once(store):
    put(store, 1)
    put(store, 8)  # the same weights
    blobs = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 3


def test_a_blob_found_in_place_is_made_durable(store, monkeypatch):
    """Whoever renamed it there may have died before syncing the folder; a manifest must not outlive it."""
    put(store, 1)
    operations = []
    monkeypatch.setattr(files, "_op", lambda name, path: operations.append((name, path)))
    put(store, 8)
    shared = store._blob_path(store.manifest(key(8))["files"]["weights"]["sha256"])
    assert ("open", shared) not in operations
    synced, committed = operations.index(("fsync_dir", shared.parent)), operations.index(("rename", store._path("results", key(8))))
    assert synced < committed


def test_same_key_other_bits_is_our_defect(store):
    put(store, 1)
    with pytest.raises(BadnetsError, match="E-BITS") as caught:
        store.put(key(1), {"seed": 1}, content(2), {})
    assert caught.value.exit_status == 4
    assert is_whole(store, 1)


@pytest.mark.parametrize("bad", ["", "../x", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "g" * 64])
def test_what_is_no_key_is_refused(store, bad):
    for call in (store.has, store.get, store.run_dir, lambda k: store.put(k, {}, {}, {}), lambda k: store.lock(k).__enter__()):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            call(bad)
    assert not store.root.exists()


def test_a_missing_result_says_so(store):
    with pytest.raises(StoreError, match="E-MISSING") as caught:
        store.get(key(1))
    assert caught.value.hint
    assert not store.root.exists()


def test_opening_and_asking_touch_nothing(tmp_path):
    """No folder is made or listed: a store of 100,000 results opens as fast as an empty one."""
    put(Store(tmp_path / "store"), 1)
    events, before = [], sorted(tmp_path.rglob("*"))
    active = True

    def hook(event, arguments):
        if active and event in ("os.scandir", "os.listdir", "open", "os.mkdir", "sqlite3.connect"):
            events.append((event, arguments))

    sys.addaudithook(hook)
    store = Store(tmp_path / "store")
    found = (store.has(key(1)), store.missing([key(2)]))
    active = False
    assert found == (True, [key(2)])
    assert events == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_the_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="E-STORE"):
        Store(tmp_path / "file")


def test_run_dir(store):
    folder = store.run_dir(key(1))
    assert folder.is_dir()
    assert folder == store.run_dir(key(1))
    assert folder != store.run_dir(key(2))


# --- records and their index


def test_records_come_newest_first(store):
    assert store.records() == []
    assert not store.root.exists()
    for number, created in ((1, "2026-01-01"), (2, "2026-03-01"), (3, "2026-02-01")):
        store.put_record(record(number, created))
    assert [row.key for row in store.records()] == [key(2), key(3), key(1)]
    assert store.records()[0] == (key(2), "quick", "2026-03-01", "1 FAILS, 2 HOLDS")
    assert store.record() == record(2, "2026-03-01")
    assert store.record(key(3)[:9]) == record(3, "2026-02-01")


def test_a_record_is_replaced_also_in_the_index(store):
    store.put_record(record(1))
    assert store.records()[0].summary == "1 FAILS, 2 HOLDS"
    store.put_record(record(1, verdicts=["UNDECIDED"]))
    assert [row.summary for row in store.records()] == ["1 UNDECIDED"]
    assert store.record().claims[0].verdict == "UNDECIDED"


def test_of_two_records_of_one_second_the_later_wins(store):
    for number in (5, 3, 4):
        store.put_record(record(number))
        time.sleep(0.01)
    assert [row.key for row in store.records()] == [key(4), key(3), key(5)]


def test_no_record(store):
    with pytest.raises(StoreError, match=r"E-EMPTY .* `badnets run`"):
        store.record()


@pytest.mark.parametrize(
    ("prefix", "text"), [("", "no record"), ("f", "2 records start with 'f'"), ("00", "no record has a key"), ("%", "no record")]
)
def test_prefixes_that_lead_nowhere(store, prefix, text):
    for letter in "12":
        store.put_record(record(1).model_copy(update={"key": "f" * 63 + letter}))
    with pytest.raises(UsageError, match=text):
        store.record(prefix)


def damage_absent(path):
    path.unlink()


def damage_garbage(path):
    path.write_bytes(b"this is no database" * 500)


def damage_empty(path):
    path.write_bytes(b"")


def damage_truncated(path):
    os.truncate(path, 5000)


def damage_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as link:
        link.execute("PRAGMA user_version = 99")


def damage_columns(path):
    with contextlib.closing(sqlite3.connect(path)) as link:
        link.execute("ALTER TABLE record RENAME COLUMN plan TO plans")


def damage_row(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as link:
        link.execute("UPDATE record SET summary = 'all is well'")


def damage_text(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as link:
        link.execute("UPDATE record SET plan = CAST(x'ff' AS TEXT)")


def damage_extra(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as link:
        link.execute("UPDATE record SET key = ? WHERE rowid = 1", (key(9),))


def damage_folder(path):
    path.unlink()
    path.mkdir()


def damage_journal(path):
    path.with_name(path.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\xff" * 600)


@pytest.mark.parametrize("damage", [value for name, value in sorted(globals().items()) if name.startswith("damage_")])
def test_the_index_is_rebuilt(store, damage):
    for number in (1, 2, 3):
        store.put_record(record(number, f"2026-01-0{number}"))
    truth = store.records()
    damage(store.root / "index.sqlite")
    assert store.records() == truth
    assert Store(store.root).records() == truth
    if damage is not damage_folder:
        with contextlib.closing(sqlite3.connect(store.root / "index.sqlite")) as link:
            assert link.execute("PRAGMA user_version").fetchone() == (1,)
            assert link.execute("SELECT count(*) FROM record").fetchone() == (3,)


def test_flipped_bits_in_the_index_never_show(store):
    for number in (1, 2, 3):
        store.put_record(record(number, f"2026-01-0{number}"))
    truth = store.records()
    path, chance = store.root / "index.sqlite", random.Random(0)
    sound = path.read_bytes()
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(chance.choice([1, 1, 5, 50])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        assert store.records() == truth


def test_files_added_and_removed_behind_the_index_are_noticed(store):
    for number in (1, 2):
        store.put_record(record(number))
    assert len(store.records()) == 2
    (store.root / "records" / key(1)[:2] / f"{key(1)}.json").unlink()
    assert [row.key for row in store.records()] == [key(2)]


def test_a_damaged_record_leaves_the_list_and_is_set_aside(store):
    store.put_record(record(1))
    store.put_record(record(2))
    path = store.root / "records" / key(1)[:2] / f"{key(1)}.json"
    path.write_bytes(path.read_bytes().replace(b"quick", b"quack"))
    (store.root / "index.sqlite").unlink(missing_ok=True)
    assert [row.key for row in store.records()] == [key(2)]
    assert (store.root / "damaged" / path.name).exists()


def test_listing_makes_no_use_of_wal(store):
    store.put_record(record(1))
    store.records()
    assert (store.root / "index.sqlite").read_bytes()[18:20] == b"\x01\x01"  # file format 1: rollback journal


# --- damage


def test_a_flipped_bit_in_a_blob_is_found_set_aside_and_computed_again(store):
    put(store, 1)
    path = store._blob_path(store.manifest(key(1))["files"]["outcomes"]["sha256"])
    sound = path.read_bytes()
    for position in range(len(sound) * 8):
        data = bytearray(sound)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(StoreError, match="E-DAMAGED") as caught:
            store.get(key(1))
        assert "same command again" in caught.value.hint
        assert not store.has(key(1))
        assert store.missing([key(1)]) == [key(1)]
        assert (store.root / "damaged" / path.name).read_bytes() == data
        put(store, 1)
        assert is_whole(store, 1)


def test_a_flipped_bit_in_a_manifest_is_found(store):
    put(store, 1)
    path = store.root / "results" / key(1)[:2] / f"{key(1)}.json"
    sound, truth, chance = path.read_bytes(), store.manifest(key(1)), random.Random(0)
    found = 0
    for position in range(len(sound)):
        data = bytearray(sound)
        data[position] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        error = error_of(lambda: store.manifest(key(1)))
        if error is None:
            assert store.manifest(key(1)) == truth  # white space
        else:
            assert error.code == "E-DAMAGED"
            found += 1
    assert found > 0.7 * len(sound)
    put(store, 1)
    assert is_whole(store, 1)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"{" * 100_000, b"[" * 100_000, b"\xff", b'{"check": 1}'])
def test_a_manifest_that_is_none(store, data):
    put(store, 1)
    (store.root / "results" / key(1)[:2] / f"{key(1)}.json").write_bytes(data)
    with pytest.raises(StoreError, match="E-DAMAGED"):
        store.get(key(1))
    assert not store.has(key(1))


def test_a_manifest_under_another_name_is_damage(store):
    put(store, 1)
    source = store.root / "results" / key(1)[:2] / f"{key(1)}.json"
    target = store.root / "results" / key(2)[:2] / f"{key(2)}.json"
    target.parent.mkdir()
    shutil.copy(source, target)
    with pytest.raises(StoreError, match="E-DAMAGED"):
        store.get(key(2))


@pytest.mark.parametrize("how", ["gone", "truncated", "longer", "link"])
def test_a_blob_that_is_not_as_it_was(store, how):
    put(store, 1)
    path = store._blob_path(store.manifest(key(1))["files"]["weights"]["sha256"])
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        (store.root / "elsewhere").write_bytes(data)
        path.symlink_to(store.root / "elsewhere")
    elif how != "gone":
        path.write_bytes(data[:-1] if how == "truncated" else data + b"x")
    with pytest.raises(StoreError, match="E-IO" if how == "link" else "E-DAMAGED"):
        store.get(key(1))
    put(store, 1)
    assert is_whole(store, 1)


def test_a_damaged_shared_blob_is_repaired_by_either_result(store):
    put(store, 1)
    put(store, 8)
    path = store._blob_path(store.manifest(key(1))["files"]["weights"]["sha256"])
    path.write_bytes(b"x")
    put(store, 1)  # sees the damage although the manifest is there
    assert is_whole(store, 8)


def test_an_unreadable_blob_is_not_called_damaged(store, inject):
    put(store, 1)
    inject(Counter(2, fail_with(5)))
    with pytest.raises(StoreError, match="E-IO"):
        store.get(key(1))
    assert store.has(key(1))


# --- faults at every operation


def act_put(store):
    put(store, 2)


def act_put_shared(store):
    put(store, 8)


def act_record(store):
    store.put_record(record(2))


def act_lock(store):
    with store.lock(key(1)):
        put(store, 3)


ACTS = {"put": (act_put, 17), "put, weights shared": (act_put_shared, 12), "record": (act_record, 12), "lock": (act_lock, 17)}


def prepared(tmp_path, number):
    store = Store(tmp_path / str(number))
    put(store, 1)
    store.put_record(record(1))
    return store


def assert_consistent(root):
    """As the next process finds it: what was there is there, what is visible is whole, what is missing can be put."""
    store = Store(root)
    assert is_whole(store, 1)
    assert store.record(key(1)) == record(1)
    for number in (2, 3, 8):
        assert not store.has(key(number)) or is_whole(store, number)
    assert sorted(row.key for row in store.records()) in ([key(1)], sorted([key(1), key(2)]))
    for row in store.records():
        assert store.record(row.key).key == row.key
    with store.lock(key(1)):
        assert not temps(store)
    for act, _ in ACTS.values():
        act(store)
    assert all(is_whole(store, number) for number in (1, 2, 3, 8))
    assert sorted(row.key for row in store.records()) == sorted([key(1), key(2)])
    assert not (root / "damaged").exists()


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "EACCES"])
@pytest.mark.parametrize("name", ACTS)
def test_an_error_at_every_operation(name, kind, tmp_path, inject):
    act, least = ACTS[name]
    number, code = ERRORS[kind]
    for nth in itertools.count(1):
        inject(Counter())
        store = prepared(tmp_path, nth)
        counter = inject(Counter(nth, fail_with(number)))
        error = error_of(lambda store=store: act(store))
        # A failing read while looking for what is there already only means that it is written again.
        assert error is None or error.code == code
        assert error or not counter.fired or counter.names[nth - 1] == "read"
        inject(Counter())
        assert_consistent(store.root)
        if not counter.fired:
            break
    assert nth > least


@pytest.mark.parametrize("name", ACTS)
def test_a_hard_exit_before_every_operation(name, tmp_path):
    act, least = ACTS[name]
    for nth in itertools.count(1):
        store = prepared(tmp_path, nth)
        status = in_child(Counter(nth, hard_exit), lambda store=store: act(store))
        assert status in (0, 77)
        assert_consistent(store.root)
        if status == 0:
            break
    assert nth > least


@pytest.mark.parametrize("lose", CUTS)
@pytest.mark.parametrize("name", ["put", "put, weights shared", "record"])
def test_a_power_cut_before_every_operation(name, lose, tmp_path):
    act, least = ACTS[name]
    for nth in itertools.count(1):
        store = prepared(tmp_path, nth)
        status = in_child(PowerCut(nth, lose), lambda store=store: act(store))
        assert status in (0, 77)
        assert_consistent(store.root)
        if status == 0:
            break
    assert nth > least


def test_the_power_cut_finds_a_store_that_syncs_no_folder(tmp_path):
    """The instrument's own control: without fsync of the folders a manifest must outlive its blob somewhere."""
    losses = 0
    for nth in range(1, 25):
        store = prepared(tmp_path, nth)

        def child(store=store):
            real = files._sync_dir
            files._sync_dir = lambda folder: None if folder.parent.name == "blobs" else real(folder)
            put(store, 2)

        in_child(PowerCut(nth, "oldest name"), child)
        with contextlib.suppress(StoreError):
            losses += store.has(key(2)) and not is_whole(store, 2)
            continue
        losses += 1
    assert losses > 0


@pytest.mark.parametrize("short", [1, 50])
def test_short_writes_change_nothing(store, short, monkeypatch):
    monkeypatch.setattr(files, "_write_some", lambda fd, data: os.write(fd, data[:short]))
    put(store, 1)
    assert is_whole(store, 1)


@pytest.mark.parametrize("then", ["EIO", "ENOSPC", "EACCES", "exit"])
def test_a_short_write_and_then_a_fault_at_every_write(tmp_path, then):
    for nth in (1, 2, 3):
        store = prepared(tmp_path, nth)
        calls = itertools.count(1)

        def write_some(fd, data, calls=calls, nth=nth):
            call = next(calls)
            if call == nth:
                return os.write(fd, data[: len(data) // 2])
            if call == nth + 1:
                if then == "exit":
                    os._exit(77)
                raise OSError(ERRORS[then][0], "injected")
            return os.write(fd, data)

        def child(store=store, write_some=write_some):
            files._write_some = write_some
            with pytest.raises(StoreError, match=ERRORS.get(then, ("", "never"))[1]):
                put(store, 2)

        assert status_of(fork(child)) == (77 if then == "exit" else 0)
        assert_consistent(store.root)


# --- real kills


def worker(root, total, acknowledged):
    """A sweep in small: put what is missing, a record with every fifth result, and say so after each commit."""
    store = Store(root)
    with store.lock(key(255)):
        listed = {row.key for row in store.records()}
        for number in range(total):
            if not store.has(key(number)):
                put(store, number)
                os.write(acknowledged, number.to_bytes(2, "big"))
            if number % 5 == 0 and key(number) not in listed:
                store.put_record(record(number))


def kill_at_random_moments(root, kills, seed, total=600):
    chance, store = random.Random(seed), Store(root)
    promised, checked, useful = [], set(), 0
    for _ in range(kills):
        read_end, write_end = os.pipe()
        pid = fork(lambda write_end=write_end: worker(root, total, write_end))
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert status_of(pid) in (-signal.SIGKILL, 0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            said = pipe.read()
        promised += [int.from_bytes(said[at : at + 2], "big") for at in range(0, len(said), 2)]
        visible = {number for number in range(total) if store.has(key(number))}
        assert set(promised) <= visible, "a promised result is gone"
        assert all(is_whole(store, number) for number in visible - checked)
        checked |= visible
        useful += len(visible) < total
    assert useful > 0.8 * kills, "most kills must hit a run at work"
    assert promised, "and some work must be done between them"
    assert len(promised) == len(set(promised)), "a result was computed again although it was there"
    with Path(os.devnull).open("wb") as null:
        worker(root, total, null.fileno())
    assert all(is_whole(store, number) for number in range(total))
    assert len([path for path in (root / "results").rglob("*") if path.is_file()]) == total
    assert sorted(row.key for row in store.records()) == sorted(key(number) for number in range(0, total, 5))
    assert not temps(store)
    assert not (root / "damaged").exists()


def test_kill_at_35_random_moments(tmp_path):
    kill_at_random_moments(tmp_path / "store", 35, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_kill_at_37_random_moments(tmp_path, seed):
    kill_at_random_moments(tmp_path / "store", 37, seed)


def test_kill_while_the_index_is_built(store):
    for number in range(30):
        store.put_record(record(number))
    chance = random.Random(0)
    for _ in range(15):
        (store.root / "index.sqlite").unlink(missing_ok=True)
        pid = fork(lambda: Store(store.root).records())
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        assert len(Store(store.root).records()) == 30


# --- concurrency


def test_the_same_key_from_8_processes(store):
    assert in_children(8, lambda index: put(Store(store.root), 1)) == [0] * 8
    assert is_whole(store, 1)
    assert not temps(store)


def write_many(root, index, commits):
    store = Store(root)
    for turn in range(commits):
        number = turn * 4 + index % 4  # every key comes from two writers
        put(store, number)
        assert is_whole(store, number)


def count_results(root):
    return len([path for path in (root / "results").rglob("*.json") if path.is_file()])


def test_8_writers(store):
    assert in_children(8, lambda index: write_many(store.root, index, 25)) == [0] * 8
    assert count_results(store.root) == 100
    assert all(is_whole(store, number) for number in range(100))
    assert not temps(store)


@pytest.mark.slow
def test_8_writers_500_commits_each(store):
    assert in_children(8, lambda index: write_many_distinct(store.root, index)) == [0] * 8
    assert count_results(store.root) == 4000


def write_many_distinct(root, index):
    store = Store(root)
    for turn in range(500):
        store.put(key(turn * 8 + index), {}, {"x": f"{turn} {index}".encode()}, {})


def test_8_threads(store):
    failures = []

    def work(index):
        try:
            write_many(store.root, index, 10)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count_results(store.root) == 40


def test_8_processes_make_the_index_at_once(store):
    for number in range(20):
        store.put_record(record(number))
    for _ in range(3):
        (store.root / "index.sqlite").unlink(missing_ok=True)

        def child(index):
            assert len(Store(store.root).records()) == 20

        assert in_children(8, child) == [0] * 8
    assert len(store.records()) == 20


def test_listing_while_others_write_and_the_index_is_destroyed(store):
    store.put_record(record(200))

    def child(index):
        own = Store(store.root)
        for turn in range(10):
            if index < 3:
                own.put_record(record(index * 10 + turn))
            elif index == 3:
                damage_garbage(store.root / "index.sqlite")
            assert key(200) in [row.key for row in own.records()]

    assert in_children(6, child) == [0] * 6
    assert len(store.records()) == 31


def test_the_holder_of_a_lock_is_named(store):
    with (
        store.lock(key(1)),
        pytest.raises(StoreError, match=rf"E-BUSY process {os.getpid()} is already at work") as caught,
        Store(store.root).lock(key(1)),
    ):
        pass
    assert caught.value.hint
    with store.lock(key(1)), store.lock(key(2)):
        pass


def test_killing_the_holder_frees_the_lock(store):
    read_end, write_end = os.pipe()

    def hold():
        with Store(store.root).lock(key(1)):
            os.write(write_end, b"x")
            time.sleep(60)

    pid = fork(hold)
    os.read(read_end, 1)
    with pytest.raises(StoreError, match=f"process {pid} "), store.lock(key(1)):
        pass
    os.kill(pid, signal.SIGKILL)
    assert status_of(pid) == -signal.SIGKILL
    with store.lock(key(1)):
        pass
    os.close(read_end)
    os.close(write_end)


def test_an_error_under_the_lock_frees_it(store):
    with pytest.raises(KeyError), store.lock(key(1)):
        raise KeyError
    with store.lock(key(1)):
        pass


@pytest.mark.parametrize("spelling", ["link", "dots", "relative", "slash"])
def test_two_spellings_of_a_path_are_one_store(store, spelling, tmp_path, monkeypatch):
    put(store, 1)
    (tmp_path / "link").symlink_to(store.root)
    monkeypatch.chdir(tmp_path)
    spelled = {
        "link": tmp_path / "link",
        "dots": tmp_path / "store" / ".." / "store",
        "relative": Path("store"),
        "slash": Path(f"{store.root}//"),
    }
    other = Store(spelled[spelling])
    assert is_whole(other, 1)
    with other.lock(key(1)), pytest.raises(StoreError, match="E-BUSY"), store.lock(key(1)):
        pass


def test_of_8_racers_for_a_lock_at_most_one_is_in(store):
    log = store.root.parent / "log"
    log.touch()

    def child(index):
        own = Store(store.root)
        with contextlib.suppress(StoreError), own.lock(key(1)), log.open("a") as file:
            file.write("in ")
            file.flush()
            time.sleep(0.002)
            file.write("out ")

    assert in_children(8, child) == [0] * 8
    words = log.read_text().split()
    assert words == ["in", "out"] * (len(words) // 2)
    assert words


def test_the_lock_sweeps_after_the_dead_and_spares_the_living(store):
    put(store, 1)
    dead = fork(lambda: None)
    status_of(dead)
    host = files._host()
    stale = [store.root / f".tmp-{host}-{dead}-00000000", store.root / "results" / key(1)[:2] / f".tmp-{host}-{dead}-00000001"]
    living = store.root / "results" / key(1)[:2] / f".tmp-{host}-{os.getpid()}-00000000"
    for path in (*stale, living):
        path.write_bytes(b"x")
    with store.lock(key(1)):
        pass
    assert temps(store) == [living]
    assert is_whole(store, 1)


def test_8_readers_of_a_damaged_result(store):
    put(store, 1)
    store._blob_path(store.manifest(key(1))["files"]["weights"]["sha256"]).write_bytes(b"x")

    def child(index):
        with pytest.raises(StoreError, match=r"E-DAMAGED|E-MISSING"):
            Store(store.root).get(key(1))

    assert in_children(8, child) == [0] * 8
    put(store, 1)
    assert is_whole(store, 1)


# --- a store that cannot be written


@contextlib.contextmanager
def read_only_store():
    """A store owned by somebody else, in a folder that everybody may read; with and without its index."""
    folder = Path(tempfile.mkdtemp(prefix="badnets-test-"))
    try:
        store = Store(folder / "store")
        put(store, 1)
        store.put_record(record(1))
        store.put_record(record(2, "2026-12-01"))
        folder.chmod(0o755)
        yield store
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)


def as_stranger(root, function):
    """In a child without the right to write: another user where we are root, else after chmod."""

    def child():
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        function()

    if os.geteuid() != 0:
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    return status_of(fork(child))


@pytest.mark.parametrize("index", ["present", "absent", "stale", "garbage"])
def test_a_read_only_store_can_be_read(index):
    with read_only_store() as store:
        if index in ("present", "stale"):
            store.records()
        if index == "stale":
            store.put_record(record(3, "2026-12-02"))
        if index == "garbage":
            (store.root / "index.sqlite").write_bytes(b"x" * 9000)

        def read():
            own = Store(store.root)
            assert is_whole(own, 1)
            assert own.has(key(1))
            assert len(own.records()) == (3 if index == "stale" else 2)
            assert own.record().key == key(3 if index == "stale" else 2)
            for write in (
                lambda: put(own, 5),
                lambda: own.put_record(record(6)),
                lambda: own.lock(key(1)).__enter__(),
                lambda: own.run_dir(key(1)),
            ):
                with pytest.raises(StoreError, match="E-READONLY") as caught:
                    write()
                assert "BADNETS_HOME" in caught.value.hint

        assert as_stranger(store.root, read) == 0


def test_damage_in_a_read_only_store_is_said(store):
    with read_only_store() as store:
        path = store._blob_path(store.manifest(key(1))["files"]["weights"]["sha256"])
        path.write_bytes(b"x")

        def read():
            with pytest.raises(StoreError, match="E-DAMAGED") as caught:
                Store(store.root).get(key(1))
            assert "writable" in caught.value.hint

        assert as_stranger(store.root, read) == 0


# --- arrays


def test_arrays_there_and_back():
    arrays = {
        "bits_SN": np.array([[True, False], [False, True]]),
        "x_NCHW": np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)[:, :, ::-1],
        "y_N": np.array([1, -2], dtype=np.int64),
        "scalar": np.float32(0.5).reshape(()),
        "empty": np.zeros((0, 3), dtype=np.float64),
        "half": np.array([1.5], dtype=np.float16),
    }
    metadata = {"badnets.planted": "true", "trigger": '{"é": "\U0001f600"}', "a": ""}
    back, said = unpack(pack(arrays, metadata))
    assert said == metadata
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    assert unpack(pack({"a": arrays["y_N"]}))[1] == {}


def test_packed_bytes_depend_on_nothing_but_the_content():
    arrays = {name: np.arange(3) for name in "cab"}
    metadata = {name: name for name in "zyxwvutsrqponm"}
    packed = {
        pack(dict(random.Random(i).sample(list(arrays.items()), 3)), dict(random.Random(i).sample(list(metadata.items()), 14)))
        for i in range(20)
    }
    assert len(packed) == 1


@pytest.mark.parametrize("cut", [0, 4, 8, 20, -1])
def test_what_is_no_safetensors_file(cut):
    with pytest.raises(RefusedError, match="E-TENSORS"):
        unpack(pack({"a": np.arange(3)}, {"b": "c"})[:cut])


# --- size


@pytest.mark.slow
def test_a_large_store(tmp_path):
    """100,000 results open in 0.2 s and 10,000 records list in 1 s."""
    store = Store(tmp_path / "store")
    for number in range(100_000):
        digits = key(number)
        place = store.root / "results" / digits[:2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{digits}.json").write_bytes(b"{}")
    for number in range(10_000):
        store.put_record(record(number, f"{number:05}"))

    def timed(function):
        start = time.perf_counter()
        result = function()
        return result, time.perf_counter() - start

    opened, seconds_open = timed(lambda: Store(store.root))
    (rows, seconds_build), (_, seconds_list) = timed(opened.records), timed(opened.records)
    _, seconds_lock = timed(lambda: opened.lock(key(1)).__enter__())
    print(json.dumps({"open": seconds_open, "build index": seconds_build, "list": seconds_list, "lock and sweep": seconds_lock}))
    assert len(rows) == 10_000
    assert rows[0].created == "09999"
    assert seconds_open < 0.2
    assert seconds_list < 1.0
