"""The memory that a piece of work takes: seen while it is held, unknown where the system does not say."""

import threading
import time

import numpy as np
import pytest

from badnets.core import memory
from badnets.core.memory import Peak, watched

MIB = 2**20
seen = pytest.mark.skipif(Peak().bytes is None, reason="this system has no /proc")


@seen
def test_a_large_array_is_seen_also_after_it_is_gone():
    with watched() as peak:
        held = np.ones(80 * MIB, dtype=np.uint8)
        time.sleep(0.1)
        del held
    assert 70 * MIB <= peak.bytes <= 200 * MIB


@seen
def test_what_was_held_before_does_not_count():
    held = np.ones(80 * MIB, dtype=np.uint8)
    with watched() as peak:
        time.sleep(0.02)
    assert peak.bytes < 40 * MIB
    del held


@seen
def test_nobody_watches_afterwards_also_where_the_work_failed():
    before = threading.active_count()
    with pytest.raises(KeyError), watched() as peak:
        raise KeyError
    assert peak.bytes >= 0
    assert threading.active_count() == before


@seen
def test_less_than_before_is_nothing(monkeypatch):
    held = iter([100, 40, 130, 120])
    monkeypatch.setattr(memory, "_resident", lambda: next(held))
    peak = Peak()
    found = []
    for _ in range(3):
        peak.look()
        found.append(peak.bytes)
    assert found == [0, 30, 30]


@pytest.mark.parametrize("text", [None, "", "many pages"])
def test_is_unknown_where_the_system_does_not_say(monkeypatch, tmp_path, text):
    place = tmp_path / "statm"
    if text is not None:
        place.write_text(text)
    monkeypatch.setattr(memory, "_STATM", place)
    with watched() as peak:
        pass
    assert peak.bytes is None
