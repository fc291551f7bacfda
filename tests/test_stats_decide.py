"""p-values from intervals against the tests they invert, equivalence, Holm's family-wise error."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from badnets.core.stats import holm, mean_over_seeds, p_above, p_below, p_within, rate_over_seeds, t_over_seeds, tost, wilson
from badnets.core.types import Estimate

steady = settings(deadline=None, database=None, derandomize=True, max_examples=60)
VALUES = [0.004, -0.002, 0.003, 0.001, 0.002, -0.001]


def t_at(values):
    return lambda level: t_over_seeds(values, level=level)


@pytest.mark.parametrize("margin", [-0.02, -0.003, 0.0, 0.001])
def test_p_above_and_below_equal_the_t_test(margin):
    two_sided = stats.ttest_1samp(VALUES, margin).pvalue
    assert p_above(t_at(VALUES), margin) == pytest.approx(two_sided, rel=1e-4)
    assert p_below(t_at([-v for v in VALUES]), -margin) == pytest.approx(two_sided, rel=1e-4)
    assert p_below(t_at(VALUES), margin) == 1.0


def test_p_above_equals_the_score_test_of_a_share():
    from statsmodels.stats.proportion import proportions_ztest

    two_sided = proportions_ztest(190, 200, value=0.9, prop_var=0.9)[1]
    assert p_above(lambda level: wilson(190, 200, level=level), 0.9) == pytest.approx(two_sided, rel=1e-4)


@pytest.mark.parametrize("margin", [0.002, 0.005, 0.01])
def test_tost_equals_statsmodels(margin):
    from statsmodels.stats.weightstats import ttost_paired

    theirs = ttost_paired(np.array(VALUES), np.zeros(len(VALUES)), -margin, margin)[0]
    assert tost(t_at(VALUES), margin) == pytest.approx(theirs, rel=1e-4)
    assert p_within(t_at(VALUES), -margin, margin) == pytest.approx(2 * theirs, rel=1e-4)


def test_no_decision_is_1():
    assert tost(t_at(VALUES), 0.001) == 1.0
    assert p_within(t_at(VALUES), 0.5, 0.6) == 1.0
    assert p_above(t_at(VALUES), 0.5) == 1.0
    for values in ([], [0.9]):
        for p in (
            p_above(lambda level, v=values: mean_over_seeds(v, level=level), 0.0),
            p_within(t_at(values), -2, 2),
            tost(t_at(values), 2),
        ):
            assert p == 1.0


def test_a_bound_on_the_margin_does_not_decide():
    def fixed(level):
        return Estimate(value=0.0, low=0.0, high=0.0, n=5, num_seeds=5, method="equal twins")

    assert p_above(fixed, 0.0) == p_below(fixed, 0.0) == p_within(fixed, 0.0, 1.0) == 1.0
    assert tost(fixed, 0.01) < 1e-9


def test_p_agrees_with_the_interval_at_every_level():
    hit = np.random.default_rng(1).random((4, 200)) < 0.9
    p = p_above(lambda level: rate_over_seeds(hit, level=level), 0.8)
    assert rate_over_seeds(hit, level=1 - 1.01 * p).low > 0.8
    assert rate_over_seeds(hit, level=1 - 0.99 * p).low <= 0.8


@pytest.mark.parametrize(
    "call", [lambda e: p_above(e, np.nan), lambda e: p_below(e, np.inf), lambda e: tost(e, 0.0), lambda e: p_within(e, 1, 0)]
)
def test_impossible_margins_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call(t_at(VALUES))


@pytest.fixture(scope="module")
def nothing_to_collect():
    """multipletests collects garbage at every call, which takes a second in a large process."""
    gc.freeze()
    yield
    gc.unfreeze()


@settings(steady, max_examples=40)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(nothing_to_collect, p_values):
    from statsmodels.stats.multitest import multipletests

    named = {f"claim {i}": p for i, p in enumerate(p_values)}
    found = holm(named)
    assert list(found) == list(named)
    assert list(found.values()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_nothing_and_of_nonsense():
    assert holm({}) == {}
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="'b'"):
            holm({"a": 0.5, "b": bad})


def test_holm_keeps_the_family_wise_error():
    draws = np.random.default_rng(2).random((2000, 8))
    plain = np.mean(draws.min(1) <= 0.05)
    corrected = np.mean([min(holm(dict(enumerate(row))).values()) <= 0.05 for row in draws])
    assert plain > 0.3
    assert 0.035 <= corrected <= 0.065
