"""Data sets: identity, splits, what every entry keeps to, and the sets that need no download."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import data_makers as make
import numpy as np
import pytest

from badnets.cli import data as cli
from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.datasets import _detect
from badnets.datasets._base import content_hash
from badnets.datasets._packed import pack, unpack
from badnets.datasets._split import official_rows, single_rows
from badnets.datasets.digits import Digits
from badnets.datasets.fashion_mini import FashionMini
from badnets.datasets.fashion_mnist import FashionMnist

NAMES = registry.names("datasets")
SYSTEM = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A machine without data sets."""
    return make.clean_machine(tmp_path, monkeypatch)


@pytest.fixture
def unpinned(clean):
    """Small made-up data sets are accepted."""
    return make.unpin(clean)


@pytest.fixture(scope="module")
def mini():
    return FashionMini().load()


def _splits(data):
    return {"train": data.train, "validation": data.validation, "test": data.test, "budget": data.budget}


# --- identity -----------------------------------------------------------------------------------------------------------


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


# --- splits -------------------------------------------------------------------------------------------------------------


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


# --- every entry --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, tmp_path, unpinned):
    dataset = registry.entry("datasets", name)()
    data = dataset.load(make.small_set(name, tmp_path), download=False)
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
    path = make.small_set(name, tmp_path)
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


# --- the sets that need no download -------------------------------------------------------------------------------------


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
