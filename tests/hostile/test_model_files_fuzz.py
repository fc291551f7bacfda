"""Mutations for each of our own parsers: no error but ours, and what is accepted is what was there, or its hash says otherwise."""

from __future__ import annotations

import hashlib
import random
import time

import corpus_script
import pytest
from making import Zip, checkpoint, entry, parts, pickled, safetensors, storage, table, tensor, text
from mutants import mutated, rounds

from badnets.core.errors import RefusedError
from badnets.intake.formats import read_weights
from badnets.intake.opcodes import Machine, Record
from badnets.intake.torch_script import _Walk
from badnets.intake.zip_structure import read_members

PARTS = {"TorchScript": 2, "TorchScript pickle": 4, "exported program": 2, "table of weights": 5}
"""Into how many tests a parser's mutations go, where it is not one."""

PICKLE = pickled(
    table([("state_dict", table([("w", tensor()), ("v", tensor((2,), of=storage("1", 2, "HalfStorage")))])), ("epoch", text("3"))])
)
SEEDS = {
    "safetensors": safetensors({"__metadata__": {"a": "b"}, "w": entry(), "v": entry((2,), (24, 28), "F16")}, b"\1" * 28),
    "torch zip": checkpoint(pickled(table([("w", tensor())]))),
    "zip": Zip(parts(b"pickle")).written(),
    "pickle": PICKLE,
    "TorchScript": corpus_script.script(),
    "TorchScript pickle": pickled(corpus_script.net(("l", b"]" + tensor((2,), of=storage("1", 2)) + b"a"), ("m", corpus_script.net()))),
    "exported program": corpus_script.exported(),
    "table of weights": corpus_script.TABLE,
}


def reading(kind):
    """The parser of a kind: bytes -> something that can be compared, or RefusedError."""
    if kind == "pickle":
        return lambda data: repr(Machine(data).run())
    if kind == "TorchScript pickle":
        return lambda data: list(_paths(Machine(data, script=True).run()).items())
    if kind == "table of weights":
        return lambda data: _tensors(corpus_script.exported(config=data))
    if kind == "zip":
        return lambda data: {name: data[m.start : m.start + m.size] for name, m in read_members(data).items()}
    return _tensors


def _tensors(data):
    return {name: (t.dtype, t.shape, t.data.tobytes()) for name, t in read_weights(data).tensors.items()}


def _paths(root):
    walk = _Walk()
    if isinstance(root, Record):
        walk.through(root, "")
    return walk.found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count", "draw"), [one for kind in SEEDS for one in rounds(kind, PARTS.get(kind, 1))])
def test_only_our_errors(kind, count, draw):
    seed, read, rng = SEEDS[kind], reading(kind), random.Random(draw)
    truth, digest = read(seed), hashlib.sha256(seed).digest()
    accepted = slowest = altered = 0
    for _ in range(count):
        data = mutated(seed, rng)
        start = time.process_time()
        try:
            found = read(data)
        except RefusedError:
            continue
        finally:
            slowest = max(slowest, time.process_time() - start)
        accepted += 1
        if found != truth:
            altered += 1
            assert hashlib.sha256(data).digest() != digest
    assert slowest < 1
    # Bits of the data of safetensors may flip unseen: only a hash tells. A checksum guards those of a zip file.
    assert accepted > 0
    assert altered == 0 or kind in ("safetensors", "pickle", "TorchScript pickle", "table of weights")
