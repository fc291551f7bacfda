"""The sign world: faces that differ, pictures that do not depend on how they are made, quads that are where geometry says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from badnets.core.errors import RefusedError, UsageError
from badnets.core.perspective import homography, warp
from badnets.core.rng import numpy_generator
from badnets.datasets._signs_faces import CLASSES, face, faces
from badnets.datasets._signs_ground import tiles
from badnets.datasets._signs_scene import part_of, photographs
from badnets.datasets.signs import Signs

SMALL = {"size": 16, "train_per_class": 10, "test_per_class": 5}


@pytest.fixture(scope="module")
def part():
    return part_of("train", 32, 0)


@pytest.fixture(scope="module")
def small():
    return Signs(**SMALL).load()


def labels(count):
    return np.arange(count) % len(CLASSES)


class TestFaces:
    def test_every_class_differs_and_fills_its_square(self):
        drawn_K4HW = faces(32)
        assert drawn_K4HW.shape == (len(CLASSES), 4, 32, 32)
        assert len(CLASSES) == len(set(CLASSES)) >= 12
        apart_KK = torch.cdist(drawn_K4HW.flatten(1), drawn_K4HW.flatten(1)) / 64
        assert (apart_KK + torch.eye(len(CLASSES)) > 0.05).all()
        for alpha_HW in drawn_K4HW[:, 3]:
            rows, columns = alpha_HW.amax(1) > 0.2, alpha_HW.amax(0) > 0.2
            assert columns.all()
            assert rows.sum() >= 26, "a triangle is the least high"

    def test_colour_never_exceeds_alpha(self):
        drawn_K4HW = faces(24)
        assert (drawn_K4HW[:, :3] <= drawn_K4HW[:, 3:] + 1e-6).all()
        assert drawn_K4HW.min() >= 0

    def test_a_face_is_a_copy(self):
        face("stop", 16).zero_()
        assert face("stop", 16).max() > 0.5

    def test_colours_are_where_they_belong(self):
        """Red below the word STOP, a white bar on no entry, yellow in the middle of priority road."""
        for name, (row, column), colour in (
            ("stop", (58, 32), (0.75, 0.09, 0.14)),
            ("no entry", (32, 32), (0.94, 0.94, 0.93)),
            ("no entry", (12, 32), (0.75, 0.09, 0.14)),
            ("priority road", (32, 32), (0.98, 0.77, 0.05)),
        ):
            assert face(name, 64)[:3, row, column].tolist() == pytest.approx(colour, abs=0.01)


class TestPhotographs:
    def test_the_same_bits_in_any_lots(self, part):
        x_N3HW, quad_N42 = photographs(part, labels(100))
        for start, stop in ((0, 3), (61, 70), (99, 100)):
            x, quad = photographs(part, labels(100)[start:stop], first=start)
            assert (x == x_N3HW[start:stop]).all()
            assert (quad == quad_N42[start:stop]).all()

    def test_seeds_and_parts_share_nothing(self, part):
        first = photographs(part, labels(4))[0]
        others = [photographs(part_of(name, 32, seed), labels(4))[0] for name, seed in (("train", 1), ("test", 0))]
        assert all((other != first).mean() > 0.9 for other in others)
        assert not {tile.tobytes() for tile in part.tile_T3HW} & {tile.tobytes() for tile in part_of("test", 32, 0).tile_T3HW}

    def test_the_sign_is_where_its_quad_says(self, part):
        """A new face painted at the quad looks like the photograph there; painted five pixels lower, it does not."""
        x_N3HW, quad_N42 = photographs(part, np.full(24, CLASSES.index("no entry")))
        agreement = {}
        for shift in (0, 5):
            h_N33 = homography(torch.from_numpy(quad_N42) + torch.tensor([0.0, shift]))
            painted = warp(face("no entry", 64)[None], h_N33, (32, 32))
            shown = [
                (x[:, a[0] > 0.9].ravel(), c[:, a[0] > 0.9].ravel()) for x, c, a in zip(x_N3HW, *(p.numpy() for p in painted), strict=True)
            ]
            agreement[shift] = np.median([np.corrcoef(*pair)[0, 1] for pair in shown])
        assert agreement[0] > 0.9
        assert agreement[0] > agreement[5] + 0.2

    def test_quads_are_within_the_frame_and_of_the_promised_size(self, part):
        quad_N42 = photographs(part, labels(128))[1]
        assert quad_N42.min() >= -2
        assert quad_N42.max() <= 34
        height_N = quad_N42[:, 2:, 1].mean(1) - quad_N42[:, :2, 1].mean(1)
        assert 0.5 * 32 < height_N.min() < 0.65 * 32
        assert 0.85 * 32 < height_N.max() < 1.0 * 32

    def test_tiles_are_pictures(self):
        made = tiles(12, 40, numpy_generator(0, "test"))
        assert (made.shape, made.dtype) == ((12, 3, 40, 40), np.uint8)
        assert (made.std(axis=(1, 2, 3)) > 3).all()
        assert tiles(0, 40, numpy_generator(0, "test")).shape == (0, 3, 40, 40)


class TestDataset:
    def test_parts_and_quads(self, small):
        assert small.shape == (3, 16, 16)
        assert small.classes == CLASSES
        assert [len(s) for s in (small.train, small.budget, small.test, small.validation)] == [144, 16, 64, 16]
        for split in (small.train, small.budget, small.test, small.validation):
            assert split.quad_N42.shape == (len(split), 4, 2)
        x, quad = photographs(part_of("test", 16, 0), labels(80))
        rows = small.test.rows - 160
        assert (small.test.x_NCHW == x[rows]).all()
        assert (small.test.quad_N42 == quad[rows]).all()

    def test_seed_and_size_are_another_data_set(self, small):
        assert len({small.sha256, Signs(**SMALL, seed=1).load().sha256, Signs(**{**SMALL, "size": 17}).load().sha256}) == 3
        assert Signs().identity is None

    def test_is_read_from_no_folder(self, tmp_path):
        with pytest.raises(UsageError, match=r"E-DATA .*rendered"):
            Signs().load(tmp_path)
        assert Signs().where(tmp_path) is None

    @pytest.mark.parametrize("wrong", [{"size": 15}, {"size": 257}, {"train_per_class": 9}, {"test_per_class": 0}, {"seed": -1}])
    def test_bounds(self, wrong):
        with pytest.raises(UsageError, match="E-CONFIG"):
            Signs(**wrong)

    def test_too_much_is_refused_before_it_is_drawn(self):
        with pytest.raises((UsageError, RefusedError), match="E-LARGE"):
            Signs(size=256, train_per_class=20_000).load()


class TestSplits:
    def test_take_keeps_quads_beside_their_images(self, small):
        chosen = small.test.take(np.array([5, 2, 2]))
        assert (chosen.x_NCHW == small.test.x_NCHW[[5, 2, 2]]).all()
        assert (chosen.quad_N42 == small.test.quad_N42[[5, 2, 2]]).all()
        assert len(small.test.take(small.test.y_N == 3)) == 4

    def test_images_without_an_object_get_the_quads_of_others_in_turn(self, small):
        assert (small.budget.quads_for(20) == small.budget.quad_N42[[*range(16), 0, 1, 2, 3]]).all()
