"""Data sets: identity, splits, each entry's contract, the images of a user, telling a folder's data set, the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from PIL import Image

from badnets.cli import data as cli
from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.datasets import _detect, _idx_set, _places, cifar10
from badnets.datasets._base import content_hash
from badnets.datasets._detect import detect
from badnets.datasets._images import decode
from badnets.datasets._located import LocatedDataset
from badnets.datasets._packed import pack, unpack
from badnets.datasets._split import official_rows, single_rows
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.digits import Digits
from badnets.datasets.fashion_mini import FashionMini
from badnets.datasets.fashion_mnist import FashionMnist
from badnets.datasets.folder import Folder
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist

NAMES = registry.names("datasets")
SYSTEM = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A machine without data sets."""
    monkeypatch.delenv("BADNETS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_places, "SYSTEM", tmp_path / "system")
    return monkeypatch


@pytest.fixture
def unpinned(clean):
    """Small made-up data sets are accepted."""
    for dataset in (Mnist, FashionMnist, Gtsrb, Cifar10):
        clean.setattr(dataset, "content", None)
    clean.setattr(cifar10, "_ROWS", 20)
    return clean


@pytest.fixture(scope="module")
def mini():
    return FashionMini().load()


def _splits(data):
    return {"train": data.train, "validation": data.validation, "test": data.test, "budget": data.budget}


# --- identity ------------------------------------------------------------------------------------------------------------


def _parts():
    return [make.rng(1).integers(0, 256, (4, 1, 2, 2), dtype=np.uint8), np.arange(4), np.zeros((2, 1, 2, 2), np.uint8), np.arange(2)]


def test_hash_is_stable_and_depends_on_values_only():
    parts = _parts()
    assert content_hash(*parts) == content_hash(*(np.asfortranarray(part) for part in parts))
    assert content_hash(*parts) == content_hash(parts[0], parts[1].astype(np.uint8), parts[2], parts[3].astype(">i4"))


@pytest.mark.parametrize("change", ["pixel", "label", "order", "part", "shape"])
def test_hash_notices(change):
    parts = _parts()
    before = content_hash(*parts)
    if change == "pixel":
        parts[0][3, 0, 1, 1] ^= 1
    elif change == "label":
        parts[1][0] = 1
    elif change == "order":
        parts[0], parts[1] = parts[0][::-1], parts[1][::-1]
    elif change == "part":
        parts = [*parts[2:], *parts[:2]]
    else:
        parts[0] = parts[0].reshape(4, 1, 4, 1)
    assert content_hash(*parts) != before


def test_hash_by_hand():
    import hashlib

    x, y = np.array([[[[7]]]], np.uint8), np.array([3])
    empty = np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int64)
    text = b"x_train 1 1 1 1\n\x07y_train 1\n\x03" + bytes(7) + b"x_test 0 1 1 1\ny_test 0\n"
    assert content_hash(x, y, *empty) == hashlib.sha256(text).hexdigest()


# --- splits --------------------------------------------------------------------------------------------------------------


def test_official_split_shares():
    y_train, y_test = np.arange(1000) % 10, np.arange(500) % 10
    rows = official_rows("any", y_train, y_test)
    assert [len(part) for part in rows] == [900, 100, 400, 100]
    everything = np.concatenate(rows)
    np.testing.assert_array_equal(np.sort(everything), np.arange(1500))
    for part in (rows.train, rows.budget):
        assert (part < 1000).all()
        assert len(set(np.bincount(y_train[part]))) == 1
    for part in (rows.validation, rows.test):
        assert len(set(np.bincount(y_test[part - 1000]))) == 1


def test_split_depends_on_the_name_only():
    y = np.arange(400) % 10
    first, again, other = official_rows("a", y, y), official_rows("a", y, y), official_rows("b", y, y)
    np.testing.assert_array_equal(first.budget, again.budget)
    assert not np.array_equal(first.budget, other.budget)


def test_split_keeps_groups_together_and_leaves_out():
    y = np.repeat(np.arange(4), 60)
    groups = np.arange(240) // 6
    rows = official_rows("a", y, y, groups=groups, left_out=np.arange(6))
    assert not set(groups[rows.train]) & set(groups[rows.budget])
    assert set(np.concatenate([rows.train, rows.budget])) == set(range(6, 240))
    assert set(y[rows.budget]) == {0, 1, 2, 3}


def test_single_split_has_every_class_everywhere():
    y = np.repeat(np.arange(3), (10, 40, 200))
    rows = single_rows("a", y, ("a", "b", "c"))
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(250))
    for part in rows:
        assert set(y[part]) == {0, 1, 2}
    assert 0.6 < len(rows.train) / 250 < 0.75


def test_copies_of_an_image_stay_in_one_split_even_across_classes():
    y = np.repeat(np.arange(2), 40)
    groups = np.tile(np.arange(40), 2)
    rows = single_rows("a", y, ("a", "b"), groups=groups)
    parts = [set(groups[part]) for part in rows]
    assert sum(map(len, parts)) == 40


# --- every entry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_entry_says_what_it_is_before_it_is_loaded(name, clean):
    dataset = registry.entry("datasets", name)()
    assert dataset.kind == name
    assert registry.describe("datasets", name)
    assert dataset.content is None or len(dataset.content) == 64
    assert name == "folder" or dataset.licence
    doc = sys.modules[type(dataset).__module__].__doc__
    assert "Does not apply" in doc
    assert name == "folder" or "http" in doc


@pytest.mark.parametrize("name", NAMES)
def test_entry_survives_json(name):
    dataset = registry.entry("datasets", name)()
    assert registry.parse("datasets", json.loads(dataset.model_dump_json())) == dataset


@pytest.mark.parametrize("dataset", [d for d in _detect.located() if d.origin is not None], ids=lambda d: d.kind)
def test_official_address_is_https_with_size_and_hash(dataset):
    assert dataset.origin.base_url.startswith("https://")
    assert dataset.origin.base_url.endswith("/")
    for remote in dataset.origin.files:
        assert len(remote.sha256) == 64
        assert remote.size > 1000


def _any(name, tmp_path):
    """A small whole copy of each data set."""
    makers = {
        "mnist": make.idx_set,
        "fashion_mnist": make.idx_set,
        "cifar10": make.cifar_set,
        "gtsrb": make.gtsrb_npz,
        "folder": make.image_folder,
    }
    if name not in makers:
        return None
    makers[name](tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, tmp_path, unpinned):
    dataset = registry.entry("datasets", name)()
    data = dataset.load(_any(name, tmp_path), download=False)
    assert data.name == name
    assert data.source
    assert data.licence == dataset.licence
    assert len(data.classes) == data.num_classes == len(set(data.classes)) >= 2
    seen = np.concatenate([split.rows for split in _splits(data).values()])
    assert len(np.unique(seen)) == len(seen)
    for split in _splits(data).values():
        assert split.x_NCHW.dtype == np.uint8
        assert split.x_NCHW.shape == (len(split), *data.shape)
        assert split.y_N.dtype == np.int64
        assert split.rows.dtype == np.int64
        assert set(split.y_N) == set(range(data.num_classes))
        assert (np.diff(split.rows) > 0).all()
        assert split.x_NCHW.flags.writeable
        assert split.x_NCHW.flags.c_contiguous


@pytest.mark.parametrize("name", NAMES)
def test_loading_twice_gives_the_same_bits(name, tmp_path, unpinned):
    path = _any(name, tmp_path)
    first, second = (registry.entry("datasets", name)().load(path, download=False) for _ in range(2))
    assert first.sha256 == second.sha256
    for a, b in zip(_splits(first).values(), _splits(second).values(), strict=True):
        np.testing.assert_array_equal(a.x_NCHW, b.x_NCHW)
        np.testing.assert_array_equal(a.rows, b.rows)


def test_datasets_import_no_torch_and_no_sklearn():
    code = "import sys; from badnets.datasets import _detect; import badnets.cli.data; _detect.located()"
    code += "; print([m for m in ('torch', 'sklearn', 'scipy', 'pooch', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the sets that need no download --------------------------------------------------------------------------------------


def test_fashion_mini(mini):
    assert mini.shape == (1, 28, 28)
    assert mini.sha256 == FashionMini.content
    assert mini.classes[0] == "T-shirt/top"
    assert [len(split) for split in _splits(mini).values()] == [9000, 1000, 4000, 1000]
    assert all(len(set(np.bincount(split.y_N))) == 1 for split in _splits(mini).values())
    assert (Path(cli.__file__).parent.parent / "datasets/_data/fashion_mini.xz").stat().st_size < 6_000_000


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mini_is_part_of_the_original(mini, monkeypatch, tmp_path):
    monkeypatch.delenv("BADNETS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = FashionMnist().load(download=False)
    assert whole.source == str(SYSTEM)
    assert whole.sha256 == FashionMnist.content
    known = {
        (image.tobytes(), int(label)) for split in _splits(whole).values() for image, label in zip(split.x_NCHW, split.y_N, strict=True)
    }
    assert all((image.tobytes(), int(label)) in known for image, label in zip(mini.test.x_NCHW, mini.test.y_N, strict=True))


def test_fashion_mini_is_read_from_no_folder(tmp_path):
    with pytest.raises(UsageError, match="E-DATA"):
        FashionMini().load(tmp_path)
    with pytest.raises(UsageError, match="E-DATA"):
        Digits().load(tmp_path)


def test_damaged_package_says_install_again(monkeypatch, tmp_path):
    path = tmp_path / "fashion_mini.xz"
    monkeypatch.setattr("badnets.datasets.fashion_mini._FILE", path)
    for content in (None, b"", b"\0" * 500):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RefusedError, match=r"Install badnets again"):
            FashionMini().load()


@pytest.mark.parametrize("count", [1, 2, 37])
def test_packing_is_lossless(count):
    draw = make.rng(count)
    x = draw.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
    x[: count // 2] = np.clip(np.cumsum(draw.integers(-3, 4, (count // 2, 1, 28, 28)), axis=-1), 0, 255).astype(np.uint8)
    y = draw.integers(0, 256, count)
    x_back, y_back = unpack(pack(x, y))
    np.testing.assert_array_equal(x_back, x)
    np.testing.assert_array_equal(y_back, y)


def test_digits():
    data = Digits().load()
    assert data.shape == (1, 8, 8)
    assert sum(len(split) for split in _splits(data).values()) == 1797
    assert data.train.x_NCHW.max() == 255
    assert data.sha256 == Digits.content


# --- where it is looked for ----------------------------------------------------------------------------------------------


def test_lookup_order(tmp_path, unpinned):
    asked, env, system = tmp_path / "asked", tmp_path / "env", tmp_path / "system"
    for folder, seed in ((asked, 1), (env, 2), (system / "mnist", 3)):
        make.idx_set(folder, seed=seed)
    (tmp_path / "empty").mkdir()
    assert Mnist().load(download=False).source == str(system / "mnist")
    unpinned.setenv("BADNETS_DATA", f"{tmp_path / 'empty'}:{env}")
    assert Mnist().load(download=False).source == str(env)
    assert Mnist().load(asked).source == str(asked)
    with pytest.raises(UsageError, match="not found"):
        Mnist().load(tmp_path / "empty")


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_layouts(below, gz, tmp_path, unpinned):
    make.idx_set(tmp_path / "d" / below, gz=gz)
    assert Mnist().load(tmp_path / "d").shape == (1, 8, 8)


def test_idx_with_dots(tmp_path, unpinned):
    make.idx_set(tmp_path)
    for stem in make.IDX:
        (tmp_path / stem).rename(tmp_path / stem.replace("-idx", ".idx"))
    assert Mnist().where(tmp_path) == str(tmp_path)
    assert len(Mnist().load(tmp_path).train) == 90


def test_a_folder_may_have_the_separator_in_its_name(tmp_path, unpinned):
    make.idx_set(tmp_path / "a:b")
    assert Mnist().load(tmp_path / "a:b").source.endswith("a:b")


def test_other_set_under_the_same_names(tmp_path, unpinned, monkeypatch):
    mine, other = make.idx_set(tmp_path / "x", test=50), make.idx_set(tmp_path / "y", test=60)
    known = {_labels_hash(mine): "mnist", _labels_hash(other): "fashion_mnist"}
    monkeypatch.setattr(_idx_set, "TEST_LABELS", known)
    with pytest.raises(UsageError, match=r"expected mnist .* got fashion_mnist"):
        Mnist().load(other)
    monkeypatch.setenv("BADNETS_DATA", f"{mine}:{other}")
    assert Mnist().load().source == str(mine)
    assert FashionMnist().load().source == str(other)
    assert (detect(mine), detect(other)) == ("mnist", "fashion_mnist")


def _labels_hash(folder):
    import hashlib

    return hashlib.sha256((folder / make.IDX[3]).read_bytes()[8:]).hexdigest()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "gtsrb"])
def test_wrong_content_is_refused_and_left_alone(name, tmp_path, clean):
    clean.setattr(cifar10, "_ROWS", 20)
    path = _any(name, tmp_path)
    before = {p: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(RefusedError, match=r"E-HASH .*left as they are"):
        registry.entry("datasets", name)().load(path)
    assert {p: p.read_bytes() for p in path.iterdir()} == before


def test_not_found_says_where_it_looked_and_what_to_do(clean, tmp_path):
    with pytest.raises(UsageError, match=r"not found in .*system/mnist.*badnets data fetch mnist"):
        Mnist().load(download=False)
    with pytest.raises(UsageError, match=r"gtsrb32\.npz.*not downloaded for you"):
        Gtsrb().load()


def test_without_a_home(clean, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    assert _places.cache_dir() is None
    with pytest.raises(UsageError, match="not found"):
        Mnist().load(download=False)


@pytest.mark.parametrize("cache", ["relative/path", ""])
def test_bad_cache_variable_is_ignored(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _places.cache_dir() == tmp_path / ".cache" / "badnets"


# --- CIFAR-10 and GTSRB --------------------------------------------------------------------------------------------------


def test_cifar_pixels_and_labels(tmp_path, unpinned):
    make.cifar_set(tmp_path)
    data = Cifar10().load(tmp_path)
    rows = np.frombuffer((tmp_path / "data_batch_2.bin").read_bytes(), np.uint8).reshape(20, 3073)
    train = {int(row): (x, y) for row, x, y in zip(data.train.rows, data.train.x_NCHW, data.train.y_N, strict=True)}
    row = next(row for row in sorted(train) if 20 <= row < 40)
    np.testing.assert_array_equal(train[row][0].ravel(), rows[row - 20, 1:])
    assert train[row][1] == rows[row - 20, 0]


def test_cifar_official_archive(tmp_path, unpinned, monkeypatch):
    import hashlib
    import io
    import tarfile

    make.cifar_set(tmp_path / "plain")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(tmp_path / "plain", "cifar-10-batches-bin")
    content = buffer.getvalue()
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    monkeypatch.setattr(cifar10, "_ARCHIVE", cifar10.Remote("cifar-10-binary.tar.gz", len(content), hashlib.sha256(content).hexdigest()))
    assert Cifar10().load(tmp_path).sha256 == Cifar10().load(tmp_path / "plain").sha256


def test_binary_version_beside_the_pickles_is_used(tmp_path, unpinned):
    (tmp_path / "cifar-10-batches-py").mkdir()
    make.cifar_set(tmp_path / "cifar-10-batches-bin")
    assert Cifar10().load(tmp_path).source.endswith("batches-bin")
    assert detect(tmp_path) == "cifar10"


def test_gtsrb_tracks_stay_together_and_the_leaked_one_is_out(tmp_path, unpinned):
    arrays = make.gtsrb_arrays(tracks=25, frames=1)
    make.gtsrb_npz(tmp_path, **arrays)
    data = Gtsrb().load(tmp_path)
    track = {(int(arrays["y_train"][row]), int(arrays["track_train"][row])) for row in data.train.rows}
    budget = {(int(arrays["y_train"][row]), int(arrays["track_train"][row])) for row in data.budget.rows}
    assert not track & budget
    assert (14, 23) not in track | budget
    assert (14, 22) in track | budget
    assert len(data.train) + len(data.budget) == 43 * 25 - 1


def test_gtsrb_official_folders(tmp_path, unpinned):
    make.gtsrb_official(tmp_path / "GTSRB", frames=8)
    data = Gtsrb().load(tmp_path)
    assert data.shape == (3, 32, 32)
    assert "official folders" in data.source
    assert detect(tmp_path) == "gtsrb"


def test_gtsrb_official_folders_carry_no_pinned_hash(tmp_path, clean):
    make.gtsrb_official(tmp_path)
    assert Gtsrb().load(tmp_path).sha256 != Gtsrb.content


# --- the user's own images -----------------------------------------------------------------------------------------------


def _one(tmp_path, image, name="x.png", size=8, **kwargs):
    image.save(tmp_path / name, **kwargs)
    return decode(tmp_path / name, size)


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


def test_sixteen_bit_pgm(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 8 8 65535\n" + (257 * 77).to_bytes(2, "big") * 64)
    assert (decode(tmp_path / "x.pgm", 8) == 77).all()


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


# --- which data set is it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "folder"])
def test_detect(name, tmp_path, clean):
    assert detect(_any(name, tmp_path)) == name


def test_detect_unknown_idx(tmp_path, clean):
    with pytest.raises(RefusedError, match="neither mnist nor fashion_mnist"):
        detect(make.idx_set(tmp_path))


def test_detect_nothing(tmp_path, clean):
    with pytest.raises(UsageError, match="no data set"):
        detect(tmp_path)


def test_detect_two(tmp_path, clean):
    make.gtsrb_npz(tmp_path)
    make.cifar_set(tmp_path)
    with pytest.raises(UsageError, match="cifar10 and gtsrb"):
        detect(tmp_path)


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_detect_the_real_one(clean):
    assert detect(SYSTEM) == "fashion_mnist"


# --- commands ------------------------------------------------------------------------------------------------------------


def test_list(clean, capsys):
    cli.list_()
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)
    cli.list_(json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert set(rows) == set(NAMES)
    assert rows["mnist"]["where"] is None
    assert rows["mnist"]["get"] == "badnets data fetch mnist"
    assert rows["fashion_mini"]["where"] == "embedded"


def test_list_shows_damage_instead_of_failing(tmp_path, clean, capsys):
    root = make.idx_set(tmp_path / "\x1b[2J")
    (root / make.IDX[3]).write_bytes(b"junk")
    clean.setenv("BADNETS_DATA", str(root))
    cli.list_()
    text = capsys.readouterr().out
    assert "damaged (E-MAGIC)" in text
    assert "\x1b" not in text


def test_verify(tmp_path, clean, capsys):
    cli.verify(json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert set(rows) == {"digits", "fashion_mini"}
    assert all(row["ok"] for row in rows.values())
    make.gtsrb_npz(tmp_path)
    clean.setenv("BADNETS_DATA", str(tmp_path))
    with pytest.raises(RefusedError, match=r"E-HASH 1 of 3 .*gtsrb") as caught:
        cli.verify()
    assert caught.value.exit_status == 3
    assert "BAD" in capsys.readouterr().out


def test_fetch_of_what_is_here(clean, capsys):
    cli.fetch("digits")
    assert f"digits is verified: scikit-learn, SHA-256 {Digits.content}" in capsys.readouterr().out


def test_fetch_of_unknown_name_offers_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'mnist'"):
        cli.fetch("minst")


def test_fetch_by_hand_only(clean):
    with pytest.raises(UsageError, match="not downloaded for you"):
        cli.fetch("gtsrb")


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["fetch", "digits"], ["verify", "--json"]])
def test_commands_parse(words, clean, capsys):
    cli.app(words, result_action="return_value")
    assert capsys.readouterr().out


def test_located_entries_are_those_with_files():
    assert [d.kind for d in _detect.located()] == ["cifar10", "fashion_mnist", "gtsrb", "mnist"]
    assert all(isinstance(d, LocatedDataset) for d in _detect.located())
