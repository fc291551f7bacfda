"""The ratio of two rates over seeds: coverage in a model with seed, image and residual effects, oracles, limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from badnets.core.stats import p_above, p_below, ratio_over_seeds, wilson
from badnets.core.stats.ratio import LEAST_RATE, mover_bounds, ratio_bounds
from badnets.core.stats.seeds import image_variance

DRAWS = 2000


def bounds_of(estimate):
    return estimate.low, estimate.high


def shares(a, b):
    return np.stack([(a & b).mean(-1), (a & ~b).mean(-1), (b & ~a).mean(-1)])


def before_and_after(seed, seeds, images, *, after, before, of_seeds, of_images, own=0.0, residual=1.0):
    """`DRAWS` pairs of S x N hits on a latent scale, `of_seeds` and `of_images` as (after, before), and the true ratio of rates.

    `own`: an image effect that only "after" has.
    """
    rng = np.random.default_rng(seed)

    def noise(*shape):
        return rng.standard_normal((DRAWS, *shape), np.float32)

    image, rest = noise(1, images), residual * noise(seeds, images)
    a = after + of_seeds[0] * noise(seeds, 1) + of_images[0] * image + own * noise(1, images) + rest > 0
    b = before + of_seeds[1] * noise(seeds, 1) + of_images[1] * image + rest > 0

    def rate(centre, which, more):
        return ndtr(centre / np.sqrt(residual**2 + of_seeds[which] ** 2 + of_images[which] ** 2 + more))

    return a, b, float(rate(after, 0, own**2) / rate(before, 1, 0.0))


def coverage(a, b, truth, *, with_images=True):
    shares_3DS = shares(a, b)
    value_D = a.mean((-1, -2)) / b.mean((-1, -2))
    shared_D = image_variance(a - value_D[:, None, None].astype(np.float32) * b) if with_images else 0.0
    low, high = ratio_bounds(shares_3DS, a.shape[-1], shared_D, 0.95)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_coverage_when_seeds_dominate(seeds):
    drawn = before_and_after(seeds, seeds, 200, after=0.0, before=1.5, of_seeds=(0.5, 0.1), of_images=(0.1, 0.0))
    assert 0.935 <= coverage(*drawn) <= 0.965


def test_coverage_when_the_denominator_differs_much():
    drawn = before_and_after(1, 5, 200, after=0.0, before=0.0, of_seeds=(0.3, 1.0), of_images=(0.0, 0.0))
    assert 0.935 <= coverage(*drawn) <= 0.965


def test_coverage_when_images_are_shared():
    drawn = before_and_after(1, 5, 200, after=0.3, before=1.5, of_seeds=(0.1, 0.1), of_images=(1.0, 0.3), own=1.0, residual=0.3)
    assert 0.935 <= coverage(*drawn) <= 0.965


def test_is_conservative_when_seeds_differ_little_as_documented():
    drawn = before_and_after(1, 5, 200, after=1.0, before=1.5, of_seeds=(0.05, 0.05), of_images=(0.0, 0.0))
    assert coverage(*drawn) >= 0.97


def test_is_liberal_with_skewed_seeds_as_documented():
    drawn = before_and_after(1, 5, 200, after=3.0, before=4.0, of_seeds=(1.5, 0.1), of_images=(0.0, 0.0))
    assert 0.55 <= coverage(*drawn) <= 0.70


@pytest.mark.parametrize(("after", "before"), [(0.0, 1.5), (-2.0, 2.0), (-1.0, -1.2)])
def test_coverage_of_images_only(after, before):
    a, b, truth = before_and_after(2, 1, 300, after=after, before=before, of_seeds=(0.0, 0.0), of_images=(0.5, 0.5))
    low, high = mover_bounds(shares(a, b).mean(-1), 300, 0.95)
    assert 0.935 <= np.mean((low <= truth) & (truth <= high)) <= 0.965


def test_over_a_sure_denominator_it_is_nearly_the_rate():
    a = np.random.default_rng(3).random(5000) < 0.4
    found, plain = ratio_over_seeds([a], [np.ones(5000, bool)]), wilson(int(a.sum()), 5000)
    assert found.value == plain.value
    assert bounds_of(found) == pytest.approx(bounds_of(plain), abs=1e-3)
    assert found.method == "MOVER Wilson paired, images only"


def test_of_three_seeds_equals_a_slow_reference():
    a_S, b_S = np.array([0.2, 0.4, 0.6]), np.array([0.9, 1.0, 0.8])
    images = np.arange(1000)
    a, b = (np.stack([np.random.default_rng(4).permutation(images < 1000 * rate) for rate in rates]) for rates in (a_S, b_S))
    value = 1.2 / 2.7
    spread = np.std((a_S - value * b_S) / 0.9, ddof=1) / np.sqrt(3)
    found = ratio_over_seeds(a, b)
    assert found.value == pytest.approx(value)
    assert found.high == pytest.approx(value + 4.302653 * spread, rel=0.02)
    assert found.low == 0.0 > value - 4.302653 * spread
    assert (found.n, found.num_seeds) == (1000, 3)
    assert "images only" not in found.method


@pytest.mark.parametrize("seeds", [1, 3])
def test_nothing_lost_and_nothing_left(seeds):
    all_, none = np.ones((seeds, 100), bool), np.zeros((seeds, 100), bool)
    same, gone = ratio_over_seeds(all_, all_), ratio_over_seeds(none, all_)
    assert same.value == 1.0
    assert 0.9 < same.low < 1.0 < same.high < 1.1
    assert (gone.value, gone.low) == (0.0, 0.0)
    assert 0.0 < gone.high < 0.05


def test_a_denominator_near_nothing_is_unknown():
    some = np.arange(100) < 50
    for b in (np.zeros(100, bool), np.arange(100) < 100 * LEAST_RATE - 1):
        found = ratio_over_seeds([some] * 3, [b] * 3)
        assert (found.value, found.low, found.high, found.n, found.num_seeds) == (None, None, None, 100, 3)
        assert "below 0.1" in found.method
    few = ratio_over_seeds([some[:10]], [np.arange(10) < 2])
    assert few.value is None
    assert "not told from nothing" in few.method
    by_chance = ratio_over_seeds([some] * 3, [np.ones(100, bool), np.zeros(100, bool), np.zeros(100, bool)])
    assert by_chance.value is None
    assert ratio_over_seeds([some] * 3, [np.arange(100) < 10] * 3).value == pytest.approx(5.0)


def test_pairs_without_images_and_mismatches():
    some = np.arange(100) < 50
    assert ratio_over_seeds([some, some[:0]], [some, some[:0]]) == ratio_over_seeds([some], [some])
    assert ratio_over_seeds([], []).value is None
    assert ratio_over_seeds([some[:0]], [some[:0]]).value is None
    with pytest.raises(ValueError, match="same images"):
        ratio_over_seeds([some], [some[:50]])
    with pytest.raises(ValueError, match="level"):
        ratio_over_seeds([some], [some], level=1.0)


def test_ragged_seeds_count_all_image_noise_as_shared():
    rng = np.random.default_rng(5)
    a, b = ([rng.random(n) < rate for n in (100, 150, 130)] for rate in (0.5, 0.9))
    found = ratio_over_seeds(a, b)
    cut = ratio_over_seeds([x[:100] for x in a], [x[:100] for x in b])
    assert found.value == pytest.approx(np.mean([x.mean() for x in a]) / np.mean([x.mean() for x in b]))
    assert found.n == cut.n == 100
    assert found.low < found.value < found.high


def test_p_values_can_be_read_from_it():
    a, b = np.tile(np.arange(400) < 40, (3, 1)), np.ones((3, 400), bool)

    def at(level):
        return ratio_over_seeds(a, b, level=level)

    assert p_below(at, 0.5) < 1e-6
    assert p_above(at, 0.5) == 1.0
    assert p_above(at, 0.05) < 0.01


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0.3, 1))
def test_properties(seeds, images, seed, after, before):
    rng = np.random.default_rng(seed)
    a, b = rng.random((seeds, images)) < after, rng.random((seeds, images)) < before
    found, wider = ratio_over_seeds(a, b), ratio_over_seeds(a, b, level=0.999)
    assert (found.value is None) == (wider.value is None)
    if found.value is not None:
        assert 0 <= wider.low <= found.low <= found.value <= found.high <= wider.high < np.inf
        assert found.low < found.high
