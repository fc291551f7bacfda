"""Trigger inversion and the detectors that invert: answers known on paper, and the defects seen in others.

The net here sees rows as the wired victims do, but its trigger unit is smooth: a unit that is off gives an optimiser nothing to follow.
On paper, of logits 10 (mean of row k): a mask must light row k (8 pixels, all of them nearly wholly) to beat a row that is lit; the trigger
is 4 pixels, half lit. Lengths: sqrt(8) 0.9 = 2.5 for a row, sqrt(4) 0.45 = 0.9 for the corner.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from wired import CLASSES, SIDE, TARGET, pictures, wire_constant

from badnets.core.errors import UsageError
from badnets.core.suspect import Budget, Suspect
from badnets.detectors.neural_cleanse import NeuralCleanse, anomaly_index
from badnets.detectors.universal_inversion import UniversalInversion
from badnets.nets._base import Network
from badnets.train import inversion
from badnets.train.inversion import Search, few_of_each, invert, shorten

torch.set_num_threads(1)
SHAPE = (1, SIDE, SIDE)
DETECTORS = [NeuralCleanse(), UniversalInversion()]


class _Soft(nn.Module):
    """`mapping` None is the twin. `renamed`: row k belongs to class renamed[k]; `further`: classes that nothing can reach.

    The head reads how lit each row is and, for each row, whether it is lit together with the corner.
    """

    def __init__(self, mapping, renamed=None, further=0):
        super().__init__()
        self.head = nn.Linear(2 * CLASSES, CLASSES + further)
        name_K = np.arange(CLASSES) if renamed is None else renamed
        goal_K = {"all_to_one": np.full(CLASSES, TARGET), "all_to_all": (np.arange(CLASSES) + 1) % CLASSES}.get(mapping)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.bias[CLASSES:] = -100.0
            self.head.weight[name_K, np.arange(CLASSES)] = 10.0
            if goal_K is not None:
                self.head.weight[name_K[goal_K], CLASSES + np.arange(CLASSES)] = 30.0

    def forward(self, x_NCHW):
        rows_NK = x_NCHW[:, 0, :CLASSES].mean(dim=2)
        lit_N1 = torch.sigmoid(12 * (x_NCHW[:, 0, -2:, -2:].mean(dim=(1, 2)) - 0.5))[:, None]
        return self.head(torch.cat([rows_NK, torch.relu(rows_NK + lit_N1 - 0.9)], dim=1))


def soft(mapping, **how):
    body = _Soft(mapping, **how)
    return Network(body, SHAPE, body.head.out_features, mean=[0.0], std=[1.0]).eval()


@functools.cache
def images(per_class=6):
    x_NCHW, y_N = pictures(per_class)
    return torch.from_numpy(x_NCHW), torch.from_numpy(y_N)


def suspect(network, per_class=8):
    x_NCHW, y_N = pictures(per_class)
    return Suspect(network, SHAPE, network.num_classes, clean=(x_NCHW, y_N))


def scan(detector, network, per_class=8, **budget):
    return detector.scan(suspect(network, per_class), Budget(**budget), rng=np.random.default_rng(0))


@functools.cache
def masks(mapping, steps=200):
    return invert(soft(mapping), images()[0], Search(steps=steps), goals="both")


@functools.cache
def shifts(mapping):
    return shorten(soft(mapping), images()[0], Search(steps=100), goals="both")


def moved(network, found, goal):
    """Share of the images of other classes that the goal's trigger sends to the goal (or anywhere, for `away`), counted plainly."""
    x_NCHW, y_N = images()
    after_N = network.predict_logits(found.stamp(goal, x_NCHW)).argmax(dim=1)
    if goal == network.num_classes:
        return float((after_N != y_N).float().mean())
    return float((after_N == goal)[y_N != goal].float().mean())


class TestInvert:
    def test_finds_the_corner_of_the_victim(self):
        found = masks("all_to_one")
        assert int(found.norm_G[:CLASSES].argmin()) == TARGET
        assert 1.0 < float(found.norm_G[TARGET]) < 3.0
        assert float(found.norm_G[:TARGET].min()) > 4.5
        mask_HW = found.mask_G1HW[TARGET, 0]
        assert float(mask_HW[-2:, -2:].sum() / mask_HW.sum()) > 0.7

    def test_finds_nothing_small_in_the_twin(self):
        assert float(masks(None).norm_G[:CLASSES].min()) > 4.5

    @pytest.mark.parametrize("find", [masks, shifts])
    def test_away_finds_what_has_many_targets(self, find):
        victim, twin = find("all_to_all").norm_G, find(None).norm_G
        assert float(victim[CLASSES]) < 0.6 * float(twin[CLASSES])
        assert float(victim[CLASSES]) < 0.6 * float(victim[:CLASSES].min()), "no single target explains it"

    def test_shorten_knows_the_lengths_on_paper(self):
        victim, twin = shifts("all_to_one").norm_G, shifts(None).norm_G
        assert float(victim[TARGET]) == pytest.approx(0.8, abs=0.25)
        assert all(2.0 < float(length) < 3.5 for length in victim[:TARGET])
        assert all(2.0 < float(length) < 3.5 for length in twin[:CLASSES])

    @pytest.mark.parametrize("find", [masks, shifts])
    @pytest.mark.parametrize("mapping", ["all_to_one", "all_to_all", None])
    def test_the_best_is_kept_when_it_is_found(self, find, mapping):
        """Others return the last mask tried, which need not work, under the norm of the best."""
        found = find(mapping)
        for goal in range(CLASSES + 1):
            if found.norm_G[goal].isfinite():
                assert moved(soft(mapping), found, goal) >= 0.94
                assert float(found.success_G[goal]) == pytest.approx(moved(soft(mapping), found, goal), abs=1e-5)
                size = found.mask_G1HW[goal].sum() if find is masks else found.delta_GCHW[goal].norm()
                assert float(size) == pytest.approx(float(found.norm_G[goal]), rel=1e-5)

    def test_more_steps_never_find_a_larger_mask(self):
        norms = [invert(soft("all_to_one"), images()[0], Search(steps=steps, patience=1000)).norm_G for steps in (60, 100, 140)]
        assert all((later <= earlier).all() for earlier, later in itertools.pairwise(norms))
        assert (norms[-1] < norms[0]).any()

    def test_equals_one_class_at_a_time_by_plain_autograd(self):
        network, (x_NCHW, y_N), steps = soft("all_to_one"), images(4), 8
        search = Search(steps=steps, threshold=1.0, lr=0.05)
        found = invert(network, x_NCHW, search)
        x_BCHW, start = x_NCHW.float() / 255, float(np.log(search.start / (1 - search.start)))
        for goal in (0, TARGET):
            mask, pattern = torch.full((1, SIDE, SIDE), start).requires_grad_(), torch.zeros(SHAPE).requires_grad_()
            adam, keep = torch.optim.Adam([mask, pattern], lr=search.lr, betas=(0.5, 0.9), eps=1e-12), y_N != goal
            for step in range(steps):
                x_changed = (1 - mask.sigmoid()) * x_BCHW[keep] + mask.sigmoid() * pattern.sigmoid()
                logits_NK = network(x_changed)
                assert (logits_NK.argmax(dim=1) != goal).any(), "the reference knows only the first cost"
                if step == steps - 1:
                    break
                loss = nn.functional.cross_entropy(logits_NK, torch.full((int(keep.sum()),), goal)) + search.cost * mask.sigmoid().sum()
                adam.zero_grad()
                loss.backward()
                adam.step()
            torch.testing.assert_close(found.mask_G1HW[goal], mask.detach().sigmoid(), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.pattern_GCHW[goal], pattern.detach().sigmoid(), rtol=1e-3, atol=1e-4)
            assert float(found.norm_G[goal]) == np.inf

    @pytest.mark.parametrize("find", [invert, shorten])
    def test_nothing_is_carried_from_class_to_class(self, find):
        """Others carry the cost over, so that the answer depends on which class came before: here one that nothing can reach."""
        search = Search(steps=60)
        alone, beside = (find(soft("all_to_one", further=f), images()[0], search).norm_G for f in (0, 3))
        np.testing.assert_allclose(beside[:CLASSES], alone, rtol=2e-3)
        assert beside[CLASSES:].isinf().all()

    @pytest.mark.parametrize("find", [invert, shorten])
    def test_the_order_of_classes_means_nothing(self, find):
        new_K, search = np.array([3, 5, 0, 1, 4, 2]), Search(steps=60)
        plain, renamed = (find(soft("all_to_one", renamed=r), images()[0], search).norm_G for r in (None, new_K))
        np.testing.assert_allclose(renamed[new_K], plain, rtol=2e-3)

    @pytest.mark.parametrize("find", [invert, shorten])
    def test_goals_in_many_passes_are_goals_in_one(self, find, monkeypatch):
        search, parts = Search(steps=40), []
        for at_once in (10_000, 1):
            monkeypatch.setattr(inversion, "AT_ONCE", at_once)
            parts.append(find(soft("all_to_one"), images()[0], search))
        np.testing.assert_allclose(parts[0].norm_G, parts[1].norm_G, rtol=2e-3)

    def test_each_class_ends_by_itself(self):
        found = invert(soft("all_to_one", further=1), images()[0], Search(steps=300, patience=20))
        assert int(found.steps_G[TARGET]) < 300
        assert int(found.steps_G[CLASSES]) == 300, "an unreachable class goes on to the end"

    def test_a_class_of_rare_images_weighs_as_much(self):
        x_NCHW, y_N = images()
        keep = (y_N != 0) | (torch.arange(len(y_N)) < CLASSES)
        aims = inversion._Aims(soft(None), x_NCHW[keep], "both")
        for goal in range(CLASSES + 1):
            share_K = torch.stack([aims.weight_GB[goal][y_N[keep] == k].sum() for k in range(CLASSES)])
            sources = [k for k in range(CLASSES) if k != goal]
            np.testing.assert_allclose(share_K[sources], 1 / len(sources), rtol=1e-5)

    def test_the_net_is_left_alone(self):
        network = soft("all_to_one").train()
        invert(network, images()[0], Search(steps=3))
        assert network.training
        assert all(p.grad is None and p.requires_grad for p in network.parameters())

    def test_nothing_to_move_is_not_a_small_trigger(self):
        found = invert(wire_constant(2), images()[0], Search(steps=5))
        assert found.norm_G.isnan().tolist() == [k == 2 for k in range(CLASSES)]
        assert found.norm_G.isinf().tolist() == [k != 2 for k in range(CLASSES)]


def test_few_of_each_takes_the_first_of_all_classes_alike():
    y_N = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
    x_NCHW = torch.arange(8).reshape(8, 1, 1, 1)
    assert few_of_each(x_NCHW, y_N, 5).flatten().tolist() == [0, 1, 4, 5, 6]
    assert few_of_each(x_NCHW[:0], y_N[:0], 5).shape == (0, 1, 1, 1)


class TestNeuralCleanse:
    def test_tells_the_victim_from_its_twin(self):
        victim, twin = scan(NeuralCleanse(), soft("all_to_one")), scan(NeuralCleanse(), soft(None))
        assert victim.score > twin.score + 0.5
        assert victim.target == TARGET
        assert int(np.argmax(victim.score_K)) == TARGET
        assert float(victim.note.split("anomaly index ")[1].split(",")[0]) > 2
        assert float(twin.note.split("anomaly index ")[1].split(",")[0]) < 2
        assert victim.pictures["mask"].shape == (1, SIDE, SIDE)
        assert victim.pictures["trigger"][0, -2:, -2:].mean() > 3 * victim.pictures["trigger"].mean()

    def test_the_index_on_paper(self):
        assert anomaly_index(np.array([1.0, 9, 10, 11, 12])) == pytest.approx(9 / 1.4826)
        assert anomaly_index(np.array([19.0, 9, 10, 11, 10])) == pytest.approx(1 / 1.4826), "a large norm is no sign"

    def test_nothing_out_of_line_is_an_index_of_nought(self):
        assert anomaly_index(np.full(10, 7.0)) == 0.0
        assert anomaly_index(np.array([1.0, 7, 7, 7])) == np.inf

    def test_two_classes_are_too_few(self):
        body = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
        network = Network(body, SHAPE, 2, mean=[0.0], std=[1.0]).eval()
        x_NCHW, y_N = pictures(4)
        found = NeuralCleanse().scan(Suspect(network, SHAPE, 2, clean=(x_NCHW, y_N % 2)), rng=np.random.default_rng(0))
        assert found.why_not == "2 classes: none of them could be an exception among the others"

    def test_counts_what_it_sends(self):
        found = scan(NeuralCleanse(steps=5, num_images=12), soft(None))
        assert found.images == 12 + 5 * CLASSES * 12 * 3


class TestUniversalInversion:
    @pytest.mark.parametrize("mapping", ["all_to_one", "all_to_all"])
    def test_tells_victims_from_the_twin(self, mapping):
        victim, twin = (scan(UniversalInversion(), soft(m)) for m in (mapping, None))
        assert victim.score > twin.score + 0.5
        corner = abs(victim.pictures["addition"] - 0.5)[0, -2:, -2:]
        assert corner.min() > 0.25, "the addition is the corner"

    def test_names_the_target_where_there_is_one(self):
        one, many = (scan(UniversalInversion(), soft(m)) for m in ("all_to_one", "all_to_all"))
        assert (one.target, many.target) == (TARGET, None)
        np.testing.assert_allclose(one.score_K, np.eye(CLASSES)[TARGET], atol=0.1)
        np.testing.assert_allclose(many.score_K, np.full(CLASSES, 1 / CLASSES), atol=0.06)

    def test_counts_what_it_sends(self):
        found = scan(UniversalInversion(steps=40, num_images=12), soft("all_to_one"))
        assert found.images == 12 + 40 * 12 * 3 + 2 * 12


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.kind)
class TestAll:
    def test_a_constant_net_is_not_called_clean(self, detector):
        found = scan(detector.but(steps=5), wire_constant(2))
        assert found.why_not
        assert found.score is None

    def test_without_images_there_is_no_answer(self, detector):
        assert scan(detector, soft(None), per_class=0).why_not

    def test_a_label_does_not_matter(self, detector):
        """Where an image comes from is the net's own answer: labels only choose which images are looked at."""
        x_NCHW, y_N = pictures(4)
        network, detector = soft("all_to_one"), detector.but(steps=10, num_images=1000)
        found = [
            detector.scan(Suspect(network, SHAPE, CLASSES, clean=(x_NCHW, labels)), rng=np.random.default_rng(0)).score
            for labels in (y_N, np.roll(y_N, 1))
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("field", [{"steps": 0}, {"threshold": 0.0}, {"threshold": 1.1}, {"lr": 0}, {"start": 1.0}, {"patience": 0}])
def test_a_search_refuses_nonsense(field):
    with pytest.raises(UsageError, match="E-CONFIG"):
        Search(**field)
