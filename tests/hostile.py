"""What every hostile case asserts: refused in one line, nothing run, little allocated, the files as they were."""

from __future__ import annotations

import hashlib
import stat
import tracemalloc
from pathlib import Path

import pytest

from badnets.core.errors import BadnetsError
from badnets.datasets import cifar10
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist

MEMORY = 48 << 20


def nowhere(tmp_path, monkeypatch):
    """No data set of the machine, no cache, no pinned content: only the damaged files count."""
    monkeypatch.delenv("BADNETS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    for dataset in (Mnist, Gtsrb, Cifar10):
        monkeypatch.setattr(dataset, "content", None)
    monkeypatch.setattr(cifar10, "_ROWS", 20)


def _tree(root: Path):
    """Everything below `root`: names, kinds, bytes; FIFOs and devices are not opened."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        plain = stat.S_ISREG(mode) and path.stat().st_size < 1 << 24
        found[path] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else mode
    return found


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def refused(code, load, *, root, status=3, memory=MEMORY):
    """Asserts the five things of a hostile case and returns the error."""
    before = _tree(root)
    tracemalloc.start()
    try:
        with pytest.raises(BadnetsError) as caught:
            load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    error = caught.value
    assert error.code == code, str(error)
    assert error.exit_status == status, str(error)
    assert str(error).isprintable(), repr(str(error))
    assert error.message.endswith("."), str(error)
    assert error.hint, str(error)
    assert len(str(error)) < 700, str(error)
    assert not (root / "canary").exists()
    assert peak < memory, f"{peak:,} bytes for {error}"
    assert _tree(root) == before
    return error
