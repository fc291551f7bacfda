"""Calibration: p-values that are exact among clean nets, together, whatever the detectors share, tie or leave out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from badnets.core.config import canonical
from badnets.core.errors import UsageError
from badnets.core.stats import wilson
from badnets.detectors._calibration import (
    Calibration,
    conformal_p,
    flagged_rate,
    judge,
    repeat_spread,
    settled,
)
from badnets.detectors._min_p import combined_p

NAMES = ("a", "b", "c", "d")


def calibration(null_PD, names=None):
    names = names or NAMES[: np.shape(null_PD)[1]]
    return Calibration.of([dict(zip(names, map(plain, row), strict=True)) for row in null_PD])


def plain(value):
    return None if value is None or np.isnan(value) else float(value)


def scores(row, names=NAMES):
    return {name: plain(value) for name, value in zip(names, row, strict=False)}


def together(null_PD, score_D):
    return combined_p(np.asarray(null_PD, dtype=float), list(score_D))


def correlated(draw, nets, detectors=4, shared=0.8):
    """Scores of clean nets: a common part, own parts, and one detector with heavy tails."""
    found = shared * draw.normal(size=(nets, 1)) + draw.normal(size=(nets, detectors))
    found[:, -1] = np.sign(found[:, -1]) * np.abs(found[:, -1]) ** 3
    return found


class TestOneDetector:
    def test_counts_clean_nets_that_score_as_high(self):
        null_P = np.arange(1.0, 10.0)
        assert [conformal_p(null_P, score) for score in (9.5, 9.0, 5.5, 0.0)] == [0.1, 0.2, 0.5, 1.0]

    def test_is_uniform_among_clean_nets(self):
        """19 clean nets and a clean suspect, 4,000 times: p is each of 1/20 ... 20/20 equally often."""
        draw = np.random.default_rng(0).normal(size=(4000, 20))
        p = np.array([conformal_p(row[:-1], row[-1]) for row in draw])
        counts = np.bincount(np.rint(p * 20).astype(int), minlength=21)[1:]
        assert counts.sum() == 4000
        assert np.abs(counts - 200).max() < 4 * (200 * 0.95) ** 0.5

    def test_ties_are_held_against_nobody(self):
        draw = np.random.default_rng(1).integers(0, 3, size=(2000, 20))
        p = np.array([conformal_p(row[:-1], row[-1]) for row in draw])
        for alpha in (0.05, 0.2, 0.5):
            assert (p <= alpha).mean() <= alpha + 3 * (alpha * (1 - alpha) / 2000) ** 0.5

    def test_without_a_score_there_is_no_p(self):
        found = calibration([[1.0, np.nan], [2.0, np.nan]])
        assert found.p_value("a", None) is None
        assert found.p_value("b", 3.0) is None
        assert found.p_value("a", 3.0) == pytest.approx(1 / 3)

    @pytest.mark.parametrize("score", [np.nan, np.inf])
    def test_a_score_that_is_no_number_is_refused(self, score):
        """NaN compares false with everything: it would look rarer than any clean net."""
        found = calibration([[1.0], [2.0]])
        with pytest.raises(UsageError, match="E-SCORE"):
            judge(found, {"a": score}, alpha=0.5)


class TestTogether:
    def test_on_paper(self):
        """Of four nets the suspect is second in one detector and last in the other: two nets are ahead of it."""
        null_PD = [[9.0, 1.0], [1.0, 8.0], [2.0, 2.0]]
        assert together(null_PD, [5.0, 0.0]) == 3 / 4
        assert together(null_PD, [9.5, 0.0]) <= 2 / 4
        assert together(null_PD, [-1.0, -1.0]) == 1.0

    def test_one_detector_is_its_conformal_p(self):
        draw = np.random.default_rng(0)
        for _ in range(50):
            null_P, score = draw.normal(size=30), draw.normal()
            assert together(null_P[:, None], [score]) == conformal_p(null_P, score)

    def test_the_same_detector_twice_costs_nothing(self):
        """Where Bonferroni would double the p-value."""
        null_P = np.random.default_rng(0).normal(size=30)
        twice_PD = np.stack([null_P, null_P * 3 + 1], axis=1)
        for score in (-1.0, 0.3, 1.5, 9.0):
            assert together(twice_PD, [score, score * 3 + 1]) == conformal_p(null_P, score)

    @pytest.mark.parametrize("alpha", [0.05, 0.25])
    def test_a_clean_net_is_flagged_as_often_as_promised(self, alpha):
        """39 clean nets, four detectors that share much, one with heavy tails; exact, so neither above nor far below."""
        draw = np.random.default_rng(2)
        hits = [together(drawn[:-1], drawn[-1]) <= alpha for drawn in (correlated(draw, 40) for _ in range(1000))]
        assert abs(np.mean(hits) - alpha) < 3 * (alpha * (1 - alpha) / 1000) ** 0.5

    def test_nor_more_often_with_ties(self):
        draw = np.random.default_rng(3)
        hits = [together(drawn[:-1], drawn[-1]) <= 0.05 for drawn in (np.rint(correlated(draw, 40)) for _ in range(1000))]
        assert np.mean(hits) < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5

    def test_far_outside_beats_what_clean_nets_reach_elsewhere(self):
        """In each of five detectors some clean net is first; by ranks alone the suspect could not get below 6/41."""
        null_PD = np.random.default_rng(0).normal(size=(40, 5))
        assert together(null_PD, [50.0, 0.0, 0.0, 0.0, 0.0]) == 1 / 41

    def test_order_of_nets_and_detectors_does_not_matter(self):
        draw = np.random.default_rng(4)
        null_PD, score_D = correlated(draw, 25), correlated(draw, 1)[0] + 1
        rows, columns = draw.permutation(25), draw.permutation(4)
        assert together(null_PD[rows][:, columns], score_D[columns]) == together(null_PD, score_D)

    def test_a_higher_score_is_never_less_suspicious(self):
        draw = np.random.default_rng(5)
        for _ in range(200):
            null_PD, score_D = correlated(draw, 15, 1), float(draw.normal())
            assert together(null_PD, [score_D + 0.5]) <= together(null_PD, [score_D])


class TestMissing:
    def test_a_missing_score_is_left_out_not_taken_for_zero(self):
        null_PD = np.random.default_rng(0).normal(10, 1, size=(30, 2))
        both = calibration(null_PD)
        assert judge(both, {"a": 11.5, "b": None}).p == judge(both, {"a": 11.5}).p == both.p_value("a", 11.5)
        assert judge(both, {"a": 11.5, "b": None}).p_values["b"] is None

    def test_clean_nets_without_a_score_are_left_out_too(self):
        null_PD = np.random.default_rng(0).normal(size=(30, 2))
        null_PD[:10, 1] = np.nan
        found = judge(calibration(null_PD), {"a": 0.0, "b": 0.0})
        assert found.num_null == 20
        assert found.p == together(null_PD[10:], [0.0, 0.0])
        assert judge(calibration(null_PD), {"a": 0.0}).num_null == 30

    def test_nothing_to_say_is_no_verdict(self):
        found = judge(calibration(np.zeros((30, 2))), {"a": None, "b": None})
        assert (found.flagged, found.p, found.why_not) == (None, None, "no detector gave a score")

    def test_too_few_clean_nets_are_no_verdict(self):
        small = calibration(np.zeros((9, 2)))
        found = judge(small, {"a": 99.0}, alpha=0.05)
        assert found.flagged is None
        assert "9 clean nets" in found.why_not
        assert judge(small, {"a": 99.0}, alpha=0.1).flagged is True

    @pytest.mark.parametrize("alpha", [0.0, 1.0])
    def test_levels(self, alpha):
        with pytest.raises(UsageError, match="E-ALPHA"):
            judge(calibration(np.zeros((9, 1))), {"a": 1.0}, alpha=alpha)

    def test_names(self):
        with pytest.raises(UsageError, match=r"E-NAME .*Did you mean 'neural_cleanse'"):
            judge(calibration(np.zeros((9, 1)), ["neural_cleanse"]), {"neural_clean": 1.0})

    def test_ragged_and_doubled(self):
        for bad in ({"detectors": ("a", "a"), "null_PD": ((1.0, 2.0),)}, {"detectors": ("a",), "null_PD": ((1.0, 2.0),)}):
            with pytest.raises(UsageError, match="E-CONFIG"):
                Calibration(**bad)


class TestAnytime:
    """A verdict that is called certain before all detectors were asked."""

    def test_no_answer_changes_what_is_certain(self):
        """Low, middling, tied with clean nets, or no score at all: the verdict of all detectors is the one that was foretold."""
        draw, certain = np.random.default_rng(6), 0
        for turn in range(60):
            null_PD = correlated(draw, int(draw.choice([39, 99])))
            null_PD = np.rint(null_PD) if turn % 2 else null_PD
            known, asked = calibration(null_PD), int(draw.integers(1, 4))
            said = scores(correlated(draw, 1)[0] + 8)
            early = settled(known, {name: said[name] for name in NAMES[:asked]}, NAMES[asked:])
            if early is None:
                continue
            certain += 1
            for _ in range(6):
                others = {name: draw.choice([None, -99.0, 0.0, 9.0, *null_PD[:, NAMES.index(name)]]) for name in NAMES[asked:]}
                whole = judge(known, {**said, **others})
                assert whole.flagged
                assert whole.p <= early.p
        assert certain > 20

    def test_on_paper(self):
        """Far outside in one of two: a clean net that is first in the other could still tie, and is counted as if it did."""
        known = calibration(np.stack([np.arange(39.0), np.arange(39.0)], axis=1))
        found = settled(known, {"a": 1000.0}, ["b"])
        assert (found.flagged, found.p, found.p_values) == (True, 2 / 40, {"a": 1 / 40})
        assert judge(known, {"a": 1000.0, "b": -1.0}).p == 1 / 40

    def test_nothing_found_is_never_certain_early(self):
        known = calibration(np.random.default_rng(0).normal(size=(99, 2)))
        assert settled(known, {"a": -50.0}, ["b"]) is None
        assert judge(known, {"a": -50.0, "b": 50.0}).flagged

    def test_nor_anything_of_nobody_or_among_few(self):
        known = calibration(np.random.default_rng(0).normal(size=(10, 2)))
        assert settled(known, {}, ["a", "b"]) is None
        assert settled(known, {"a": None}, ["b"]) is None
        assert settled(known, {"a": 50.0}, ["b"]) is None


class TestRates:
    def test_thresholds_come_from_other_nets_than_the_rates(self):
        """Peers fit the threshold on what they evaluate, which hides every false alarm. A single rate may be off, their mean not."""
        draw, rates = np.random.default_rng(10), []
        for _ in range(15):
            null, held_out = draw.normal(size=(99, 1)), draw.normal(size=(100, 1))
            found = flagged_rate(calibration(null), [scores(row) for row in held_out], alpha=0.1)
            threshold = np.sort(null[:, 0])[-10]
            assert found == wilson(int((held_out[:, 0] > threshold).sum()), 100, num_seeds=100)
            rates.append(found.value)
        assert abs(np.mean(rates) - 0.1) < 3 * (0.1 * 0.9 * (1 / 100 + 1 / 101) / 15) ** 0.5

    def test_nets_without_a_verdict_do_not_count(self):
        found = flagged_rate(calibration(np.arange(19.0)[:, None]), [{"a": 99.0}, {"a": None}, {"a": 3.0}])
        assert (found.value, found.n) == (0.5, 2)
        assert flagged_rate(calibration(np.arange(19.0)[:, None]), [{"a": None}]).value is None

    def test_repeats_on_paper(self):
        """Two nets at 0 and 10, each seen 1 above and 1 below: variance 2 within; 50 between means, of which 1 is owed to repeats."""
        found = repeat_spread(calibration(np.arange(19.0)[:, None] - 9.5), "a", [[-1.0, 1.0], [9.0, 11.0]])
        assert found.within == pytest.approx(2**0.5)
        assert found.between == pytest.approx(7.0)
        assert found.reliability == pytest.approx(49 / 51)
        assert found.unsteady.value == 0.0

    def test_a_verdict_that_changes_with_the_seed_is_unsteady(self):
        found = repeat_spread(calibration(np.arange(19.0)[:, None]), "a", [[17.0, 19.0], [1.0, 2.0], [30.0, 40.0], [17.5, 18.5]])
        assert found.unsteady.value == 0.5

    def test_repeats_of_one_net_say_nothing_of_nets(self):
        found = repeat_spread(calibration(np.zeros((19, 1))), "a", [[1.0, 1.0]])
        assert (found.within, found.between, found.reliability) == (0.0, None, None)
        with pytest.raises(UsageError, match="E-REPEATS"):
            repeat_spread(calibration(np.zeros((19, 1))), "a", [[1.0], [2.0]])


def test_travels_as_json():
    found = Calibration.of([{"a": 1.0, "b": None}, {"a": 2.5}, {"b": 3.0}], setting="fast_cnn on fashion_mini")
    again = Calibration(**json.loads(canonical(found)))
    assert again == found
    assert again.detectors == ("a", "b")
    assert again.null_PD == ((1.0, None), (2.5, None), (None, 3.0))
    judgement = judge(found, {"a": 3.0}, alpha=0.5)
    assert type(judgement)(**json.loads(canonical(judgement))) == judgement
    assert judgement.flagged
