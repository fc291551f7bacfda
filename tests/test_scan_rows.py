"""`badnets scan` of training data: poison is found and named, clean data are left alone, nothing is lost on the way to the CSV."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import tiny

from badnets import BadNets, Patch
from badnets.core import files
from badnets.core.png import png_bytes
from badnets.core.sheet import cell
from badnets.datasets._base import Split
from badnets.datasets.folder import Folder
from badnets.plans import _scan_rows
from badnets.plans._scan_rows import _all_rows, _group, _of_another_class, _suspects, scan_rows, write_rows

ATTACK = BadNets(rate=0.1, target=2, trigger=Patch(size=2, margin=0))
"""To the class of dots, which hardly show through what is laid over them."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return Folder(size=8).load(tiny.pictures(tmp_path_factory.mktemp("clean"), count=150))


@pytest.fixture(scope="module")
def poisoned(clean):
    """The data with poison in the training rows, and which rows these are."""
    train = clean.train
    done = ATTACK.poison(train.x_NCHW, train.y_N, num_classes=clean.num_classes, seed=0)
    return replace(clean, train=Split(done.x_NCHW, done.y_N, train.rows)), set(train.rows[done.stamped_N].tolist())


@pytest.fixture(scope="module")
def found(poisoned):
    return scan_rows(poisoned[0])


class TestVerdict:
    def test_poison_is_found(self, found, poisoned):
        suspects = set(found.rows.rows[found.suspect_N].tolist())
        assert found.verdict.flagged
        assert len(suspects & poisoned[1]) >= 0.9 * len(poisoned[1])
        assert len(suspects - poisoned[1]) <= 0.4 * len(suspects), "some very bright dots win as well"
        assert [group.label for group in found.verdict.groups if group.poisoned] == [tiny.CLASSES[ATTACK.target]]

    def test_clean_data_are_left_alone(self, clean):
        verdict = scan_rows(clean).verdict
        assert not verdict.flagged
        assert verdict.num_suspect == 0

    def test_is_the_same_twice(self, found, poisoned):
        again = scan_rows(poisoned[0])
        assert again.verdict == found.verdict
        assert np.array_equal(again.score_N, found.score_N)

    def test_every_row_is_looked_at_once(self, clean):
        rows = _all_rows(clean).rows
        assert len(rows) == len(set(rows.tolist())) == sum(len(part) for part in (clean.train, clean.budget, clean.validation, clean.test))

    def test_the_judges_images_stay_out_where_there_is_an_official_test_part(self, clean):
        assert len(_all_rows(replace(clean, name="mnist"))) == len(clean.train) + len(clean.budget)


class TestParts:
    def test_an_overlay_is_of_another_class(self):
        y_N = np.array([0] * 97 + [1, 1, 2])
        assert (y_N[_of_another_class(y_N, 0)] != y_N).all()
        assert not np.array_equal(_of_another_class(y_N, 0), _of_another_class(y_N, 1))

    @pytest.mark.parametrize(("kept", "size", "poisoned"), [(0, 40, True), (20, 40, False), (39, 40, False), (1, 5, False), (0, 9, True)])
    def test_a_group_that_keeps_its_label_is_harmless(self, kept, size, poisoned):
        said_M = np.array([0] * kept + [1] * (size - kept))
        group = _group(0, said_M, ("a", "b"), level=0.99)
        assert group.poisoned == poisoned
        assert group.agreement.value == kept / size

    @pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx"])
    def test_a_class_name_is_no_formula(self, name):
        assert cell(name).startswith("'")
        assert cell("plain") == "plain"


class TestFiles:
    def test_csv_has_every_row(self, found, tmp_path):
        written = write_rows(tmp_path, found)
        rows = list(csv.DictReader(written["rows"].read_text().splitlines()))
        assert len(rows) == found.verdict.num_rows
        assert sum(int(row["suspect"]) for row in rows) == found.verdict.num_suspect
        assert written["sheet"].read_bytes().startswith(b"\x89PNG")

    def test_a_class_that_wins_as_a_whole_is_not_suspected(self):
        score_N, y_N = np.array([1.0] * 9 + [0.2] + [1.0] * 3 + [0.1] * 7), np.repeat([0, 1], 10)
        assert np.flatnonzero(_suspects(score_N, y_N)).tolist() == [10, 11, 12]

    def test_sheet_of_one_and_of_many(self):
        for count in (1, 8, 9, 200):
            sheet = _scan_rows._sheet(np.zeros((count, 3, 8, 8), dtype=np.uint8))
            assert sheet.shape == (3, -(-min(count, 64) // 8) * 28, 8 * 28)


class TestCommand:
    def test_training_data_by_name(self, poisoned, tmp_path):
        """Exit 1 for poison."""
        data, _ = poisoned
        rows = _all_rows(data)
        for row, (pixels_CHW, label) in enumerate(zip(rows.x_NCHW, rows.y_N, strict=True)):
            files.write_bytes(tmp_path / "in" / data.classes[label] / f"{row:04}.png", png_bytes(pixels_CHW))
        done = tiny.cli("scan", "--dataset", "folder:size=8", "--data", tmp_path / "in", "--store", tmp_path / "store")
        assert done.status == 1
        assert "POISONED" in done.out
        assert "rows.csv" in done.out

    def test_a_folder_by_itself(self, found, tmp_path, monkeypatch):
        monkeypatch.setattr(_scan_rows, "scan_rows", lambda data: found)
        tiny.pictures(tmp_path / "in")
        assert tiny.cli("scan", "--dataset", tmp_path / "in", "--store", tmp_path / "store").status == 1
