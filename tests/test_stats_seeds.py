"""Intervals over seeds: oracles, coverage in a model with seed, image and residual effects, limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from badnets.core.stats import (
    difference_over_seeds,
    mean_over_seeds,
    newcombe_paired,
    rate_over_seeds,
    slope_over_seeds,
    t_over_seeds,
    wilson,
)
from badnets.core.stats.seeds import difference_bounds, image_variance, rate_bounds, spread_bounds

steady = settings(deadline=None, database=None, derandomize=True, max_examples=60)
DRAWS = 2000
numbers = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=12)


def coverage(bounds, truth):
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


def bounds_of(estimate):
    return estimate.low, estimate.high


def hierarchy(seed, seeds, images, centre, of_seeds, of_images):
    """`DRAWS` S x N matrices of hits: seed and image effects and a residual of deviation 1 on a latent scale; and the true rate."""
    rng = np.random.default_rng(seed)
    latent = centre + of_seeds * rng.standard_normal((DRAWS, seeds, 1), np.float32)
    latent = latent + of_images * rng.standard_normal((DRAWS, 1, images), np.float32)
    hit = latent + rng.standard_normal((DRAWS, seeds, images), np.float32) > 0
    return hit, float(ndtr(centre / np.sqrt(1 + of_seeds**2 + of_images**2)))


def rate_coverage(hit, truth, *, shared=True):
    rate_S = hit.mean(-1)
    return coverage(rate_bounds(rate_S, hit.shape[-1], image_variance(hit) if shared else 0.0, 0.95), truth)


def shares(a, b):
    return np.stack([(a & b).mean(-1), (a & ~b).mean(-1), (b & ~a).mean(-1)])


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.4], [5.0, 5.5], list(range(20))])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_t_equals_scipy(values, level):
    found = t_over_seeds(values, level=level)
    assert bounds_of(found) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(level), abs=1e-9)
    assert (found.value, found.n, found.num_seeds) == (pytest.approx(np.mean(values)), len(values), len(values))


def test_t_with_too_little_has_no_interval():
    one, none = t_over_seeds([0.3]), t_over_seeds([])
    assert (one.value, one.low, one.high, one.num_seeds) == (0.3, None, None, 1)
    assert (none.value, none.low, none.high, none.num_seeds) == (None, None, None, 0)


def test_t_says_when_all_values_are_equal():
    assert "all equal" in t_over_seeds([2.0, 2.0, 2.0]).method
    assert "all equal" not in t_over_seeds([2.0, 2.0, 2.1]).method


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.inf, 1.0], [[1.0, 2.0]]])
def test_t_refuses_what_is_not_a_finite_number(values):
    for call in (t_over_seeds, mean_over_seeds):
        with pytest.raises(ValueError, match="finite"):
            call(values)


def test_mean_leaves_unknown_seeds_out():
    assert mean_over_seeds([1.0, None, 2.0]) == t_over_seeds([1.0, 2.0])
    assert mean_over_seeds([None]).value is None


def test_coverage_of_t():
    values = 0.9 + 0.02 * np.random.default_rng(1).standard_normal((DRAWS, 5))
    assert 0.935 <= coverage(spread_bounds(values, 0.0, 0.95), 0.9) <= 0.965


@steady
@given(numbers, st.floats(0.01, 0.98))
def test_t_properties(values, level):
    here, wider, turned = (
        t_over_seeds(values, level=level),
        t_over_seeds(values, level=level + 0.01),
        t_over_seeds([-v for v in values], level=level),
    )
    assert here.low <= here.value <= here.high
    assert wider.low <= here.low
    assert wider.high >= here.high
    assert bounds_of(turned) == pytest.approx((-here.high, -here.low))


def test_rate_is_t_when_seeds_dominate():
    hit = np.arange(400)[None] < np.array([100, 200, 250, 300])[:, None]
    found = rate_over_seeds(hit[:, np.random.default_rng(2).permutation(400)])
    plain = t_over_seeds(hit.mean(-1))
    assert found.value == pytest.approx(plain.value)
    assert found.low <= plain.low
    assert found.high >= plain.high
    assert found.high - found.low < 1.1 * (plain.high - plain.low)
    assert (found.n, found.num_seeds) == (400, 4)


@pytest.mark.parametrize("full", [True, False])
def test_equal_seeds_do_not_give_an_interval_without_width(full):
    found, floor = rate_over_seeds(np.full((5, 80), full)), wilson(80 * full, 80)
    assert bounds_of(found) == pytest.approx(bounds_of(floor))
    assert found.high - found.low > 0.03


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_few_seeds_are_labelled_images_only(num_seeds):
    hit = np.random.default_rng(3).random((num_seeds, 100)) < 0.7
    found = rate_over_seeds(hit)
    assert "images only" in found.method
    assert (found.n, found.num_seeds) == (100, num_seeds)
    if num_seeds == 1:
        assert bounds_of(found) == pytest.approx(bounds_of(wilson(int(hit.sum()), 100)))
    other = difference_over_seeds(hit, ~hit)
    assert "images only" in other.method
    if num_seeds == 1:
        assert bounds_of(other) == pytest.approx(bounds_of(newcombe_paired(hit[0], ~hit[0])))


def test_three_seeds_are_not_labelled_images_only():
    hit = np.random.default_rng(3).random((3, 100)) < 0.7
    assert "images only" not in rate_over_seeds(hit).method
    assert "images only" not in difference_over_seeds(hit, ~hit).method


def test_seeds_without_images_are_unknown_not_zero():
    some = np.array([True, False, True, True])
    none = some[:0]
    assert rate_over_seeds([none, none]).value is None
    assert rate_over_seeds([]).value is None
    assert difference_over_seeds([none], [none]).value is None
    assert rate_over_seeds([some, none, some]) == rate_over_seeds([some, some])


def test_ragged_seeds_count_all_image_noise_as_shared():
    rng = np.random.default_rng(4)
    seeds = [rng.random(n) < 0.9 for n in (100, 150, 130, 120)]
    found = rate_over_seeds(seeds)
    plain = t_over_seeds([hit.mean() for hit in seeds])
    assert found.value == pytest.approx(plain.value)
    assert found.n == 100
    assert found.low < plain.low
    assert bounds_of(difference_over_seeds(seeds, seeds))[0] < 0 < bounds_of(difference_over_seeds(seeds, seeds))[1]


def test_matrices_that_do_not_match_or_are_not_booleans_are_refused():
    hit = np.ones((3, 4), bool)
    with pytest.raises(ValueError, match="same images"):
        difference_over_seeds(hit, hit[:, :3])
    with pytest.raises(ValueError, match="same images"):
        difference_over_seeds(hit, hit[:2])
    with pytest.raises(ValueError, match="booleans"):
        rate_over_seeds([[1.0, np.nan], [1.0, 0.0]])
    with pytest.raises(ValueError, match="booleans"):
        rate_over_seeds(hit[0])


def test_a_difference_is_the_first_minus_the_second():
    better, worse = np.ones((4, 50), bool), np.tile(np.arange(50) < 40, (4, 1))
    assert difference_over_seeds(better, worse).value == pytest.approx(0.2)
    assert difference_over_seeds(worse, better).value == pytest.approx(-0.2)
    assert difference_over_seeds(worse, better).high < 0


def test_image_variance_equals_a_slow_reference():
    x = np.random.default_rng(5).random((4, 30)) < np.linspace(0.1, 0.9, 30)
    across = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    residual = (across**2).sum() / (3 * 29)
    images = 4 * ((x.mean(0) - x.mean()) ** 2).sum() / 29
    assert image_variance(x) == pytest.approx((images - residual) / 4 / 30)
    assert image_variance(x) > 0


def test_coverage_of_rate_when_seeds_dominate():
    assert 0.935 <= rate_coverage(*hierarchy(6, 5, 200, 0.5, 0.5, 0.3)) <= 0.965


def test_coverage_of_rate_when_images_are_shared():
    hit, truth = hierarchy(7, 5, 400, 20.0, 4.0, 20.0)
    assert 0.935 <= rate_coverage(hit, truth) <= 0.965
    # Without the shared images' variance the same data would be covered too rarely: the reason why it is there.
    assert rate_coverage(hit, truth, shared=False) < 0.93


def test_rate_is_conservative_when_seeds_differ_little():
    assert rate_coverage(*hierarchy(8, 5, 200, 1.0, 0.1, 0.0)) >= 0.97


def test_rate_is_somewhat_liberal_with_few_mildly_skewed_seeds_as_documented():
    assert 0.90 <= rate_coverage(*hierarchy(9, 5, 400, 3.0, 0.8, 2.0)) <= 0.945


def test_rate_is_very_liberal_when_a_rare_seed_fails_as_documented():
    assert 0.55 <= rate_coverage(*hierarchy(9, 5, 200, 3.0, 1.5, 0.3)) <= 0.70


def test_rate_with_images_only_covers_the_rate_of_one_seed():
    hit, truth = hierarchy(10, 1, 300, 1.0, 0.0, 1.0)
    rate = hit.mean((-1, -2))
    assert 0.93 <= np.mean([low <= truth <= high for low, high in (bounds_of(wilson(round(r * 300), 300)) for r in rate)]) <= 0.97


def twins(seed, seeds, images, gap, of_seeds, of_images):
    """Victims and twins that share seeds and images; the victim's latent score is lower by `gap`, with its own effects."""
    rng = np.random.default_rng(seed)

    def noise(*shape):
        return rng.standard_normal((DRAWS, *shape), np.float32)

    base = 1.2 + 0.1 * noise(seeds, 1) + noise(1, images)
    victim = base - gap + of_seeds * noise(seeds, 1) + of_images * noise(1, images) + 0.3 * noise(seeds, images) > 0
    twin = base + 0.3 * noise(seeds, images) > 0
    truth = ndtr((1.2 - gap) / np.sqrt(1.1 + of_seeds**2 + of_images**2)) - ndtr(1.2 / np.sqrt(1.1))
    return victim, twin, float(truth)


def difference_coverage(victim, twin, truth):
    shared = image_variance(victim.astype(np.int8) - twin.astype(np.int8))
    return coverage(difference_bounds(shares(victim, twin), victim.shape[-1], shared, 0.95), truth)


def test_coverage_of_difference_when_seeds_dominate():
    assert 0.935 <= difference_coverage(*twins(11, 8, 200, 0.4, 0.4, 0.0)) <= 0.965


def test_difference_is_conservative_when_seeds_differ_little():
    assert difference_coverage(*twins(12, 5, 200, 0.1, 0.05, 0.0)) >= 0.97


def test_coverage_of_difference_when_images_are_shared():
    assert 0.935 <= difference_coverage(*twins(13, 5, 200, 0.3, 0.1, 0.8)) <= 0.985


def test_the_vectorised_bounds_are_those_of_the_estimates():
    victim, twin, _ = (part[0] if isinstance(part, np.ndarray) else part for part in twins(14, 4, 60, 0.3, 0.3, 0.3))
    rate = rate_bounds(victim.mean(-1), 60, image_variance(victim), 0.95)
    assert bounds_of(rate_over_seeds(victim)) == pytest.approx(rate)
    gap = difference_bounds(shares(victim, twin), 60, image_variance(victim.astype(int) - twin), 0.95)
    assert bounds_of(difference_over_seeds(victim, twin)) == pytest.approx(gap)


matrices = st.tuples(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0, 1))


@steady
@given(matrices)
def test_rate_and_difference_properties(case):
    seeds, images, seed, share = case
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, seeds, images)) < share
    rate, turned, wider = rate_over_seeds(a), rate_over_seeds(~a), rate_over_seeds(a, level=0.99)
    assert 0 <= wider.low <= rate.low <= rate.value <= rate.high <= wider.high <= 1
    assert bounds_of(turned) == pytest.approx((1 - rate.high, 1 - rate.low), abs=1e-12)
    assert rate.low < rate.high
    gap, swapped, wider = difference_over_seeds(a, b), difference_over_seeds(b, a), difference_over_seeds(a, b, level=0.99)
    assert -1 <= gap.low <= gap.value <= gap.high <= 1
    assert bounds_of(swapped) == pytest.approx((-gap.high, -gap.low), abs=1e-12)
    assert wider.low <= gap.low + 1e-12
    assert wider.high >= gap.high - 1e-12
    assert gap.low < gap.high


@pytest.mark.parametrize("trend", ["slope", "spearman"])
def test_slope_equals_scipy(trend):
    rng = np.random.default_rng(15)
    x, y = np.array([0.1, 0.5, 1, 5, 10]), rng.random((6, 5)).round(1)
    each = [stats.linregress(x, row).slope if trend == "slope" else stats.spearmanr(x, row).statistic for row in y]
    plain, found = t_over_seeds(each), slope_over_seeds(x, y, trend=trend)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert found.num_seeds == 6


def test_slope_of_unknown_and_of_nonsense():
    assert slope_over_seeds([1, 2, 3], [[1, 1, 1], [1, 2, 3]], trend="spearman").value is None
    assert slope_over_seeds([1, 2, 3], [[1, 1, 1], [1, 1, 1]]).value == 0
    assert slope_over_seeds([1, 2], []).value is None
    assert slope_over_seeds([1, 2, 3], [[3, 5, 7]]).low is None
    with pytest.raises(ValueError, match="doses"):
        slope_over_seeds([1, 1], [[0, 1]])
    with pytest.raises(ValueError, match="doses"):
        slope_over_seeds([1, 2, 3], [[0, 1]])
    with pytest.raises(ValueError, match="finite"):
        slope_over_seeds([1, 2], [[0, np.nan]])
