"""Outcomes, rates, probes, validation and attribution against slow loops and figures known on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from wired import CLASSES, TARGET, TRIGGER, image_set, outcome, twin, wire, wire_constant

from badnets.core import stats
from badnets.core.tensors import pack, unpack
from badnets.measure.attribution import trigger_share
from badnets.measure.outcome import NO_ANSWER, UNKNOWN, Outcome, attack_hits, attacked_N, goal_N, robust_hits
from badnets.measure.probe import NUM_BLANK, Probe, fit_to, predict
from badnets.measure.rates import asr_hits, at_95, clean_hits, constant_seeds, difference, per_seed, ra_hits, rate
from badnets.measure.validation import NUM_BINS, outlyingness, validate
from badnets.triggers.blend import Blend
from badnets.triggers.patch import Patch

ALL_TO_ONE = np.array([2, 2, -1, 2])
ALL_TO_ALL = np.array([1, 2, 3, 0])
SOURCE = np.array([-1, 3, -1, -1])


def random_outcome(n=300, classes=4, *, seed=0, unknown=False):
    draw = np.random.default_rng(seed)
    y_N = draw.integers(-1 if unknown else 0, classes, n)
    return Outcome.from_logits(draw.normal(size=(n, classes)) * 2, y_N, keep_logits=True)


class TestOutcome:
    def test_equals_a_slow_softmax(self):
        logits_NK = np.random.default_rng(0).normal(size=(50, 4)) * 5
        seen = Outcome.from_logits(logits_NK, np.zeros(50), keep_logits=False)
        for i, row in enumerate(logits_NK):
            total = sum(math.exp(v) for v in row)
            assert seen.pred_N[i] == max(range(4), key=lambda k: row[k])
            assert seen.conf_N[i] == pytest.approx(max(math.exp(v) / total for v in row), rel=1e-6)
        assert seen.logits_NK is None
        assert seen.y_N.dtype == np.int64

    def test_large_logits_do_not_overflow(self):
        seen = Outcome.from_logits(np.array([[1e4, -1e4], [-3e38, 3e38]]), np.array([0, 0]), keep_logits=True)
        assert seen.conf_N.tolist() == [1.0, 1.0]
        assert seen.pred_N.tolist() == [0, 1]

    def test_logits_that_are_no_numbers_are_no_opinion(self):
        logits_NK = np.array([[np.nan, 1, 2, 3], [np.inf, 0, 0, 0], [0, 0, 0, 9.0]])
        seen = Outcome.from_logits(logits_NK, np.zeros(3), keep_logits=True)
        assert seen.conf_N[:2].tolist() == [0.0, 0.0]
        assert seen.pred_N.tolist() == [NO_ANSWER, NO_ANSWER, 3]
        assert np.isfinite(seen.logits_NK).all()
        assert not attack_hits(seen, np.zeros(4, dtype=int)).any(), "no answer is not the target class 0"

    def test_a_net_without_answers_counts_as_constant_and_validates_as_wrong(self):
        seen = Outcome.from_logits(np.full((20, 4), np.nan), np.arange(20) % 4, keep_logits=True)
        assert constant_seeds([seen]) == [0]
        found = validate(seen, 4)
        assert found.scores["accuracy"] == 0.0
        assert found.confusion_KK.sum() == 0

    @pytest.mark.parametrize("keep", [True, False])
    def test_arrays_round_trip(self, keep):
        seen = random_outcome(unknown=True)
        seen = seen if keep else Outcome(seen.y_N, seen.pred_N, seen.conf_N)
        arrays, _ = unpack(pack(seen.arrays()))
        again = Outcome.from_arrays(arrays)
        for name in ("y_N", "pred_N", "conf_N", "logits_NK"):
            a, b = getattr(seen, name), getattr(again, name)
            assert (a is None) == (b is None)
            if a is not None:
                assert (a == b).all()
                assert a.dtype == b.dtype
        assert set(arrays) == {"y", "pred", "conf"} | ({"logits"} if keep else set())

    def test_constant_share(self):
        assert outcome([0, 1, 2, 3], [1, 1, 1, 0]).constant_share() == 0.75


class TestWhoCounts:
    @pytest.mark.parametrize("goal_K", [ALL_TO_ONE, ALL_TO_ALL, SOURCE, np.array([0, 3, 3, -1])])
    def test_hits_equal_a_slow_loop(self, goal_K):
        seen = random_outcome()
        hits, right = [], []
        for y, pred in zip(seen.y_N, seen.pred_N, strict=True):
            if goal_K[y] >= 0 and goal_K[y] != y:
                hits.append(pred == goal_K[y])
                right.append(pred == y)
        assert attack_hits(seen, goal_K).tolist() == hits
        assert robust_hits(seen, goal_K).tolist() == right

    def test_images_without_a_label_count_when_all_goals_are_one(self):
        y_N = np.array([UNKNOWN, 0, 2])
        assert attacked_N(y_N, ALL_TO_ONE).tolist() == [True, True, False]
        assert attacked_N(y_N, ALL_TO_ALL).tolist() == [False, True, True]
        assert goal_N(y_N, ALL_TO_ONE)[0] == 2

    def test_a_class_mapped_to_itself_is_not_the_common_goal(self):
        goal_K = np.array([-1, 2, -1, 3])
        assert attacked_N(np.array([UNKNOWN, 1, 3]), goal_K).tolist() == [True, True, False]
        assert goal_N(np.array([UNKNOWN]), goal_K).tolist() == [2]

    def test_nobody_is_attacked(self):
        goal_K = np.full(4, -1)
        assert not attacked_N(np.array([UNKNOWN, 0, 1]), goal_K).any()
        assert len(attack_hits(random_outcome(), goal_K)) == 0


class TestRates:
    def test_a_constant_predictor_of_the_target_scores_no_target_image(self):
        """The target class alone would give it a share of hits for nothing; it is flagged besides."""
        y_N = np.tile(np.arange(4), 25)
        seen = outcome(y_N, np.full(100, 2))
        (hits,) = asr_hits([seen], ALL_TO_ONE)
        assert len(hits) == 75
        assert constant_seeds([seen]) == [0]
        honest = outcome(y_N, y_N)
        assert asr_hits([honest], ALL_TO_ONE)[0].mean() == 0.0
        assert constant_seeds([honest]) == []

    def test_estimates_are_those_of_the_statistics(self):
        a, b = [[random_outcome(seed=s + k) for s in range(4)] for k in (0, 10)]
        assert at_95(rate(clean_hits(a))) == stats.rate_over_seeds([o.correct_N for o in a])
        assert rate(clean_hits(a))(0.5) == stats.rate_over_seeds([o.correct_N for o in a], level=0.5)
        assert at_95(difference(clean_hits(a), clean_hits(b))) == stats.difference_over_seeds(clean_hits(a), clean_hits(b))
        assert per_seed(clean_hits(a)) == [float(np.mean(o.pred_N == o.y_N)) for o in a]
        assert per_seed([np.array([], dtype=bool)]) == []

    def test_asr_and_ra_are_of_the_same_images(self):
        seen = [random_outcome()]
        assert len(asr_hits(seen, ALL_TO_ONE)[0]) == len(ra_hits(seen, ALL_TO_ONE)[0]) == (seen[0].y_N != 2).sum()
        assert not (asr_hits(seen, ALL_TO_ONE)[0] & ra_hits(seen, ALL_TO_ONE)[0]).any()

    @pytest.mark.parametrize(("share", "flagged"), [(0.94, False), (0.95, False), (0.96, True), (1.0, True)])
    def test_constant_from_95_percent(self, share, flagged):
        y_N = np.arange(100) % 4
        pred_N = np.where(np.arange(100) < round(100 * share), 1, (y_N + 2) % 3 * 2)
        pred_N[round(100 * share) :] = 0
        assert constant_seeds([outcome(y_N, y_N), outcome(y_N, pred_N)]) == ([1] if flagged else [])

    def test_skew_of_the_data_is_no_divergence(self):
        y_N = np.array([0] * 98 + [1] * 2)
        assert constant_seeds([outcome(y_N, y_N)]) == []

    def test_diverged_to_no_numbers_is_constant(self):
        y_N = np.arange(100) % 4
        assert constant_seeds([Outcome.from_logits(np.full((100, 4), np.nan), y_N, keep_logits=False)]) == [0]


class TestProbe:
    DATA, OTHER = image_set(20), image_set(5, side=10, name="other")

    def split(self, probe, seed=0):
        return probe.split(self.DATA, self.OTHER, seed=seed)

    @pytest.mark.parametrize("images", ["test", "validation"])
    def test_splits_are_as_they_are(self, images):
        x_NCHW, y_N = self.split(Probe(images=images))
        part = getattr(self.DATA, images)
        assert (x_NCHW == part.x_NCHW).all()
        assert (y_N == part.y_N).all()

    def test_the_trigger_is_stamped_on_the_pixels(self):
        for images in ("test", "validation", "inverted", "noise", "blank", "other"):
            clean, y_N = self.split(Probe(images=images))
            shown, y_shown_N = self.split(Probe(images=images, trigger=TRIGGER))
            assert (shown == TRIGGER.stamp(np.ascontiguousarray(clean))).all()
            assert (y_N == y_shown_N).all()
            assert shown.dtype == np.uint8
            assert shown.shape[1:] == self.DATA.shape

    def test_the_data_are_left_alone(self):
        before = self.DATA.test.x_NCHW.copy()
        for probe in (Probe(trigger=TRIGGER), Probe(trigger=TRIGGER, num_patterns=None), Probe(trigger=TRIGGER, shifts=((-1, 0),))):
            self.split(probe)
        assert (self.DATA.test.x_NCHW == before).all()

    def test_inverted(self):
        x_NCHW, y_N = self.split(Probe(images="inverted"))
        assert (x_NCHW.astype(int) + self.DATA.test.x_NCHW == 255).all()
        assert (y_N == self.DATA.test.y_N).all()

    def test_blank_is_every_grey_level_once(self):
        x_NCHW, y_N = self.split(Probe(images="blank"))
        assert x_NCHW.shape == (NUM_BLANK, *self.DATA.shape)
        assert all((image == level).all() for level, image in enumerate(x_NCHW))
        assert (y_N == UNKNOWN).all()

    def test_noise_is_uniform_and_always_the_same(self):
        x_NCHW, y_N = self.split(Probe(images="noise"))
        assert (x_NCHW == self.split(Probe(images="noise"), seed=9)[0]).all()
        assert x_NCHW.shape == self.DATA.test.x_NCHW.shape
        assert abs(x_NCHW.mean() - 127.5) < 5
        assert (x_NCHW.min(), x_NCHW.max()) == (0, 255)
        assert (y_N == UNKNOWN).all()

    def test_other_images_are_fitted_and_have_no_label(self):
        x_NCHW, y_N = self.split(Probe(images="other"))
        assert x_NCHW.shape == (len(self.OTHER.test), *self.DATA.shape)
        assert (y_N == UNKNOWN).all()
        with pytest.raises(AssertionError, match="needs that data set"):
            Probe(images="other").split(self.DATA, None, seed=0)

    @pytest.mark.parametrize("images", ["test", "validation", "inverted", "noise"])
    def test_limit_picks_the_same_rows_whatever_else_is_asked(self, images):
        clean, y_N = self.split(Probe(images=images, limit=30))
        assert len(y_N) == 30
        for more in ({"keep_logits": True}, {"trigger": TRIGGER}, {"trigger": TRIGGER, "num_patterns": 4}, {"trigger": Blend(opacity=0.0)}):
            shown, y_shown_N = self.split(Probe(images=images, limit=30, **more), seed=5)
            assert (y_shown_N == y_N).all()
            away = (shown == clean)[:, :, :4, :4] if more.get("num_patterns", 1) == 1 else shown == shown
            assert away.all()
        moved, y_moved_N = self.split(Probe(images=images, limit=30, trigger=TRIGGER, shifts=((0, 0), (-1, 0))))
        assert (y_moved_N == np.tile(y_N, 2)).all()
        assert (moved[:30] == TRIGGER.stamp(np.ascontiguousarray(clean))).all()

    def test_a_smaller_limit_is_a_part_of_a_larger_one(self):
        few, many = (self.split(Probe(limit=n))[0] for n in (10, 40))
        assert {image.tobytes() for image in few} <= {image.tobytes() for image in many}
        everything = self.split(Probe(limit=10**6))[0]
        assert (everything == self.DATA.test.x_NCHW).all()

    def test_the_shuffle_mixes_classes(self):
        assert len(set(self.split(Probe(limit=30))[1])) == CLASSES

    def test_shifts_follow_one_another(self):
        shifts = ((0, 0), (-2, 0), (0, -3))
        x_NCHW, y_N = self.split(Probe(trigger=TRIGGER, shifts=shifts))
        n = len(self.DATA.test)
        assert len(y_N) == 3 * n
        for i, (dx, dy) in enumerate(shifts):
            assert (x_NCHW[i * n : (i + 1) * n] == TRIGGER.but(dx=dx, dy=dy).stamp(self.DATA.test.x_NCHW)).all()

    def test_only_patches_can_be_shifted(self):
        with pytest.raises(AssertionError, match="only a patch"):
            self.split(Probe(trigger=Blend(), shifts=((1, 0),)))

    def test_answer_shows_them_to_the_net(self):
        goal_K = np.where(np.arange(CLASSES) == TARGET, -1, TARGET)
        for net, asr in ((wire(), 1.0), (twin(), 0.0)):
            seen = Probe(trigger=TRIGGER).answer(net, self.DATA, None, seed=0)
            assert attack_hits(seen, goal_K).mean() == asr
            assert seen.logits_NK is None
        kept = Probe(keep_logits=True).answer(wire(), self.DATA, None, seed=0)
        assert kept.logits_NK.shape == (len(self.DATA.test), CLASSES)
        assert (kept.logits_NK.argmax(axis=1) == kept.pred_N).all()

    def test_predict_takes_views_and_keeps_the_order(self):
        flipped = self.DATA.test.x_NCHW[::-1]
        assert (predict(twin(), flipped) == predict(twin(), self.DATA.test.x_NCHW)[::-1]).all()

    def test_a_constant_net_is_caught_by_its_clean_outcome(self):
        assert constant_seeds([Probe().answer(wire_constant(TARGET), self.DATA, None, seed=0)]) == [0]

    def test_probes_are_hashable_and_equal_by_value(self):
        a, b = Probe(trigger=Patch(size=2)), Probe(trigger=Patch(size=2))
        assert a == b
        assert len({a, b, Probe()}) == 2


class TestFitTo:
    def test_same_shape_is_the_identity(self):
        x_NCHW = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
        assert (fit_to(x_NCHW, (1, 8, 8)) == x_NCHW).all()

    def test_flat_images_stay_flat_at_any_size(self):
        for shape in ((1, 5, 9), (1, 28, 28), (3, 32, 32)):
            assert (fit_to(np.full((2, 1, 10, 10), 77, dtype=np.uint8), shape) == 77).all()
            assert fit_to(np.full((2, 1, 10, 10), 77, dtype=np.uint8), shape).shape == (2, *shape)

    def test_colour_becomes_the_mean_and_grey_is_repeated(self):
        colours = np.broadcast_to(np.array([30, 60, 90], dtype=np.uint8)[None, :, None, None], (1, 3, 4, 4))
        assert (fit_to(colours, (1, 4, 4)) == 60).all()
        grey = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
        assert (fit_to(grey, (3, 4, 4)) == np.repeat(grey, 3, axis=1)).all()

    def test_halving_averages(self):
        x_NCHW = np.zeros((1, 1, 4, 4), dtype=np.uint8)
        x_NCHW[..., ::2] = 200
        assert (fit_to(x_NCHW, (1, 2, 2))[..., 0] > 80).all()


class TestValidation:
    def test_equals_scikit_learn(self):
        from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

        seen = random_outcome(500)
        found = validate(seen, 4)
        proba_NK = np.exp(seen.logits_NK.astype(float)) / np.exp(seen.logits_NK.astype(float)).sum(axis=1, keepdims=True)
        assert found.scores["accuracy"] == pytest.approx(-accuracy_score(seen.y_N, seen.pred_N))
        assert found.scores["macro-F1"] == pytest.approx(-f1_score(seen.y_N, seen.pred_N, average="macro"))
        assert found.scores["lowest recall"] == pytest.approx(-recall_score(seen.y_N, seen.pred_N, average=None).min())
        assert found.scores["loss"] == pytest.approx(log_loss(seen.y_N, proba_NK), rel=1e-5)
        assert found.confusion_KK == pytest.approx(confusion_matrix(seen.y_N, seen.pred_N, normalize="true"))

    def test_calibration_error_equals_a_slow_loop(self):
        seen, total = random_outcome(400), 0.0
        for b in range(NUM_BINS):
            inside = [i for i in range(400) if min(int(seen.conf_N[i] * NUM_BINS), NUM_BINS - 1) == b]
            if inside:
                right = sum(bool(seen.correct_N[i]) for i in inside) / len(inside)
                sure = sum(float(seen.conf_N[i]) for i in inside) / len(inside)
                total += len(inside) / 400 * abs(right - sure)
        assert validate(seen, 4).scores["calibration error"] == pytest.approx(total, rel=1e-6)

    def test_perfect_and_sure(self):
        y_N = np.arange(60) % CLASSES
        found = validate(outcome(y_N, y_N, conf=1 - 1e-9), CLASSES)
        assert found.scores == pytest.approx(
            {"accuracy": -1, "loss": 0, "lowest recall": -1, "macro-F1": -1, "calibration error": 0}, abs=1e-6
        )
        assert (found.confusion_KK == np.eye(CLASSES)).all()

    def test_a_class_without_images_and_one_never_called(self):
        y_N = np.array([0, 0, 1, 1])
        found = validate(outcome(y_N, np.array([0, 0, 0, 0])), CLASSES)
        assert found.scores["lowest recall"] == 0
        assert found.scores["macro-F1"] == pytest.approx(-(2 * 2 / 6 + 0) / 2)
        assert np.isfinite(found.confusion_KK).all()

    def test_every_score_grows_with_suspicion(self):
        y_N = np.arange(120) % CLASSES
        good = validate(outcome(y_N, y_N), CLASSES).scores
        bad = validate(outcome(y_N, np.where(y_N == 0, 1, y_N)), CLASSES).scores
        assert all(bad[name] > good[name] for name in good)

    def test_logits_are_needed(self):
        with pytest.raises(AssertionError, match="needs logits"):
            validate(Outcome(np.zeros(1), np.zeros(1), np.ones(1)), 2)


class TestOutlyingness:
    def nets(self, num, start=0):
        return [validate(random_outcome(seed=start + s), 4) for s in range(num)]

    def test_is_the_largest_z(self):
        references, (suspect,) = self.nets(6), self.nets(1, start=50)
        z = []
        for name in suspect.scores:
            known = [r.scores[name] for r in references]
            z.append(abs(suspect.scores[name] - np.mean(known)) / np.std(known, ddof=1))
        assert outlyingness(suspect, references) >= max(z) - 1e-9

    def test_a_reference_like_net_is_near_and_a_broken_one_far(self):
        references = self.nets(8)
        y_N = np.arange(300) % 4
        broken = validate(Outcome.from_logits(np.tile([9.0, 0, 0, 0], (300, 1)), y_N, keep_logits=True), 4)
        assert outlyingness(broken, references) > 10 > outlyingness(self.nets(1, start=90)[0], references)

    def test_the_confusion_matrix_alone_can_give_it_away(self):
        """Same accuracy, recall and F1, but all errors go to one class."""
        y_N, draw = np.arange(600) % CLASSES, np.random.default_rng(0)

        def net(step):
            wrong = draw.permutation(600)[:60]
            pred_N = y_N.copy()
            pred_N[wrong] = (y_N[wrong] + step(60)) % CLASSES
            return validate(outcome(y_N, pred_N), CLASSES)

        references = [net(lambda n: draw.integers(1, CLASSES, n)) for _ in range(8)]
        assert outlyingness(net(lambda n: np.ones(n, dtype=int)), references) > 5

    def test_a_spread_needs_three(self):
        with pytest.raises(AssertionError, match="at least three"):
            outlyingness(self.nets(1)[0], self.nets(2))


class TestAttribution:
    GOAL_K = np.array([-1, 0, 0])

    def shares(self, both, content, trigger, empty):
        def one(logits, y):
            return Outcome.from_logits(np.array(logits, dtype=float), np.full(len(logits), y), keep_logits=True)

        return trigger_share(one(both, 1), one(content, 1), one(trigger, UNKNOWN), one(empty, UNKNOWN), self.GOAL_K)

    def test_all_the_triggers(self):
        assert self.shares([[6, 0, 0]], [[0, 0, 0]], [[6, 0, 0]], [[0, 0, 0]]) == pytest.approx([1.0])

    def test_all_the_contents(self):
        assert self.shares([[6, 0, 0]], [[6, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]) == pytest.approx([0.0])

    def test_half_and_half(self):
        assert self.shares([[6, 0, 0]], [[3, 0, 0]], [[3, 0, 0]], [[0, 0, 0]]) == pytest.approx([0.5])

    def test_a_shared_effect_is_split_evenly(self):
        """Neither alone, both together: an AND."""
        assert self.shares([[6, 0, 0]], [[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]) == pytest.approx([0.5])

    def test_nothing_moves(self):
        assert self.shares([[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]) == pytest.approx([0.5])

    def test_a_common_shift_of_the_logits_changes_nothing(self):
        plain = self.shares([[6, 1, 0]], [[1, 3, 0]], [[4, 0, 0]], [[0, 0, 0]])
        shifted = self.shares([[16, 11, 10]], [[1, 3, 0]], [[-3, -7, -7]], [[5, 5, 5]])
        assert shifted == pytest.approx(plain)

    def test_equals_the_shapley_value_by_permutations(self):
        draw = np.random.default_rng(1)
        tc, c, t, e = (draw.normal(size=(1, 3)) for _ in range(4))

        def value(logits):
            return float((logits - logits.mean())[0, 0])

        trigger = ((value(t) - value(e)) + (value(tc) - value(c))) / 2
        content = ((value(tc) - value(t)) + (value(c) - value(e))) / 2
        assert trigger + content == pytest.approx(value(tc) - value(e))
        assert self.shares(tc, c, t, e) == pytest.approx([abs(trigger) / (abs(trigger) + abs(content))], rel=1e-5)

    def test_only_images_that_count(self):
        y_N = np.array([0, 1, 2])
        logits = np.eye(3)
        seen = Outcome.from_logits(logits, y_N, keep_logits=True)
        blank = Outcome.from_logits(np.zeros((4, 3)), np.full(4, UNKNOWN), keep_logits=True)
        assert len(trigger_share(seen, seen, blank, blank, self.GOAL_K)) == 2
