"""The examiner of detectors: what it hands out, what it keeps back, which inputs and rows carry the trigger."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from wired import ATTACK, CLASSES, TARGET, image_set, wired, world

from badnets.claims._scanned import CLEAN, HELD, SHOWN, Scanned
from badnets.core import registry
from badnets.core.finding import Finding, Level
from badnets.core.suspect import Suspect
from badnets.core.tensors import pack, unpack
from badnets.nets._weights import to_bytes

DATA = image_set(20)


def exam(name, attack=ATTACK, *, data=DATA, seed=0, **fields):
    question = Scanned(detector={"kind": name}, attack=attack, **fields)
    return question.exam(registry.parse("detectors", name), wired(attack), world(data, seed=seed))


def unmarked(x_NCHW):
    """Images without the place where the trigger goes, as bytes."""
    x_NCHW = x_NCHW.copy()
    x_NCHW[:, :, -2:, -2:] = 0
    return [row.tobytes() for row in x_NCHW]


INPUTS, ROWS, MODELS = (
    [name for name in registry.names("detectors") if registry.entry("detectors", name)().level is level]
    for level in (Level.INPUTS, Level.ROWS, Level.MODEL)
)


class TestExam:
    def test_a_suspect_has_no_field_for_the_secret(self):
        assert {f.name for f in dataclasses.fields(Suspect)} == {"network", "shape", "num_classes", "clean", "training", "inputs"}

    @pytest.mark.parametrize("name", INPUTS)
    def test_of_inputs_grants_clean_images_and_no_training_data(self, name):
        suspect, part_N = exam(name)
        assert suspect.training is None
        assert np.array_equal(suspect.clean[0], DATA.budget.x_NCHW)
        assert len(suspect.inputs) == len(part_N)

    @pytest.mark.parametrize("name", ROWS)
    def test_of_rows_grants_them_and_nothing_else(self, name):
        suspect, part_N = exam(name)
        assert (suspect.clean, suspect.inputs) == (None, None)
        assert len(suspect.training[1]) == len(part_N)

    @pytest.mark.parametrize("name", MODELS)
    def test_of_nets_grants_what_the_detector_needs(self, name):
        suspect, part_N = exam(name)
        assert (suspect.training, suspect.inputs, len(part_N)) == (None, None, 0)
        assert (suspect.clean is None) == (registry.entry("detectors", name).access == "model")

    def test_triggered_inputs_and_clean_ones_are_of_different_pictures(self):
        suspect, part_N = exam("strip", inputs=50)
        assert np.bincount(part_N).tolist() == [50, 50, 50]
        held, clean, shown = (unmarked(suspect.inputs[part_N == part]) for part in (HELD, CLEAN, SHOWN))
        assert not set(clean) & set(shown)
        assert set(held) <= set(unmarked(DATA.validation.x_NCHW))
        assert set(clean) | set(shown) <= set(unmarked(DATA.test.x_NCHW))

    @pytest.mark.parametrize(
        ("attack", "attacked"),
        [(ATTACK, {0, 1, 2, 3, 4}), (ATTACK.but(mapping="all_to_all"), set(range(CLASSES))), (ATTACK.but(mapping="source_specific"), {1})],
    )
    def test_only_classes_that_the_attack_sends_elsewhere_carry_the_trigger(self, attack, attacked):
        suspect, part_N = exam("strip", attack)
        label_of = dict(zip(unmarked(DATA.test.x_NCHW), DATA.test.y_N.tolist(), strict=True))
        assert {label_of[row] for row in unmarked(suspect.inputs[part_N == SHOWN])} == attacked
        assert (suspect.inputs[part_N == SHOWN][:, :, -2:, -2:] == 255).all()

    def test_the_same_pictures_for_every_net(self):
        for part in (HELD, CLEAN, SHOWN):
            first, second = ((suspect.inputs, parts) for suspect, parts in (exam("strip"), exam("strip", seed=5)))
            assert np.array_equal(first[0][first[1] == part], second[0][second[1] == part])

    def test_few_test_images_are_halved(self):
        suspect, part_N = exam("strip", inputs=500)
        held, clean, shown = np.bincount(part_N).tolist()
        assert (held, clean) == (len(DATA.validation), len(DATA.test) // 2)
        targets = sum(row in set(unmarked(DATA.test.x_NCHW[DATA.test.y_N == TARGET])) for row in unmarked(suspect.inputs[part_N == CLEAN]))
        assert shown == len(DATA.test) // 2 - (np.sum(DATA.test.y_N == TARGET) - targets)

    def test_held_inputs_are_of_all_classes_also_where_rows_are_in_order(self):
        order = np.argsort(DATA.validation.y_N, kind="stable")
        in_order = dataclasses.replace(DATA, validation=DATA.validation.take(order))
        suspect, part_N = exam("strip", data=in_order, inputs=60)
        label_of = dict(zip(unmarked(in_order.validation.x_NCHW), in_order.validation.y_N.tolist(), strict=True))
        assert {label_of[row] for row in unmarked(suspect.inputs[part_N == HELD])} == set(range(CLASSES))

    @pytest.mark.parametrize(
        "attack", [ATTACK, ATTACK.but(mapping="source_specific", rate=0.05, cover_rate=0.1), ATTACK.but(num_patterns=4)]
    )
    def test_rows_are_those_that_the_net_was_trained_on(self, attack):
        suspect, part_N = exam("spectre", attack, seed=3)
        poisoned = attack.poison(DATA.train.x_NCHW, DATA.train.y_N, num_classes=CLASSES, seed=3)
        assert np.array_equal(suspect.training[0], poisoned.x_NCHW)
        assert np.array_equal(suspect.training[1], poisoned.y_N)
        assert (part_N == SHOWN).sum() == round(attack.rate * len(DATA.train))
        assert np.array_equal(part_N == SHOWN, poisoned.stamped_N & (poisoned.y_N != poisoned.source_N))

    def test_a_twin_is_shown_what_it_was_trained_on(self):
        suspect, part_N = exam("spectre", None)
        assert np.array_equal(suspect.training[0], DATA.train.x_NCHW)
        assert set(part_N) == {CLEAN}
        assert set(exam("strip", None)[1]) == {HELD, CLEAN}

    @pytest.mark.parametrize("name", ["mm_bd", "strip", "activation_clustering", "ibd_psc"])
    def test_an_answer_can_be_stored_and_read(self, name):
        question, net = Scanned(detector={"kind": name}, attack=ATTACK, inputs=20), wired(ATTACK)
        before = to_bytes(net)
        answer = question.arrays(net, world(DATA))
        assert to_bytes(net) == before
        found = question.read(unpack(pack(answer))[0])
        assert found.analysable == (name != "ibd_psc")
        assert len(found.score_R) == (name == "mm_bd")
        assert len(found.score_N) == len(found.part_N) == (0 if name in ("mm_bd", "ibd_psc") else 60 if name == "strip" else 120)
        assert found.flag_N is None or len(found.flag_N) == len(found.score_N)
        assert found.seconds >= 0
        again = question.arrays(net, world(DATA))
        assert all(np.array_equal(answer[key], again[key]) for key in answer if key != "cost")

    def test_a_detector_of_nets_may_be_asked_repeatedly(self):
        question = Scanned(detector={"kind": "random_guess"}, repeats=4)
        assert len(set(question.read(question.arrays(wired(ATTACK), world(DATA))).score_R)) == 4

    def test_partly_silent_is_silent(self, monkeypatch):
        said = iter([Finding(score=1.0), Finding(why_not="no"), Finding(score=2.0)])
        monkeypatch.setattr("badnets.detectors._base.Detector.scan", lambda *_, **__: next(said))
        question = Scanned(detector={"kind": "never"}, repeats=3)
        assert not question.read(question.arrays(wired(ATTACK), world(DATA))).analysable
