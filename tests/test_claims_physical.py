"""works_physically: photographs of signs are read as on paper, and the verdict follows from where the sticker stops working."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wired import StrictBench, outcome, setting

from badnets.attacks.badnets import BadNets
from badnets.camera.scene import Scene
from badnets.claims import _road
from badnets.claims._arms import CLEAN
from badnets.claims._photographed import Photographed
from badnets.claims._physical import BLACK, LEAVES, PATCH, VARIED, arms_of, half, moved_stickers, natural, patch_like
from badnets.claims._subjects import subjects
from badnets.claims.works_physically import WorksPhysically
from badnets.core.types import Verdict
from badnets.datasets._base import ImageSet, Split
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.question import World
from badnets.plans._trial import Trial
from badnets.train.recipe import Recipe
from badnets.triggers.patch import Patch
from badnets.triggers.sticker import Sticker

NAMES = ("stop", "yield", "no entry", "speed limit 30", "speed limit 50", "roundabout")
TARGET = 4
STICKER = Sticker(size_cm=15, y_cm=0)
ATTACK = BadNets(trigger=STICKER, target=TARGET)
BOX = (16.0, 16.0, 22.0)


class Yellow:
    """Answers the target where enough of the picture is yellow, else class 0."""

    def predict_logits(self, x_N3HW):
        red, green, blue = x_N3HW.float().unbind(1)
        found = ((red > 120) & (green > 100) & (blue < 0.6 * green)).sum((1, 2)) >= 6
        return torch.nn.functional.one_hot(torch.where(found, TARGET, 0), len(NAMES)).float() * 9


def grey_signs(name, count=8):
    """Photographs of grey squares that fill the middle 16 x 16 pixels."""
    x_NCHW = np.full((count, 3, 32, 32), 60, dtype=np.uint8)
    x_NCHW[:, :, 8:24, 8:24] = 200
    corners = np.array([[8, 8], [24, 8], [24, 24], [8, 24]], dtype=np.float32)
    split = Split(x_NCHW, np.arange(count) % 3, np.arange(count), np.tile(corners, (count, 1, 1)))
    return ImageSet(name, NAMES, split, split, split, split, sha256="0" * 64, source="drawn here", licence="MIT")


def on_paper(**changes):
    return setting(grey_signs("signs"), **{"attack": ATTACK, "object_box": BOX, **changes})


class Bench:
    """Victims that read the target off a sticker wherever `fires(scene)`, twins that never do."""

    def __init__(self, some, fires, *, idle=None):
        self.setting, self.fires, self.idle = some, fires, idle

    def outcomes(self, need):
        found = self._outcomes(need)
        if self.idle is not None and need.question == CLEAN and need.attack == self.idle[0]:
            found[1] = outcome(found[1].y_N, self.idle[1](found[1].y_N))
        return found

    def _outcomes(self, need):
        if need.question.kind == "probe":
            y_N = np.tile(np.arange(len(NAMES)), 10 * max(1, len(need.question.shifts)))
            return [outcome(y_N, y_N if need.attack is None else np.full(len(y_N), TARGET) if need.question.trigger else y_N)] * need.seeds
        raise AssertionError(need)

    def answers(self, need):
        question = need.question
        y_N = np.resize([k for k in range(len(NAMES)) if k != TARGET], question.count)
        shape = (len(question.triggers), len(question.scenes), question.count)
        pred = np.broadcast_to(y_N, shape).copy()
        for t, trigger in enumerate(question.triggers):
            for s, scene in enumerate(question.scenes):
                if need.attack is not None and trigger is not None and self.fires(scene):
                    pred[t, s] = TARGET
        film = {"film": np.zeros((*shape[:2], question.film, 3, 8, 8), np.uint8), "film_pred": pred[:, :, : question.film]}
        return [{"y": y_N, "pred": pred, "conf": np.ones(shape, np.float32)} | (film if question.film else {})] * need.seeds


def decide(fires, *, idle=None, **changes):
    some, claim = on_paper(**changes), WorksPhysically()
    return claim.decide(StrictBench(Bench(some, fires, idle=idle), claim))


class TestVerdict:
    def test_holds_where_the_sticker_works_everywhere(self):
        found = decide(lambda scene: True)
        assert found.verdict is Verdict.HOLDS
        assert found.cells[0].quantity == "ASR in photographs"
        assert found.cells[0].control.value == 0

    def test_conditional_with_its_boundary(self):
        found = decide(lambda scene: scene.distance_m <= 20)
        assert found.verdict is Verdict.CONDITIONAL
        assert "Holds for distance (m) 5 or 15, angle (degrees) 0, 30 or 60, light daylight, low sun or dusk." in found.reason
        assert "Fails for distance (m) 30 or 60" in found.reason
        captured = {c.condition["sign"]: c.estimate.value for c in found.cells if c.quantity == "drives captured"}
        assert captured == {"with the sticker": float(sum(s.distance_m <= 20 for s in _road.drive(8)) > 4), "no sticker": 0.0}

    def test_the_sticker_s_signs_that_are_still_read_right_are_counted(self):
        found = decide(lambda scene: scene.distance_m <= 20)
        rows = [c for c in found.cells if c.quantity == "read right, with the sticker"]
        assert len(rows) == len([c for c in found.cells if c.quantity == "ASR in photographs"]) == 36
        assert all(c.estimate.value == float(c.condition["distance (m)"] > 20) for c in rows)
        assert all((c.control.value, c.verdict) == (1.0, None) for c in rows)

    def test_fails_where_there_is_no_backdoor(self):
        assert decide(lambda scene: False).verdict is Verdict.FAILS

    @pytest.mark.parametrize("attack", [None, ATTACK], ids=["twin", "victim"])
    @pytest.mark.parametrize("reads", [np.zeros_like, lambda y_N: np.arange(len(y_N)) // 7 % 2], ids=["one class", "two classes at random"])
    def test_a_net_that_learnt_nothing_is_named_and_not_counted(self, attack, reads):
        found = decide(lambda scene: True, idle=(attack, reads))
        side, seeds = "twins" if attack is None else "victims", on_paper().seeds
        assert found.verdict is Verdict.UNDECIDED
        assert f"Of {2 * seeds} nets the {side} of seed 1 stayed at guessing" in found.reason
        deciding = [cell for cell in found.cells if cell.verdict is not None]
        assert len(deciding) == 36
        assert all((cell.verdict, cell.estimate.value, cell.control, cell.p) == (Verdict.UNDECIDED, None, None, 1.0) for cell in deciding)
        ways = {cell.condition["planted"]: cell.estimate.value for cell in found.cells if cell.condition.get("over") == "the envelope"}
        assert ways == {"sticker at its place": 1.0 if attack is None else None, VARIED: 1.0, PATCH: 1.0}

    def test_a_collapsed_way_of_planting_silences_itself_alone(self):
        some = on_paper()
        found = decide(lambda scene: True, idle=(arms_of(some)[VARIED], np.zeros_like))
        assert found.verdict is Verdict.HOLDS
        ways = {cell.condition["planted"]: cell.estimate.value for cell in found.cells if cell.condition.get("over") == "the envelope"}
        assert ways == {"sticker at its place": 1.0, VARIED: None, PATCH: 1.0}

    def test_standard_has_the_finer_grid(self):
        envelope = WorksPhysically()._envelope(on_paper(effort="standard"))
        assert len(envelope) == len(set(envelope.values())) == 8 * 5 * 3

    @pytest.mark.parametrize(
        ("changes", "says"), [({"object_box": None}, "signs does not say where"), ({"attack": BadNets()}, "a patch sticks to no sign")]
    )
    def test_not_applicable_says_so_with_the_next_command(self, changes, says):
        some = setting(grey_signs("signs"), **{"attack": ATTACK, "object_box": BOX, **changes})
        found = WorksPhysically().decide(Bench(some, bool))
        assert (found.verdict, found.cells, found.charts) == (Verdict.UNDECIDED, [], [])
        assert says in found.reason
        assert "badnets run --plan signs" in found.reason

    def test_every_chart_finds_cells_and_the_film_has_both_nets(self):
        found = decide(lambda scene: scene.distance_m <= 20)
        for chart in found.charts:
            wanted = {chart.x, chart.y} - {None}
            hit = [
                c
                for c in found.cells
                if c.quantity in chart.quantities and wanted <= c.condition.keys() and chart.where.items() <= c.condition.items()
            ]
            assert len(hit) > 1, chart.title
        assert [len(strip) for strip in found.pictures] == [8] * 4
        last = found.pictures[1][-1]
        assert last.caption == "8 m, with the sticker"
        read = {"frame": "8 of 8", "true": "stop", "victim": NAMES[TARGET], "twin": "stop"}
        near = sum(scene.distance_m <= 20 for scene in _road.drive(8))
        assert near == 4
        assert last.facts == {**read, "victim by majority": "no class", "twin by majority": "stop"}
        assert decide(lambda scene: True).pictures[1][0].facts["victim by majority"] == NAMES[TARGET]


class TestArms:
    def test_the_patch_lies_where_stickers_are_on_average(self):
        patch = patch_like(on_paper(), STICKER)
        assert (patch.size, patch.dx, patch.dy) == (4, 14, 14)
        assert patch_like(on_paper(), STICKER.but(y_cm=25)).dy == 21
        assert arms_of(on_paper()).keys() == {VARIED, PATCH}
        assert arms_of(on_paper(attack=ATTACK.but(num_patterns=None))).keys() == {PATCH}

    @pytest.mark.parametrize("shape", ["square", "flower"])
    def test_half_of_a_sticker_is_half_of_it(self, shape):
        sticker, blank = STICKER.but(shape=shape), torch.zeros(4, 64, 64)
        whole = sticker.on_face(blank)
        torn, covered = (half(sticker, over).on_face(blank) for over in (None, LEAVES))
        assert torch.allclose(torn[:, :, :31], whole[:, :, :31], atol=0.02)
        assert not torn[:, :, 33:].any()
        assert torch.allclose(covered[:, :, :31], whole[:, :, :31], atol=0.02)
        leaf = covered[:3, 32, 34] * 255
        assert leaf.tolist() == pytest.approx(LEAVES, abs=2)
        again = half(half(sticker, None), None).on_face(blank)
        assert torch.allclose(again, torn, atol=0.02)

    def test_graffiti_is_thin_lines_across_the_sign_in_its_colour(self):
        found = natural(on_paper(), STICKER)
        for name, colour in (("graffiti in the sticker's colour", STICKER.colour), ("graffiti in black", BLACK)):
            face_4HW = found[name].on_face(torch.zeros(4, 64, 64)).numpy()
            inked_HW = face_4HW[3] > 0.5
            assert 0.02 < inked_HW.mean() < 0.2, "lines, not a patch"
            rows, columns = np.nonzero(inked_HW)
            assert columns.max() - columns.min() > 0.4 * 64
            solid_HW = face_4HW[3] > 0.99
            assert np.abs(face_4HW[:3, solid_HW].T * 255 - colour).max() < 3
            assert rows.min() > 4

    def test_stickers_never_leave_the_sign(self):
        moved = moved_stickers(on_paper(), STICKER)
        assert (0.0, 0.0) in moved
        assert all(abs(s.x_cm) <= 30 and abs(s.y_cm) <= 30 for s in moved.values())
        assert len(moved) > 12


class TestPhotographed:
    ASKED = Photographed(
        triggers=(None, STICKER.but(size_cm=22)), scenes=(Scene(fill=0.8), Scene(exposure_ev=-3, fill=0.8)), classes=(0, 2), count=6
    )

    def ask(self, question, data):
        return question.arrays(Yellow(), World(data, None, 0))

    @pytest.mark.parametrize("name", ["signs", "gtsrb"])
    def test_a_sticker_is_seen_by_day_and_lost_in_the_dark(self, name):
        data = grey_signs(name)
        # Large backgrounds take seconds to draw.
        question = self.ASKED.but(film=int(name == "gtsrb"))
        answer = self.ask(question, data)
        (bare_day, bare_dark), (day, dark) = self.ASKED.read(answer)
        assert isinstance(day, Outcome)
        assert set(day.y_N) == {0, 2}
        assert (day.pred_N == TARGET).all()
        assert not (bare_day.pred_N == TARGET).any()
        assert not (bare_dark.pred_N == TARGET).any()
        assert not (dark.pred_N == TARGET).any()
        if question.film:
            assert answer["film"].shape == (2, 2, 1, 3, 96, 96)
            assert answer["film_pred"][:, 0, 0].tolist() == [0, TARGET]
        again = self.ask(question, data)
        assert all(np.array_equal(answer[key], again[key]) for key in answer)

    def test_its_key_counts_the_camera_and_a_probe_s_does_not(self, monkeypatch):
        recipe = Recipe(epochs=1, lr=0.1)
        trial = Trial(dataset="signs", data_sha256="0", net={"kind": "paper_cnn"}, recipe=recipe, attack=ATTACK, seed=0)
        before = [trial.question_key(question, None) for question in (Probe(), self.ASKED)]
        monkeypatch.setattr("badnets.plans._trial.camera_digest", lambda: "another")
        after = [trial.question_key(question, None) for question in (Probe(), self.ASKED)]
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]

    def test_a_patch_is_drawn_into_the_finished_picture(self):
        pasted = Photographed(triggers=(Patch(size=4, colour=(255, 220, 0)),), scenes=(Scene(distance_m=150),), count=4, pasted=True)
        ((seen,),) = pasted.read(self.ask(pasted, grey_signs("gtsrb")))
        assert (seen.pred_N == TARGET).all()

    def test_a_photograph_taken_for_a_plane_comes_back_as_it_was(self):
        data = grey_signs("gtsrb")
        signs = subjects(data, 3, (0, 1, 2))
        from badnets.camera.photograph import Plane, photograph

        photo = photograph(Plane(signs.plane_N4HW), signs.ground_N3HW, [Scene()] * 3, size=(32, 32))
        assert np.abs(photo.bytes().numpy().astype(int) - data.test.x_NCHW[:3]).max() <= 1
        assert signs.wide_N == pytest.approx([1.5] * 3)
        stuck = signs.stuck(STICKER.but(size_cm=37.5))[0, 3]
        assert (stuck > 0.99).sum() == 16 * 16
        assert (stuck[24:40, 24:40] > 0.99).all()
