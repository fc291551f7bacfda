"""Bootstrap: against scipy's and a naive loop, coverage by simulation, reproducible draws."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from badnets.core.stats import cluster_bootstrap, p_above, paired_bootstrap
from badnets.core.stats.bootstrap import crossed_bounds, crossed_means

DRAWS = 2000


def rng(seed=0):
    return np.random.default_rng(seed)


def test_paired_bootstrap_agrees_with_scipy():
    a, b = rng(1).random((2, 300))
    found = paired_bootstrap(a, b, rng(2))
    other = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=9999, rng=rng(3)).confidence_interval
    assert (found.low, found.high) == pytest.approx(other, abs=0.005)
    assert (found.value, found.n) == (pytest.approx((a - b).mean()), 300)


def test_paired_bootstrap_of_outcomes_with_few_distinct_differences():
    hit_a, hit_b = rng(4).random((2, 500)) < np.array([[0.8], [0.6]])
    found = paired_bootstrap(hit_a, hit_b, rng(5))
    other = stats.bootstrap((hit_a.astype(float) - hit_b,), np.mean, method="percentile", n_resamples=4999, rng=rng(6)).confidence_interval
    assert (found.low, found.high) == pytest.approx(other, abs=0.008)


def test_coverage_of_paired_bootstrap():
    # 400 whole experiments: the exact binomial 99.9 % band about 0.95 is 0.91 to 0.98.
    draw = rng(7)
    inside = [
        e.low <= 0.1 <= e.high for e in (paired_bootstrap(draw.normal(0.1, 1, 40), np.zeros(40), draw, draws=1000) for _ in range(400))
    ]
    assert 0.91 <= np.mean(inside) <= 0.98


def test_same_generator_state_same_interval():
    a, b = rng(8).random((2, 50))
    hit = rng(8).random((4, 50)) < 0.6
    assert paired_bootstrap(a, b, rng(9)) == paired_bootstrap(a, b, rng(9))
    assert cluster_bootstrap(hit, rng(9)) == cluster_bootstrap(hit, rng(9))


def test_too_few_pairs_or_draws_give_no_interval():
    assert paired_bootstrap([], [], rng()).value is None
    one = paired_bootstrap([0.4], [0.1], rng())
    assert (one.value, one.low) == (pytest.approx(0.3), None)
    a = rng(10).normal(1, 1, 50)
    assert paired_bootstrap(a, 0 * a, rng(), level=0.9999, draws=1000).low is None
    # Hence p is never smaller than the draws can show, however clear the difference.
    assert p_above(lambda level: paired_bootstrap(a + 100, 0 * a, rng(), level=level, draws=1000), 0.0) > 0.0005


def test_bootstraps_refuse_nonsense():
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([np.nan, 1], [0, 1], rng())
    with pytest.raises(ValueError, match="pairs"):
        paired_bootstrap([1, 2], [1], rng())
    with pytest.raises(ValueError, match="same images"):
        cluster_bootstrap([[True], [True, False]], rng())
    with pytest.raises(ValueError, match="booleans"):
        cluster_bootstrap([[0.5, 1.0]], rng())
    with pytest.raises(ValueError, match="level"):
        cluster_bootstrap([], rng(), level=95)


def test_cluster_bootstrap_agrees_with_a_naive_loop():
    hit = rng(11).random((5, 60)) < np.array([0.5, 0.6, 0.7, 0.8, 0.9])[:, None]
    draw = rng(12)
    means = [hit[np.ix_(draw.integers(0, 5, 5), draw.integers(0, 60, 60))].mean() for _ in range(4000)]
    half = stats.t.ppf(0.975, 4) * np.std(means) * (5 / 4) ** 0.5
    found = cluster_bootstrap(hit, rng(13), draws=4000)
    assert found.low == pytest.approx(hit.mean() - half, abs=0.01)
    assert found.high == pytest.approx(min(1.0, hit.mean() + half), abs=0.01)
    assert (found.n, found.num_seeds, found.value) == (60, 5, pytest.approx(hit.mean()))


def test_cluster_bootstrap_without_enough_seeds():
    hit = rng(14).random((2, 100)) < 0.5
    found = cluster_bootstrap(hit, rng(15))
    assert "images only" in found.method
    assert found.low < found.value < found.high
    assert cluster_bootstrap(np.zeros((3, 0), bool), rng()).value is None
    assert cluster_bootstrap([], rng()).value is None
    single = cluster_bootstrap([[True]], rng())
    assert (single.value, single.low) == (1.0, None)


def crossed_coverage(seed, seeds, images, centre, of_seeds, of_images):
    draw = rng(seed)
    latent = centre + of_seeds * draw.standard_normal((DRAWS, seeds, 1)) + of_images * draw.standard_normal((DRAWS, 1, images))
    hit = latent + draw.standard_normal((DRAWS, seeds, images)) > 0
    weights_S = draw.multinomial(seeds, np.full(seeds, 1 / seeds), 300)
    weights_N = draw.multinomial(images, np.full(images, 1 / images), 300)
    means = np.concatenate([crossed_means(part, weights_S, weights_N) for part in np.split(hit, 8)])
    low, high = crossed_bounds(hit.mean((1, 2)), means, seeds, 0.95)
    truth = ndtr(centre / np.sqrt(1 + of_seeds**2 + of_images**2))
    return float(np.mean((low <= truth) & (truth <= high)))


def test_coverage_of_cluster_bootstrap_when_seeds_dominate():
    assert 0.935 <= crossed_coverage(16, 8, 60, 0.5, 1.0, 0.2) <= 0.97


@pytest.mark.parametrize("of_images", [0.0, 1.0])
def test_cluster_bootstrap_is_conservative_when_image_noise_dominates(of_images):
    assert crossed_coverage(17, 5, 60, 0.5, 0.0, of_images) >= 0.97
