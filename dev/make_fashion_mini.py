"""Makes src/badnets/datasets/_data/fashion_mini.xz from the original Fashion-MNIST idx files: `python dev/make_fashion_mini.py [FOLDER]`.

The same files give the same content: 1,000 training and 500 test images of each class, chosen by a named stream, in original order.
FOLDER defaults to where Debian's package `dataset-fashion-mnist` puts them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from badnets.core import files
from badnets.core.rng import numpy_generator
from badnets.datasets._base import content_hash
from badnets.datasets._idx import read_pair
from badnets.datasets._packed import pack, unpack

TARGET = Path(__file__).resolve().parent.parent / "src" / "badnets" / "datasets" / "_data" / "fashion_mini.xz"


def choose(y_N: np.ndarray, per_class: int, part: str) -> np.ndarray:
    """Sorted rows of `per_class` images of each class."""
    draws = numpy_generator(0, "fashion_mini", part).bit_generator.random_raw(len(y_N))
    order = np.argsort(draws, kind="stable")
    return np.sort(np.concatenate([order[y_N[order] == label][:per_class] for label in range(10)]))


def main(folder: Path) -> None:
    """Reads, chooses, packs, checks the round trip, writes."""
    parts = []
    for part, per_class in (("train", 1000), ("t10k", 500)):
        x_NCHW, y_N = read_pair(folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz", 10)
        rows = choose(y_N, per_class, part)
        parts.append((x_NCHW[rows], y_N[rows]))
    (x_train, y_train), (x_test, y_test) = parts
    x_NCHW, y_N = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    packed = pack(x_NCHW, y_N)
    x_back, y_back = unpack(packed)
    if not (np.array_equal(x_back, x_NCHW) and np.array_equal(y_back, y_N)):
        sys.exit("packing is not lossless: nothing written")
    files.write_bytes(TARGET, packed)
    print(f"{TARGET.name}: {len(packed):,} bytes, content {content_hash(x_train, y_train, x_test, y_test)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist"))
