"""20,000 mutations for each parser of data, records and arguments: no error but ours, and what is accepted is what was there."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import tempfile
import time
import zipfile
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
import record_samples
from mutants import mutated, rounds

from badnets.core import registry
from badnets.core.config import canonical
from badnets.core.errors import BadnetsError
from badnets.core.types import Record
from badnets.datasets._idx import read_idx
from badnets.datasets._npz import read_npz
from badnets.datasets.gtsrb import _table

PARTS = {"idx": 2, "idx.gz": 2, "npz": 4, "table": 2, "record": 1, "attack": 2, "trigger": 2}
BOUND = 1 << 16
ARRAY = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
FIRST, SECOND = np.arange(90, dtype=np.uint8).reshape(3, 30), np.arange(40, dtype=np.uint16)
ROW = "0000{}.ppm;20;17;5;4;15;13;3"


def packed(path: Path) -> bytes:
    members = {"a.npy": make.npy_bytes(FIRST), "b.npy": make.npy_bytes(SECOND)}
    return make.npz(path, members, zipfile.ZIP_DEFLATED).read_bytes()


def an_idx(path, data):
    x = read_idx(path, rank=3, limit=BOUND)
    assert x.tobytes() == data[16:]


def an_idx_gz(path, data):
    np.testing.assert_array_equal(read_idx(path, rank=3, limit=BOUND), ARRAY)


def an_npz(path, data):
    found = read_npz(path, {"a": ("|u1", 2), "b": ("<u2", 1)})
    np.testing.assert_array_equal(found["a"], FIRST)
    np.testing.assert_array_equal(found["b"], SECOND)


def a_table(path, data):
    for name, (width, height, left, top, right, bottom), label in _table(path):
        assert "/" not in name
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
        assert 0 <= label < 43


def a_record(path, data):
    """What is read is read again from what is written of it."""
    found = Record.read(data)
    assert Record.read(found.model_dump_json(by_alias=True)) == found


def an_entry(catalogue):
    def read(path, data):
        found = registry.parse(catalogue, data.decode("latin-1"))
        assert canonical(registry.parse(catalogue, found.model_dump(mode="json"))) == canonical(found)

    return read


READERS = {
    "idx": an_idx,
    "idx.gz": an_idx_gz,
    "npz": an_npz,
    "table": a_table,
    "record": a_record,
    "attack": an_entry("attacks"),
    "trigger": an_entry("triggers"),
}
IN_FILES = ("idx", "idx.gz", "npz", "table")


def whole(kind, folder):
    return {
        "idx": lambda: make.idx_bytes(ARRAY),
        "idx.gz": lambda: gzip.compress(make.idx_bytes(ARRAY), mtime=0),
        "npz": lambda: packed(folder / "whole"),
        "table": lambda: "\n".join([make.COLUMNS, *(ROW.format(i) for i in range(3))]).encode(),
        "record": lambda: record_samples.empty().model_dump_json(by_alias=True).encode(),
        "attack": lambda: b"badnets:rate=0.1,trigger=patch,mapping=all_to_all,num_patterns=4",
        "trigger": lambda: b"patch:size=3,opacity=0.5,corner=top_left",
    }[kind]()


@pytest.fixture
def folder(tmp_path):
    """In memory where there is such a place: a disk would take most of the time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_whole_is_read(kind, tmp_path):
    path = tmp_path / f"m.{kind}"
    path.write_bytes(whole(kind, tmp_path))
    READERS[kind](path, path.read_bytes())


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count", "draw"), [one for kind, parts in PARTS.items() for one in rounds(kind, parts)])
def test_only_our_errors(kind, count, draw, folder):
    content, read, rng = whole(kind, folder), READERS[kind], random.Random(draw)
    path, accepted, slowest = folder / f"m.{kind}", 0, 0.0
    for _ in itertools.repeat(None, count):
        data = mutated(content, rng)
        if kind in IN_FILES:
            path.write_bytes(data)
        start = time.process_time()
        try:
            read(path, data)
            accepted += 1
        except BadnetsError:
            pass
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1
    assert 0 < accepted < count
