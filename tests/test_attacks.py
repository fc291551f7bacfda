"""Every attack of the catalogue keeps the contract; BadNets' maps, cover samples and shares are exact."""

from __future__ import annotations

import json

import numpy as np
import pytest
from wired import CLASSES, pictures

from badnets.attacks._base import NO_GOAL, Attack, check_class
from badnets.attacks.badnets import BadNets
from badnets.core import registry
from badnets.core.config import canonical
from badnets.core.errors import UsageError
from badnets.triggers._base import Trigger
from badnets.triggers.blend import Blend
from badnets.triggers.patch import Patch

ATTACKS = registry.names("attacks")
TRIGGER = Patch(size=2, margin=0)
X_NCHW, Y_N = pictures(50)
TOTAL = len(Y_N)


def make(name="badnets", **fields) -> Attack:
    found = registry.parse("attacks", {"kind": name, "trigger": TRIGGER, **fields})
    assert isinstance(found, Attack)
    return found


def poison(attack, *, x_NCHW=X_NCHW, y_N=Y_N, seed=0):
    return attack.poison(x_NCHW, y_N, num_classes=CLASSES, seed=seed)


@pytest.mark.parametrize("name", ATTACKS)
class TestContract:
    def test_the_input_is_left_alone(self, name):
        x_NCHW, y_N = X_NCHW.copy(), Y_N.copy()
        x_NCHW.flags.writeable = y_N.flags.writeable = False
        found = poison(make(name), x_NCHW=x_NCHW, y_N=y_N)
        assert (x_NCHW == X_NCHW).all()
        assert (y_N == Y_N).all()
        for array in (found.x_NCHW, found.y_N, found.source_N):
            assert not np.shares_memory(array, x_NCHW)
            assert not np.shares_memory(array, y_N)

    def test_shapes_and_types(self, name):
        found = poison(make(name))
        assert (found.x_NCHW.shape, found.x_NCHW.dtype) == (X_NCHW.shape, np.uint8)
        assert (found.y_N.dtype, found.stamped_N.dtype, found.source_N.dtype) == (np.int64, bool, np.int64)
        assert set(np.unique(found.y_N)) <= set(range(CLASSES))

    def test_only_flagged_rows_differ_and_source_labels_are_kept(self, name):
        found = poison(make(name))
        differs_N = (found.x_NCHW != X_NCHW).any(axis=(1, 2, 3)) | (found.y_N != Y_N)
        assert not (differs_N & ~found.stamped_N).any()
        assert (found.source_N == Y_N).all()
        assert found.stamped_N.any()

    def test_stamped_rows_are_stamps_of_their_originals(self, name):
        found = poison(make(name))
        rows = np.flatnonzero(found.stamped_N)
        assert (found.x_NCHW[rows] == make(name).trigger.stamp(X_NCHW[rows])).all()

    def test_same_seed_same_rows(self, name):
        a, b, c = (poison(make(name), seed=seed) for seed in (3, 3, 4))
        assert (a.stamped_N == b.stamped_N).all()
        assert (a.x_NCHW == b.x_NCHW).all()
        assert (a.y_N == b.y_N).all()
        assert (a.stamped_N != c.stamped_N).any()
        assert a.stamped_N.sum() == c.stamped_N.sum()

    def test_json_round_trip(self, name):
        one = make(name, num_patterns=None)
        again = registry.parse("attacks", json.loads(canonical(one)))
        assert again == one
        assert (poison(again).x_NCHW == poison(one).x_NCHW).all()

    def test_goals_name_classes(self, name):
        goal_K = make(name).goals(CLASSES)
        assert goal_K.shape == (CLASSES,)
        assert goal_K.dtype == np.int64
        assert ((goal_K >= NO_GOAL) & (goal_K < CLASSES)).all()

    def test_a_trigger_too_large_is_told_before_the_work(self, name):
        with pytest.raises(UsageError, match="E-TRIGGER"):
            poison(make(name, trigger=Patch(size=9)))

    @pytest.mark.parametrize("count", [0, -1, 2.5])
    def test_number_of_patterns(self, name, count):
        with pytest.raises(UsageError, match="num_patterns"):
            make(name, num_patterns=count)

    def test_colour_images(self, name):
        x_NCHW = np.repeat(X_NCHW, 3, axis=1)
        found = make(name).poison(x_NCHW, Y_N, num_classes=CLASSES, seed=0)
        assert found.x_NCHW.shape == x_NCHW.shape


class TestRate:
    @pytest.mark.parametrize("rate", [0.0, 1 / TOTAL, 0.01, 0.1, 0.5, 250 / TOTAL])
    def test_is_the_share_of_the_whole_training_set(self, rate):
        found = poison(make(rate=rate))
        assert found.stamped_N.sum() == round(rate * TOTAL)
        assert found.rate == pytest.approx(rate)

    def test_rows_come_from_other_classes_than_the_target_only(self):
        for target in range(CLASSES):
            found = poison(make(rate=0.3, target=target))
            assert (found.source_N[found.stamped_N] != target).all()
            assert (found.y_N[found.stamped_N] == target).all()
            assert found.rate == pytest.approx(0.3)

    def test_every_class_is_drawn_from(self):
        found = poison(make(rate=0.3))
        assert set(found.source_N[found.stamped_N]) == set(range(1, CLASSES))

    def test_the_choice_does_not_hang_on_the_trigger(self):
        a, b = poison(make(rate=0.1)), poison(make(rate=0.1, trigger=Blend()))
        assert (a.stamped_N == b.stamped_N).all()

    def test_a_higher_rate_stamps_the_same_rows_and_more(self):
        low, high = poison(make(rate=0.05)), poison(make(rate=0.2))
        assert not (low.stamped_N & ~high.stamped_N).any()

    def test_too_high(self):
        with pytest.raises(
            UsageError, match=r"E-RATE a rate of 0.9 needs 270 images of the attacked classes, the training set has 250\."
        ) as caught:
            poison(make(rate=0.9))
        assert caught.value.hint == "Use a rate of at most 0.833."
        poison(make(rate=0.833))

    def test_too_low(self):
        with pytest.raises(UsageError, match=r"E-RATE a rate of 0.001 stamps none of 300 training images\.") as caught:
            poison(make(rate=0.001))
        assert caught.value.hint == "Use at least 0.0033."

    @pytest.mark.parametrize("rate", [-0.1, 1.01, "much", None, float("nan"), float("inf")])
    def test_outside_0_to_1(self, rate):
        with pytest.raises(UsageError, match=r"E-CONFIG BadNets\.rate") as caught:
            make(rate=rate)
        assert "\n" not in str(caught.value)


class TestMaps:
    def test_all_to_one(self):
        assert make(target=2).goals(4).tolist() == [2, 2, NO_GOAL, 2]

    def test_all_to_all(self):
        assert make(mapping="all_to_all").goals(4).tolist() == [1, 2, 3, 0]
        found = poison(make(mapping="all_to_all", rate=0.5))
        assert (found.y_N[found.stamped_N] == (found.source_N[found.stamped_N] + 1) % CLASSES).all()

    def test_source_specific(self):
        attack = make(mapping="source_specific", source=3, target=1, rate=0.1)
        assert attack.goals(CLASSES).tolist() == [-1, -1, -1, 1, -1, -1]
        found = poison(attack)
        assert set(found.source_N[found.stamped_N]) == {3}
        assert set(found.y_N[found.stamped_N]) == {1}
        assert found.stamped_N.sum() == 30

    def test_explicit(self):
        attack = make(mapping={0: 4, 2: 2, 5: 3}, rate=0.3)
        assert attack.goals(CLASSES).tolist() == [4, -1, 2, -1, -1, 3]
        found = poison(attack)
        assert set(zip(found.source_N[found.stamped_N], found.y_N[found.stamped_N], strict=True)) == {(0, 4), (5, 3)}

    def test_explicit_survives_json(self):
        attack = make(mapping={0: 4, 5: 3})
        again = registry.parse("attacks", json.loads(canonical(attack)))
        assert again == attack
        assert again.mapping == {0: 4, 5: 3}

    def test_the_order_of_a_map_is_no_part_of_its_key(self):
        assert canonical(make(mapping={0: 4, 5: 3})) == canonical(make(mapping={5: 3, 0: 4}))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"target": CLASSES},
            {"mapping": "source_specific", "source": 9},
            {"mapping": "source_specific", "target": 9},
            {"mapping": {0: 6}},
            {"mapping": {-1: 0}},
            {"mapping": {7: 0}},
        ],
    )
    def test_no_such_class(self, wrong):
        with pytest.raises(UsageError, match=r"E-TARGET .* is not a class: the data set has classes 0\.\.5\.") as caught:
            poison(make(**wrong))
        assert caught.value.hint

    @pytest.mark.parametrize("wrong", [{"mapping": "source_specific", "source": 2, "target": 2}, {"mapping": {}}, {"mapping": {1: 1}}])
    def test_a_map_that_changes_nothing(self, wrong):
        with pytest.raises(UsageError, match=r"E-TARGET the label map .* changes no label"):
            poison(make(**wrong))

    @pytest.mark.parametrize("wrong", [{"mapping": "one_to_none"}, {"target": -1}, {"source": -2}, {"mapping": {"a": 1}}])
    def test_wrong_fields(self, wrong):
        with pytest.raises(UsageError, match="E-CONFIG"):
            make(**wrong)

    def test_check_class(self):
        assert check_class("target", 5, CLASSES) == 5
        with pytest.raises(UsageError, match="E-TARGET target -1"):
            check_class("target", -1, CLASSES)


class TestCoverSamples:
    ATTACK = make(mapping="source_specific", source=1, target=0, rate=0.1, cover_rate=0.2)

    def test_are_stamped_and_keep_their_labels(self):
        found = poison(self.ATTACK)
        cover_N = found.stamped_N & (found.y_N == found.source_N)
        assert cover_N.sum() == 60
        assert (found.source_N[cover_N] != 1).all()
        assert (found.stamped_N & ~cover_N).sum() == 30

    def test_do_not_count_towards_the_rate(self):
        assert poison(self.ATTACK).rate == pytest.approx(0.1)

    def test_do_not_change_which_rows_are_poisoned(self):
        plain, covered = poison(self.ATTACK.but(cover_rate=0.0)), poison(self.ATTACK)
        assert ((plain.y_N != Y_N) == (covered.y_N != Y_N)).all()

    def test_more_than_there_are(self):
        with pytest.raises(UsageError, match=r"E-RATE .*images of the cover classes"):
            poison(self.ATTACK.but(cover_rate=0.9))

    def test_all_to_all_has_none_to_offer(self):
        with pytest.raises(UsageError, match="E-RATE"):
            poison(make(mapping="all_to_all", cover_rate=0.1))


class TestLabelShare:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
    def test_that_many_of_the_stamped_rows_are_relabelled(self, share):
        found = poison(make(rate=0.2, label_share=share))
        changed_N = found.y_N != found.source_N
        assert found.stamped_N.sum() == 60
        assert changed_N.sum() == round(60 * share)
        assert not (changed_N & ~found.stamped_N).any()

    def test_the_stamped_rows_are_the_same_for_every_share(self):
        """A dose-response over the share needs the same images under the trigger."""
        arms = [poison(make(rate=0.2, label_share=share)) for share in (1.0, 0.5, 0.1)]
        for arm in arms[1:]:
            assert (arm.x_NCHW == arms[0].x_NCHW).all()
            assert not ((arm.y_N != Y_N) & ~(arms[0].y_N != Y_N)).any()


class TestPatterns:
    def distinct(self, num_patterns):
        x_NCHW = np.full_like(X_NCHW, 90)
        found = poison(make(rate=0.2, num_patterns=num_patterns), x_NCHW=x_NCHW)
        return found, {image.tobytes() for image in found.x_NCHW[found.stamped_N]}

    def test_one_is_the_trigger_itself(self):
        found, patterns = self.distinct(1)
        assert patterns == {TRIGGER.stamp(np.full((1, 1, 8, 8), 90, dtype=np.uint8))[0].tobytes()}
        assert found.stamped_N.sum() == 60

    @pytest.mark.parametrize("k", [2, 8])
    def test_k_are_k(self, k):
        found, patterns = self.distinct(k)
        assert len(patterns) == k
        assert found.stamped_N.sum() == 60

    def test_none_is_a_new_one_each_time(self):
        _, patterns = self.distinct(None)
        assert len(patterns) == 60

    def test_the_poisoned_rows_are_the_same_for_every_number(self):
        arms = [poison(make(rate=0.2, num_patterns=k)) for k in (1, 2, 8, None)]
        for arm in arms[1:]:
            assert (arm.stamped_N == arms[0].stamped_N).all()
            assert (arm.y_N == arms[0].y_N).all()

    def test_training_and_test_share_the_same_k(self):
        shown = TRIGGER.stamp_varied(np.full((200, 1, 8, 8), 90, dtype=np.uint8), 8, seed=0, purpose="test")
        assert {image.tobytes() for image in shown} == self.distinct(8)[1]


class TestParsing:
    def test_defaults_are_the_papers(self):
        attack = BadNets()
        assert (attack.rate, attack.mapping, attack.target, attack.num_patterns) == (0.1, "all_to_one", 0, 1)
        assert attack.trigger == Patch()

    def test_a_trigger_by_name_and_by_json(self):
        assert BadNets(trigger="blend").trigger == Blend()
        assert BadNets(trigger="patch:size=5").trigger == Patch(size=5)
        assert BadNets(trigger={"kind": "patch", "size": 5}).trigger == Patch(size=5)
        assert isinstance(registry.parse("attacks", "badnets:trigger=sinusoid").trigger, Trigger)

    def test_an_unknown_trigger(self):
        with pytest.raises(UsageError, match=r"E-NAME .*'patsch'.*Did you mean 'patch'\?"):
            BadNets(trigger="patsch")

    def test_the_triggers_own_fields_travel_in_the_json(self):
        assert json.loads(canonical(BadNets(trigger=Patch(size=7))))["trigger"]["size"] == 7
