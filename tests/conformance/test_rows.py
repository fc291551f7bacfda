"""Detectors of the training set against features whose clusters, spectra and likelihoods are known, and against wired victims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.decomposition import FastICA
from sklearn.metrics import roc_auc_score, silhouette_score
from torch import nn
from wired import CLASSES, SMALLEST, TARGET, TRIGGER, pictures, twin, wire

from badnets.core import registry
from badnets.core.finding import Level
from badnets.core.suspect import Access, Suspect
from badnets.detectors._gram import Fence, gram, layer_with_positions, regularised_mmd
from badnets.detectors._rows import Judged, anomaly, answer, members_of, principal, squares_between, top, two_means
from badnets.detectors.abl import Abl, _Held, forget
from badnets.detectors.activation_clustering import ActivationClustering, reduced, silhouette_of
from badnets.detectors.beatrix import Beatrix, _Band
from badnets.detectors.scan import Scan, _Moments, _split, inverse_root, ledoit_wolf, variation
from badnets.detectors.spectral_signatures import SpectralSignatures, squared_projection
from badnets.detectors.spectre import Spectre, _smallest, bounded, entropy_scores, nearest, whitened
from badnets.nets._base import Network
from badnets.nets._taps import Units

torch.set_num_threads(1)

SIDE, PER_CLASS, KINDS = 4, 100, 6
"""Toy features are the pixels of 4 x 4 images, which the head reads as they are."""
BY_FEATURES = [ActivationClustering, SpectralSignatures, Spectre, Scan, Beatrix]
DETECTORS = [*BY_FEATURES, Abl]


def toy_net(side=SIDE):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), Units(side**2), nn.Linear(side**2, KINDS))
    return Network(body, (1, side, side), KINDS, mean=[0.0], std=[1.0]).eval()


def toy_suspect(rows, clean=None):
    pairs = [None if pair is None else (_pixels(pair[0]), pair[1]) for pair in (clean, rows)]
    return Suspect(toy_net(), (1, SIDE, SIDE), KINDS, *pairs)


def _pixels(x_NF):
    return np.round(255 * x_NF).clip(0, 255).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)


def toy_rows(bad=0, *, seed=0, per_class=PER_CLASS, target=TARGET, shift=0.3):
    """Features round the centre of their class; `bad` rows of the target (or of every class) lie elsewhere. With who is bad."""
    draw = np.random.default_rng(seed)
    centre_KF = np.random.default_rng(99).uniform(0.3, 0.5, (KINDS, SIDE**2))
    y_N = np.repeat(np.arange(KINDS), per_class)
    x_NF = centre_KF[y_N] + 0.03 * draw.normal(size=(len(y_N), SIDE**2))
    bad_N = (np.arange(len(y_N)) % per_class < bad) & ((y_N == target) if target is not None else True)
    x_NF[bad_N, : SIDE**2 // 2] += shift
    return x_NF, y_N, bad_N


def scan(detector, suspect, seed=0):
    return detector.scan(suspect, rng=np.random.default_rng(seed))


def wired_suspect(network, share=10, *, seed=0):
    """Wired pictures, of which `share` per class of zeros carry the trigger and the target's label; clean pictures too."""
    x_NCHW, y_N = pictures(60, seed=seed)
    bad_N = (y_N == 0) & (np.cumsum(y_N == 0) <= share)
    x_NCHW[bad_N] = TRIGGER.stamp(x_NCHW[bad_N])
    return Suspect(network, (1, 8, 8), CLASSES, pictures(20, seed=seed + 1), (x_NCHW, np.where(bad_N, TARGET, y_N))), bad_N


class TestShared:
    def test_two_means_of_two_clouds(self):
        draw = np.random.default_rng(0)
        small_N = np.arange(200) % 10 == 3
        x_ND = draw.normal(size=(200, 5)) + 10 * small_N[:, None]
        np.testing.assert_array_equal(two_means(x_ND), small_N)
        np.testing.assert_array_equal(two_means(-x_ND), small_N)

    @pytest.mark.parametrize("seed", range(5))
    def test_two_means_is_the_best_cut_of_a_line(self, seed):
        """On a line the best of all splits is a cut between neighbours, so that all can be tried."""
        line_N = np.sort(np.random.default_rng(seed).exponential(size=60))

        def squares(inside_N):
            return sum(np.square(line_N[part_N] - line_N[part_N].mean()).sum() for part_N in (inside_N, ~inside_N))

        best = min(squares(np.arange(60) < cut) for cut in range(1, 60))
        assert squares(two_means(line_N[:, None])) <= 1.0001 * best

    def test_two_means_of_rows_that_are_all_the_same(self):
        assert not two_means(np.ones((7, 3))).any()
        assert not two_means(np.ones((7, 0))).any()

    def test_halves_of_the_same_size_are_told_apart_by_the_first_row(self):
        for x_N in ([0.0, 0.1, 5.0, 5.1], [5.0, 5.1, 0.0, 0.1]):
            np.testing.assert_array_equal(two_means(np.array(x_N)[:, None]), [False, False, True, True])

    @pytest.mark.parametrize("steps", [1, 3, 100])
    def test_two_means_equals_a_slow_reference(self, steps):
        """Every start by itself, every mean taken anew, by distances; the best of them all."""
        draw = np.random.default_rng(0)
        for num in (2, 7, 60, 150):
            x_ND = draw.normal(size=(num, 4)) * [3.0, 1.0, 1.0, 0.3]
            ends, off_ND = [], x_ND - x_ND.mean(axis=0)
            for cut, d in itertools.product((0.0, 1.5, -1.5), range(2)):
                inside_N = off_ND[:, d] > cut * off_ND[:, d].std()
                if inside_N.all() or not inside_N.any():
                    continue
                for _ in range(steps):
                    middles = [off_ND[part_N].mean(axis=0) for part_N in (inside_N, ~inside_N)]
                    inside_N = np.subtract(*(np.square(off_ND - middle_D).sum(axis=1) for middle_D in middles)) < 0
                squares = sum(np.square(off_ND[part_N] - off_ND[part_N].mean(axis=0)).sum() for part_N in (inside_N, ~inside_N))
                ends.append((squares, inside_N))
            best_N = min(ends, key=lambda end: end[0])[1]
            found_N = two_means(x_ND, axes=2, steps=steps)
            assert (found_N == best_N).all() or (found_N == ~best_N).all()
            assert 2 * found_N.sum() <= num

    def test_squares_between_equal_a_slow_reference(self):
        one_ND, other_MD = (np.random.default_rng(seed).normal(size=(num, 5)) + 100 for seed, num in ((0, 30), (1, 20)))
        np.testing.assert_allclose(squares_between(one_ND, other_MD), cdist(one_ND, other_MD, "sqeuclidean"), atol=1e-10)

    def test_principal_axes_keep_distances(self):
        x_NF = np.random.default_rng(0).normal(size=(50, 4)) @ np.diag([3.0, 1.0, 2.0, 0.0]) + 7
        found_ND = principal(x_NF, 10)
        assert found_ND.shape == (50, 3), "a direction without variance is none"
        assert (np.diff(found_ND.var(axis=0)) < 0).all()
        between = [np.linalg.norm(a[0] - a[1:], axis=1) for a in (x_NF, found_ND)]
        np.testing.assert_allclose(between[0], between[1])

    def test_anomaly_by_hand(self):
        """Median 2, median absolute deviation 1."""
        found = anomaly({0: 0.0, 3: 1.0, 4: 2.0, 7: 3.0, 9: 100.0})
        assert found == pytest.approx({0: -2 / 1.4826, 3: -1 / 1.4826, 4: 0.0, 7: 1 / 1.4826, 9: 98 / 1.4826})
        assert anomaly({1: 5.0, 2: 9.0}) == {1: 0.0, 2: 0.0}, "two classes say nothing of what is usual"
        assert anomaly({1: 5.0, 2: 5.0, 3: 5.0}) == {1: 0.0, 2: 0.0, 3: 0.0}

    def test_top(self):
        np.testing.assert_array_equal(top(np.array([1.0, 3.0, 3.0, 2.0]), 0.5), [False, True, True, False])
        np.testing.assert_array_equal(top(np.array([3.0, 3.0, 3.0]), 0.01), [True, False, False])

    def test_a_class_of_one_row_is_not_judged_and_not_called_clean(self):
        y_N = np.array([0, 0, 0, 1, 2, 2, 2])
        members = members_of(y_N, 4, 3)
        assert list(members) == [0, 2]
        scores = {0: np.array([1.0, 2.0, 3.0]), 2: np.array([7.0, 8.0, 9.0])}
        found = answer(y_N, 4, members, {k: Judged(score_N, score_N > 0, score_N.sum()) for k, score_N in scores.items()})
        assert found.score_N is not None
        assert found.flag_N is not None
        assert found.score_N[3] == 5.0, "the middle of all the others"
        assert not found.flag_N[3]
        np.testing.assert_array_equal(found.score_K, [6.0, np.nan, 24.0, np.nan])
        assert found.target == 2
        assert found.note == "not judged, having too few rows: classes [1]"


class TestAllOfThem:
    @pytest.mark.parametrize("kind", DETECTORS)
    def test_judges_rows_with_the_training_set(self, kind):
        assert kind.judges is Level.ROWS
        assert kind.access is Access.TRAINING
        assert not kind.null

    @pytest.mark.parametrize("kind", BY_FEATURES)
    @pytest.mark.parametrize("bad", [5, 15])
    def test_finds_the_rows_and_the_class(self, kind, bad):
        x_NF, y_N, bad_N = toy_rows(bad)
        found = scan(kind(), toy_suspect((x_NF, y_N), clean=toy_rows(seed=1, per_class=30)[:2]))
        assert roc_auc_score(bad_N, found.score_N) > 0.99
        assert found.target == TARGET
        assert found.flag_N[bad_N].all()

    @pytest.mark.parametrize("kind", BY_FEATURES[1:])
    def test_a_wired_victim_and_its_twin(self, kind):
        """The twin of clean pictures has nothing to find: no class stands out as the victim's does."""
        suspect, bad_N = wired_suspect(wire())
        found = scan(kind(), suspect)
        assert roc_auc_score(bad_N, found.score_N) > 0.99
        assert found.target == TARGET
        control = scan(kind(), wired_suspect(twin(), 0)[0])
        assert found.score_K.max() > 1.5 * control.score_K.max()

    @pytest.mark.parametrize("kind", [ActivationClustering, Scan])
    def test_flags_nothing_where_there_is_nothing(self, kind):
        """A confusion matrix with an empty row: flags are all False, and no fewer than there are rows."""
        suspect = toy_suspect(toy_rows()[:2])
        found = scan(kind(), suspect)
        assert found.flag_N.shape == suspect.training[1].shape
        assert found.flag_N.dtype == bool
        assert not found.flag_N.any()

    @pytest.mark.parametrize("kind", BY_FEATURES)
    def test_numbers_that_are_none(self, kind):
        network = toy_net()
        network.std.fill_(0.0)
        x_NF, y_N, _ = toy_rows()
        found = scan(kind(), Suspect(network, (1, SIDE, SIDE), KINDS, None, (_pixels(x_NF), y_N)))
        assert "not finite" in found.why_not
        assert found.score_N is None

    @pytest.mark.parametrize("kind", DETECTORS)
    def test_too_few_rows(self, kind):
        x_NF, y_N, _ = toy_rows(per_class=1)
        found = scan(kind(), toy_suspect((x_NF[:1], y_N[:1])))
        assert found.why_not
        assert found.score_N is None

    @pytest.mark.parametrize("kind", DETECTORS)
    def test_a_net_without_linear_layers_or_units(self, kind):
        network = Network(nn.Sequential(nn.AdaptiveAvgPool2d((1, KINDS)), nn.Flatten()), (1, SIDE, SIDE), KINDS, mean=[0.0], std=[1.0])
        x_NF, y_N, _ = toy_rows(per_class=10)
        found = scan(kind(), Suspect(network, (1, SIDE, SIDE), KINDS, None, (_pixels(x_NF), y_N)))
        assert found.why_not.startswith("needs a net with")

    @pytest.mark.parametrize("kind", BY_FEATURES)
    def test_rows_that_are_all_the_same(self, kind):
        x_NF, y_N = np.full((40, SIDE**2), 0.5), np.arange(40) % 4
        found = scan(kind(), toy_suspect((x_NF, y_N)))
        assert found.analysable
        assert np.ptp(found.score_N) == 0

    @pytest.mark.parametrize("kind", [SpectralSignatures, Spectre])
    @pytest.mark.parametrize("bad", [0, 5, 30])
    def test_nobody_tells_it_the_rate(self, kind, bad):
        """The share that is flagged is the defender's own guess, whatever is there; others take the true rate from the attack."""
        x_NF, y_N, _ = toy_rows(bad)
        found = scan(kind(removal=0.2), toy_suspect((x_NF, y_N)))
        np.testing.assert_array_equal(np.bincount(y_N[found.flag_N], minlength=KINDS), [20] * KINDS)
        for name in registry.names("detectors"):
            assert not {"rate", "eps", "num_poison", "poison_rate"} & registry.entry("detectors", name).model_fields.keys()


class TestActivationClustering:
    def test_its_whitening_is_ica_to_distances(self):
        """FastICA from scikit-learn, which others use, rotates what we have: the distances are the same."""
        draw = np.random.default_rng(0)
        x_NF = draw.laplace(size=(300, 12)) @ draw.normal(size=(12, 12))
        ica_ND = FastICA(n_components=5, whiten="unit-variance", random_state=0, max_iter=2000, tol=1e-3).fit_transform(x_NF)
        ours_ND = reduced(x_NF, 5, whiten=True)
        pairs = list(itertools.combinations(range(0, 300, 30), 2))
        between = [[np.linalg.norm(x_ND[a] - x_ND[b]) for a, b in pairs] for x_ND in (ica_ND, ours_ND)]
        np.testing.assert_allclose(between[0], between[1], rtol=1e-6)

    def test_silhouette_equals_scikit_learns(self):
        draw = np.random.default_rng(0)
        small_N = np.arange(150) % 7 == 0
        x_ND = draw.normal(size=(150, 4)) + 1.5 * small_N[:, None]
        assert silhouette_of(x_ND, small_N) == pytest.approx(silhouette_score(x_ND, small_N))
        alone_N = np.arange(150) == 4
        assert silhouette_of(x_ND, alone_N) == pytest.approx(silhouette_score(x_ND, alone_N))

    def test_its_rules_by_hand(self):
        """Two points of mass: 30 rows at 0, 10 at 1. Silhouette 1, the smaller part a quarter, places 0 and 1."""
        x_NF = np.zeros((40, SIDE**2))
        x_NF[::4] = 1.0
        suspect = toy_suspect((x_NF, np.zeros(40, dtype=np.int64)))
        found = scan(ActivationClustering(), suspect)
        np.testing.assert_allclose(found.score_N, x_NF[:, 0], atol=1e-9)
        np.testing.assert_array_equal(found.flag_N, x_NF[:, 0] == 1)
        assert found.score_K[0] == pytest.approx(1.0)
        assert not scan(ActivationClustering(size=0.25), suspect).flag_N.any()
        assert not scan(ActivationClustering(silhouette=1.0), suspect).flag_N.any()

    def test_half_of_a_class_is_a_coin_toss(self):
        """At 49 % the poison is the smaller cluster, at 51 % the clean rows are: the same scores, reversed. Only the class is known."""
        curves = []
        for bad in (49, 51):
            x_NF, y_N, bad_N = toy_rows(bad)
            found = scan(ActivationClustering(), toy_suspect((x_NF, y_N)))
            curves.append(roc_auc_score(bad_N[y_N == TARGET], found.score_N[y_N == TARGET]))
            assert not found.flag_N.any(), "above 35 % the paper's rule is silent"
            assert found.target == TARGET
        assert curves == [1.0, 0.0]

    def test_one_feature_is_split_whatever_it_is(self):
        """In a wired net's clean class a single unit varies: two halves of it look separate, so the twin is accused as the victim is."""
        suspect, bad_N = wired_suspect(wire())
        found, control = scan(ActivationClustering(), suspect), scan(ActivationClustering(), wired_suspect(twin(), 0)[0])
        own_N = suspect.training[1] == TARGET
        assert roc_auc_score(bad_N[own_N], found.score_N[own_N]) == 1.0
        assert found.flag_N[bad_N].all()
        assert control.flag_N.any()
        assert control.score_K.min() > 0.4


class TestSpectralSignatures:
    def test_equals_a_slow_reference(self):
        x_NF = np.random.default_rng(0).normal(size=(80, 12)) + 3
        centred_NF = x_NF - x_NF.mean(axis=0)
        direction_F = np.linalg.svd(centred_NF)[2][0]
        np.testing.assert_allclose(squared_projection(x_NF), np.square(centred_NF @ direction_F))

    def test_features_are_centred(self):
        """Uncentred, the first singular vector is the mean, and what is scored is how bright a row is."""
        x_NF, y_N, bad_N = toy_rows(10, shift=-0.2)
        suspects = [toy_suspect((x_NF + offset, y_N)) for offset in (0, 40 / 255)]
        plain, moved = (scan(SpectralSignatures(), suspect) for suspect in suspects)
        np.testing.assert_allclose(plain.score_N, moved.score_N, rtol=1e-4, atol=1e-8)
        own_N = y_N == TARGET
        uncentred_N = np.square(x_NF[own_N] @ np.linalg.svd(x_NF[own_N])[2][0])
        assert roc_auc_score(bad_N[own_N], uncentred_N) < 0.1
        assert roc_auc_score(bad_N[own_N], plain.score_N[own_N]) == 1.0

    def test_names_the_class_by_its_signature(self):
        x_NF, y_N, _ = toy_rows(10)
        poisoned, clean = (scan(SpectralSignatures(), toy_suspect(pair)).score_K.max() for pair in ((x_NF, y_N), toy_rows()[:2]))
        assert poisoned > 10
        assert clean < 2


class TestSpectre:
    def test_entropy_scores_equal_a_slow_reference(self):
        from scipy.linalg import expm

        x_Nk = np.random.default_rng(0).normal(size=(100, 4)) * [1, 1, 2, 1.5]
        covariance_kk = np.cov(x_Nk.T, bias=True)
        for alpha in (0.0, 4.0):
            weight_kk = expm(alpha * (covariance_kk - np.eye(4)) / (np.linalg.norm(covariance_kk, 2) - 1))
            wanted_N = np.einsum("nk,kl,nl->n", x_Nk, weight_kk, x_Nk) / np.trace(weight_kk)
            np.testing.assert_allclose(entropy_scores(x_Nk, x_Nk, alpha), wanted_N)
        np.testing.assert_allclose(entropy_scores(x_Nk, x_Nk, 0.0), np.square(x_Nk).mean(axis=1))

    def test_entropy_does_not_overflow(self):
        x_Nk = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1e6, 1e-6]
        assert np.isfinite(entropy_scores(x_Nk, x_Nk, 100.0)).all()

    def test_trimming_leaves_the_outliers_out(self):
        draw = np.random.default_rng(0)
        x_Nk = draw.normal(size=(200, 3)) * [10, 1, 1]
        x_Nk[:30, 1] += 8
        assert not nearest(x_Nk, 0.8, 10)[:30].any()

    def test_sees_what_spectral_signatures_cannot(self):
        """Clean rows vary most in a direction that has nothing to do with the poison, which is small where they hardly vary."""
        x_NF, y_N, bad_N = toy_rows(10, shift=0.0)
        x_NF[:, 0] += np.random.default_rng(5).uniform(-0.3, 0.3, len(x_NF))
        x_NF[bad_N, 8:] += 0.08
        suspect = toy_suspect((x_NF, y_N))
        own_N = y_N == TARGET
        blind, sees = (roc_auc_score(bad_N[own_N], scan(kind(), suspect).score_N[own_N]) for kind in (SpectralSignatures, Spectre))
        assert blind < 0.7
        assert sees > 0.95

    def test_without_poison_no_class_stands_out(self):
        clean_K = scan(Spectre(), toy_suspect(toy_rows()[:2])).score_K
        x_NF, y_N, _ = toy_rows(10)
        poisoned_K = scan(Spectre(), toy_suspect((x_NF, y_N))).score_K
        assert clean_K.max() < 2 * np.median(clean_K)
        assert poisoned_K.max() > 4 * np.median(poisoned_K)

    def test_trimming_equals_a_slow_reference(self):
        """The kept rows estimated anew in every round, and sorted."""
        x_Nk = np.random.default_rng(0).standard_t(3, size=(300, 4)) * [4, 2, 1, 1]
        x_Nk[:40] += 6
        off_Nk = x_Nk - np.median(x_Nk, axis=0)
        unit_Nk = off_Nk / np.linalg.norm(off_Nk, axis=1, keepdims=True)
        distance_N = np.einsum("nj,jk,nk->n", off_Nk, np.linalg.inv(unit_Nk.T @ unit_Nk), off_Nk)
        for rounds in range(1, 6):
            near_N = np.isin(np.arange(300), np.argsort(distance_N)[:240])
            np.testing.assert_array_equal(nearest(x_Nk, 0.8, rounds), near_N)
            distance_N = np.square(whitened(x_Nk, near_N)).sum(axis=1)

    def test_the_earlier_of_equals_is_smaller(self):
        value_N = np.array([2.0, 1.0, 2.0, 0.0, 2.0])
        np.testing.assert_array_equal(_smallest(value_N, 3), [True, True, False, True, False])
        assert _smallest(value_N, 5).all()

    def test_whitening_and_bounds_by_hand(self):
        x_Nk = np.random.default_rng(0).normal(size=(100, 4)) * [3, 2, 1, 1] + 5
        near_N = np.arange(100) % 3 > 0
        white_Nk = whitened(x_Nk, near_N)
        np.testing.assert_allclose(white_Nk[near_N].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.cov(white_Nk[near_N].T, bias=True), np.eye(4), atol=1e-9)
        short_Nk = bounded(np.array([[3.0, 4.0], [0.3, 0.4], [0.6, 0.8]]), 0.5)
        np.testing.assert_allclose(short_Nk, [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]])

    def test_one_row_does_not_make_a_class_stand_out(self):
        """A mean over rows would be made by it alone."""
        x_NF, y_N, _ = toy_rows()
        x_NF[3, :8] += 0.5
        score_K = scan(Spectre(), toy_suspect((x_NF, y_N))).score_K
        assert score_K[0] < 2 * np.median(score_K)


class TestScan:
    def test_em_finds_the_shared_variation(self):
        draw = np.random.default_rng(0)
        true_FF = np.diag([1.0, 4.0, 0.25]) + 0.2
        y_N = np.repeat(np.arange(30), 40)
        x_NF = draw.normal(size=(30, 3))[y_N] * 5 + draw.multivariate_normal(np.zeros(3), true_FF, size=len(y_N))
        found_FF = variation(_Moments.of(x_NF, y_N), 5)
        np.testing.assert_allclose(found_FF, true_FF, atol=0.25)
        root_FF = inverse_root(found_FF)
        np.testing.assert_allclose(root_FF.T @ found_FF @ root_FF, np.eye(3), atol=1e-9)

    def test_em_equals_a_slow_reference(self):
        """One inverse for every number of rows, and no common axes."""
        draw = np.random.default_rng(0)
        y_N = np.repeat(np.arange(8), [3, 5, 5, 9, 20, 21, 40, 40])
        x_NF = draw.normal(size=(8, 4))[y_N] + draw.normal(size=(len(y_N), 4)) * [1.0, 2.0, 0.5, 1.0]
        m = _Moments.of(x_NF, y_N)

        def shrunk(a_FF, share):
            return (1 - share) * a_FF + share * np.trace(a_FF) / 4 * np.eye(4)

        num, mean_KF = len(y_N), m.mean_KF - m.count_K @ m.mean_KF / len(y_N)
        shared_FF, identity_FF = shrunk(m.scatter_FF / num, 0.01), mean_KF.T @ mean_KF / 8
        for _ in range(5):
            within_FF, between_FF = m.scatter_FF.copy(), np.zeros((4, 4))
            for n, mean_F in zip(m.count_K, mean_KF, strict=True):
                gain_FF = identity_FF @ np.linalg.inv(identity_FF + shared_FF / n)
                guess_F, left_FF = gain_FF @ mean_F, identity_FF - gain_FF @ identity_FF
                between_FF += np.outer(guess_F, guess_F) + left_FF
                within_FF += n * (np.outer(mean_F - guess_F, mean_F - guess_F) + left_FF)
            identity_FF, shared_FF = between_FF / 8, shrunk(within_FF / num, 0.01)
        np.testing.assert_allclose(variation(m, 5), shrunk(shared_FF, m.shrinkage), rtol=1e-9)

    @pytest.mark.parametrize("shape", [(200, 5), (6, 30)])
    def test_shrinkage_equals_scikit_learns(self, shape):
        x_NF = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
        wanted = ledoit_wolf_shrinkage(x_NF, assume_centered=True)
        assert ledoit_wolf(x_NF, x_NF.T @ x_NF) == pytest.approx(wanted, rel=1e-9)

    def test_em_does_not_take_a_label_of_few_rows_at_its_word(self):
        """Two rows a label and no identity at all: half of the variation (trace 2) hides in the means, from where EM brings it back."""
        x_NF = np.random.default_rng(0).normal(size=(400, 2))
        y_N = np.arange(400) // 2
        within_NF = (x_NF[::2] - x_NF[1::2]) / 2
        assert np.square(within_NF).sum() / 200 < 1.2
        assert np.trace(variation(_Moments.of(x_NF, y_N), 100)) > 1.6

    def test_most_of_a_class_is_poison(self):
        """Clean images say which group is the label's own; without them the smaller one is blamed, which is wrong here."""
        x_NF, y_N, bad_N = toy_rows(60)
        clean = toy_rows(seed=1, per_class=30)[:2]
        told, alone = (scan(Scan(), toy_suspect((x_NF, y_N), clean=known)) for known in (clean, None))
        np.testing.assert_array_equal(told.flag_N, bad_N)
        np.testing.assert_array_equal(alone.flag_N, ~bad_N & (y_N == TARGET))
        assert told.note == "variation estimated from clean images"
        assert "may be poison" in alone.note

    def test_a_label_is_not_measured_by_its_own_poison(self):
        """By the variation of all rows, poison in it, the statistic could not exceed 6: one over the label's share."""
        x_NF, y_N, _ = toy_rows(30)
        moments, own_NF = _Moments.of(x_NF, y_N), x_NF[y_N == TARGET]
        whole, apart = (_split(own_NF, own_NF[:0], inverse_root(variation(m, 5)))[2] for m in (moments, moments.without(own_NF, TARGET)))
        assert whole < 6.2
        assert apart > 60
        others_N = y_N != TARGET
        slow = _Moments.of(x_NF[others_N], y_N[others_N])
        np.testing.assert_allclose(moments.without(own_NF, TARGET).scatter_FF, slow.scatter_FF)
        np.testing.assert_array_equal(moments.without(own_NF, TARGET).count_K, slow.count_K)

    def test_stands_out_by_more_than_e_squared(self):
        x_NF, y_N, bad_N = toy_rows(10)
        found = scan(Scan(), toy_suspect((x_NF, y_N)))
        assert found.score_K[TARGET] > 7.389
        assert np.delete(found.score_K, TARGET).max() < 7.389
        np.testing.assert_array_equal(found.flag_N, bad_N)

    def test_is_blind_where_every_class_holds_poison(self):
        """All-to-all: what all labels do stands out nowhere."""
        x_NF, y_N, bad_N = toy_rows(20, target=None)
        assert bad_N.sum() == 20 * KINDS
        assert not scan(Scan(), toy_suspect((x_NF, y_N))).flag_N.any()

    def test_a_large_class_does_not_stand_out_by_its_size(self):
        x_NF, y_N, _ = toy_rows()
        more_NF, more_N, _ = toy_rows(seed=3, per_class=800)
        own_N = more_N == 2
        found = scan(Scan(), toy_suspect((np.concatenate([x_NF, more_NF[own_N]]), np.concatenate([y_N, more_N[own_N]]))))
        assert found.score_K[2] < 7.389


class TestBeatrix:
    def test_gram_equals_a_slow_reference(self):
        acts_NCS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found_NPE = gram(acts_NCS, 3)
        assert found_NPE.shape == (3, 3, 10)
        for n, p in itertools.product(range(3), range(1, 4)):
            entries = []
            for i, j in itertools.combinations_with_replacement(range(4), 2):
                total = float((acts_NCS[n, i] ** p * acts_NCS[n, j] ** p).sum())
                entries.append(np.sign(total) * abs(total) ** (1 / p))
            np.testing.assert_allclose(found_NPE[n, p - 1], entries)

    @pytest.mark.parametrize("positions", [1, 6])
    def test_a_fence_equals_its_band(self, positions):
        """Signed activations, dead units, and a row of no numbers."""
        draw = torch.Generator().manual_seed(0)
        acts_NCS = torch.randn(90, 4, positions, generator=draw, dtype=torch.float64)
        acts_NCS[:70, 2] = 0
        gram_NPE = gram(acts_NCS, 5)
        low_PE, high_PE = (gram_NPE[:40].quantile(share, dim=0) for share in (0.2, 0.8))
        band = _Band(low_PE, high_PE, gram_NPE.abs().mean(dim=(0, 2))[:, None])
        slow_N, fence = band.deviation(gram_NPE).numpy(), Fence(*band, units=4)
        assert slow_N.any()
        np.testing.assert_allclose(fence.deviation(acts_NCS), slow_N, rtol=1e-12)
        acts_NCS[3, 1] = torch.nan
        np.testing.assert_array_equal(np.isnan(fence.deviation(acts_NCS)), np.arange(90) == 3)

    def test_without_positions_one_order_is_all(self):
        acts_NCS = torch.rand(3, 4, 1, dtype=torch.float64)
        assert gram(acts_NCS, 8).shape == (3, 1, 10)
        several_NPE = gram(acts_NCS.expand(-1, -1, 2), 3) / torch.tensor([2.0, 2 ** (1 / 2), 2 ** (1 / 3)])[:, None]
        for p in range(3):
            np.testing.assert_allclose(several_NPE[:, p], gram(acts_NCS, 8)[:, 0], rtol=1e-6)

    @pytest.mark.parametrize(
        ("name", "fields", "wanted"), [("fast_cnn", {"width": 4}, 8), ("small_vit", {"width": 8, "depth": 2, "heads": 2}, 32)]
    )
    def test_reads_the_last_layer_with_positions(self, name, fields, wanted):
        from badnets.nets._taps import unit_layers

        network = registry.entry("nets", name)(**fields).build((1, 28, 28), 10, seed=0)
        assert unit_layers(network)[layer_with_positions(network)] == wanted
        assert layer_with_positions(toy_net()) == "body.1"

    def test_mmd_by_hand(self):
        """Two points a distance apart; of the four squared distances two are 0 and two are d, so their median is d / 2."""
        one_NC, other_NC = np.zeros((1, 2)), np.array([[3.0, 4.0]])
        assert regularised_mmd(one_NC, other_NC, 0.0) == pytest.approx(2 - 2 * np.exp(-2))
        assert regularised_mmd(one_NC, other_NC, 1.0) == pytest.approx(-2 * np.exp(-2))

    def test_thresholds_are_not_fitted_on_what_is_judged(self):
        """Half of the training set taken away: the other half gets the same scores and flags. Without clean images there are no flags."""
        x_NF, y_N, _ = toy_rows(15)
        clean = toy_rows(seed=1, per_class=30)[:2]
        whole, half = (scan(Beatrix(), toy_suspect((x_NF[::step], y_N[::step]), clean=clean)) for step in (1, 2))
        np.testing.assert_allclose(whole.score_N[::2], half.score_N)
        np.testing.assert_array_equal(whole.flag_N[::2], half.flag_N)
        alone = scan(Beatrix(), toy_suspect((x_NF, y_N)))
        assert alone.flag_N is None
        assert alone.note.endswith("without a threshold")
        assert alone.target == TARGET

    def test_flags_few_clean_rows(self):
        """Five per cent is what is asked for; fresh rows of the same kind pass the threshold about as often."""
        found = scan(Beatrix(width=2), toy_suspect(toy_rows(seed=2)[:2], clean=toy_rows(seed=1)[:2]))
        assert 0.005 < found.flag_N.mean() < 0.12


class TestAbl:
    @staticmethod
    def noise(with_patch, count=600):
        """Noise with labels that nothing in it tells; `with_patch` of the images have the trigger and its label."""
        draw = np.random.default_rng(0)
        x_NCHW = draw.integers(0, 200, (count, 1, 8, 8)).astype(np.uint8)
        y_N, bad_N = draw.integers(0, CLASSES, count), np.arange(count) < with_patch
        x_NCHW[bad_N] = TRIGGER.stamp(x_NCHW[bad_N])
        return Suspect(twin(), (1, 8, 8), CLASSES, None, (x_NCHW, np.where(bad_N, TARGET, y_N))), bad_N

    def test_isolates_what_is_learned_first(self):
        suspect, bad_N = self.noise(60)
        found = scan(Abl(epochs=8), suspect)
        assert roc_auc_score(bad_N, found.score_N) > 0.99
        assert found.flag_N.sum() == 6
        assert bad_N[found.flag_N].all()
        assert found.target == TARGET

    def test_without_poison_nothing_is_learned_first(self):
        suspect, _ = self.noise(0)
        found = scan(Abl(epochs=8), suspect)
        victim = scan(Abl(epochs=8), self.noise(60)[0])
        assert victim.score_N.max() > found.score_N.max() + 0.5

    def test_losses_are_held(self):
        """Ascent keeps the easiest rows near gamma; without it their losses fall on."""
        suspect, bad_N = self.noise(60)
        held, falling = (-scan(Abl(epochs=12, how=how), suspect).score_N[bad_N].mean() for how in ("ascent", "none"))
        assert falling < 0.3 < held < 0.9

    def test_the_suspects_weights_do_not_matter(self):
        suspect, _ = self.noise(60)
        other = Suspect(wire(), suspect.shape, suspect.num_classes, None, suspect.training)
        first, second, third = scan(Abl(), suspect), scan(Abl(), other), scan(Abl(), other, seed=1)
        np.testing.assert_array_equal(first.score_N, second.score_N)
        assert (first.score_N != third.score_N).any()

    def test_held_losses_by_hand(self):
        """Two rows of loss log 2 (0.693) and one of log(1 + 1 / e) (0.313)."""
        logits_NK = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        y_N = torch.zeros(3, dtype=torch.int64)
        losses = np.log([2.0, 2.0, 1 + np.exp(-1.0)])

        def held(how, gamma):
            return float(_Held(how, gamma).loss(lambda x: x, logits_NK, y_N))

        assert held("none", 0.5) == pytest.approx(losses.mean(), rel=1e-6)
        assert held("ascent", 0.5) == pytest.approx((losses * [1, 1, -1]).mean(), rel=1e-6)
        assert held("flooding", 0.5) == pytest.approx(losses.mean(), rel=1e-6)
        assert held("flooding", 0.8) == pytest.approx(1.6 - losses.mean(), rel=1e-6)

    @pytest.mark.parametrize("name", registry.names("nets"))
    def test_forgets_everything(self, name):
        """Every weight is another one, also those outside layers; statistics of batch norms are as new; the head says nothing."""
        fields = SMALLEST.get(name, {"width": 2})
        made = [registry.entry("nets", name)(**fields).build((1, 12, 12), 4, seed=seed) for seed in (0, 1)]
        with torch.no_grad():
            for network in made:
                for p in (*network.parameters(), *network.buffers()):
                    p.add_(3)
            for p in made[1].parameters():
                p.add_(2)
        made[0].mean.copy_(made[1].mean)
        luck = torch.get_rng_state()
        first, second = (forget(network.requires_grad_(requires_grad=False), 5) for network in made)
        assert torch.equal(torch.get_rng_state(), luck)
        assert all(p.requires_grad for p in first.parameters())
        for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        assert not first.predict_logits(torch.randint(0, 256, (5, 1, 12, 12), dtype=torch.uint8)).any()
