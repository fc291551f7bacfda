"""Shares of images: closed forms against statsmodels and scipy, coverage by simulation, properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from badnets.core.stats import clopper_pearson, mcnemar_exact, newcombe, newcombe_paired, wilson
from badnets.core.stats._inputs import z_of
from badnets.core.stats.proportions import clopper_pearson_bounds, newcombe_bounds, paired_bounds, wilson_bounds

steady = settings(deadline=None, database=None, derandomize=True, max_examples=60)
DRAWS = 2000
Z = z_of(0.95)
counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs_of_hits = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2))


def coverage(bounds, truth):
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


def hits(both, only_a, only_b, neither):
    cells = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], cells), np.repeat([True, False, True, False], cells)


@pytest.mark.parametrize(("ours", "theirs"), [(wilson, "wilson"), (clopper_pearson, "beta")])
@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 1), (3, 10), (81, 263), (3999, 4000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_one_share_equals_statsmodels(ours, theirs, successes, n, level):
    from statsmodels.stats.proportion import proportion_confint

    found = ours(successes, n, level=level)
    assert (found.low, found.high) == pytest.approx(proportion_confint(successes, n, 1 - level, method=theirs), abs=1e-12)
    assert (found.value, found.n, found.num_seeds) == (successes / n, n, 1)


@pytest.mark.parametrize(("a", "b"), [((56, 70), (48, 80)), ((0, 10), (0, 20)), ((10, 10), (0, 20)), ((9, 10), (3, 10))])
def test_independent_difference_equals_statsmodels(a, b):
    from statsmodels.stats.proportion import confint_proportions_2indep

    found = newcombe(*a, *b)
    assert (found.low, found.high) == pytest.approx(confint_proportions_2indep(*a, *b, method="newcomb", compare="diff"), abs=1e-12)
    assert found.value == pytest.approx(a[0] / a[1] - b[0] / b[1])


def test_independent_difference_equals_newcombes_table():
    found = newcombe(56, 70, 48, 80)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


def test_paired_difference_equals_a_published_example():
    # Bentur et al. 2009 in Fagerland, Lydersen and Laake: 1, 1, 7, 12 gives -0.507 to -0.026.
    found = newcombe_paired(*hits(1, 1, 7, 12))
    assert (round(found.low, 3), round(found.high, 3)) == (-0.507, -0.026)
    assert found.value == pytest.approx(-6 / 21)


@pytest.mark.parametrize(
    "cells", [(1, 1, 7, 12), (36, 12, 2, 0), (18, 0, 12, 20), (30, 0, 0, 0), (0, 30, 0, 0), (20, 3, 5, 400), (2, 20, 18, 1)]
)
def test_paired_difference_equals_a_slow_reference(cells):
    e, f, g, h = cells
    n = sum(cells)
    p_a, p_b = wilson(e + f, n), wilson(e + g, n)
    product = (e + f) * (g + h) * (e + g) * (f + h)
    excess = e * h - f * g
    if excess > 0:
        excess = max(excess - n / 2, 0)
    phi = excess / product**0.5 if product else 0.0
    down_a, up_a, down_b, up_b = p_a.value - p_a.low, p_a.high - p_a.value, p_b.value - p_b.low, p_b.high - p_b.value
    low = (f - g) / n - (down_a**2 - 2 * phi * down_a * up_b + up_b**2) ** 0.5
    high = (f - g) / n + (up_a**2 - 2 * phi * up_a * down_b + down_b**2) ** 0.5
    found = newcombe_paired(*hits(*cells))
    assert (found.low, found.high) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-12)


@pytest.mark.parametrize("cells", [(10, 3, 9, 5), (10, 9, 3, 5), (4, 0, 0, 4), (100, 40, 40, 7), (0, 1, 0, 0), (7, 0, 12, 7)])
def test_mcnemar_equals_statsmodels(cells):
    from statsmodels.stats.contingency_tables import mcnemar

    e, f, g, h = cells
    assert mcnemar_exact(*hits(*cells)) == pytest.approx(mcnemar([[e, f], [g, h]], exact=True).pvalue, abs=1e-12)


def test_no_images_is_unknown_not_zero():
    none = np.zeros(0, bool)
    for found in (wilson(0, 0), clopper_pearson(0, 0), newcombe(0, 0, 1, 2), newcombe(1, 2, 0, 0), newcombe_paired(none, none)):
        assert (found.value, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize("bad", [(-1, 5), (6, 5), (0.5, 5), (1, 2.5)])
def test_impossible_counts_are_refused(bad):
    for call in (wilson, clopper_pearson, lambda *c: newcombe(*c, 1, 2), lambda *c: newcombe(1, 2, *c)):
        with pytest.raises(ValueError, match="counts"):
            call(*bad)


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [0.5, 1.0], [2, 1], [[True, False]]])
def test_outcomes_that_are_not_booleans_are_refused(bad):
    with pytest.raises(ValueError, match="booleans"):
        newcombe_paired(bad, [True, False])
    with pytest.raises(ValueError, match="booleans"):
        mcnemar_exact([True, False], bad)


def test_pairs_of_unequal_length_are_refused():
    for call in (newcombe_paired, mcnemar_exact):
        with pytest.raises(ValueError, match="same images"):
            call([True], [True, False])


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, float("nan")])
def test_levels_outside_0_to_1_are_refused(level):
    for call in (lambda: wilson(0, 0, level=level), lambda: clopper_pearson(1, 2, level=level), lambda: newcombe(1, 2, 1, 2, level=level)):
        with pytest.raises(ValueError, match="level"):
            call()


@pytest.mark.parametrize(("n", "share"), [(200, 0.1), (500, 0.5), (1000, 0.95), (2000, 0.98)])
def test_coverage_of_wilson(n, share):
    s = np.random.default_rng(1).binomial(n, share, DRAWS)
    assert 0.935 <= coverage(wilson_bounds(s, n, Z), share) <= 0.965


def test_wilson_is_liberal_at_single_shares_near_zero_as_documented():
    s = np.random.default_rng(2).binomial(50, 0.175 / 50, DRAWS)
    assert 0.80 <= coverage(wilson_bounds(s, 50, Z), 0.175 / 50) <= 0.87


def test_wilson_is_nominal_on_average_over_shares():
    rng = np.random.default_rng(3)
    share = rng.random(DRAWS)
    assert 0.935 <= coverage(wilson_bounds(rng.binomial(50, share), 50, Z), share) <= 0.965


@pytest.mark.parametrize(("n", "share"), [(20, 0.5), (50, 0.3), (200, 0.1), (400, 0.999), (50, 0.0035)])
def test_clopper_pearson_is_never_liberal(n, share):
    s = np.random.default_rng(4).binomial(n, share, DRAWS)
    assert coverage(clopper_pearson_bounds(s, n, 0.95), share) >= 0.945


@pytest.mark.parametrize(
    ("n_a", "p_a", "n_b", "p_b"), [(100, 0.5, 80, 0.4), (500, 0.9, 500, 0.8), (300, 0.97, 200, 0.9), (60, 0.4, 60, 0.4)]
)
def test_coverage_of_newcombe(n_a, p_a, n_b, p_b):
    rng = np.random.default_rng(5)
    a, b = rng.binomial(n_a, p_a, DRAWS), rng.binomial(n_b, p_b, DRAWS)
    assert 0.935 <= coverage(newcombe_bounds((a, n_a), (b, n_b), Z), p_a - p_b) <= 0.965


def test_newcombe_is_conservative_where_both_shares_are_extreme():
    rng = np.random.default_rng(6)
    a, b = rng.binomial(100, 0.99, (2, DRAWS))
    assert coverage(newcombe_bounds((a, 100), (b, 100), Z), 0.0) >= 0.98


@pytest.mark.parametrize(
    ("n", "cells"),
    [(100, (0.6, 0.1, 0.1, 0.2)), (200, (0.5, 0.2, 0.1, 0.2)), (1000, (0.85, 0.05, 0.04, 0.06)), (100, (0.1, 0.3, 0.3, 0.3))],
)
def test_coverage_of_newcombe_paired(n, cells):
    table = np.random.default_rng(7).multinomial(n, cells, DRAWS)
    assert 0.935 <= coverage(paired_bounds(table[:, 0], table[:, 1], table[:, 2], n, Z), cells[1] - cells[2]) <= 0.965


def test_newcombe_paired_is_conservative_with_few_disagreements():
    table = np.random.default_rng(8).multinomial(200, (0.97, 0.01, 0.01, 0.01), DRAWS)
    assert coverage(paired_bounds(table[:, 0], table[:, 1], table[:, 2], 200, Z), 0.0) >= 0.97


@steady
@given(counts, st.floats(0.01, 0.99), st.floats(0.001, 0.009))
def test_one_share_properties(count, level, more):
    s, n = count
    for call in (wilson, clopper_pearson):
        here, mirrored, wider = call(s, n, level=level), call(n - s, n, level=level), call(s, n, level=level + more)
        assert 0 <= here.low <= here.high <= 1
        # At levels near 0 Clopper-Pearson is around the share, not its median; Wilson always encloses the share.
        assert here.low <= here.value <= here.high or (call is clopper_pearson and level < 0.5)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - here.high, 1 - here.low), abs=1e-9)
        assert wider.low <= here.low
        assert wider.high >= here.high


@steady
@given(counts, counts)
def test_independent_difference_properties(a, b):
    here, swapped, wider = newcombe(*a, *b), newcombe(*b, *a), newcombe(*a, *b, level=0.99)
    assert -1 <= here.low <= here.value <= here.high <= 1
    assert (swapped.low, swapped.high) == pytest.approx((-here.high, -here.low), abs=1e-12)
    assert wider.low <= here.low <= here.high <= wider.high


@steady
@given(pairs_of_hits)
def test_paired_difference_properties(pair):
    a, b = pair
    here, swapped, wider = newcombe_paired(a, b), newcombe_paired(b, a), newcombe_paired(a, b, level=0.99)
    assert -1 <= here.low <= here.value <= here.high <= 1
    assert here.low < here.high
    assert (swapped.low, swapped.high) == pytest.approx((-here.high, -here.low), abs=1e-12)
    assert wider.low <= here.low + 1e-12
    assert wider.high >= here.high - 1e-12
    assert 0 < mcnemar_exact(a, b) == mcnemar_exact(b, a) <= 1


def test_a_mean_of_ones_that_rounds_above_one_has_an_interval():
    with np.errstate(invalid="raise"):
        low, high = wilson_bounds(np.nextafter(1.0, 2) * 8, 8, 1e-9)
    assert 0 <= low <= high == 1
