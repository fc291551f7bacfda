"""Hostile and damaged data: each case is refused in one line, runs nothing, allocates little, and leaves the files as they were."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import pickle
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from badnets.core.errors import BadnetsError, RefusedError, UsageError
from badnets.datasets import _images, _npz, cifar10
from badnets.datasets._detect import detect
from badnets.datasets._idx import read_idx
from badnets.datasets._npz import read_npz
from badnets.datasets._open import show
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.folder import Folder
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist

MEMORY = 48 << 20


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
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


# --- idx ---------------------------------------------------------------------------------------------------------------

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


# --- npz (the reader of gtsrb) -------------------------------------------------------------------------------------------


def _header(text, version=(1, 0)):
    body = text.encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(body))
    return b"\x93NUMPY" + bytes(version) + length + body


def _u1(shape):
    return f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"


def _canary(root):
    return make.npy_bytes(np.array([Canary(root / "canary")], object), allow_pickle=True)


Y = make.gtsrb_arrays()["y_train"]
NPZ = {
    "objects": (lambda root: {"y_train": _canary(root)}, "E-PICKLE"),
    "raw-pickle": (lambda root: {"y_train": pickle.dumps(Canary(root / "canary"))}, "E-MAGIC"),
    "empty-member": (lambda root: {"y_train": b""}, "E-MAGIC"),
    "magic-only": (lambda root: {"y_train": b"\x93NUMPY"}, "E-MAGIC"),
    "version-2": (lambda root: {"y_train": _header(_u1("(344,)"), (2, 0)) + bytes(344)}, "E-MAGIC"),
    "version-9": (lambda root: {"y_train": b"\x93NUMPY\x09\x00" + bytes(100)}, "E-MAGIC"),
    "header-cut": (lambda root: {"y_train": _header(_u1("(344,)"))[:40]}, "E-MAGIC"),
    "header-no-dict": (lambda root: {"y_train": _header("[1, 2]")}, "E-MAGIC"),
    "header-code": (lambda root: {"y_train": _header("__import__('os').system('true')")}, "E-MAGIC"),
    "header-nested": (lambda root: {"y_train": _header("(" * 30_000)}, "E-MAGIC"),
    "header-extra-key": (lambda root: {"y_train": _header(_u1("(344,)").replace(", }", ", 'x': 1, }"))}, "E-MAGIC"),
    "negative-shape": (lambda root: {"y_train": _header(_u1("(-344,)")) + bytes(344)}, "E-MAGIC"),
    "shape-bomb": (lambda root: {"y_train": _header(_u1("(999999999999,)")) + bytes(344)}, "E-SHAPE"),
    "shape-digits-bomb": (lambda root: {"y_train": _header(_u1("(" + "9" * 20_000 + ",)"))}, "E-MAGIC"),
    "shape-one-more": (lambda root: {"y_train": _header(_u1("(345,)")) + bytes(344)}, "E-SHAPE"),
    "shape-one-fewer": (lambda root: {"y_train": _header(_u1("(343,)")) + bytes(344)}, "E-SHAPE"),
    "zero-length": (lambda root: {"y_train": np.empty(0, np.uint8)}, "E-SHAPE"),
    "scalar": (lambda root: {"y_train": np.uint8(1)}, "E-SHAPE"),
    "two-dimensional-labels": (lambda root: {"y_train": Y[:, None]}, "E-SHAPE"),
    "fortran-images": (lambda root: {"x_train": np.asfortranarray(make.gtsrb_arrays()["x_train"])}, "E-DTYPE"),
    "float-images": (lambda root: {"x_train": make.gtsrb_arrays()["x_train"].astype(np.float32)}, "E-DTYPE"),
    "int64-labels": (lambda root: {"y_train": Y.astype(np.int64)}, "E-DTYPE"),
    "bool-labels": (lambda root: {"y_train": Y.astype(bool)}, "E-DTYPE"),
    "big-endian-tracks": (lambda root: {"track_train": make.gtsrb_arrays()["track_train"].astype(">u2")}, "E-DTYPE"),
    "string-labels": (lambda root: {"y_train": Y.astype("U2")}, "E-DTYPE"),
    "structured-labels": (lambda root: {"y_train": Y.view([("a", "u1")])}, "E-MAGIC"),
    "side-31": (lambda root: {"x_train": make.gtsrb_arrays(side=31)["x_train"]}, "E-SHAPE"),
    "one-channel": (lambda root: {"x_train": make.gtsrb_arrays()["x_train"][..., :1].copy()}, "E-SHAPE"),
    "channels-first": (lambda root: {"x_test": np.zeros((215, 3, 32, 32), np.uint8)}, "E-SHAPE"),
    "no-channel-axis": (lambda root: {"x_train": np.zeros((344, 32, 32), np.uint8)}, "E-SHAPE"),
    "fewer-images": (lambda root: {"x_train": make.gtsrb_arrays()["x_train"][:-1]}, "E-SHAPE"),
    "fewer-tracks": (lambda root: {"track_train": make.gtsrb_arrays()["track_train"][:-1]}, "E-COUNT"),
    "label-43": (lambda root: {"y_train": np.where(np.arange(344) == 9, 43, Y).astype(np.uint8)}, "E-LABEL"),
    "test-label-255": (lambda root: {"y_test": np.full(215, 255, np.uint8)}, "E-LABEL"),
    **{f"without-{name}": (lambda root, name=name: {name: None}, "E-MISSING") for name in make.gtsrb_arrays()},
}


@pytest.mark.parametrize("case", NPZ)
def test_npz_arrays_refused(case, tmp_path):
    change, code = NPZ[case]
    make.gtsrb_npz(tmp_path, **change(tmp_path))
    refused(code, lambda: Gtsrb().load(tmp_path), root=tmp_path)


def _central(content, offset, value):
    """`content` with bytes of its first central directory entry replaced."""
    at = content.index(b"PK\x01\x02") + offset
    return content[:at] + value + content[at + len(value) :]


def _end(content, offset, value):
    at = content.rindex(b"PK\x05\x06") + offset
    return content[:at] + value + content[at + len(value) :]


ZIP = {
    "empty": (lambda b: b"", "E-ARCHIVE"),
    "text": (lambda b: b"not a zip", "E-ARCHIVE"),
    "npy-instead": (lambda b: make.npy_bytes(Y), "E-ARCHIVE"),
    "pickle-instead": (lambda b: pickle.dumps({"x_train": [1]}), "E-ARCHIVE"),
    "half": (lambda b: b[: len(b) // 2], "E-ARCHIVE"),
    "last-byte-cut": (lambda b: b[:-1], "E-ARCHIVE"),
    "byte-after": (lambda b: b + b"\0", "E-ARCHIVE"),
    "comment": (lambda b: _end(b, 20, b"\x04\x00") + b"note", "E-ARCHIVE"),
    "zip64-locator": (lambda b: b[: b.rindex(b"PK\x05\x06")] + b"PK\x06\x07" + bytes(16) + b[b.rindex(b"PK\x05\x06") :], "E-ARCHIVE"),
    "directory-claims-65535": (lambda b: _end(b, 8, b"\xff\xff\xff\xff"), "E-LARGE"),
    "directory-of-4-gib": (lambda b: _end(b, 12, b"\xff\xff\xff\xff"), "E-LARGE"),
    "directory-offset-wild": (lambda b: _end(b, 16, b"\xf0\xff\xff\xff"), "E-CORRUPT"),
    "encrypted": (lambda b: _central(b, 8, b"\x01\x00"), "E-ARCHIVE"),
    "method-lzma": (lambda b: _central(b, 10, b"\x0e\x00"), "E-ARCHIVE"),
    "method-unknown": (lambda b: _central(b, 10, b"\x63\x00"), "E-ARCHIVE"),
    "checksum": (lambda b: _central(b, 16, b"\0\0\0\0"), "E-CORRUPT"),
    "member-claims-4-gib": (lambda b: _central(b, 24, b"\xfe\xff\xff\xff"), "E-LARGE"),
    "packed-claims-4-gib": (lambda b: _central(b, 20, b"\xfe\xff\xff\xff" * 2), "E-LARGE"),
    "local-header-elsewhere": (lambda b: _central(b, 42, b"\x05\0\0\0"), "E-CORRUPT"),
    "local-name-differs": (lambda b: b[:30] + b"Z" + b[31:], "E-CORRUPT"),
    "pixel-flipped": (lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], "E-CORRUPT"),
}


@pytest.mark.parametrize("case", ZIP)
def test_npz_archive_refused(case, tmp_path):
    damage, code = ZIP[case]
    path = make.gtsrb_npz(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    refused(code, lambda: Gtsrb().load(tmp_path), root=tmp_path)


def test_npz_member_twice(tmp_path):
    path = make.gtsrb_npz(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", b"another")
    refused("E-ARCHIVE", lambda: Gtsrb().load(tmp_path), root=tmp_path)


def test_npz_too_many_members(tmp_path):
    path = make.gtsrb_npz(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(70):
            archive.writestr(f"extra{i}", b"")
    refused("E-LARGE", lambda: Gtsrb().load(tmp_path), root=tmp_path)


def test_npz_deflated_bomb(tmp_path):
    bomb = _header(_u1("(33554432, 1, 1, 1)")) + bytes(32 << 20)
    arrays = {f"{k}.npy": make.npy_bytes(v) for k, v in make.gtsrb_arrays().items()} | {"x_train.npy": bomb}
    make.npz(tmp_path / "gtsrb32.npz", arrays, zipfile.ZIP_DEFLATED)
    refused("E-LARGE", lambda: Gtsrb().load(tmp_path), root=tmp_path)


def test_npz_unwanted_member_is_never_unpacked(tmp_path):
    make.gtsrb_npz(tmp_path, extra=_canary(tmp_path))
    assert Gtsrb().load(tmp_path).shape == (3, 32, 32)
    assert not (tmp_path / "canary").exists()


GTSRB_TABLE = {
    "empty": (lambda t: "", "E-MAGIC"),
    "header-only": (lambda t: t.splitlines()[0] + "\n", "E-MAGIC"),
    "commas": (lambda t: t.replace(";", ","), "E-MAGIC"),
    "other-columns": (lambda t: t.replace("Filename", "Name"), "E-MAGIC"),
    "cell-missing": (lambda t: t.replace("00003.ppm;20;", "00003.ppm;"), "E-MAGIC"),
    "class-43": (lambda t: t.replace("17;0\r", "17;43\r", 1), "E-LABEL"),
    "class-negative": (lambda t: t.replace("17;0\r", "17;-1\r", 1), "E-LABEL"),
    "class-text": (lambda t: t.replace("17;0\r", "17;stop\r", 1), "E-LABEL"),
    "class-huge": (lambda t: t.replace("17;0\r", "17;" + "9" * 5000 + "\r", 1), "E-LABEL"),
    "class-in-other-digits": (lambda t: t.replace("17;0\r", "17;\xb2\r", 1), "E-LABEL"),
    "path-up": (lambda t: t.replace("00000.ppm", "../../secret.ppm", 1), "E-MAGIC"),
    "path-absolute": (lambda t: t.replace("00000.ppm", "/etc/passwd", 1), "E-MAGIC"),
    "name-with-escape": (lambda t: t.replace("00000.ppm", "\x1b[2J.ppm", 1), "E-MAGIC"),
    "image-missing": (lambda t: t.replace("00000.ppm", "99999.ppm", 1), "E-FILE"),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return make.gtsrb_official(tmp_path_factory.mktemp("official"), frames=8, test=2)


@pytest.mark.parametrize("case", GTSRB_TABLE)
def test_gtsrb_table_refused(case, official, monkeypatch):
    change, code = GTSRB_TABLE[case]
    table = official / "Final_Test" / "Images" / "GT-final_test.csv"
    whole = table.read_bytes()
    table.write_bytes(change(whole.decode("latin-1")).encode("latin-1"))
    monkeypatch.setattr("badnets.datasets.gtsrb.decode", _no_pixels)
    try:
        refused(code, lambda: Gtsrb().load(official), root=official)
    finally:
        table.write_bytes(whole)


def _no_pixels(path, size):
    """Reads the file, decodes nothing: these cases are about the table."""
    from badnets.datasets._open import read_bounded

    read_bounded(path, 1 << 20)
    return np.zeros((size, size, 3), np.uint8)


# --- CIFAR-10 ------------------------------------------------------------------------------------------------------------

ROW = 3073
CIFAR = {
    "empty": (lambda b: b"", "E-TRUNCATED"),
    "one-byte-short": (lambda b: b[:-1], "E-TRUNCATED"),
    "one-row-short": (lambda b: b[:-ROW], "E-TRUNCATED"),
    "one-byte-more": (lambda b: b + b"\0", "E-LARGE"),
    "doubled": (lambda b: b + b, "E-LARGE"),
    "label-10": (lambda b: b"\x0a" + b[1:], "E-LABEL"),
    "last-label-255": (lambda b: b[:-ROW] + b"\xff" + b[-ROW + 1 :], "E-LABEL"),
    "cifar100-rows": (lambda b: b"".join(b"\x05" + b[i * ROW : (i + 1) * ROW] for i in range(20)), "E-LARGE"),
    "shifted-by-one": (lambda b: b"\x09" + b[:-1], "E-LABEL"),
    "gzip": (gzip.compress, "E-LARGE"),
}


@pytest.mark.parametrize("case", CIFAR)
def test_cifar_batch_refused(case, tmp_path):
    root = make.cifar_set(tmp_path)
    damage, code = CIFAR[case]
    path = root / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    refused(code, lambda: Cifar10().load(root), root=root)


@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"])
def test_cifar_batch_missing(name, tmp_path):
    root = make.cifar_set(tmp_path)
    (root / name).unlink()
    assert name in str(refused("E-MISSING", lambda: Cifar10().load(root), root=root))


def _tar(*members, mode="w:gz", fmt=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=fmt) as archive:
        for name, kind, content, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


BATCH = make.cifar_batch(20, 0)
IN = "cifar-10-batches-bin/"
TAR = {
    "empty": b"",
    "text": b"not an archive",
    "html": b"<html>404</html>",
    "tar-without-gzip": _tar((IN + "data_batch_1.bin", tarfile.REGTYPE, BATCH, ""), mode="w"),
    "tar-bz2": _tar((IN + "data_batch_1.bin", tarfile.REGTYPE, BATCH, ""), mode="w:bz2"),
    "no-members": _tar(),
    "lookalike": _tar(*((IN + name, tarfile.REGTYPE, BATCH, "") for name in cifar10._BATCHES)),
    "climbs-up": _tar(("../../canary", tarfile.REGTYPE, b"x", "")),
    "absolute": _tar(("/tmp/badnets-canary", tarfile.REGTYPE, b"x", "")),
    "symlink": _tar((IN + "data_batch_1.bin", tarfile.SYMTYPE, b"", "/etc/passwd")),
    "hardlink": _tar((IN + "data_batch_1.bin", tarfile.LNKTYPE, b"", "/etc/passwd")),
    "fifo": _tar((IN + "data_batch_1.bin", tarfile.FIFOTYPE, b"", "")),
    "device": _tar((IN + "data_batch_1.bin", tarfile.CHRTYPE, b"", "")),
    "member-twice": _tar(*2 * [(IN + "data_batch_1.bin", tarfile.REGTYPE, BATCH, "")]),
    "long-name-bomb": _tar(("a" * 200_000, tarfile.REGTYPE, b"", ""), fmt=tarfile.GNU_FORMAT),
    "pickle-inside": _tar((IN + "data_batch_1", tarfile.REGTYPE, pickle.dumps(1), "")),
    "gzip-bomb": gzip.compress(bytes(16 << 20)),
    "zip-renamed": b"PK\x03\x04" + bytes(100),
    "truncated": _tar((IN + "data_batch_1.bin", tarfile.REGTYPE, BATCH, ""))[:-20],
}


@pytest.mark.parametrize("case", TAR)
def test_cifar_archive_is_not_even_opened(case, tmp_path, monkeypatch):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(TAR[case])
    monkeypatch.setattr(tarfile, "open", lambda **kwargs: pytest.fail("an unknown archive was opened"))
    refused("E-HASH", lambda: Cifar10().load(tmp_path), root=tmp_path)


def test_cifar_archive_too_long(tmp_path):
    with (tmp_path / "cifar-10-binary.tar.gz").open("wb") as file:
        file.truncate(400 << 20)  # sparse
    refused("E-LARGE", lambda: Cifar10().load(tmp_path), root=tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"])
@pytest.mark.parametrize("load", [lambda root: Cifar10().load(root), detect], ids=["load", "detect"])
def test_cifar_pickles_refused(name, load, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    assert "binary version" in str(refused("E-PICKLE", lambda: load(tmp_path), root=tmp_path))


# --- image folders -------------------------------------------------------------------------------------------------------


def _encoded(form, **kwargs):
    buffer = io.BytesIO()
    kwargs.pop("image", make.picture()).save(buffer, form, **kwargs)
    return buffer.getvalue()


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width, height, data=b"", *, depth=8, colour=2, extra=b""):
    head = _chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _frames(form):
    first, second = make.picture(1), make.picture(2)
    return _encoded(form, image=first, save_all=True, append_images=[second], **({"lossless": True} if form == "WEBP" else {}))


def _png_text_bomb():
    info = PngImagePlugin.PngInfo()
    for i in range(70):
        info.add_text(f"k{i}", "x" * (1 << 20), zip=True)
    return _encoded("PNG", pnginfo=info)


IMAGES = {
    "empty": (lambda: b"", "E-IMAGE"),
    "one-byte": (lambda: b"x", "E-IMAGE"),
    "text": (lambda: b"hello", "E-IMAGE"),
    "html": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "E-IMAGE"),
    "python": (lambda: b"import os", "E-IMAGE"),
    "pickle": (lambda: pickle.dumps([1]), "E-IMAGE"),
    "gif": (lambda: _encoded("GIF"), "E-IMAGE"),
    "tiff": (lambda: _encoded("TIFF"), "E-IMAGE"),
    "ico": (lambda: _encoded("ICO"), "E-IMAGE"),
    "pdf": (lambda: _encoded("PDF"), "E-IMAGE"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "E-IMAGE"),
    "png-signature-only": (lambda: b"\x89PNG\r\n\x1a\n", "E-IMAGE"),
    "png-no-data": (lambda: _png(8, 8), "E-IMAGE"),
    "png-zero-width": (lambda: _png(0, 8, zlib.compress(b"")), "E-IMAGE"),
    "png-bomb-dimensions": (lambda: _png(1 << 20, 1 << 20, zlib.compress(bytes(100))), "E-IMAGE"),
    "png-just-over-the-mark": (lambda: _png(9460, 9460, zlib.compress(bytes(100))), "E-IMAGE"),
    "png-dimensions-max": (lambda: _png(0x7FFFFFFF, 0x7FFFFFFF), "E-IMAGE"),
    "png-truncated-half": (lambda: _encoded("PNG")[:200], "E-IMAGE"),
    "png-truncated-tail": (lambda: _encoded("PNG", image=make.picture(size=(64, 64)))[:-200], "E-IMAGE"),
    "png-bad-checksum": (lambda: _encoded("PNG").replace(b"IHDR", b"IHDR", 1)[:29] + b"\0\0\0\0" + _encoded("PNG")[33:], "E-IMAGE"),
    "png-bad-deflate": (lambda: _png(8, 8, b"\xff" * 50), "E-IMAGE"),
    "png-short-data": (lambda: _png(64, 64, zlib.compress(bytes(64))), "E-IMAGE"),
    "png-depth-3": (lambda: _png(8, 8, zlib.compress(bytes(200)), depth=3), "E-IMAGE"),
    "png-palette-without-palette": (lambda: _png(8, 8, zlib.compress(bytes(8)), colour=3), "E-IMAGE"),
    "png-text-bomb": (_png_text_bomb, "E-IMAGE"),
    "png-animated": (lambda: _frames("PNG"), "E-IMAGE"),
    "jpeg-truncated": (lambda: _encoded("JPEG", image=make.picture(size=(64, 64)))[:700], "E-IMAGE"),
    "jpeg-header-only": (lambda: _encoded("JPEG")[:20], "E-IMAGE"),
    "jpeg-soi-only": (lambda: b"\xff\xd8\xff", "E-IMAGE"),
    "jpeg-no-scan": (lambda: b"\xff\xd8" + _encoded("JPEG")[2:20] + b"\xff\xd9", "E-IMAGE"),
    "webp-truncated": (lambda: _encoded("WEBP", lossless=True)[:60], "E-IMAGE"),
    "webp-header-only": (lambda: b"RIFF\x24\0\0\0WEBPVP8L", "E-IMAGE"),
    "webp-animated": (lambda: _frames("WEBP"), "E-IMAGE"),
    "bmp-truncated": (lambda: _encoded("BMP")[:100], "E-IMAGE"),
    "bmp-header-only": (lambda: _encoded("BMP")[:14], "E-IMAGE"),
    "bmp-huge": (lambda: _encoded("BMP")[:18] + struct.pack("<2i", 1 << 24, 1 << 24) + _encoded("BMP")[26:], "E-IMAGE"),
    "ppm-truncated": (lambda: b"P6 8 8 255\n" + bytes(10), "E-IMAGE"),
    "ppm-huge": (lambda: b"P6 999999 999999 255\n" + bytes(10), "E-IMAGE"),
    "ppm-no-dimensions": (lambda: b"P6", "E-IMAGE"),
    "ppm-negative": (lambda: b"P6 -8 8 255\n" + bytes(192), "E-IMAGE"),
    "ppm-maxval-zero": (lambda: b"P6 8 8 0\n" + bytes(192), "E-IMAGE"),
    "ppm-digits-bomb": (lambda: b"P6 " + b"9" * 100_000 + b" 8 255\n", "E-IMAGE"),
    "ppm-plain-not-numbers": (lambda: b"P3 2 2 255\n a b c d", "E-IMAGE"),
    "pfm-float": (lambda: b"Pf 8 8 -1.0\n" + bytes(256), "E-IMAGE"),
}


@pytest.fixture
def images(tmp_path):
    return make.image_folder(tmp_path / "pets")


@pytest.mark.parametrize("case", IMAGES)
def test_bad_image_refused(case, images):
    content, code = IMAGES[case]
    (images / "cat" / "bad.png").write_bytes(content())
    memory = (96 << 20) if case == "png-text-bomb" else MEMORY  # Pillow gives up at 64 MiB of text
    error = refused(code, lambda: Folder(size=8).load(images), root=images, memory=memory)
    assert "bad.png" in str(error)
    assert "1 of 21" in str(error)


def _fifo(root):
    os.mkfifo(root / "cat" / "pipe.png")


def _loop(root):
    (root / "cat" / "a.png").symlink_to("b.png")
    (root / "cat" / "b.png").symlink_to("a.png")


def _sparse(root):
    with (root / "cat" / "sparse.png").open("wb") as file:
        file.truncate(200 << 20)


def _many_bad(root):
    for i in range(7):
        (root / "dog" / f"x{i}.png").write_bytes(b"junk")


STRUCTURE = {
    "fifo": (_fifo, "E-FILE", "pipe.png"),
    "link-loop": (_loop, "E-FILE", "2 of 22"),
    "dangling-link": (lambda r: (r / "cat" / "x.png").symlink_to("nowhere"), "E-FILE", "x.png"),
    "link-to-device": (lambda r: (r / "cat" / "x.png").symlink_to("/dev/zero"), "E-FILE", "x.png"),
    "link-to-etc-passwd": (lambda r: (r / "cat" / "x.png").symlink_to("/etc/passwd"), "E-IMAGE", "x.png"),
    "link-to-own-class": (lambda r: (r / "cat" / "again").symlink_to(r / "cat"), "E-FOLDER", "again"),
    "class-links-to-root": (lambda r: (r / "zebra").symlink_to(r), "E-FOLDER", "zebra"),
    "nested-folder": (lambda r: (r / "cat" / "kittens").mkdir(), "E-FOLDER", "kittens"),
    "notes-in-class": (lambda r: (r / "cat" / "notes.txt").write_text("hi"), "E-IMAGE", "notes.txt"),
    "seven-bad-files": (_many_bad, "E-IMAGE", "7 of 27"),
    "image-beside-classes": (lambda r: make.picture().save(r / "stray.jpg"), "E-FOLDER", "stray.jpg"),
    "empty-class": (lambda r: (r / "newt").mkdir(), "E-FEW", "newt"),
    "class-of-nine": (lambda r: (r / "cat" / "000.png").unlink(), "E-FEW", "got 9"),
    "sparse-200-mib": (_sparse, "E-LARGE", "sparse.png"),
    "hidden-only-class": (lambda r: ((r / "newt").mkdir(), (r / "newt" / ".DS_Store").touch()), "E-FEW", "newt"),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_bad_folder_refused(case, images):
    change, code, word = STRUCTURE[case]
    change(images)
    error = refused(code, lambda: Folder(size=8).load(images), root=images)
    assert word in str(error)


def test_one_class_refused(tmp_path):
    root = make.image_folder(tmp_path / "pets", classes=("cat",))
    assert "got 1" in str(refused("E-FOLDER", lambda: Folder().load(root), root=root))


def test_nothing_at_all_refused(tmp_path):
    (tmp_path / "pets").mkdir()
    assert "got 0" in str(refused("E-FOLDER", lambda: Folder().load(tmp_path / "pets"), root=tmp_path))


def test_same_picture_ten_times_refused(images):
    for path in (images / "cat").iterdir():
        path.write_bytes((images / "cat" / "000.png").read_bytes())
    assert "different images, got 1" in str(refused("E-FEW", lambda: Folder().load(images), root=images))


def test_too_many_pixels_refused_before_decoding(images, monkeypatch):
    monkeypatch.setattr("badnets.datasets.folder._MAX_BYTES", 20 * 3 * 8 * 8 - 1)
    monkeypatch.setattr("badnets.datasets.folder.decode", lambda path, size: pytest.fail("decoded"))
    refused("E-LARGE", lambda: Folder(size=8).load(images), root=images)


@pytest.mark.parametrize("size", [0, -1, 7, 513, 10**9, 32.5, "big", None])
def test_size_out_of_range(size):
    with pytest.raises(UsageError, match=r"Folder\.size"):
        Folder(size=size)


@pytest.mark.parametrize("errno_name", ["EACCES", "EIO", "ENFILE", "ESTALE"])
def test_unreadable_file_refused(errno_name, images, monkeypatch):
    import errno

    real = os.open

    def failing(path, *args, **kwargs):
        if str(path).endswith("dog/003.png"):
            raise OSError(getattr(errno, errno_name), os.strerror(getattr(errno, errno_name)), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", failing)
    assert "003.png" in str(refused("E-FILE", lambda: Folder(size=8).load(images), root=images))


def test_unreadable_class_refused(images, monkeypatch):
    real = os.listdir

    def failing(path="."):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", failing)
    refused("E-FILE", lambda: Folder(size=8).load(images), root=images)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission(images):
    (images / "dog").chmod(0o000)
    try:
        with pytest.raises(RefusedError):
            Folder(size=8).load(images)
    finally:
        (images / "dog").chmod(0o700)


# --- untrusted text ------------------------------------------------------------------------------------------------------

PAYLOADS = {
    "clear-screen": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "hyperlink": "\x1b]8;;mailto:x\x1b\\a",
    "newline": "a\nerror E-OK all fine",
    "carriage-return": "a\rerror E-OK all fine",
    "backspace": "abc\b\b\b",
    "bell": "\x07",
    "c1-csi": "\x9b2J",
    "right-to-left": "\u202egnp.evil",
    "zero-width": "a\u200bb",
    "line-separator": "a\u2028b",
    "not-utf-8": os.fsdecode(b"\xff\xfe\x80"),
    "delete": "a\x7f",
    "tab": "a\tb",
    "private-use": "\ue000",
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_file_name_is_escaped_in_the_error(payload, images):
    text = PAYLOADS[payload]
    (images / "cat" / f"{text}.png").write_bytes(b"junk")
    error = refused("E-IMAGE", lambda: Folder(size=8).load(images), root=images)
    assert text not in str(error)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_class_name_with_unprintable_characters_refused(payload, images):
    (images / "dog").rename(images / PAYLOADS[payload])
    assert PAYLOADS[payload] not in str(refused("E-CLASS", lambda: Folder(size=8).load(images), root=images))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_unprintable_path_is_escaped(payload, tmp_path):
    root = tmp_path / PAYLOADS[payload].replace("/", "_")
    for load in (Folder().load, Mnist().load, detect):
        error = refused("E-DATA", lambda load=load: load(root), root=tmp_path, status=2)
        assert PAYLOADS[payload] not in str(error)


def test_markup_is_a_name_like_any_other(images):
    names = ("<script>alert(1)<!--", "=cmd|' !A1", "[red]x[!red]", "{{7*7}}", "a..b", "%s%n")
    for i, name in enumerate(names):
        make.image_folder(images / f"tmp{i}", classes=(name,))
        (images / f"tmp{i}" / name).rename(images / name)
        (images / f"tmp{i}").rmdir()
    assert set(Folder(size=8).load(images).classes) == {"cat", "dog", *names}


def test_long_text_is_cut():
    assert len(show("x" * 10_000)) < 200
    assert show("a\x00b") == "a\\x00b"


# --- paths ---------------------------------------------------------------------------------------------------------------


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


# --- random damage -------------------------------------------------------------------------------------------------------


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


def test_mutated_idx(tmp_path):
    whole = make.idx_bytes(np.arange(60).reshape(5, 4, 3))
    path = tmp_path / "m"
    accepted = 0
    for data in _mutations(whole, COUNT, 1):
        path.write_bytes(data)
        try:
            x = read_idx(path, rank=3)
        except RefusedError:
            continue
        accepted += 1
        assert x.size == len(data) - 16
        assert x.tobytes() == data[16:]
    assert 0 < accepted < COUNT


def test_mutated_gz_is_never_accepted_changed(tmp_path):
    array = np.arange(240).reshape(5, 8, 6)
    whole = gzip.compress(make.idx_bytes(array), mtime=0)
    path = tmp_path / "m.gz"
    for data in _mutations(whole, COUNT, 2):
        path.write_bytes(data)
        try:
            x = read_idx(path, rank=3)
        except RefusedError:
            continue
        np.testing.assert_array_equal(x, array)


def test_mutated_npz_is_never_accepted_changed(tmp_path):
    a, b = np.arange(90, dtype=np.uint8).reshape(3, 30), np.arange(40, dtype=np.uint16)
    path = make.npz(tmp_path / "m.npz", {"a.npy": make.npy_bytes(a), "b.npy": make.npy_bytes(b)}, zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    for data in _mutations(whole, COUNT, 3):
        path.write_bytes(data)
        try:
            found = read_npz(path, {"a": ("|u1", 2), "b": ("<u2", 1)})
        except RefusedError:
            continue
        np.testing.assert_array_equal(found["a"], a)
        np.testing.assert_array_equal(found["b"], b)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "PPM"])
def test_mutated_image_is_refused_or_whole(form, tmp_path):
    whole = _encoded(form, image=make.picture(size=(20, 16)))
    path = tmp_path / "m"
    for data in _mutations(whole, COUNT // 2, 4):
        path.write_bytes(data)
        try:
            pixels = _images.decode(path, 8)
        except RefusedError:
            continue
        assert pixels.shape == (8, 8, 3)
        assert pixels.dtype == np.uint8


def test_limits_are_what_they_should_be():
    assert Image.MAX_IMAGE_PIXELS == _images.MAX_PIXELS
    assert _npz.LIMIT <= 256 << 20
