"""Data sets: where they are looked for, CIFAR-10 and GTSRB in their layouts, telling what a folder holds, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import data_makers as make
import numpy as np
import pytest

from badnets.cli import data as cli
from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.datasets import _detect, _idx_set, _places, cifar10
from badnets.datasets._detect import detect
from badnets.datasets._located import LocatedDataset
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.digits import Digits
from badnets.datasets.fashion_mnist import FashionMnist
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist

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


# --- where it is looked for ---------------------------------------------------------------------------------------------


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
    path = make.small_set(name, tmp_path)
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


# --- CIFAR-10 and GTSRB -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("layout", [make.gtsrb_npz, make.gtsrb_official])
def test_gtsrb_quads_are_the_regions_of_interest_in_our_pixels(layout, tmp_path, unpinned):
    layout(tmp_path)
    data = Gtsrb().load(tmp_path)
    width, height, left, top, right, bottom = make.BOX
    x0, y0, x1, y1 = (32 * at / of for at, of in ((left, width), (top, height), (right, width), (bottom, height)))
    for split in (data.train, data.test):
        assert split.quad_N42.dtype == np.float32
        assert split.quad_N42.shape == (len(split), 4, 2)
        np.testing.assert_allclose(split.quad_N42, np.broadcast_to([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], (len(split), 4, 2)), rtol=1e-6)


def test_gtsrb_boxes_count_in_the_hash(tmp_path, unpinned):
    digests = set()
    for place, shift in (("a", 0), ("b", 1)):
        arrays = make.gtsrb_arrays()
        arrays["whroi_test"][7, 2] += shift
        make.gtsrb_npz(tmp_path / place, **arrays)
        digests.add(Gtsrb().load(tmp_path / place).sha256)
    assert len(digests) == 2


def test_gtsrb_official_folders_carry_no_pinned_hash(tmp_path, clean):
    make.gtsrb_official(tmp_path)
    assert Gtsrb().load(tmp_path).sha256 != Gtsrb.content


# --- which data set is it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "folder"])
def test_detect(name, tmp_path, clean):
    assert detect(make.small_set(name, tmp_path)) == name


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


# --- commands -----------------------------------------------------------------------------------------------------------


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
