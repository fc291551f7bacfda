"""Hostile image folders: damaged images, odd files, odd folders, names made to fool a terminal. Each case is refused in one line."""

from __future__ import annotations

import os
import pickle
import struct
import zlib

import data_makers as make
import pytest
from hostile import MEMORY, nowhere, refused
from PIL import PngImagePlugin

from badnets.core.errors import RefusedError, UsageError
from badnets.datasets._detect import detect
from badnets.datasets._open import show
from badnets.datasets.folder import Folder
from badnets.datasets.mnist import Mnist


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    nowhere(tmp_path, monkeypatch)


# --- image folders ------------------------------------------------------------------------------------------------------


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width, height, data=b"", *, depth=8, colour=2, extra=b""):
    head = _chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _frames(form):
    first, second = make.picture(1), make.picture(2)
    return make.encoded(form, image=first, save_all=True, append_images=[second], **({"lossless": True} if form == "WEBP" else {}))


def _png_text_bomb():
    info = PngImagePlugin.PngInfo()
    for i in range(70):
        info.add_text(f"k{i}", "x" * (1 << 20), zip=True)
    return make.encoded("PNG", pnginfo=info)


IMAGES = {
    "empty": (lambda: b"", "E-IMAGE"),
    "one-byte": (lambda: b"x", "E-IMAGE"),
    "text": (lambda: b"hello", "E-IMAGE"),
    "html": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "E-IMAGE"),
    "python": (lambda: b"import os", "E-IMAGE"),
    "pickle": (lambda: pickle.dumps([1]), "E-IMAGE"),
    "gif": (lambda: make.encoded("GIF"), "E-IMAGE"),
    "tiff": (lambda: make.encoded("TIFF"), "E-IMAGE"),
    "ico": (lambda: make.encoded("ICO"), "E-IMAGE"),
    "pdf": (lambda: make.encoded("PDF"), "E-IMAGE"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "E-IMAGE"),
    "png-signature-only": (lambda: b"\x89PNG\r\n\x1a\n", "E-IMAGE"),
    "png-no-data": (lambda: _png(8, 8), "E-IMAGE"),
    "png-zero-width": (lambda: _png(0, 8, zlib.compress(b"")), "E-IMAGE"),
    "png-bomb-dimensions": (lambda: _png(1 << 20, 1 << 20, zlib.compress(bytes(100))), "E-IMAGE"),
    "png-just-over-the-mark": (lambda: _png(9460, 9460, zlib.compress(bytes(100))), "E-IMAGE"),
    "png-dimensions-max": (lambda: _png(0x7FFFFFFF, 0x7FFFFFFF), "E-IMAGE"),
    "png-truncated-half": (lambda: make.encoded("PNG")[:200], "E-IMAGE"),
    "png-truncated-tail": (lambda: make.encoded("PNG", image=make.picture(size=(64, 64)))[:-200], "E-IMAGE"),
    "png-bad-checksum": (lambda: make.encoded("PNG").replace(b"IHDR", b"IHDR", 1)[:29] + b"\0\0\0\0" + make.encoded("PNG")[33:], "E-IMAGE"),
    "png-bad-deflate": (lambda: _png(8, 8, b"\xff" * 50), "E-IMAGE"),
    "png-short-data": (lambda: _png(64, 64, zlib.compress(bytes(64))), "E-IMAGE"),
    "png-depth-3": (lambda: _png(8, 8, zlib.compress(bytes(200)), depth=3), "E-IMAGE"),
    "png-palette-without-palette": (lambda: _png(8, 8, zlib.compress(bytes(8)), colour=3), "E-IMAGE"),
    "png-text-bomb": (_png_text_bomb, "E-IMAGE"),
    "png-animated": (lambda: _frames("PNG"), "E-IMAGE"),
    "jpeg-truncated": (lambda: make.encoded("JPEG", image=make.picture(size=(64, 64)))[:700], "E-IMAGE"),
    "jpeg-header-only": (lambda: make.encoded("JPEG")[:20], "E-IMAGE"),
    "jpeg-soi-only": (lambda: b"\xff\xd8\xff", "E-IMAGE"),
    "jpeg-no-scan": (lambda: b"\xff\xd8" + make.encoded("JPEG")[2:20] + b"\xff\xd9", "E-IMAGE"),
    "webp-truncated": (lambda: make.encoded("WEBP", lossless=True)[:60], "E-IMAGE"),
    "webp-header-only": (lambda: b"RIFF\x24\0\0\0WEBPVP8L", "E-IMAGE"),
    "webp-animated": (lambda: _frames("WEBP"), "E-IMAGE"),
    "bmp-truncated": (lambda: make.encoded("BMP")[:100], "E-IMAGE"),
    "bmp-header-only": (lambda: make.encoded("BMP")[:14], "E-IMAGE"),
    "bmp-huge": (lambda: make.encoded("BMP")[:18] + struct.pack("<2i", 1 << 24, 1 << 24) + make.encoded("BMP")[26:], "E-IMAGE"),
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
    monkeypatch.setattr("badnets.datasets.folder.Decoder.decode", lambda *_: pytest.fail("decoded"))
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


# --- untrusted text -----------------------------------------------------------------------------------------------------

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
