"""Hostile archives: npz members, npz structure, GTSRB's table, CIFAR-10 batches and archives. Each case is refused in one line."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile

import data_makers as make
import numpy as np
import pytest
from hostile import Canary, nowhere, refused

from badnets.datasets import cifar10
from badnets.datasets._detect import detect
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.gtsrb import Gtsrb


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    nowhere(tmp_path, monkeypatch)


def test_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary"))).close()  # noqa: S301
    assert (tmp_path / "canary").exists()


# --- npz (the reader of gtsrb) ------------------------------------------------------------------------------------------


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
    "class-43": (lambda t: t.replace("13;0\r", "13;43\r", 1), "E-LABEL"),
    "class-negative": (lambda t: t.replace("13;0\r", "13;-1\r", 1), "E-LABEL"),
    "class-text": (lambda t: t.replace("13;0\r", "13;stop\r", 1), "E-LABEL"),
    "class-huge": (lambda t: t.replace("13;0\r", "13;" + "9" * 5000 + "\r", 1), "E-LABEL"),
    "class-in-other-digits": (lambda t: t.replace("13;0\r", "13;\xb2\r", 1), "E-LABEL"),
    "box-outside": (lambda t: t.replace("5;4;15;13", "5;4;25;13", 1), "E-BOX"),
    "box-empty": (lambda t: t.replace("5;4;15;13", "15;4;5;13", 1), "E-BOX"),
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
    monkeypatch.setattr("badnets.datasets.gtsrb.Decoder.decode", _no_pixels)
    try:
        refused(code, lambda: Gtsrb().load(official), root=official)
    finally:
        table.write_bytes(whole)


def _no_pixels(_, path, size):
    """Reads the file, decodes nothing: these cases are about the table."""
    from badnets.datasets._open import read_bounded

    read_bounded(path, 1 << 20)
    return np.zeros((size, size, 3), np.uint8)


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------------

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
