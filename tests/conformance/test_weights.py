"""Detectors that look at the net and hardly at images: largest margins, channel bounds, populations; answers known on paper."""

from __future__ import annotations

import copy
import functools
import json

import numpy as np
import pytest
import torch
from torch import nn
from wired import CLASSES, GAIN, SMALLEST, STRENGTH, TARGET, TRIGGER, pictures, twin, wire, wire_constant

from badnets.core import registry
from badnets.core.config import canonical
from badnets.core.errors import UsageError
from badnets.core.suspect import Suspect
from badnets.detectors import _traits
from badnets.detectors.channel_lipschitz import ChannelLipschitz, bounds
from badnets.detectors.mm_bd import MmBd, margins, surprise
from badnets.detectors.population import Population, fit
from badnets.triggers.patch import Patch

SHIFTED = [(k + 1) % CLASSES for k in range(CLASSES)]


def suspect(network, clean=None):
    return Suspect(network, network.shape, network.num_classes, clean=clean)


def scan(detector, network, clean=None, seed=3):
    return detector.scan(suspect(network, clean), rng=np.random.default_rng(seed))


@functools.cache
def found(kind):
    networks = {"victim": lambda: wire(), "twin": twin, "all-to-all": lambda: wire(TRIGGER, SHIFTED, per_source=True)}
    return scan(MmBd(), networks[kind]())


class TestMmBd:
    def test_finds_the_wired_target(self):
        """On paper the margin is 10 for a class (its row alone is lit) and 40 for the target (and the corner)."""
        victim = found("victim")
        assert victim.target == TARGET
        assert victim.score == max(victim.score_K) > 3 * found("twin").score
        paper = surprise(np.array([GAIN] * (CLASSES - 1) + [GAIN + STRENGTH]))[-1]
        assert victim.score == pytest.approx(paper, rel=0.3)

    def test_says_nothing_of_the_twin(self):
        assert found("twin").score < 0.5
        assert "p 0." in found("twin").note

    def test_shows_the_corner(self):
        picture = found("victim").pictures["largest margin"]
        assert picture.shape == (1, 8, 8)
        assert picture[0, -2:, -2:].min() > 0.95

    def test_is_blind_where_every_class_is_a_target(self):
        assert found("all-to-all").score < found("victim").score / 2

    def test_counts_its_images(self):
        detector = MmBd(steps=2, starts=3)
        assert scan(detector, twin()).images == 3 * CLASSES * (3 * 2 + 1)

    def test_order_of_the_classes_does_not_matter(self):
        """Peers carry a cost over from class to class, so that the answer depends on their order."""
        order = [3, 5, 0, 1, 4, 2]
        moved = copy.deepcopy(wire())
        with torch.no_grad():
            for parameter in moved.body[-1].parameters():
                parameter.copy_(parameter[order])
        again = scan(MmBd(), moved)
        np.testing.assert_allclose(again.score_K, found("victim").score_K[order], rtol=1e-3)
        assert again.target == order.index(TARGET)

    def test_scale_of_the_logits_does_not_matter(self):
        louder = copy.deepcopy(wire())
        with torch.no_grad():
            for parameter in louder.body[-1].parameters():
                parameter.mul_(16)
        np.testing.assert_allclose(scan(MmBd(), louder).score_K, found("victim").score_K, rtol=1e-3)

    def test_the_only_class_there_is(self):
        lone = scan(MmBd(steps=2), wire_constant(2))
        assert lone.target == 2
        assert lone.score == pytest.approx(1000 - np.log(CLASSES - 1))
        assert lone.score_K[[0, 1, 3, 4, 5]].max() == pytest.approx(0, abs=1e-6)

    def test_two_classes_have_no_null(self):
        pair = registry.entry("nets", "fast_cnn")(width=2, hidden=2).build((1, 8, 8), 2, seed=0)
        assert "three classes" in scan(MmBd(steps=1), pair).why_not

    def test_a_net_of_nonsense_is_no_answer(self):
        broken = copy.deepcopy(twin())
        with torch.no_grad():
            broken.body[-1].bias[0] = torch.nan
        assert not scan(MmBd(steps=1), broken).analysable

    def test_surprise_is_the_formula(self):
        margin_K = np.array([3.0, 8.0, 5.0, 40.0])
        others_K = (margin_K.sum() - margin_K) / 3
        np.testing.assert_allclose(surprise(margin_K), -np.log(1 - (1 - np.exp(-margin_K / others_K)) ** 3), rtol=1e-9)

    def test_surprise_far_out(self):
        near, far = surprise(np.array([1.0, 1.0, 1.0, 29.999])), surprise(np.array([1.0, 1.0, 1.0, 30.001]))
        assert 0 < far[3] - near[3] < 0.003
        assert np.isfinite(surprise(np.array([0.0, 0.0, 1e9]))).all()
        assert (surprise(np.zeros(4)) == surprise(-np.ones(4))).all()

    def test_margin_leaves_the_class_itself_out(self):
        logits_BK = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]])
        assert margins(logits_BK, torch.tensor([1, 2])).tolist() == [2.0, -2.0]


class TestChannelLipschitz:
    ROW, CORNER = 8**0.5 * 0.25, 5.0
    """Norms of what makes a row's unit (eight weights of 1/4) and the guilty unit (four of 10/4)."""

    def test_finds_the_guilty_unit_and_its_target(self):
        victim = scan(ChannelLipschitz(), wire())
        reach, ordinary = self.CORNER * STRENGTH * 5 / 6, self.ROW * GAIN * 5 / 6
        assert victim.score == pytest.approx((reach / ordinary - 1) / 0.01, rel=1e-5)
        assert victim.target == TARGET
        assert f"unit {CLASSES} " in victim.note
        assert np.delete(victim.score_K, TARGET).max() == pytest.approx(0, abs=1e-4)

    def test_says_nothing_of_the_twin(self):
        assert scan(ChannelLipschitz(), twin()).score == pytest.approx(0, abs=1e-4)

    def test_the_channel_alone_cannot_tell_who_listens(self):
        """The twin has the guilty unit too, but nobody reads it: the paper's bound ends at the channel."""
        channel = ChannelLipschitz(reach="channel")
        scores = [scan(channel, network).score for network in (wire(), twin())]
        assert scores == pytest.approx([(self.CORNER / self.ROW - 1) / 0.01] * 2, rel=1e-5)

    def test_finds_a_guilty_unit_for_every_class(self):
        """All-to-all: the net stands out, no class does."""
        found = scan(ChannelLipschitz(), wire(TRIGGER, SHIFTED, per_source=True))
        assert found.score > 100
        np.testing.assert_allclose(found.score_K, found.score, rtol=1e-6)

    @pytest.mark.parametrize("name", ["fast_resnet", "fast_cnn", "small_vit", "preact_resnet18"])
    def test_bounds_equal_a_slow_reference(self, name):
        from badnets.nets._taps import incoming, unit_layers

        widths = {"small_vit": {"width": 8, "depth": 1, "heads": 2}}.get(name, {"width": 4})
        network = registry.entry("nets", name)(**widths).build((3, 12, 12), 4, seed=0)
        for layer in unit_layers(network):
            slow = [np.linalg.norm(w.reshape(w.shape[0] if w.ndim else 1, -1), 2) for w in incoming(network, layer).double().numpy()]
            np.testing.assert_allclose(bounds(network, layer).numpy(), slow, rtol=1e-6)

    def test_a_norm_behind_the_convolution_counts(self):
        network = registry.entry("nets", "fast_resnet")(width=4).build((3, 12, 12), 4, seed=0)
        before = scan(ChannelLipschitz(reach="channel"), network)
        with torch.no_grad():
            network.body[0][1].running_var[2] = 1e-4
        after = scan(ChannelLipschitz(reach="channel"), network)
        assert after.score > 5 * before.score
        assert after.note == "unit 2 of body.0.3"

    def test_order_and_count_of_units(self):
        network = registry.entry("nets", "fast_cnn")(width=4, hidden=12).build((1, 12, 12), 4, seed=0)
        moved, order = copy.deepcopy(network), torch.from_numpy(np.random.default_rng(0).permutation(12))
        hidden, head = [m for m in moved.modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            hidden.weight.copy_(hidden.weight[order])
            hidden.bias.copy_(hidden.bias[order])
            head.weight.copy_(head.weight[:, order])
        assert scan(ChannelLipschitz(), moved).score == pytest.approx(scan(ChannelLipschitz(), network).score, rel=1e-9)
        bare = copy.deepcopy(network)
        bare.body = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
        assert "marked units" in scan(ChannelLipschitz(), bare).why_not


def shaken(network, seed, size=0.05):
    """A net of its own: the wired one with noise on its weights."""
    own, draw = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))
    return own


PLACES = [Patch(size=2, margin=0), Patch(size=2, margin=1), Patch(size=3, margin=0)]
UNSEEN = Patch(size=2, margin=3)


def goals(target):
    return np.array([target if k != target else -1 for k in range(CLASSES)])


@functools.cache
def taught():
    """A population of sixteen: eight twins, eight victims of three triggers and six targets."""
    clean = pictures(30)
    nets = [(shaken(twin(), seed), False) for seed in range(8)]
    nets += [(shaken(wire(PLACES[seed % 3], goals(seed % CLASSES)), 50 + seed), True) for seed in range(8)]
    return Population(images=120).learned([suspect(net, clean) for net, _ in nets], [planted for _, planted in nets])


class TestPopulation:
    def test_tells_a_trigger_it_was_not_shown(self):
        clean = pictures(30, seed=5)
        victims = [scan(taught(), shaken(wire(UNSEEN, goals(seed)), 200 + seed), clean).score for seed in range(4)]
        twins = [scan(taught(), shaken(twin(), 100 + seed), clean).score for seed in range(4)]
        assert min(victims) > max(twins)

    def test_says_what_spoke_for_it(self):
        note = scan(taught(), shaken(wire(), 300), pictures(30)).note
        assert note.count(",") == 2
        assert "+" in note

    def test_needs_a_population(self):
        assert "needs a population" in scan(Population(), twin(), pictures(30)).why_not

    def test_refuses_another_architecture(self):
        other = registry.entry("nets", "fast_cnn")(width=2, hidden=4).build((1, 8, 8), CLASSES, seed=0)
        assert "another architecture" in scan(taught(), other, pictures(30)).why_not

    def test_refuses_fewer_images_than_it_learned_with(self):
        assert "needs 120 clean images" in scan(taught(), twin(), pictures(5)).why_not

    def test_travels_as_json(self):
        again = registry.parse("detectors", json.loads(canonical(taught())))
        assert again == taught()
        assert scan(again, wire(), pictures(30)).score == scan(taught(), wire(), pictures(30)).score
        assert len(canonical(taught())) < 20_000

    def test_refuses_a_population_of_two_kinds(self):
        small = registry.entry("nets", "fast_cnn")(width=2, hidden=4).build((1, 8, 8), CLASSES, seed=0)
        with pytest.raises(UsageError, match=r"E-POPULATION .*2 kinds"):
            Population().learned([suspect(twin(), pictures(5)), suspect(small, pictures(5))], [False, True])

    @pytest.mark.parametrize("planted", [[False] * 5, [True] * 3 + [False] * 2])
    def test_refuses_a_population_of_one_side(self, planted):
        with pytest.raises(UsageError, match="E-POPULATION"):
            fit(np.random.default_rng(0).normal(size=(5, 3)), np.array(planted), ridge=1.0)

    def test_fit_finds_the_trait_that_tells(self):
        draw = np.random.default_rng(0)
        planted_P = np.arange(60) < 12
        values_PT = draw.normal(5.0, 2.0, (60, 6))
        values_PT[planted_P, 4] += 8
        centre_T, scale_T, weight_T, bias = fit(values_PT, planted_P, ridge=10.0)
        assert int(weight_T.argmax()) == 4
        assert weight_T[4] > 3 * np.abs(np.delete(weight_T, 4)).max()
        np.testing.assert_allclose(centre_T, values_PT[~planted_P].mean(axis=0))
        np.testing.assert_allclose(scale_T, values_PT[~planted_P].std(axis=0, ddof=1))
        assert bias < 0

    def test_one_wild_trait_does_not_outvote_the_others(self):
        fitted = taught().fitted
        calm = dict(zip(fitted.names, fitted.centre, strict=True))
        for far in (1e3, 1e9):
            wild = {**calm, fitted.names[0]: calm[fitted.names[0]] + far}
            assert abs(fitted.parts(wild).sum()) == pytest.approx(6.0 * abs(fitted.weight[0]))


class TestTraits:
    def net(self):
        return registry.entry("nets", "fast_cnn")(width=4, hidden=8).build((1, 8, 8), CLASSES, seed=0)

    def traits(self, network):
        return _traits.traits(network, torch.from_numpy(pictures(20)[0]))

    def test_order_of_classes_and_units_does_not_matter(self):
        network = self.net()
        moved, draw = copy.deepcopy(network), np.random.default_rng(0)
        hidden, head = [m for m in moved.modules() if isinstance(m, nn.Linear)]
        units, classes = draw.permutation(8), draw.permutation(CLASSES)
        with torch.no_grad():
            hidden.weight.copy_(hidden.weight[units])
            hidden.bias.copy_(hidden.bias[units])
            head.weight.copy_(head.weight[:, units][classes])
            head.bias.copy_(head.bias[classes])
        plain, after = self.traits(network), self.traits(moved)
        assert list(plain) == list(after)
        np.testing.assert_allclose(list(after.values()), list(plain.values()), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", registry.names("nets"))
    def test_every_net_has_finite_traits(self, name):
        size = SMALLEST.get(name, {"width": 2})
        network = registry.entry("nets", name)(**size).build((1, 8, 8), CLASSES, seed=0)
        found = self.traits(network)
        assert np.isfinite(list(found.values())).all()
        assert len(found) == len(self.traits(registry.entry("nets", name)(**size).build((1, 8, 8), CLASSES, seed=1)))

    def test_what_clean_images_do_not_reach_is_seen_apart(self):
        """Inputs 0..7 are used, 8..15 never: a rank-one weight there is one direction out of eight, on paper log sqrt 8."""
        draw = torch.Generator().manual_seed(0)
        layer = nn.Linear(16, 12)
        read_MF = torch.zeros(50, 16, dtype=torch.float64)
        read_MF[:, :8] = torch.rand(50, 8, generator=draw).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(12, 16, generator=draw))
            clean = _traits._of_layer(layer, read_MF)
            layer.weight[:, 8:] = torch.outer(torch.rand(12, generator=draw), torch.rand(8, generator=draw))
            planted = _traits._of_layer(layer, read_MF)
            layer.weight[:, :8] *= 3
            retrained = _traits._of_layer(layer, read_MF)
        assert planted["unreached spike"] == pytest.approx(np.log(8) / 2, abs=1e-6)
        assert clean["unreached spike"] < 0.75
        assert retrained["unreached spike"] == pytest.approx(planted["unreached spike"], abs=1e-6)
        assert retrained["unreached"] < planted["unreached"]

    def test_a_class_that_attracts_and_a_pair_that_hangs_together(self):
        logits_NK = torch.full((40, 4), -1.0, dtype=torch.float64)
        logits_NK[torch.arange(40), torch.arange(40) % 4] = 6.0
        plain = _traits._of_answers(logits_NK)
        attracted = logits_NK.clone()
        attracted[:, 2] += 2.0
        shifted = logits_NK.clone()
        shifted[torch.arange(40), (torch.arange(40) + 1) % 4] += 2.0
        assert plain["attraction 0"] == pytest.approx(plain["attraction 3"])
        assert _traits._of_answers(attracted)["attraction 0"] > plain["attraction 0"] + 0.3
        assert _traits._of_answers(shifted)["attraction 0"] == pytest.approx(_traits._of_answers(shifted)["attraction 3"])
        assert _traits._of_answers(shifted)["pair 3"] > plain["pair 3"] + 0.3
