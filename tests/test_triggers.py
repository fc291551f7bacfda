"""Every trigger of the catalogue keeps the contract; each one's pixels are what its formula says."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from badnets.core import registry
from badnets.core.config import canonical, key_of
from badnets.core.errors import RefusedError, UsageError
from badnets.triggers._base import Trigger, whole_image
from badnets.triggers._png_file import MAX_BYTES, MAX_SIDE
from badnets.triggers.blend import Blend
from badnets.triggers.painted import Painted
from badnets.triggers.patch import Patch
from badnets.triggers.sinusoid import Sinusoid

TRIGGERS = registry.names("triggers")
CORNERS = ("bottom_right", "bottom_left", "top_right", "top_left", "centre")


def png_bytes(pixels_HWC, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels_HWC, dtype=np.uint8)).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def embedded(data):
    return "base64:" + base64.b64encode(data).decode()


def picture(height=3, width=3, colour=(255, 0, 0), alpha=255):
    return np.broadcast_to(np.array([*colour, alpha], dtype=np.uint8), (height, width, 4)).copy()


def told(images_NCHW):
    """Objects that fill their images: what a trigger that needs to know is told, and every other may be."""
    return whole_image(len(images_NCHW), images_NCHW.shape[1:])


def stamp(trigger, x_NCHW):
    return trigger.stamp(x_NCHW, told(x_NCHW))


def varied(trigger, x_NCHW, count, **stream):
    return trigger.stamp_varied(x_NCHW, count, told(x_NCHW), **stream)


def make(name, **fields) -> Trigger:
    """The trigger with its defaults, and the least it cannot do without."""
    needed = {"painted": {"png": embedded(png_bytes(picture()))}}.get(name, {})
    found = registry.parse("triggers", {"kind": name, **needed, **fields})
    assert isinstance(found, Trigger)
    return found


def photos(num=4, channels=1, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, channels, side, side), dtype=np.uint8)


def grey(level=100, channels=1, side=8, num=1):
    return np.full((num, channels, side, side), level, dtype=np.uint8)


@pytest.mark.parametrize("name", TRIGGERS)
class TestContract:
    @pytest.mark.parametrize("side", [8, 28, 32, 48])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_uint8_in_uint8_out_and_the_input_untouched(self, name, channels, side):
        x_NCHW = photos(channels=channels, side=side)
        before = x_NCHW.copy()
        x_NCHW.flags.writeable = False
        stamped = stamp(make(name), x_NCHW)
        assert (stamped.dtype, stamped.shape) == (np.uint8, before.shape)
        assert (x_NCHW == before).all()
        assert not np.shares_memory(stamped, x_NCHW)
        assert (stamped != before).any()

    def test_deterministic_and_one_image_at_a_time(self, name):
        x_NCHW = photos(num=5, channels=3)
        stamped = stamp(make(name), x_NCHW)
        assert (stamp(make(name), x_NCHW) == stamped).all()
        assert all((stamp(make(name), x_NCHW[i : i + 1]) == stamped[i : i + 1]).all() for i in range(5))
        assert (stamp(make(name), x_NCHW[::-1]) == stamped[::-1]).all()
        assert stamp(make(name), x_NCHW[:0]).shape == (0, 3, 8, 8)

    def test_opacity_0_is_the_identity(self, name):
        if "opacity" not in type(make(name)).model_fields:
            pytest.skip(f"{name} has no opacity")
        x_NCHW = photos()
        assert (stamp(make(name, opacity=0.0), x_NCHW) == x_NCHW).all()

    @pytest.mark.parametrize("level", [0, 255])
    def test_stays_within_8_bits_at_both_ends(self, name, level):
        """No wrap-around: painting over black or white never jumps to the other end by overflow."""
        stamped = stamp(make(name), grey(level)).astype(int)
        floating = make(name)._paint(grey(level).astype(np.float32))
        assert (stamped == np.clip(np.rint(floating), 0, 255)).all()

    def test_json_round_trip_gives_equal_config_and_pixels(self, name):
        one = make(name)
        import json

        for text in (canonical(one), one.model_dump_json()):
            again = registry.parse("triggers", json.loads(text))
            assert again == one
            assert key_of(again) == key_of(one)
            assert (stamp(again, photos()) == stamp(one, photos())).all()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_area_is_a_share(self, name, channels):
        assert 0 < make(name).area((channels, 28, 28)) <= 1

    def test_variants_are_random_but_reproducible_and_of_the_same_kind(self, name):
        one, shape = make(name), (1, 8, 8)
        made = [one.variant(np.random.default_rng(i), shape) for i in range(6)]
        assert made == [one.variant(np.random.default_rng(i), shape) for i in range(6)]
        assert len({canonical(m) for m in made}) > 1
        assert {m.kind for m in made} == {name}
        for m in made:
            m.check(shape)
            assert stamp(m, photos()).shape == (4, 1, 8, 8)

    def test_one_pattern_is_the_trigger_itself(self, name):
        x_NCHW = photos()
        assert (varied(make(name), x_NCHW, 1, seed=3, purpose="train") == stamp(make(name), x_NCHW)).all()

    @pytest.mark.parametrize("count", [2, 5])
    def test_finite_patterns_are_shared_by_training_and_test(self, name, count):
        x_NCHW = np.repeat(grey(side=12), 40, axis=0)
        drawn = {p: varied(make(name), x_NCHW, count, seed=3, purpose=p) for p in ("train", "test")}
        patterns = {p: {image.tobytes() for image in stamped} for p, stamped in drawn.items()}
        assert 1 < len(patterns["train"]) <= count
        assert patterns["train"] == patterns["test"]
        assert (drawn["train"] != drawn["test"]).any()
        again = varied(make(name), x_NCHW, count, seed=3, purpose="train")
        assert (again == drawn["train"]).all()
        other = varied(make(name), x_NCHW, count, seed=4, purpose="train")
        assert {image.tobytes() for image in other} != patterns["train"]

    def test_without_a_number_every_image_has_its_own(self, name):
        x_NCHW = np.repeat(grey(side=28), 12, axis=0)
        train, test = (varied(make(name), x_NCHW, None, seed=0, purpose=p) for p in ("train", "test"))
        assert len({image.tobytes() for image in (*train, *test)}) >= 22
        assert (varied(make(name), x_NCHW, None, seed=0, purpose="train") == train).all()
        assert varied(make(name), x_NCHW[:0], None, seed=0, purpose="train").shape == (0, 1, 28, 28)

    def test_summary_is_plain(self, name):
        summary = make(name).summary()
        assert summary["kind"] == name
        assert all(v is None or isinstance(v, (str, int, float, bool)) for v in summary.values())
        assert all(len(str(v)) < 100 for v in summary.values())

    def test_wrong_input_is_a_bug_of_ours(self, name):
        for wrong in (photos().astype(np.float32), photos()[0]):
            with pytest.raises(AssertionError, match="expected uint8 NCHW"):
                make(name).stamp(wrong)

    def test_unknown_field_and_opacity_out_of_range(self, name):
        with pytest.raises(UsageError, match="E-CONFIG"):
            make(name, colourful=1)
        if "opacity" in type(make(name)).model_fields:
            for wrong in (-0.1, 1.5):
                with pytest.raises(UsageError, match=rf"opacity.*got {wrong}"):
                    make(name, opacity=wrong)

    def test_frozen(self, name):
        with pytest.raises(ValueError, match="frozen"):
            make(name).kind = "patch"


def test_the_catalogue_imports_no_torch():
    code = f"import sys; [__import__('badnets.triggers.' + n) for n in {TRIGGERS!r}]; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


class TestPatch:
    @pytest.mark.parametrize(
        ("corner", "top", "left"),
        [("bottom_right", 4, 4), ("bottom_left", 4, 1), ("top_right", 1, 4), ("top_left", 1, 1), ("centre", 2, 2)],
    )
    def test_corners_and_margin(self, corner, top, left):
        expected = grey()
        expected[:, :, top : top + 3, left : left + 3] = 255
        assert (Patch(corner=corner).stamp(grey()) == expected).all()
        assert Patch(corner=corner).box((1, 8, 8)) == (top, left)

    @pytest.mark.parametrize("corner", CORNERS)
    def test_displacement_is_right_and_down(self, corner):
        shape = (1, 12, 12)
        top, left = Patch(corner=corner, margin=2).box(shape)
        assert Patch(corner=corner, margin=2, dx=1, dy=-2).box(shape) == (top - 2, left + 1)

    def test_not_square_images(self):
        x_NCHW = np.zeros((1, 1, 8, 12), dtype=np.uint8)
        stamped = Patch(size=2, margin=0).stamp(x_NCHW)
        assert np.argwhere(stamped[0, 0]).tolist() == [[6, 10], [6, 11], [7, 10], [7, 11]]

    def test_checkerboard_alternates_with_the_complement_from_the_top_left(self):
        stamped = Patch(pattern="checkerboard", colour=200).stamp(grey())
        assert stamped[0, 0, 4:7, 4:7].tolist() == [[200, 55, 200], [55, 200, 55], [200, 55, 200]]

    def test_colour_per_channel(self):
        stamped = Patch(size=1, margin=0, colour=(10, 20, 30)).stamp(grey(channels=3))
        assert stamped[0, :, 7, 7].tolist() == [10, 20, 30]
        assert (stamped[0, :, 7, 6] == 100).all()
        board = Patch(size=2, margin=0, colour=(0, 255, 100), pattern="checkerboard").stamp(grey(channels=3))
        assert board[0, :, 6, 6].tolist() == [0, 255, 100]
        assert board[0, :, 6, 7].tolist() == [255, 0, 155]

    @pytest.mark.parametrize(("below", "colour", "expected"), [(100, 255, 178), (101, 255, 178), (0, 255, 128), (1, 0, 0), (3, 0, 2)])
    def test_half_opacity_rounds_to_even(self, below, colour, expected):
        """177.5 -> 178, 178, 127.5 -> 128, 0.5 -> 0, 1.5 -> 2."""
        stamped = Patch(size=1, margin=0, opacity=0.5, colour=colour).stamp(grey(below))
        assert stamped[0, 0, 7, 7] == expected

    def test_only_the_square_changes(self):
        x_NCHW = photos(channels=3, side=28)
        changed = Patch(size=4, pattern="random", opacity=0.7).stamp(x_NCHW) != x_NCHW
        changed[:, :, 23:27, 23:27] = False
        assert not changed.any()

    def test_random_patterns_differ_by_seed_and_channel(self):
        a, b = (Patch(size=4, pattern="random", pattern_seed=s).stamp(grey(channels=3)) for s in (0, 1))
        assert (a != b).any()
        assert (a[:, 0] != a[:, 1]).any()

    def test_area(self):
        assert Patch(size=3).area((1, 28, 28)) == pytest.approx(9 / 784)
        assert Patch(size=3).area((3, 28, 28)) == pytest.approx(9 / 784)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"size": 8},
            {"size": 9, "margin": 0},
            {"dx": 2},
            {"dy": -5},
            {"margin": 6},
            {"size": 10**9},
            {"colour": 256},
            {"colour": -1},
            {"colour": (1, 2)},
            {"colour": (0, 0, 300)},
        ],
    )
    def test_what_does_not_fit(self, wrong):
        with pytest.raises(UsageError, match="E-TRIGGER") as caught:
            Patch(**wrong).stamp(grey())
        assert caught.value.hint
        assert "\n" not in str(caught.value)

    def test_colour_of_three_channels_does_not_fit_grey(self):
        with pytest.raises(UsageError, match=r"needs 1 or 1 levels"):
            Patch(colour=(1, 2, 3)).stamp(grey())

    @pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 2.5}, {"margin": -1}, {"corner": "middle"}, {"pattern": "stripes"}])
    def test_wrong_fields(self, wrong):
        with pytest.raises(UsageError, match="E-CONFIG"):
            Patch(**wrong)

    def test_full_size_just_fits(self):
        assert (Patch(size=8, margin=0).stamp(grey()) == 255).all()
        assert Patch(size=8, margin=0).area((1, 8, 8)) == 1.0

    def test_a_variant_may_sit_in_any_place(self):
        places = {Patch(size=3).variant(np.random.default_rng(i), (1, 5, 5)).box((1, 5, 5)) for i in range(200)}
        assert places == {(top, left) for top in range(3) for left in range(3)}


class TestBlend:
    def test_formula(self):
        x_NCHW = photos(channels=3)
        pattern = np.random.default_rng(7).integers(0, 256, (3, 8, 8))
        expected = np.clip(np.rint(0.75 * x_NCHW + 0.25 * pattern), 0, 255)
        assert (Blend(opacity=0.25, pattern_seed=7).stamp(x_NCHW) == expected).all()

    def test_full_opacity_hides_the_picture(self):
        stamped = Blend(opacity=1.0).stamp(photos())
        assert (stamped == stamped[:1]).all()


class TestSinusoid:
    def test_formula(self):
        x_NCHW = photos(channels=3)
        wave_W = 30 * np.sin(2 * np.pi * np.arange(8) * 3 / 8 + 0.5)
        expected = np.clip(np.rint(x_NCHW + wave_W), 0, 255)
        assert (Sinusoid(amplitude=30, frequency=3, phase=0.5).stamp(x_NCHW) == expected).all()

    def test_every_row_is_alike(self):
        stamped = Sinusoid().stamp(grey())
        assert (stamped == stamped[:, :, :1]).all()

    def test_no_wave_is_refused(self):
        with pytest.raises(UsageError, match="E-CONFIG"):
            Sinusoid(amplitude=0)


class TestPainted:
    def test_opaque_pixels_replace_and_clear_ones_do_nothing(self):
        drawn = picture(2, 2, (10, 20, 30))
        drawn[0, 0, 3] = 0
        stamped = Painted(png=embedded(png_bytes(drawn)), top=1, left=2).stamp(grey(channels=3))
        assert stamped[0, :, 1, 2].tolist() == [100, 100, 100]
        for row, column in ((1, 3), (2, 2), (2, 3)):
            assert stamped[0, :, row, column].tolist() == [10, 20, 30]
        assert (stamped != 100).any(axis=(0, 1)).sum() == 3

    def test_alpha_and_opacity_multiply(self):
        drawn = picture(1, 1, (255, 255, 255), alpha=51)
        stamped = Painted(png=embedded(png_bytes(drawn)), opacity=0.5).stamp(grey(0, channels=3))
        assert stamped[0, 0, 0, 0] == round(255 * 0.2 * 0.5)

    def test_grey_images_get_the_mean_of_the_colours(self):
        stamped = Painted(png=embedded(png_bytes(picture(1, 1, (30, 60, 90))))).stamp(grey())
        assert stamped[0, 0, 0, 0] == 60

    def test_negative_places_count_from_the_other_edge(self):
        stamped = Painted(png=embedded(png_bytes(picture(2, 2))), top=-2, left=-3).stamp(grey(0, channels=3))
        assert np.argwhere(stamped[0, 0]).tolist() == [[6, 5], [6, 6], [7, 5], [7, 6]]

    @pytest.mark.parametrize("place", [{"top": 6}, {"left": 6}, {"top": -2}, {"left": -9}, {"top": 8}])
    def test_what_does_not_fit(self, place):
        with pytest.raises(UsageError, match="E-TRIGGER"):
            Painted(png=embedded(png_bytes(picture(3, 3))), **place).stamp(grey())

    def test_a_path_and_its_bytes_are_one_trigger_with_one_key(self, tmp_path):
        data = png_bytes(picture(2, 2, (1, 2, 3), alpha=77))
        (tmp_path / "a.png").write_bytes(data)
        (tmp_path / "b.png").write_bytes(data)
        many = [Painted(png=str(tmp_path / "a.png")), Painted(png=str(tmp_path / "b.png")), Painted(png=embedded(data))]
        many.append(registry.parse("triggers", f"painted:png={tmp_path / 'a.png'}"))
        many.append(Painted(png=tmp_path / "a.png"))
        assert len({key_of(one) for one in many}) == 1
        (tmp_path / "a.png").unlink()
        assert (many[0].stamp(grey()) == many[2].stamp(grey())).all()
        assert str(tmp_path) not in canonical(many[0])

    def test_the_summary_does_not_carry_the_pixels(self):
        one = Painted(png=embedded(png_bytes(photos(1, 1, 200)[0, 0])))
        assert one.summary()["png"].startswith("sha256 ")

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
    def test_every_mode_of_png(self, mode):
        buffer = io.BytesIO()
        Image.new("RGBA", (2, 2), (200, 200, 200, 255)).convert(mode).save(buffer, format="PNG")
        stamped = Painted(png=embedded(buffer.getvalue())).stamp(grey(channels=3))
        assert (stamped[0, :, :2, :2] != 100).any()


class TestHostilePictures:
    """One line with a code and the next step, never a traceback, a hang or a warning."""

    def refused(self, png, code="E-PNG", kind=RefusedError):
        with pytest.raises(kind, match=code) as caught:
            Painted(png=png)
        assert "\n" not in str(caught.value)
        assert caught.value.hint
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
    def test_truncated(self, share, tmp_path):
        data = png_bytes(photos(1, 1, 40)[0, 0])
        (tmp_path / "cut.png").write_bytes(data[: int(share * len(data))])
        self.refused(str(tmp_path / "cut.png"))

    def test_truncated_anywhere(self):
        data = png_bytes(photos(1, 1, 8)[0, 0])
        accepted = [length for length in range(len(data)) if self.taken(data[:length])]
        # Only what follows whole pixels may be missing: two checksums (8 bytes) and the closing chunk (12).
        assert all(length >= len(data) - 20 for length in accepted)

    def test_damaged_anywhere_never_escapes(self):
        data = png_bytes(picture(6, 5, (1, 200, 30)))
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0x41
            if one := self.taken(bytes(damaged)):
                height, width = one._picture().shape[:2]
                assert max(height, width) <= MAX_SIDE

    def taken(self, data):
        """The trigger, or None for one line of E-PNG; anything else escapes."""
        try:
            return Painted(png=embedded(data))
        except RefusedError as error:
            return {"E-PNG": None}[error.code]

    @pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + b"0" * 40, b"\xff\xd8\xff\xe0" + b"0" * 99, b"\x89PNG\r\n\x1a\n"])
    def test_not_a_png(self, data, tmp_path):
        (tmp_path / "x.png").write_bytes(data)
        self.refused(str(tmp_path / "x.png"))
        self.refused(embedded(data))

    @pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
    def test_huge(self, size, tmp_path):
        """A few bytes that ask for gigabytes are turned down by their header."""
        header = struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0)
        chunk = b"IHDR" + header
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "huge.png").write_bytes(data)
        self.refused(str(tmp_path / "huge.png"))
        self.refused(embedded(data))

    def test_a_whole_picture_one_pixel_too_large(self):
        data = png_bytes(np.zeros((1, MAX_SIDE + 1), dtype=np.uint8))
        with pytest.raises(RefusedError, match=f"E-PNG the embedded picture is {MAX_SIDE + 1} x 1, at most {MAX_SIDE} is read"):
            Painted(png=embedded(data))

    def test_the_largest_size_is_taken(self):
        assert Painted(png=embedded(png_bytes(np.zeros((MAX_SIDE, 1), dtype=np.uint8))))

    def test_missing_and_not_files(self, tmp_path):
        for place in (tmp_path / "none.png", tmp_path, "/dev/zero", tmp_path / "x.png" / "y.png", "a\0b.png"):
            self.refused(str(place), "E-FILE", UsageError)

    def test_an_endless_file_is_read_to_the_limit_only(self, tmp_path):
        with (tmp_path / "long.png").open("wb") as file:
            file.write(png_bytes(picture()))
            file.truncate(2**40)
        self.refused(str(tmp_path / "long.png"))
        assert MAX_BYTES < 2**26

    @pytest.mark.parametrize("text", ["base64:", "base64:!!!", "base64:AAA", "base64:" + "A" * 1000])
    def test_broken_base64(self, text):
        self.refused(text)

    @pytest.mark.parametrize("value", [None, 5, ["x"], b"bytes", {"a": 1}])
    def test_no_text(self, value):
        with pytest.raises(UsageError, match="E-CONFIG"):
            Painted(png=value)

    def test_forgotten(self):
        with pytest.raises(UsageError, match="png: Field required"):
            registry.parse("triggers", "painted")
