"""Small damage to bytes, in the words of the formats that are damaged; and how much of it each parser has to bear."""

import pytest

COUNT, LONG, ROUND = 20_000, 2_000_000, 100_000
"""Mutations of each parser in `make test`, in `make slow`, and in one of the latter's tests."""


def rounds(kind, parts=1):
    """(kind, mutations, seed) of the tests of one parser: COUNT in so many parts that each takes seconds, and LONG for `make slow`."""
    fast = [pytest.param(kind, COUNT // parts, f"{kind} {part}", id=f"{kind} {part}") for part in range(parts)]
    long = (f"{kind} long {part}" for part in range(LONG // ROUND))
    return fast + [pytest.param(kind, ROUND, seed, id=seed, marks=pytest.mark.slow) for seed in long]


# Bytes that mean something to one of the formats.
WORDS = [
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"R",
    b"b",
    b"c",
    b"(",
    b"t",
    b".",
    b"Q",
    b"{",
    b"}",
    b'"',
    b"[",
    b"]",
    b"9",
    b"-",
    b"u",
    b"q\0",
]


def mutated(seed, rng):
    """One to three changes: a bit, a byte, a word, a piece cut out or doubled, the end cut off."""
    data = bytearray(seed)
    for _ in range(1 + int(3 * rng.random())):
        at, kind = int(rng.random() * len(data)), rng.random()
        if kind < 0.3:
            data[at : at + 1] = bytes([data[at] ^ 1 << int(8 * rng.random())]) if data else b""
        elif kind < 0.5:
            data[at : at + 1] = bytes([int(256 * rng.random())])
        elif kind < 0.7:
            word = WORDS[int(rng.random() * len(WORDS))]
            data[at : at + len(word)] = word
        elif kind < 0.8:
            del data[at : at + 1 + int(8 * rng.random())]
        elif kind < 0.95:
            other = int(rng.random() * len(data))
            data[at:at] = data[other : other + 8]
        else:
            del data[max(at, len(data) // 2) :]
    return bytes(data)
