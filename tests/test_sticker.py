"""The sticker: so many centimetres in the sign's plane, wherever the sign is; and what it says when it cannot be."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from badnets.attacks.badnets import BadNets
from badnets.core.config import canonical
from badnets.core.errors import UsageError
from badnets.triggers._base import whole_image
from badnets.triggers.sticker import Sticker

HALF = Sticker(size_cm=37.5, y_cm=0.0)
YELLOW = (255, 221, 0)
FRONT = np.array([[(4, 4), (28, 4), (28, 28), (4, 28)]], dtype=np.float32)


def white(num=1, side=32, channels=3, level=240):
    return np.full((num, channels, side, side), level, dtype=np.uint8)


def changed(stamped, before):
    """Rows and columns of the pixels that changed, as (top, bottom, left, right), the ends outside."""
    row, column = np.nonzero((stamped != before).any(axis=0))
    return row.min(), row.max() + 1, column.min(), column.max() + 1


class TestGeometry:
    def test_half_the_side_covers_the_middle_quarter_exactly(self):
        stamped = HALF.stamp(white(), whole_image(1, (3, 32, 32)))
        expected = white()
        expected[0, :, 8:24, 8:24] = np.array(YELLOW, dtype=np.uint8)[:, None, None]
        assert (stamped == expected).all()

    def test_it_follows_the_quad_and_only_the_quad(self):
        """On a sign from 4 to 28, a sticker of a quarter of the side, right and above: 6 pixels wide, its centre at (22, 10)."""
        sticker = Sticker(size_cm=18.75, x_cm=18.75, y_cm=-18.75)
        stamped = sticker.stamp(white(), FRONT)
        assert changed(stamped[0], white()[0]) == (7, 13, 19, 25)
        moved = sticker.stamp(white(), FRONT + np.float32([3, -2]))
        assert changed(moved[0], white()[0]) == (5, 11, 22, 28)

    def test_a_larger_sign_side_makes_a_smaller_sticker(self):
        assert changed(HALF.but(side_cm=150.0).stamp(white(), whole_image(1, (3, 32, 32)))[0], white()[0]) == (12, 20, 12, 20)

    def test_a_turned_sign_carries_it_along(self):
        """Corners rolled by one: the sign lies on its right side, and what was below the centre is on its left."""
        stamped = Sticker(size_cm=18.75, y_cm=18.75).stamp(white(), np.roll(FRONT, -1, axis=1))
        assert changed(stamped[0], white()[0]) == (13, 19, 7, 13)

    def test_a_quarter_turn_of_a_square_changes_nothing_and_an_eighth_makes_a_diamond(self):
        quad = whole_image(1, (3, 32, 32))
        upright = HALF.stamp(white(), quad)
        assert (HALF.but(rotation_deg=90.0).stamp(white(), quad) == upright).all()
        diamond = HALF.but(rotation_deg=45.0).stamp(white(), quad)[0]
        assert (diamond[:, 9, 9] == 240).all()
        assert diamond[:, 6, 16].tolist() == list(YELLOW)
        covered = [((240 - x[2].astype(float)) / 240).sum() for x in (upright[0], diamond)]
        assert covered[1] == pytest.approx(covered[0], rel=0.02)

    def test_far_side_of_a_sign_in_perspective_is_smaller(self):
        quad = np.array([[(2, 2), (30, 8), (30, 24), (2, 30)]], dtype=np.float32)
        sizes = []
        for x_cm in (-25.0, 25.0):
            stamped = Sticker(size_cm=20.0, x_cm=x_cm, y_cm=0.0).stamp(white(), quad)[0]
            sizes.append(((240 - stamped[2].astype(float)) / 240).sum())
        assert sizes[0] > 1.5 * sizes[1]


class TestPicture:
    def test_shapes_differ_and_a_circle_is_a_circle(self):
        quad = whole_image(1, (3, 64, 64))
        drawn = {s: HALF.but(shape=s).stamp(white(side=64), quad)[0] for s in ("square", "circle", "flower", "bomb")}
        assert len({image.tobytes() for image in drawn.values()}) == 4
        area = {s: ((240 - image[2].astype(float)) / 240).sum() for s, image in drawn.items()}
        assert area["circle"] / area["square"] == pytest.approx(np.pi / 4, rel=0.01)
        assert drawn["bomb"].sum(axis=0).min() < 150

    def test_a_png_takes_their_place_with_its_aspect_and_its_alpha(self, tmp_path):
        pixels = np.zeros((2, 4, 4), dtype=np.uint8)
        pixels[..., 1] = 200
        pixels[:, :2, 3] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        (tmp_path / "mine.png").write_bytes(buffer.getvalue())
        sticker = HALF.but(image=str(tmp_path / "mine.png"))
        assert str(tmp_path) not in canonical(sticker)
        assert sticker.summary()["image"].startswith("sha256 ")
        stamped = sticker.stamp(white(), whole_image(1, (3, 32, 32)))[0]
        assert changed(stamped, white()[0]) == (12, 20, 8, 16)
        assert stamped[:, 15, 11].tolist() == [0, 200, 0]

    def test_light_and_brightness_darken_it_and_opacity_thins_it(self):
        quad = whole_image(1, (3, 32, 32))
        assert HALF.stamp(white(level=94), quad)[0, :, 16, 16].tolist() == [102, 88, 0], "94 of 235 are 40 %"
        assert HALF.but(brightness=0.5).stamp(white(), quad)[0, :, 16, 16].tolist() == [128, 110, 0]
        assert HALF.but(opacity=0.5).stamp(white(), quad)[0, 2, 16, 16] == 120

    def test_on_a_face_it_is_what_it_is_on_a_picture(self):
        face_4HW = torch.full((4, 32, 32), 1.0)
        face_4HW[:3] = 240 / 255
        for sticker in (Sticker(), HALF.but(brightness=0.8, opacity=0.6, rotation_deg=10.0)):
            on_face = (sticker.on_face(face_4HW)[:3] * 255).round().numpy()
            on_picture = sticker.stamp(white(), whole_image(1, (3, 32, 32)))[0]
            assert np.abs(on_face - on_picture).max() <= 1


class TestSiblings:
    def test_all_at_once_equals_one_after_the_other(self):
        x_NCHW = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
        quad_N42 = np.repeat(FRONT, 6, axis=0) + np.arange(6, dtype=np.float32)[:, None, None] / 3
        made = [Sticker(shape="flower").variant(np.random.default_rng(i), (3, 32, 32)) for i in range(6)]
        at_once = made[0]._paint_each(made, x_NCHW.astype(np.float32), quad_N42)
        single = np.concatenate([m.stamp(x_NCHW[i : i + 1], quad_N42[i : i + 1]) for i, m in enumerate(made)])
        assert (np.rint(at_once).clip(0, 255) == single).all()

    def test_they_stay_on_the_sign_and_near_the_place(self):
        for own in (Sticker(), Sticker(size_cm=75.0, y_cm=0.0), Sticker(size_cm=30.0, x_cm=-22.5, y_cm=22.5), Sticker(wander_cm=60.0)):
            for i in range(60):
                other = own.variant(np.random.default_rng(i), (3, 32, 32))
                other.check((3, 32, 32))
                assert abs(other.size_cm / own.size_cm - 1) <= 0.2 + 1e-9
        offsets = [Sticker().variant(np.random.default_rng(i), (3, 32, 32)).x_cm for i in range(200)]
        assert 3.5 < max(offsets) <= 5.0
        assert -5.0 <= min(offsets) < -3.5


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"size_cm": 76.0}, "larger than the sign"),
            ({"y_cm": 33.0}, r"0\.5 cm over the sign's edge"),
            ({"size_cm": 75.0, "y_cm": 0.0, "rotation_deg": 10.0}, "over the sign's edge"),
            ({"colour": (0, 0, 300)}, "levels of 0..255"),
        ],
    )
    def test_what_does_not_fit_the_sign(self, fields, words):
        with pytest.raises(UsageError, match=rf"E-TRIGGER .*{words}") as caught:
            Sticker(**fields).stamp(white(), FRONT)
        assert caught.value.hint

    @pytest.mark.parametrize(
        "quad",
        [
            FRONT[0] * 0,
            FRONT[0, ::-1],
            FRONT[0] + 40,
            FRONT[0] - 40,
            FRONT[0] * np.float32(np.nan),
            FRONT[0, [0, 2, 1, 3]],
        ],
        ids=["a point", "from behind", "right of the frame", "left of it", "no numbers", "crossed"],
    )
    def test_a_quad_that_cannot_be_names_its_image(self, quad):
        quads = np.stack([FRONT[0], FRONT[0], quad])
        for call in (
            lambda: Sticker().stamp(white(3), quads),
            lambda: Sticker().stamp_varied(white(3), None, quads, seed=0, purpose="train"),
        ):
            with pytest.raises(UsageError, match=r"E-TRIGGER .*in image 2"):
                call()

    def test_without_quads_it_says_what_to_do(self):
        attack, y_N = BadNets(trigger=Sticker(), rate=0.2), np.arange(20) % 4
        with pytest.raises(UsageError, match=r"E-TRIGGER .*trigger=patch.*signs, gtsrb"):
            attack.poison(white(20), y_N, num_classes=4, seed=0)
        poisoned = attack.poison(white(20), y_N, num_classes=4, seed=0, quad_N42=np.repeat(FRONT, 20, axis=0))
        assert (poisoned.stamped_N == (poisoned.x_NCHW != 240).any(axis=(1, 2, 3))).all()
        assert poisoned.stamped_N.sum() == 4
