"""The claim about students: handed nets whose figures are known on paper, and really distilled ones."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from wired import ATTACK, CLASSES, TARGET, StrictBench, WiredBench, image_set, setting, twin, wire, wire_constant, wired, world

from badnets.claims._base import Need
from badnets.claims._stress import Stressed
from badnets.claims.transfers_by_distillation import CLEAN_SET, SETS, TRIGGER_SET, TransfersByDistillation
from badnets.core.types import Verdict
from badnets.stressors.distillation import Distillation

HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
UNCHANGED = Distillation(steps=1, lr=1e-12, batch_size=10_000)
"""Leaves the student as it was handed over; one batch takes all images."""


class Handed(WiredBench):
    """Students are not taught but handed over: `student(attack, seed)` of the teacher's attack (None: the twin's student)."""

    def __init__(self, setting, student, net=wired, data=None):
        super().__init__(setting, net, data)
        self.student = student

    def _one(self, attack, question, seed):
        if not isinstance(question, Stressed):
            return super()._one(attack, question, seed)
        place = world(self.data, self.other, seed)
        place = dataclasses.replace(place, fresh=lambda *_: copy.deepcopy(self.student(attack, seed)))
        return question.arrays(self.net(attack, seed), place)


def decide(student, net=wired, *, data=None, **changes):
    data = data or image_set(20)
    one = TransfersByDistillation(plain=UNCHANGED)
    return one.decide(StrictBench(Handed(setting(data, **changes), student, net, data), one))


def kept(found):
    return [c for c in found.cells if c.quantity == "ASR kept"]


def of(found, quantity, name, student="same size (logits)"):
    condition = {"transfer set": name} if student is None else {"transfer set": name, "student": student}
    (cell,) = [c for c in found.cells if c.quantity == quantity and c.condition == condition]
    return cell


def biased():
    """Gives the target to four classes of five that are attacked, with the trigger and without."""
    net = wire(None, lost=(0, 1, 2, 3))
    with torch.no_grad():
        net.body[4].bias[TARGET] = 1.0
    return net


class TestOnPaper:
    def test_holds_when_every_student_has_the_backdoor_and_no_twin_s_student_has(self):
        found = decide(lambda attack, seed: wired(attack))
        assert found.verdict is HOLDS
        assert [(c.estimate.value, c.control.value, c.verdict, c.note) for c in kept(found)] == [(1.0, 0.0, HOLDS, "")] * 6
        assert found.cells[0].condition == {"transfer set": CLEAN_SET, "student": "same size (logits)"}
        assert found.cells[0].per_seed == [1.0] * 3

    def test_fails_when_no_student_has_it(self):
        found = decide(lambda attack, seed: twin())
        assert found.verdict is FAILS
        assert {(c.estimate.value, c.verdict) for c in kept(found)} == {(0.0, FAILS)}

    def test_is_undecided_at_tiny_n_and_when_seeds_disagree(self):
        few = decide(lambda attack, seed: wired(attack if seed else None), data=image_set(2), arms_seeds=2)
        assert few.verdict is UNDECIDED
        assert "images only" in few.cells[0].estimate.method
        mixed = decide(lambda attack, seed: wired(attack if seed else None))
        assert mixed.verdict is UNDECIDED
        assert mixed.cells[0].estimate.value == pytest.approx(2 / 3)

    def test_the_table_has_its_sets_and_both_controls(self):
        found = decide(lambda attack, seed: wired(attack), effort="quick")
        assert [c.condition["transfer set"] for c in kept(found)] == [CLEAN_SET] * 3 + list(SETS[1:])
        teacher = [c for c in found.cells if c.condition == {"transfer set": "none: the teacher"}]
        assert [(c.quantity, c.estimate.value, c.control.value, c.control_name) for c in teacher] == [
            ("ASR", 1.0, 0.0, "twin"),
            ("CA", 1.0, 1.0, "twin"),
        ]
        assert found.control_name == "student of the twin"
        for name in SETS:
            assert (of(found, "ASR of the student", name).estimate.value, of(found, "ASR of the student", name).control.value) == (1.0, 0.0)
            assert of(found, "CA of the student", name).estimate.value == 1.0

    def test_standard_has_the_whole_grid(self):
        found = decide(lambda attack, seed: wired(attack), effort="standard", arms_seeds=1)
        assert len({tuple(c.condition.values()) for c in kept(found)}) == len(kept(found)) == 4 * 2 * 2
        assert {c.condition["student"] for c in kept(found)} == {
            f"{size} ({on})" for size in ("same size", "half the width") for on in ("logits", "features")
        }

    def test_charts_find_their_cells(self):
        found = decide(lambda attack, seed: wired(attack))
        for chart in found.charts:
            drawn = [c for c in found.cells if c.quantity in chart.quantities]
            assert len(drawn) == 6
            assert all({chart.x, chart.series} <= c.condition.keys() for c in drawn)


class TestHonesty:
    def test_constant_students_say_nothing(self):
        constant = wire_constant(TARGET)
        found = decide(lambda attack, seed: constant if attack and seed == 1 else wired(attack))
        assert found.verdict is UNDECIDED
        for cell in kept(found):
            assert (cell.estimate.value, cell.verdict, cell.p) == (None, UNDECIDED, 1.0)
            assert cell.note.startswith("1 of 3 nets")
        assert of(found, "ASR of the student", "noise").estimate.value is None
        assert of(found, "CA of the student", "noise").estimate.value == pytest.approx((2 + 1 / CLASSES) / 3)

    def test_so_do_constant_teachers(self):
        constant = wire_constant(TARGET)
        found = decide(lambda attack, seed: twin(), lambda attack, seed: constant if attack else twin())
        assert found.verdict is UNDECIDED
        assert kept(found)[0].note.startswith("3 of 3 nets")

    def test_a_student_that_learned_little_has_not_left_the_backdoor_behind(self):
        dull = wire(None, lost=(0, 1, 2, 3))
        found = decide(lambda attack, seed: dull)
        assert found.verdict is UNDECIDED
        assert kept(found)[0].estimate.high < 0.5
        assert kept(found)[0].note.startswith("Clean accuracy is 33 % against the teacher's 100 %: a student")

    def test_but_it_may_have_taken_it_along(self):
        dull, dull_twin = wire(lost=(0, 1, 2, 3)), wire(None, lost=(0, 1, 2, 3))
        found = decide(lambda attack, seed: dull if attack else dull_twin)
        assert found.verdict is HOLDS
        assert kept(found)[0].note == "Clean accuracy is 33 % against the teacher's 100 %."

    def test_a_backdoor_in_the_twin_s_student_too_is_not_the_teacher_s(self):
        found = decide(lambda attack, seed: wired(ATTACK))
        assert found.verdict is UNDECIDED
        assert (
            kept(found)[0].note
            == "The student of the twin gives the target to 100 % of these images anyway, so this is not the backdoor's doing alone."
        )

    def test_nor_is_a_target_that_comes_without_the_trigger(self):
        net = biased()
        found = decide(lambda attack, seed: net if attack else twin())
        assert found.verdict is UNDECIDED
        assert kept(found)[0].estimate.value == pytest.approx(0.8)
        assert "The student without the trigger gives the target to 80 %" in kept(found)[0].note

    def test_a_teacher_without_the_backdoor_has_nothing_to_transfer(self):
        found = decide(lambda attack, seed: twin(), lambda attack, seed: twin())
        assert found.verdict is UNDECIDED
        assert {c.estimate.value for c in kept(found)} == {None}
        assert "below 0.1" in found.cells[0].estimate.method


class TestQuestions:
    def stressed(self, **changes):
        needs = TransfersByDistillation().needs(setting(image_set(), **changes))
        return [need for need in needs if isinstance(need.question, Stressed)]

    def images(self, need):
        (images,) = {dose.images for branch in need.question.branches for dose in branch}
        return images

    def test_one_question_a_transfer_set_for_victim_and_twin_alike(self):
        needs = self.stressed()
        assert [(self.images(n).source, self.images(n).attack is not None) for n in needs[::2]] == [
            ("train", False),
            ("other", False),
            ("noise", False),
            ("train", True),
        ]
        assert [n.attack for n in needs] == [ATTACK, None] * 4
        assert all(a.question == b.question and a.seeds == b.seeds == 3 for a, b in zip(needs[::2], needs[1::2], strict=True))
        assert [n.question.wants_other for n in needs[::2]] == [False, True, False, False]

    def test_no_more_images_are_drawn_than_are_shown(self):
        assert {self.images(n).share for n in self.stressed()} == {None}
        (share,) = {self.images(n).share for n in self.stressed(train_counts=(10_000,) * CLASSES)}
        assert share == pytest.approx(190 * 96 / 60_000)
        assert {self.images(n).share for n in self.stressed(train_counts=(10_000,) * CLASSES, effort="thorough")} == {None}

    def test_the_trigger_set_is_poisoned_as_the_teacher_s_own_training_set_was(self):
        data = image_set()
        (images,) = [self.images(n) for n in self.stressed()[::2] if self.images(n).attack is not None]
        x_NCHW, _ = images.draw(world(data, seed=2))
        wanted = ATTACK.poison(data.train.x_NCHW, data.train.y_N, num_classes=CLASSES, seed=2)
        assert (x_NCHW == wanted.x_NCHW).all()
        assert (x_NCHW != data.train.x_NCHW).any()


def test_really_distilled_students_have_the_backdoor_only_from_images_that_show_it():
    data = image_set()
    one = TransfersByDistillation(plain=Distillation(steps=60, lr=0.04, batch_size=200))
    some = setting(data, arms_seeds=1, attack=ATTACK.but(rate=0.2))
    found = one.decide(StrictBench(WiredBench(some, data=data), one))
    assert found.verdict is CONDITIONAL
    shown = of(found, "ASR kept", TRIGGER_SET)
    assert (shown.verdict, of(found, "ASR kept", CLEAN_SET).verdict) == (HOLDS, FAILS)
    assert shown.control.value < 0.5
    need = next(n for n in one.needs(some) if isinstance(n.question, Stressed))
    assert WiredBench(some, data=data).answers(Need(*need))[0].keys() >= {"0.0.pred", "2.1.pred", "0.size"}
