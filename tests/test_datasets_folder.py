"""The user's own images: every mode and format, what makes a class, what a folder's identity is."""

from __future__ import annotations

import data_makers as make
import numpy as np
import pytest
from PIL import Image

from badnets.core.errors import UsageError
from badnets.datasets._images import decode
from badnets.datasets.folder import Folder


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A machine without data sets."""
    return make.clean_machine(tmp_path, monkeypatch)


def _splits(data):
    return {"train": data.train, "validation": data.validation, "test": data.test, "budget": data.budget}


# --- the user's own images ----------------------------------------------------------------------------------------------


def _one(tmp_path, image, name="x.png", size=8, **kwargs):
    image.save(tmp_path / name, **kwargs)
    return decode((tmp_path / name).read_bytes(), size)


def _flat(mode, value, size=(8, 8)):
    return Image.new(mode, size, value)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (_flat("1", 1), "x.png", (255, 255, 255)),
        (_flat("L", 77), "x.png", (77, 77, 77)),
        (_flat("LA", (77, 255)), "x.png", (77, 77, 77)),
        (_flat("LA", (77, 0)), "x.png", (255, 255, 255)),
        (_flat("RGB", (10, 20, 30)), "x.bmp", (10, 20, 30)),
        (_flat("RGB", (10, 20, 30)), "x.ppm", (10, 20, 30)),
        (_flat("L", 9), "x.pgm", (9, 9, 9)),
        (_flat("RGBA", (10, 20, 30, 255)), "x.png", (10, 20, 30)),
        (_flat("RGBA", (10, 20, 30, 0)), "x.png", (255, 255, 255)),
        (_flat("RGBA", (0, 0, 0, 128)), "x.png", (127, 127, 127)),
        (_flat("I;16", 65_535), "x.png", (255, 255, 255)),
        (_flat("I;16", 257 * 77), "x.png", (77, 77, 77)),
        (_flat("I;16", 300), "x.png", (1, 1, 1)),
        (_flat("CMYK", (0, 0, 0, 0)), "x.jpg", (255, 255, 255)),
        (_flat("RGB", (0, 0, 0), (1, 1)), "x.png", (0, 0, 0)),
        (_flat("RGB", (9, 8, 7), (3, 900)), "x.png", (9, 8, 7)),
    ],
)
def test_decoding_of_modes(image, name, expected, tmp_path):
    pixels = _one(tmp_path, image, name)
    assert pixels.shape == (8, 8, 3)
    assert {tuple(int(v) for v in pixel) for pixel in pixels.reshape(-1, 3)} == {expected}


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert (_one(tmp_path, image) == (40, 50, 60)).all()
    assert (_one(tmp_path, image, transparency=1) == 255).all()


def test_sixteen_bit_pgm():
    assert (decode(b"P5 8 8 65535\n" + (257 * 77).to_bytes(2, "big") * 64, 8) == 77).all()


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, 7)), (3, (7, 7)), (4, (7, 0)), (5, (0, 0)), (6, (0, 7)), (7, (7, 7)), (8, (7, 0))]
)
def test_exif_orientation(orientation, corner, tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = _one(tmp_path, Image.fromarray(pixels), exif=exif)
    assert shown[corner].min() == 255
    assert shown.sum() == 3 * 255


def test_webp_and_jpeg_keep_the_picture(tmp_path):
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, 0).repeat(3, 2)
    expected = _one(tmp_path, Image.fromarray(ramp))
    for name, options in (("x.webp", {"lossless": True}), ("x.jpg", {"quality": 95})):
        close = _one(tmp_path, Image.fromarray(ramp), name, **options)
        assert np.abs(close.astype(int) - expected).max() <= 4


def test_large_jpeg_is_drafted_yet_alike(tmp_path):
    ramp = np.linspace(0, 255, 2000).astype(np.uint8)[None, :, None].repeat(1500, 0).repeat(3, 2)
    a, b = _one(tmp_path, Image.fromarray(ramp), "x.jpg", quality=95), _one(tmp_path, Image.fromarray(ramp))
    assert np.abs(a.astype(int) - b).max() <= 6


def test_grey_folder_has_one_channel_and_colour_three(tmp_path):
    grey = make.image_folder(tmp_path / "grey", mode="L")
    assert Folder().load(grey).shape == (1, 32, 32)
    assert Folder(size=20).load(grey).shape == (1, 20, 20)
    make.picture().save(grey / "dog" / "colour.png")
    assert Folder().load(grey).shape == (3, 32, 32)


def test_folder_identity_is_the_pixels(tmp_path):
    a, b = make.image_folder(tmp_path / "a"), make.image_folder(tmp_path / "b", suffix="bmp")
    assert Folder().load(a).sha256 == Folder().load(b).sha256
    make.picture(5).save(a / "cat" / "003.png")
    assert Folder().load(a).sha256 != Folder().load(b).sha256


def test_folder_classes_are_names_in_order(tmp_path):
    root = make.image_folder(tmp_path / "x", classes=("10", "9", "2"))
    assert Folder().load(root).classes == ("2", "9", "10")
    root = make.image_folder(tmp_path / "y", classes=("Zebra", "ant", "Äffchen", "10"))
    assert Folder().load(root).classes == ("10", "Zebra", "ant", "Äffchen")


def test_folder_passes_over_hidden_files(tmp_path):
    root = make.image_folder(tmp_path / "x")
    before = Folder().load(root).sha256
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "README.txt").write_text("about")
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"junk")
    assert Folder().load(root).sha256 == before


def test_folder_follows_links_to_images(tmp_path):
    root = make.image_folder(tmp_path / "x")
    (root / "cat" / "link.png").symlink_to(tmp_path / "far.png")
    make.picture(77).save(tmp_path / "far.png")
    assert sum(len(split) for split in _splits(Folder().load(root)).values()) == 21


def test_folder_from_the_environment(tmp_path, clean):
    root = make.image_folder(tmp_path / "x")
    clean.setenv("BADNETS_DATA", str(root))
    assert Folder().load().num_classes == 2
    clean.setenv("BADNETS_DATA", f"{root}:{root}")
    with pytest.raises(UsageError, match="one folder"):
        Folder().load()


def test_folder_shrinks_large_images_and_enlarges_small_ones(tmp_path):
    for i, size in enumerate(((300, 200), (3, 2))):
        root = make.image_folder(tmp_path / str(i), size=size)
        assert Folder().load(root).shape == (3, 32, 32)
