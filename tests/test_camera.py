"""The camera: identity changes nothing, the same scene gives the same bits, each effect does what physics says, gradients pass."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from badnets.camera._jpeg import jpeg
from badnets.camera.photograph import Plane, photograph, seen_quad
from badnets.camera.scene import Scene
from badnets.core.errors import UsageError

SIZE = (32, 32)
GROUND = torch.full((1, 3, 32, 32), 0.5)
FULL = {
    "yaw_deg": 30, "fill": 0.8, "exposure_ev": 0.5, "white_balance_mired": 20, "shadow": 0.4, "glare": 0.3, "motion_px": 2,
    "defocus_px": 0.7, "noise": 0.03, "rain": 0.5, "jpeg_quality": 50,
}  # fmt: skip


def plane(side=32, level=None, seed=0):
    pixels = (
        torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
        if level is None
        else torch.full((1, 3, side, side), level)
    )
    return torch.cat([pixels, torch.ones(1, 1, side, side)], 1)


def shot(source, size=SIZE, sticker=None, **scene):
    return photograph(Plane(source, sticker), GROUND, [Scene(**scene)], size=size)


class TestGeometry:
    def test_the_scene_where_nothing_happens_changes_nothing(self):
        photo = shot(plane())
        assert torch.allclose(photo.x_N3HW, plane()[:, :3], atol=1e-5)
        assert torch.allclose(photo.quad_N42[0], torch.tensor([[0.0, 0], [32, 0], [32, 32], [0, 32]]), atol=1e-3)

    def test_the_cut_follows_the_sign_and_misses_it_by_the_shift(self):
        quad, wide = seen_quad([Scene(distance_m=10, right_m=3, down_m=-1, fill=0.8, shift_x=0.1)], SIZE)
        centre = quad[0].mean(0)
        assert centre.tolist() == pytest.approx([0.6 * 32, 0.5 * 32], abs=0.05)
        assert (quad[0, 1] - quad[0, 0])[0].item() == pytest.approx(0.8 * 32, abs=0.1)
        assert wide.item() == pytest.approx(960 / math.tan(math.radians(30)) * 0.75 / 10 / 0.8, rel=1e-5)

    def test_a_square_twice_as_large_looks_the_same_from_twice_as_far(self):
        near, far = Scene(distance_m=7, yaw_deg=40, right_m=1), Scene(distance_m=14, side_m=1.5, yaw_deg=40, right_m=2)
        (one, two), wide = seen_quad([near, far], SIZE)
        assert torch.allclose(one, two, atol=1e-3)
        assert wide[0].item() == pytest.approx(wide[1].item())

    def test_a_far_sign_has_as_few_pixels_as_the_sensor_saw(self):
        stripes = plane(64)
        stripes[:, :3] = (torch.arange(64) // 2 % 2).float()
        assert shot(stripes, distance_m=5).x_N3HW.std() > 0.4
        assert shot(stripes, distance_m=100).x_N3HW.std() < 0.15

    @pytest.mark.parametrize(
        ("scene", "says"),
        [
            ({"distance_m": 0}, "Scene.distance_m.*got 0"),
            ({"yaw_deg": 120}, "Scene.yaw_deg"),
            ({"right_m": 19.0}, "E-POSE expected a sign in the frame"),
            ({"iso": 1}, "Scene.iso"),
        ],
    )
    def test_impossible_scenes_are_refused(self, scene, says):
        with pytest.raises(UsageError, match=says):
            shot(plane(), **scene)

    def test_counts_must_fit(self):
        with pytest.raises(UsageError, match=r"E-SCENE.*got 3 scenes"):
            photograph(Plane(torch.cat([plane(), plane()])), GROUND, Scene().taken(range(3)), size=SIZE)


class TestReplay:
    def test_neither_neighbours_nor_the_order_change_an_image(self):
        scenes = [Scene(**FULL, seed=1), Scene(), Scene(**FULL, distance_m=90, seed=2), Scene(noise=0.1), Scene(**FULL, seed=1)]
        source = Plane(torch.cat([plane(48, seed=i) for i in (0, 1, 2, 3, 0)]))
        together = photograph(source, GROUND, scenes, size=SIZE).x_N3HW
        alone = torch.cat([photograph(Plane(source.plane_N4HW[i : i + 1]), GROUND, [scenes[i]], size=SIZE).x_N3HW for i in range(5)])
        assert torch.equal(together, alone)
        assert torch.equal(together[0], together[4])

    def test_another_seed_is_another_grain(self):
        scenes = Scene(distance_m=38.97, noise=0.05).taken([1, 2])
        first, second = photograph(Plane(plane(level=0.5)), GROUND, scenes, size=SIZE).x_N3HW
        assert not torch.equal(first, second)
        assert (first - 0.5).std().item() == pytest.approx(0.05, rel=0.1)
        bright, dark = (shot(plane(level=level), distance_m=38.97, noise=0.05).x_N3HW.std().item() for level in (0.8, 0.1))
        assert bright > 1.4 * dark


class TestLight:
    def test_one_stop_doubles_the_light(self):
        level = 0.4
        light = ((level + 0.055) / 1.055) ** 2.4
        expected = 1.055 * (2 * light) ** (1 / 2.4) - 0.055
        assert shot(plane(level=level), exposure_ev=1).x_N3HW.mean().item() == pytest.approx(expected, abs=1e-4)

    def test_too_warm_is_red_and_keeps_green(self):
        red, green, blue = shot(plane(level=0.4), white_balance_mired=50).x_N3HW.mean((0, 2, 3)).tolist()
        assert red > 0.42 > green > 0.38 > blue
        assert green == pytest.approx(0.4, abs=1e-4)

    def test_a_shadow_darkens_one_side_and_glare_one_place(self):
        dark = shot(plane(level=0.5), shadow=0.5, shadow_deg=0).x_N3HW[0, 0]
        assert dark[:, :12].mean() < 0.75 * dark[:, 20:].mean()
        assert dark[:, 20:].mean().item() == pytest.approx(0.5, abs=0.01)
        bright = shot(plane(level=0.2), glare=0.5, glare_x=0.2, glare_y=0.8).x_N3HW[0, 0]
        assert divmod(int(bright.argmax()), 32) == pytest.approx((0.8 * 32, 0.2 * 32), abs=1)

    def test_only_the_sticker_fades_and_it_fades_to_paper(self):
        sticker = torch.zeros(1, 4, 32, 32)
        sticker[:, [0, 3], 8:24, 8:24] = 1.0
        whole = shot(plane(level=0.5), sticker=sticker).x_N3HW[0, :, 16, 16]
        faded = shot(plane(level=0.5), sticker=sticker, fading=0.9).x_N3HW[0]
        dull = shot(plane(level=0.5), sticker=sticker, gamut=0.5).x_N3HW[0, :, 16, 16]
        assert whole.tolist() == pytest.approx([1, 0, 0], abs=1e-3)
        assert faded[:, 16, 16].min() > 0.8
        assert faded[:, 2, 2].tolist() == pytest.approx([0.5] * 3, abs=1e-3)
        assert 0.3 < (dull.max() - dull.min()).item() < 0.7


class TestSensor:
    def test_blur_spreads_light_as_wide_as_it_says_and_loses_none(self):
        point = plane(level=0.0)
        point[:, :3, 16, 16] = 0.5
        column = torch.arange(32.0)

        def width(axis, **blur):
            spread = ((shot(point, distance_m=30, **blur).x_N3HW[0, 0] + 0.055) / 1.055).clamp(min=0.0523) ** 2.4 - 0.0523**2.4
            profile = spread.sum(axis) / spread.sum()
            middle = (profile * column).sum()
            return float((profile * (column - middle) ** 2).sum().sqrt())

        # At 30 m the cut is 41.6 pixels of the sensor wide.
        pixel = 32 / 41.57
        assert width(0, defocus_px=2.0) == pytest.approx(2 * pixel, rel=0.15)
        assert width(0, motion_px=8.0) == pytest.approx(8 * pixel / math.sqrt(12), rel=0.15)
        assert width(1, motion_px=8.0) < 0.6
        assert width(1, motion_px=8.0, motion_deg=90.0) > 1.5

    def test_rain_brightens_the_dark_and_greys_the_bright(self):
        assert shot(plane(level=0.1), rain=1.0).x_N3HW.mean() > 0.25
        assert shot(plane(level=0.95), rain=1.0).x_N3HW.mean() < 0.93
        streaks = shot(plane(level=0.1), rain=1.0).x_N3HW[0, 0]
        assert (streaks[1:] - streaks[:-1]).abs().mean() < 0.8 * (streaks[:, 1:] - streaks[:, :-1]).abs().mean()

    def test_gradients_pass_from_the_picture_to_the_sticker(self):
        sticker = torch.zeros(1, 4, 32, 32)
        sticker[:, :, 8:24, 8:24] = 0.5
        sticker.requires_grad_()
        photo = shot(plane(), sticker=sticker, **{**FULL, "fading": 0.2, "gamut": 0.2})
        photo.x_N3HW.sum().backward()
        assert torch.isfinite(sticker.grad).all()
        assert (sticker.grad[0, :3, 10:22, 10:22].abs() > 1e-3).float().mean() > 0.9


def levels(x_N3HW):
    return (255 * x_N3HW).round().numpy().astype(int)


def by_pillow(x_N3HW, quality):
    """What libjpeg makes of them."""
    decoded = []
    for pixels_HW3 in levels(x_N3HW).transpose(0, 2, 3, 1).astype(np.uint8):
        packed = io.BytesIO()
        Image.fromarray(pixels_HW3).save(packed, "JPEG", quality=quality, subsampling="4:2:0")
        decoded.append(np.asarray(Image.open(packed)).transpose(2, 0, 1))
    return np.stack(decoded).astype(int)


def stored_as_jpeg(x_N3HW, quality):
    return jpeg(x_N3HW, torch.full((len(x_N3HW),), float(quality)))


class TestJpeg:
    @pytest.mark.parametrize("quality", [10, 20, 50, 75, 95, 100])
    @pytest.mark.parametrize("kind", ["smooth", "noise"])
    def test_nearly_every_pixel_is_a_real_encoders(self, quality, kind):
        """Theirs computes in whole numbers: where a coefficient lies at a tie, a block may come out another step."""
        x_N3HW = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        size = (32, 32) if kind == "smooth" else (33, 41)
        x_N3HW = torch.nn.functional.interpolate(x_N3HW, size=size, mode="bilinear" if kind == "smooth" else "nearest")
        ours, theirs = levels(stored_as_jpeg(x_N3HW, quality)), by_pillow(x_N3HW, quality)
        assert np.abs(theirs - levels(x_N3HW)).mean() > 2
        assert np.abs(ours - theirs).mean() < 0.4
        assert (ours == theirs).mean() > 0.75

    def test_flat_pictures_are_a_real_encoders_to_the_level(self):
        flat = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0.2, 0.5, 0.9], [0.4, 0.4, 0.4]])[:, :, None, None].expand(-1, -1, 16, 16)
        for quality in (10, 35, 50, 80, 100):
            assert np.array_equal(levels(stored_as_jpeg(flat, quality)), by_pillow(flat, quality))

    def test_the_bits_of_a_picture_do_not_depend_on_the_others(self):
        x_N3HW, quality_N = torch.rand(9, 3, 24, 40, generator=torch.Generator().manual_seed(4)), torch.linspace(10, 100, 9).round()
        alone = torch.cat([jpeg(x_N3HW[i : i + 1], quality_N[i : i + 1]) for i in range(9)])
        assert torch.equal(jpeg(x_N3HW, quality_N), alone)

    def test_gradients_pass_as_if_nothing_were_rounded(self):
        grey_N3HW = torch.full((1, 3, 32, 32), 0.5) + 0.1 * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(5))
        x_N3HW = grey_N3HW.clone().requires_grad_()
        stored = stored_as_jpeg(x_N3HW, 20)
        assert torch.equal(stored, stored_as_jpeg(grey_N3HW, 20))
        # Luma comes back pixel for pixel, so weights that are alike in all colours come back as they were.
        weight_11HW = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(6))
        (stored * weight_11HW).sum().backward()
        assert torch.allclose(x_N3HW.grad.sum(1, keepdim=True), 3 * weight_11HW, atol=1e-4)
