"""Hostile data: idx files, paths, files that are no files, random damage. Each case is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from hostile import nowhere, refused
from PIL import Image

from badnets.datasets import _images, _npz
from badnets.datasets._detect import detect
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.folder import Folder
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    nowhere(tmp_path, monkeypatch)


# --- idx ----------------------------------------------------------------------------------------------------------------

HEADER = bytes((0, 0, 8, 3))
BIG = 0xFFFFFFFF


def _dims(*dims):
    return HEADER + b"".join(d.to_bytes(4, "big") for d in dims)


IDX_IMAGES = {
    "empty": (lambda b: b"", "E-MAGIC"),
    "one-byte": (lambda b: b[:1], "E-MAGIC"),
    "three-bytes": (lambda b: b[:3], "E-MAGIC"),
    "magic-only": (lambda b: b[:4], "E-TRUNCATED"),
    "header-cut-8": (lambda b: b[:8], "E-TRUNCATED"),
    "header-cut-15": (lambda b: b[:15], "E-TRUNCATED"),
    "header-only": (lambda b: b[:16], "E-TRUNCATED"),
    "first-zero-set": (lambda b: b"\1" + b[1:], "E-MAGIC"),
    "second-zero-set": (lambda b: b[:1] + b"\1" + b[2:], "E-MAGIC"),
    "signed-bytes": (lambda b: b[:2] + b"\x09" + b[3:], "E-MAGIC"),
    "shorts": (lambda b: b[:2] + b"\x0b" + b[3:], "E-MAGIC"),
    "ints": (lambda b: b[:2] + b"\x0c" + b[3:], "E-MAGIC"),
    "floats": (lambda b: b[:2] + b"\x0d" + b[3:], "E-MAGIC"),
    "doubles": (lambda b: b[:2] + b"\x0e" + b[3:], "E-MAGIC"),
    "rank-0": (lambda b: b[:3] + b"\x00" + b[4:], "E-MAGIC"),
    "rank-1": (lambda b: b[:3] + b"\x01" + b[4:], "E-MAGIC"),
    "rank-4": (lambda b: b[:3] + b"\x04" + b[4:], "E-MAGIC"),
    "rank-255": (lambda b: b[:3] + b"\xff" + b[4:], "E-MAGIC"),
    "no-images": (lambda b: _dims(0, 8, 8), "E-EMPTY"),
    "no-height": (lambda b: _dims(100, 0, 8), "E-EMPTY"),
    "no-width": (lambda b: _dims(100, 8, 0), "E-EMPTY"),
    "all-dims-huge": (lambda b: _dims(BIG, BIG, BIG) + b[16:], "E-LARGE"),
    "count-huge": (lambda b: _dims(BIG, 8, 8) + b[16:], "E-LARGE"),
    "product-wraps-32-bits": (lambda b: _dims(1 << 16, 1 << 16, 1) + b[16:], "E-LARGE"),
    "product-wraps-64-bits": (lambda b: _dims(1 << 31, 1 << 31, 4) + b[16:], "E-LARGE"),
    "just-over-limit": (lambda b: _dims((256 << 20) + 1, 1, 1) + b[16:], "E-LARGE"),
    "at-limit-but-short": (lambda b: _dims(256 << 20, 1, 1) + b[16:], "E-TRUNCATED"),
    "little-endian-dims": (lambda b: HEADER + struct.pack("<3I", 100, 8, 8) + b[16:], "E-LARGE"),
    "one-byte-short": (lambda b: b[:-1], "E-TRUNCATED"),
    "half": (lambda b: b[: len(b) // 2], "E-TRUNCATED"),
    "one-byte-more": (lambda b: b + b"\0", "E-TRAILING"),
    "another-file-after": (lambda b: b + b, "E-TRAILING"),
    "one-image-fewer-than-labels": (lambda b: _dims(99, 8, 8) + b[16:-64], "E-COUNT"),
    "one-image-more-than-labels": (lambda b: _dims(101, 8, 8) + b[16:] + bytes(64), "E-COUNT"),
    "other-size-than-test": (lambda b: _dims(100, 4, 16) + b[16:], "E-SHAPE"),
    "gzip-without-gz": (gzip.compress, "E-MAGIC"),
    "a-png": (lambda b: b"\x89PNG\r\n\x1a\n" + b[8:], "E-MAGIC"),
    "html": (lambda b: b"<html><body>404</body></html>", "E-MAGIC"),
    "git-lfs-pointer": (lambda b: b"version https://git-lfs.github.com/spec/v1\n", "E-MAGIC"),
}


@pytest.mark.parametrize("case", IDX_IMAGES)
def test_idx_images_refused(case, tmp_path):
    root = make.idx_set(tmp_path / "d")
    damage, code = IDX_IMAGES[case]
    path = root / make.IDX[0]
    path.write_bytes(damage(path.read_bytes()))
    assert "train-images" in str(refused(code, lambda: Mnist().load(root), root=root)) or code in ("E-COUNT", "E-SHAPE")


IDX_GZ = {
    "cut-in-half": (lambda b: b[: len(b) // 2], "E-TRUNCATED"),
    "cut-last-byte": (lambda b: b[:-1], "E-TRUNCATED"),
    "without-checksum": (lambda b: b[:-8], "E-TRUNCATED"),
    "header-only": (lambda b: b[:10], "E-TRUNCATED"),
    "empty": (lambda b: b"", "E-MAGIC"),
    "not-gzip": (gzip.decompress, "E-CORRUPT"),
    "wrong-checksum": (lambda b: b[:-8] + bytes(4) + b[-4:], "E-CORRUPT"),
    "wrong-length": (lambda b: b[:-4] + b"\1\2\3\4", "E-CORRUPT"),
    "method-9": (lambda b: b[:2] + b"\x09" + b[3:], "E-CORRUPT"),
    "bits-flipped": (lambda b: b[:200] + bytes(x ^ 255 for x in b[200:300]) + b[300:], "E-CORRUPT"),
    "garbage-after": (lambda b: b + b"garbage", "E-CORRUPT"),
    "second-member-after": (lambda b: b + gzip.compress(b"more"), "E-TRAILING"),
    "packed-twice": (gzip.compress, "E-MAGIC"),
    "bzip2": (lambda b: bz2.compress(gzip.decompress(b)), "E-CORRUPT"),
    "bomb-longer-than-header": (lambda b: b + gzip.compress(bytes(32 << 20)), "E-TRAILING"),
    "bomb-as-header-says": (lambda b: gzip.compress(_dims(1 << 10, 1 << 7, 1 << 8) + bytes(32 << 20)), "E-LARGE"),
    "huge-claim": (lambda b: gzip.compress(_dims(BIG, BIG, BIG)), "E-LARGE"),
    "empty-member": (lambda b: gzip.compress(b""), "E-MAGIC"),
}


@pytest.mark.parametrize("case", IDX_GZ)
def test_idx_gz_refused(case, tmp_path):
    root = make.idx_set(tmp_path / "d", gz=True)
    damage, code = IDX_GZ[case]
    path = root / (make.IDX[0] + ".gz")
    path.write_bytes(damage(path.read_bytes()))
    refused(code, lambda: Mnist().load(root), root=root)


def _labels(values):
    return make.idx_bytes(np.array(values, np.uint8))


LABELS = {
    "label-10": (lambda b: b[:-1] + b"\x0a", "E-LABEL"),
    "label-255": (lambda b: b[:-1] + b"\xff", "E-LABEL"),
    "first-label-200": (lambda b: b[:8] + b"\xc8" + b[9:], "E-LABEL"),
    "all-labels-99": (lambda b: _labels([99] * 100), "E-LABEL"),
    "one-fewer": (lambda b: _labels(np.arange(99) % 10), "E-COUNT"),
    "one-more": (lambda b: _labels(np.arange(101) % 10), "E-COUNT"),
    "none": (lambda b: _labels([]), "E-EMPTY"),
    "images-as-labels": (lambda b: make.idx_bytes(np.zeros((100, 8, 8))), "E-MAGIC"),
    "text": (lambda b: b"\n".join(b"%d" % (i % 10) for i in range(100)), "E-MAGIC"),
    "trailing": (lambda b: b + b"\0", "E-TRAILING"),
    "truncated": (lambda b: b[:-1], "E-TRUNCATED"),
    "claims-4-gib": (lambda b: b[:4] + b"\xff" * 4 + b[8:], "E-LARGE"),
}


@pytest.mark.parametrize("case", LABELS)
def test_idx_labels_refused(case, tmp_path):
    root = make.idx_set(tmp_path / "d")
    damage, code = LABELS[case]
    path = root / make.IDX[1]
    path.write_bytes(damage(path.read_bytes()))
    refused(code, lambda: Mnist().load(root), root=root)


@pytest.mark.parametrize("stem", make.IDX)
def test_idx_missing_file(stem, tmp_path):
    root = make.idx_set(tmp_path / "d")
    (root / stem).unlink()
    assert stem in str(refused("E-MISSING", lambda: Mnist().load(root), root=root))


# --- paths --------------------------------------------------------------------------------------------------------------


def _path_cases(tmp):
    (tmp / "file").write_bytes(b"x")
    os.mkfifo(tmp / "pipe")
    (tmp / "loop").symlink_to("loop")
    (tmp / "gone").symlink_to("nowhere")
    (tmp / "empty").mkdir()
    return {
        "absent": tmp / "absent",
        "file": tmp / "file",
        "fifo": tmp / "pipe",
        "device": Path("/dev/zero"),
        "link-loop": tmp / "loop",
        "dangling-link": tmp / "gone",
        "nul": tmp / "a\0b",
        "long-name": tmp / ("x" * 300),
        "long-path": tmp / ("x/" * 3000),
        "below-a-file": tmp / "file" / "below",
        "two-one-absent": Path(f"{tmp / 'empty'}:{tmp / 'absent'}"),
        "separator-only": Path(":"),
        "empty-folder": tmp / "empty",
    }


PATH_NAMES = [
    *("absent", "file", "fifo", "device", "link-loop", "dangling-link", "nul", "long-name", "long-path"),
    *("below-a-file", "two-one-absent", "separator-only", "empty-folder"),
]


@pytest.mark.parametrize("case", PATH_NAMES)
@pytest.mark.parametrize("dataset", [Mnist, Gtsrb, Cifar10], ids=lambda d: d.__name__)
def test_bad_data_path(case, dataset, tmp_path):
    path = _path_cases(tmp_path)[case]
    refused("E-DATA", lambda: dataset().load(path, download=False), root=tmp_path, status=2)


@pytest.mark.parametrize("case", PATH_NAMES)
def test_bad_path_in_the_environment(case, tmp_path, monkeypatch):
    path = _path_cases(tmp_path)[case]
    if case == "nul":
        pytest.skip("the environment holds no NUL")
    monkeypatch.setenv("BADNETS_DATA", str(path))
    refused("E-DATA", lambda: Mnist().load(download=False), root=tmp_path, status=2)


@pytest.mark.parametrize("case", [name for name in PATH_NAMES if name != "empty-folder"])
def test_bad_path_to_folder_and_detect(case, tmp_path):
    path = _path_cases(tmp_path)[case]
    refused("E-DATA", lambda: Folder().load(path), root=tmp_path, status=2)
    refused("E-DATA", lambda: detect(path), root=tmp_path, status=2)


FILE_GAMES = {
    "folder": (lambda p: p.mkdir(), "E-FILE"),
    "fifo": (os.mkfifo, "E-FILE"),
    "link-to-zero": (lambda p: p.symlink_to("/dev/zero"), "E-FILE"),
    "link-loop": (lambda p: p.symlink_to(p.name), "E-FILE"),
    "dangling": (lambda p: p.symlink_to("nowhere"), "E-FILE"),
    "socket": (lambda p: _socket(p), "E-FILE"),
}


def _socket(path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


@pytest.mark.parametrize("case", FILE_GAMES)
@pytest.mark.parametrize("kind", ["idx", "npz", "cifar"])
def test_file_that_is_no_file(case, kind, tmp_path):
    change, code = FILE_GAMES[case]
    dataset, path = {
        "idx": (Mnist, make.idx_set(tmp_path) / make.IDX[0]),
        "npz": (Gtsrb, make.gtsrb_npz(tmp_path)),
        "cifar": (Cifar10, make.cifar_set(tmp_path) / "test_batch.bin"),
    }[kind]
    path.unlink()
    change(path)
    refused(code, lambda: dataset().load(tmp_path), root=tmp_path)


# --- random damage ------------------------------------------------------------------------------------------------------


def _mutations(content, count, seed):
    """Bytes replaced, runs removed, repeated or zeroed, at places that favour the ends."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(content)
        for _ in range(int(draw.integers(1, 4))):
            at = int(len(data) * draw.random() ** 3) if draw.random() < 0.6 else int(len(data) * (1 - draw.random() ** 4 / 2))
            at = min(at, len(data) - 1)
            run = int(draw.integers(1, 9))
            kind = draw.integers(4)
            if kind == 0:
                data[at] = int(draw.integers(256))
            elif kind == 1:
                del data[at : at + run]
            elif kind == 2:
                data[at:at] = data[at : at + run]
            else:
                data[at : at + run] = bytes(len(data[at : at + run]))
            if not data:
                break
        yield bytes(data)


COUNT = int(os.environ.get("BADNETS_MUTATIONS", "800"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "PPM"])
def test_mutated_image_is_refused_or_whole(form):
    whole = make.encoded(form, image=make.picture(size=(20, 16)))
    for data in _mutations(whole, COUNT // 2, 4):
        try:
            pixels = _images.decode(data, 8)
        except _images.BadImageError:
            continue
        assert pixels.shape == (8, 8, 3)
        assert pixels.dtype == np.uint8


def test_limits_are_what_they_should_be():
    assert Image.MAX_IMAGE_PIXELS == _images.MAX_PIXELS
    assert _npz.LIMIT <= 256 << 20
