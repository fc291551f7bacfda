"""AUROC, TPR at small FPR and the confusion counts: against scikit-learn, at the edges, and coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import rankdata

from badnets.core.stats import Confusion, auroc, auroc_estimator, auroc_over_seeds, confusion, tpr_at_fpr, wilson
from badnets.core.stats._inputs import t_of, z_of
from badnets.core.stats.scores import _over_seeds, auroc_bounds

steady = settings(deadline=None, database=None, derandomize=True, max_examples=60)
DRAWS = 2000
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=15)


@steady
@given(scores, scores)
def test_auroc_equals_scikit_learn_ties_included(pos, neg):
    from sklearn.metrics import roc_auc_score

    found = auroc(pos, neg)
    assert found.value == pytest.approx(roc_auc_score([1] * len(pos) + [0] * len(neg), pos + neg))
    assert found.n == len(pos) + len(neg)


@steady
@given(scores, scores)
def test_auroc_properties(pos, neg):
    here, turned, wider = auroc(pos, neg), auroc(neg, pos), auroc(pos, neg, level=0.99)
    assert 0 <= wider.low <= here.low <= here.value <= here.high <= wider.high <= 1
    assert here.low < here.high
    assert (turned.low, turned.high) == pytest.approx((1 - here.high, 1 - here.low), abs=1e-9)


def test_auroc_bounds_solve_newcombes_equation():
    value, m, n, z = 0.8, 12, 9, z_of(0.95)
    for theta in auroc_bounds(value, m, n, z):
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        others = (m + n) / 2 - 1
        variance = (theta * (1 - theta) + others * (q1 - theta**2) + others * (q2 - theta**2)) / (m * n)
        assert abs(value - theta) == pytest.approx(z * variance**0.5, abs=1e-9)


def test_auroc_bounds_of_numbers_are_those_of_arrays():
    value_V = np.array([0.0, 1.0, *np.random.default_rng(0).random(40)])
    for m, n, z in ((1, 1, 1.96), (7, 300, 0.0), (20, 20, 7.0)):
        lows, highs = auroc_bounds(value_V, m, n, z)
        assert [auroc_bounds(value, m, n, z) for value in value_V.tolist()] == list(zip(lows.tolist(), highs.tolist(), strict=True))


def test_auroc_at_the_edges_keeps_a_width():
    best = auroc([2, 3, 4], [0, 1, 1])
    assert (best.value, best.high) == (1.0, 1.0)
    assert 0.3 < best.low < 0.8
    worst = auroc([0, 1, 1], [2, 3, 4])
    assert (worst.value, worst.low, worst.high) == (0.0, 0.0, pytest.approx(1 - best.low))


def test_auroc_unknown_and_nonsense():
    assert auroc([], [1.0]).value is None
    assert auroc([1.0], []).low is None
    for bad in ([np.nan], [np.inf], [[1.0]]):
        with pytest.raises(ValueError, match="finite"):
            auroc(bad, [1.0])


def auroc_coverage(m, n, shift):
    rng = np.random.default_rng(1)
    pos, neg = rng.normal(shift, 1, (DRAWS, m)), rng.normal(0, 1, (DRAWS, n))
    low, high = auroc_bounds((pos[:, :, None] > neg[:, None, :]).mean((1, 2)), m, n, z_of(0.95))
    truth = ndtr(shift / 2**0.5)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize(("m", "n", "shift"), [(5, 5, 0.0), (5, 5, 1.0), (10, 10, 0.0), (30, 20, 0.5), (50, 50, 1.0)])
def test_coverage_of_auroc(m, n, shift):
    assert 0.935 <= auroc_coverage(m, n, shift) <= 0.965


@pytest.mark.parametrize(("m", "n", "shift"), [(15, 15, 2.0), (50, 50, 3.0)])
def test_auroc_is_conservative_above_nine_tenths(m, n, shift):
    assert 0.955 <= auroc_coverage(m, n, shift) <= 0.995


def test_tpr_at_fpr_by_hand():
    neg = np.arange(200) / 200
    pos = np.array([0.5, 0.98, 0.99, 0.991, 1.5])
    # Two of 200 negatives may pass: 0.995 and 0.99. A positive equal to the next one, 0.985, would not count.
    found = tpr_at_fpr(pos, neg)
    assert found.value == 3 / 5
    assert (found.low, found.high) == (wilson(3, 5).low, wilson(3, 5).high)
    assert (neg > 0.985).mean() <= 0.01
    assert tpr_at_fpr([0.985], neg).value == 0.0
    assert "not resolved" not in found.method


def test_tpr_at_fpr_with_few_negatives_says_so():
    found = tpr_at_fpr([1.0, 3.0], [0.0, 2.0, 2.0])
    assert found.value == 0.5
    assert "not resolved" in found.method


def test_tpr_at_fpr_of_a_constant_score_is_zero():
    assert tpr_at_fpr([1.0] * 20, [1.0] * 500, fpr=0.05).value == 0.0


def test_tpr_at_fpr_unknown_and_nonsense():
    assert tpr_at_fpr([], [1.0]).value is None
    assert tpr_at_fpr([1.0], []).value is None
    with pytest.raises(ValueError, match="fpr"):
        tpr_at_fpr([1.0], [1.0], fpr=1)
    with pytest.raises(ValueError, match="finite"):
        tpr_at_fpr([1.0], [np.nan])


@steady
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_confusion_equals_scikit_learn(pairs):
    truth, flag = np.array(pairs, bool).reshape(-1, 2).T
    found = confusion(truth, flag)
    assert sum(found) == len(pairs)
    # Disagreement is exclusive or: `**` on booleans is not.
    assert found.fp + found.fn == int((truth ^ flag).sum())
    if pairs:
        from sklearn.metrics import confusion_matrix

        (tn, fp), (fn, tp) = confusion_matrix(truth, flag, labels=[False, True])
        assert found == Confusion(tp=tp, fp=fp, tn=tn, fn=fn)


def test_confusion_when_nothing_or_everything_is_flagged():
    truth = np.arange(10) < 3
    nothing, everything = confusion(truth, np.zeros(10, bool)), confusion(truth, np.ones(10, bool))
    assert nothing == Confusion(tp=0, fp=0, tn=7, fn=3)
    assert everything == Confusion(tp=3, fp=7, tn=0, fn=0)
    assert (nothing.tpr().value, nothing.fpr().value) == (0.0, 0.0)
    assert (everything.tpr().value, everything.fpr().value) == (1.0, 1.0)


def test_rates_of_a_group_that_is_empty_are_unknown():
    clean = confusion([False, False], [True, False])
    assert clean.tpr().value is None
    assert clean.fpr().value == 0.5
    assert clean.fpr(level=0.5).low > clean.fpr().low


def test_confusion_refuses_nonsense():
    with pytest.raises(ValueError, match="one flag"):
        confusion([True], [True, False])
    with pytest.raises(ValueError, match="booleans"):
        confusion([True], [np.nan])


class TestAurocOverSeeds:
    @steady
    @given(scores, scores)
    def test_of_one_seed_is_that_seeds(self, pos, neg):
        alone, over = auroc(pos, neg), auroc_over_seeds([pos], [neg])
        assert (over.value, over.low, over.high, over.n, over.num_seeds) == (alone.value, alone.low, alone.high, alone.n, 1)
        assert over.method.endswith("images only")

    @steady
    @given(st.lists(st.tuples(scores, scores), min_size=1, max_size=6))
    def test_properties(self, seeds):
        pos, neg = ([side[i] for side in seeds] for i in (0, 1))
        here, turned, wider = auroc_over_seeds(pos, neg), auroc_over_seeds(neg, pos), auroc_over_seeds(pos, neg, level=0.99)
        assert 0 <= wider.low <= here.low <= here.value <= here.high <= wider.high <= 1
        assert here.low < here.high
        assert (turned.low, turned.high) == pytest.approx((1 - here.high, 1 - here.low), abs=1e-9)
        assert here.value == pytest.approx(np.mean([auroc(p, n).value for p, n in seeds]))

    def test_of_three_seeds_equals_a_slow_reference(self):
        ordered = np.arange(200.0)
        pos = [ordered + shift for shift in (0, 60, 120)]
        value_S = np.array([auroc(p, ordered).value for p in pos])
        half = t_of(0.95, 2) * value_S.std(ddof=1) / 3**0.5
        found = auroc_over_seeds(pos, [ordered] * 3)
        assert (found.value, found.low, found.high) == pytest.approx((value_S.mean(), max(0, value_S.mean() - half), 1.0))
        assert (found.n, found.num_seeds, found.method) == (400, 3, "AUROC, t over seeds, at least Newcombe")

    def test_seeds_that_agree_are_no_surer_than_one_of_them(self):
        pos, neg = [1.0, 2.0, 3.0, 5.0], [0.0, 1.0, 2.0, 4.0]
        alone, over = auroc(pos, neg), auroc_over_seeds([pos] * 5, [neg] * 5)
        assert (over.value, over.low, over.high) == (alone.value, alone.low, alone.high)

    def test_unknown_and_nonsense(self):
        pos, neg = [1.0, 2.0], [0.0, 1.0]
        for found in (auroc_over_seeds([], []), auroc_over_seeds([[], pos], [neg, []])):
            assert (found.value, found.low, found.high, found.num_seeds, found.n) == (None, None, None, 0, 0)
        assert auroc_over_seeds([pos, [], pos], [neg, neg, []]) == auroc_over_seeds([pos], [neg])
        with pytest.raises(ValueError, match="finite"):
            auroc_over_seeds([[np.nan]], [neg])
        with pytest.raises(ValueError, match="level"):
            auroc_over_seeds([], [], level=1.0)
        with pytest.raises(ValueError, match="zip"):
            auroc_over_seeds([pos], [])

    def test_the_estimator_is_it_at_every_level(self):
        rng = np.random.default_rng(2)
        pos, neg = rng.normal(0.5, 1, (4, 30)), rng.normal(0, 1, (4, 30))
        for level in (0.5, 0.95, 0.999):
            assert auroc_estimator(pos, neg)(level) == auroc_over_seeds(pos, neg, level=level)

    @staticmethod
    def coverage(seeds, *, centre=0.5, of_seeds=0.0, of_images=0.0, rest=1.0, count=100):
        """Of `DRAWS` exams: scores with an effect of the seed on the positives, and one of the images, which all seeds share."""
        rng = np.random.default_rng(seeds)

        def noise(*shape):
            return rng.standard_normal((DRAWS // 8, *shape), np.float32)

        covered, truth = [], ndtr(centre / np.sqrt(2 * (of_images**2 + rest**2) + of_seeds**2))
        for _ in range(8):
            sides = [of_images * noise(1, count) + rest * noise(seeds, count) for _ in range(2)]
            ranks = rankdata(np.concatenate([sides[0] + centre + of_seeds * noise(seeds, 1), sides[1]], -1), axis=-1)
            value_DS = (ranks[..., :count].sum(-1) - count * (count + 1) / 2) / count**2
            found = [_over_seeds(value_S, count, count, 0.95) for value_S in value_DS]
            covered += [one.low <= truth <= one.high for one in found]
        return float(np.mean(covered))

    @pytest.mark.parametrize("seeds", [3, 5, 8])
    def test_coverage_when_seeds_dominate(self, seeds):
        assert 0.935 <= self.coverage(seeds, of_seeds=0.6) <= 0.965

    def test_coverage_when_images_are_shared(self):
        assert 0.935 <= self.coverage(5, of_images=1.0, rest=0.05) <= 0.965

    def test_is_conservative_when_seeds_differ_little_as_documented(self):
        assert self.coverage(5) >= 0.97

    def test_is_liberal_when_seeds_and_shared_images_vary_alike_as_documented(self):
        assert 0.88 <= self.coverage(8, of_images=1.0, of_seeds=0.6, rest=0.1) <= 0.94

    def test_is_liberal_with_skewed_seeds_as_documented(self):
        assert 0.55 <= self.coverage(5, centre=4.0, of_seeds=1.5, count=200) <= 0.75
