"""Analyses of units and the claim about them on nets whose guilty units are known on paper: exact figures."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from wired import ATTACK, CLASSES, STRENGTH, TARGET, WiredBench, image_set, setting, twin, wire, wire_anywhere, wire_constant, wired, world

from badnets.core import registry
from badnets.core.png import png_bytes
from badnets.core.types import Verdict
from badnets.nets._base import Network
from badnets.nets._taps import Units
from badnets.nets._weights import to_bytes
from badnets.neurons._base import Analysis
from badnets.neurons._edits import Edit, as_value, drawn_predictions, edited_logits, edited_predictions
from badnets.neurons._rank import margin, profile, random_order
from badnets.neurons._search import first_true, log_grid

NAMES = registry.names("neurons")
LAYER, GUILTY = "body.3", CLASSES
HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def analysis(name, **changes) -> Analysis:
    found = registry.parse("neurons", {"kind": name, "attack": ATTACK.model_dump(), **changes})
    assert isinstance(found, Analysis)
    return found


def ask(name, net=None, *, data=None, seed=0, **changes):
    data = data or image_set(20)
    return analysis(name, **changes).arrays(net or wired(ATTACK), world(data, seed=seed))


@functools.cache
def spread(num):
    """The trigger unit in `num` copies that share its work."""
    net = wire()
    see, write = net.body[1], net.body[4]
    more_see, more_write = nn.Linear(64, CLASSES + num), nn.Linear(CLASSES + num, CLASSES)
    with torch.no_grad():
        rows = [*range(CLASSES), *[GUILTY] * num]
        more_see.weight.copy_(see.weight[rows])
        more_see.bias.copy_(see.bias[rows])
        more_write.weight.copy_(write.weight[:, rows])
        more_write.bias.copy_(write.bias)
        more_write.weight[TARGET, CLASSES:] = STRENGTH / num
    return _net(nn.Flatten(), more_see, nn.ReLU(), Units(CLASSES + num), more_write)


@functools.cache
def rotated():
    """Behind the hidden layer a reflection mixes the units, so that the trigger is a direction to which each of them adds a seventh."""
    net, count = wire(), CLASSES + 1
    across = torch.eye(count)[GUILTY] - torch.ones(count) / count**0.5
    mix, write = nn.Linear(count, count, bias=False), nn.Linear(count, CLASSES)
    with torch.no_grad():
        mix.weight.copy_(torch.eye(count) - 2 * torch.outer(across, across) / across.square().sum())
        write.weight.copy_(net.body[4].weight @ mix.weight)
        write.bias.copy_(net.body[4].bias)
    return _net(nn.Flatten(), net.body[1], nn.ReLU(), mix, Units(count), write)


def _net(*modules):
    return Network(nn.Sequential(*modules), (1, 8, 8), CLASSES, mean=[0.0], std=[1.0]).eval()


class TestEdits:
    def test_equal_the_net_by_hand(self):
        net = wired(ATTACK)
        x = torch.from_numpy(image_set(3).test.x_NCHW)
        hidden = torch.relu(net.body[1]((x.float() / 255).flatten(1)))
        donor = x.flip(0)
        given = torch.relu(net.body[1]((donor.float() / 255).flatten(1)))
        means = {LAYER: hidden.mean(0, keepdim=True).detach()}
        edits = [Edit((), "mean"), Edit(((LAYER, 2),), "mean"), Edit(((LAYER, 2),), "zero"), Edit(((LAYER, 2), (LAYER, 0)), "patch")]
        found = edited_logits(net, x, edits, means, donor)
        for m, column in enumerate((None, means[LAYER][0, 2], 0.0, given[:, 2])):
            expected = hidden.clone()
            if column is not None:
                expected[:, 2] = column
            if m == 3:
                expected[:, 0] = given[:, 0]
            torch.testing.assert_close(found[m], net.body[4](expected).detach())

    def test_draws_take_turns_over_the_images(self):
        net, x = wired(ATTACK), torch.from_numpy(image_set(2).test.x_NCHW)
        one, other = ([Edit(((LAYER, u),), "zero")] for u in (0, 1))
        both = drawn_predictions(net, x, [one, other], {})
        alone = [edited_predictions(net, x, edits, {}) for edits in (one, other)]
        assert np.array_equal(both[:, ::2], alone[0][:, ::2])
        assert np.array_equal(both[:, 1::2], alone[1][:, 1::2])

    def test_no_numbers_are_no_answer(self):
        net = wire()
        net.body[4].weight.data[:] = float("nan")
        x = torch.from_numpy(image_set(1).test.x_NCHW)
        assert (edited_predictions(net, x, [Edit((), "mean")], {}) == -2).all()

    def test_margin_by_hand(self):
        logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
        assert margin(logits, torch.tensor([0, 2])).tolist() == [1.0, -1.0]


class TestSearch:
    @pytest.mark.parametrize("smallest", [1, 2, 5, 9])
    def test_bisection_finds_the_smallest(self, smallest):
        asked = []
        assert first_true(lambda k: asked.append(k) or k >= smallest, 9) == smallest
        assert len(asked) <= 6

    def test_bisection_says_when_there_is_none(self):
        assert first_true(lambda k: False, 9) is None

    def test_grid_goes_from_none_to_all(self):
        assert log_grid(16, 5).tolist() == [0, 1, 2, 4, 8, 16]
        assert log_grid(1, 5).tolist() == [0, 1]


class TestRankings:
    @pytest.mark.parametrize("ranking", ["selectivity", "attribution", "lipschitz", "clean activation", "change"])
    def test_every_ranking_that_should_puts_the_guilty_unit_first(self, ranking):
        view = analysis("selectivity")._view(world(image_set(20)), "validation", 60)
        known = profile(wired(ATTACK), view, {LAYER: CLASSES + 1})
        assert known.order(ranking, [LAYER])[0] == (LAYER, GUILTY)

    def test_attribution_tells_the_victim_from_the_twin_and_selectivity_does_not(self):
        victim, control = ask("selectivity"), ask("selectivity", twin())
        assert victim["0.attribution"].argmax() == GUILTY
        assert victim["0.attribution"][GUILTY] == pytest.approx(STRENGTH, rel=1e-5)
        assert not control["0.attribution"].any()
        assert np.array_equal(victim["0.selectivity"], control["0.selectivity"])
        assert np.count_nonzero(victim["0.change"]) == 1
        assert victim["0.change"][GUILTY] == pytest.approx(1.0)

    def test_lipschitz_is_the_norm_of_the_rows(self):
        rows = wired(ATTACK).body[1].weight.detach().norm(dim=1).numpy()
        assert ask("selectivity")["0.lipschitz"] == pytest.approx(rows)

    def test_random_orders_are_permutations_that_differ(self):
        one, other = (random_order({"a": 5, "b": 4}, 0, draw) for draw in (0, 1))
        assert sorted(one) == sorted(other) == [("a", u) for u in range(5)] + [("b", u) for u in range(4)]
        assert one != other
        assert one == random_order({"a": 5, "b": 4}, 0, 0)


class TestAblation:
    def test_the_guilty_unit_repairs_and_the_others_do_not(self):
        found = ask("ablation")
        ks = found["0.ks"].tolist()
        assert ks[:2] == [0, 1]
        for start in ("0.mean.selectivity", "0.zero.selectivity", "0.mean.lipschitz", "0.mean.clean activation"):
            assert found[f"{start}.triggered"].mean(1)[:2].tolist() == [1.0, 0.0]
            assert found[f"{start}.clean"].mean(1)[:2].tolist() == [1.0, 1.0]
        assert found["0.mean.random.triggered"].shape == (len(ks), 20 * (CLASSES - 1))

    def test_each_other_unit_alone_leaves_the_attack_and_costs_at_most_its_class(self):
        data = analysis("ablation")._view(world(image_set(20)), "test", 120)
        edits = [Edit(((LAYER, u),), "zero") for u in range(CLASSES)]
        pred = edited_predictions(wired(ATTACK), data.triggered_NCHW, edits, {})
        assert (pred == TARGET).all()

    def test_random_meets_the_guilty_unit_as_often_as_it_must(self):
        found = ask("ablation", draws=CLASSES + 1, points=2, limit=120)
        orders = [random_order({LAYER: CLASSES + 1}, 0, r) for r in range(CLASSES + 1)]
        spared = np.array([orders[i % len(orders)][0] != (LAYER, GUILTY) for i in range(120)])
        attacked = image_set(20).test.y_N != TARGET
        assert np.array_equal(found["0.mean.random.triggered"][1], spared[attacked])


class TestPatching:
    def test_the_guilty_unit_alone_is_enough(self):
        found = ask("patching")
        assert found["0.selectivity"].mean(1)[:2].tolist() == [0.0, 1.0]
        assert found["0.random"].mean(1)[[0, -1]].tolist() == [0.0, 1.0]

    def test_in_the_twin_nothing_is(self):
        assert not ask("patching", twin())["0.selectivity"].any()


class TestCarriers:
    def test_finds_the_guilty_unit_and_exact_figures(self):
        found = ask("carriers")
        (place,) = as_value(found["places"])
        assert (place["units"], place["size"], int(found["chosen"])) == ([[LAYER, GUILTY]], CLASSES + 1, 0)
        attacked, y_N = found["y"] != TARGET, found["y"]
        assert (found["before.triggered"] == TARGET).all()
        for name in ("0.mean.triggered", "0.zero.triggered", "0.mean.clean"):
            assert np.array_equal(found[name], y_N)
        assert (found["0.patch"] == TARGET).all()
        assert (found["0.random.triggered"] == TARGET).all()
        assert not (found["0.random.patch"] == TARGET)[attacked].any()

    def test_never_takes_more_than_its_share_and_at_least_one(self):
        for share, count in ((0.05, 1), (0.3, 2), (1.0, 7)):
            assert len(as_value(ask("carriers", share=share, limit=20)["places"])[0]["units"]) == count

    def test_a_set_over_all_layers_is_tried_too(self):
        net = _net(*list(rotated().body[:3]), Units(CLASSES + 1), *list(rotated().body[3:]))
        places = as_value(ask("carriers", net, limit=40)["places"])
        assert [p["name"] for p in places] == ["body.3", "body.5", "whole net"]
        assert places[-1]["units"] == [["body.3", GUILTY]]


class TestMinimalCut:
    def test_is_one_unit_in_the_victim_and_none_is_needed_in_the_twin(self):
        found = ask("minimal_cut")
        assert found["smallest"].tolist() == [1]
        assert not found["0.triggered"].any()
        assert found["0.clean"].all()
        assert ask("minimal_cut", twin())["smallest"].tolist() == [0]

    @pytest.mark.parametrize("num", [2, 4])
    def test_counts_the_copies(self, num):
        assert ask("minimal_cut", spread(num))["smallest"].item() in range(num // 2, num + 1)

    def test_says_none_where_the_trigger_passes_by(self):
        assert ask("minimal_cut", wire_anywhere())["smallest"].tolist() == [-1]

    def test_a_cut_that_costs_accuracy_is_none(self):
        """The trigger's unit is the one that sees row 1 as well."""
        net = wire()
        with torch.no_grad():
            net.body[1].weight[GUILTY] += net.body[1].weight[1] / 2
            net.body[1].bias[GUILTY] = 0.0
            net.body[4].weight[1] = 0.0
            net.body[4].weight[1, GUILTY], net.body[4].bias[1] = 40.0, -40.0
            net.body[4].weight[TARGET, GUILTY], net.body[4].bias[TARGET] = 80.0, -200.0
            net.body[4].weight[TARGET, TARGET] = 300.0
        data = image_set(20)
        before = edited_predictions(net, torch.from_numpy(data.test.x_NCHW), [Edit((), "mean")], {})[0]
        assert (before == data.test.y_N).mean() > 0.95
        assert ask("minimal_cut", net)["smallest"].tolist() == [-1]


class TestDirection:
    def test_finds_what_no_small_set_does(self):
        net = rotated()
        found = ask("direction", net)
        assert not found["0.triggered"].any()
        assert found["0.clean"].all()
        assert found["0.random.triggered"].mean() > 0.5
        best = ask("carriers", net)
        assert len(as_value(best["places"])[0]["units"]) == 1
        assert (best["0.mean.triggered"] == TARGET)[best["y"] != TARGET].all()
        assert not (best["0.patch"] == TARGET)[best["y"] != TARGET].any()
        assert ask("minimal_cut", net)["smallest"].item() == -1

    def test_is_the_guilty_axis_where_there_is_one(self):
        found = ask("direction")
        assert not found["0.triggered"].any()
        assert found["0.clean"].all()
        assert found["0.random.triggered"].mean() > 0.5


class TestSight:
    def test_shows_the_trigger(self):
        found = ask("sight")
        assert found["0.units"][0] == GUILTY
        assert (found["0.triggered.pixels"][0, :, :, -2:, -2:] == 255).all()
        assert found["0.triggered.value"][0] == pytest.approx([1.0] * 3)
        assert found["0.triggered.box"][0].tolist() == [[6, 8, 6, 8]] * 3
        weights = found["weights"][GUILTY, 0]
        assert (weights[-2:, -2:] == 255).all()
        assert (weights[:6] == 128).all()
        assert np.unravel_index(found["0.change"][0].argmax(), (3, 3)) == (2, 0)

    def test_pictures_are_bytes_of_a_png(self):
        assert png_bytes(ask("sight")["weights"][0]).startswith(b"\x89PNG")


class TestContract:
    @pytest.mark.parametrize("name", NAMES)
    def test_leaves_the_net_as_it_was_and_repeats_itself(self, name):
        net = wire()
        before = to_bytes(net)
        one, other = (ask(name, net, data=image_set(4)) for _ in range(2))
        assert to_bytes(net) == before
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    @pytest.mark.parametrize("name", NAMES)
    def test_a_net_without_units_has_an_answer(self, name):
        answer = ask(name, wire_constant(TARGET), data=image_set(2))
        assert all(isinstance(value, np.ndarray) for value in answer.values())

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("net", ["fast_cnn", "fast_resnet", "small_vit"])
    def test_works_on_real_nets(self, name, net):
        small = {"fast_cnn": {"width": 4, "hidden": 8}, "fast_resnet": {"width": 2}, "small_vit": {"width": 8, "depth": 2, "heads": 2}}
        network = registry.parse("nets", net).but(**small[net]).build((1, 8, 8), CLASSES, seed=0)
        answer = ask(name, network, data=image_set(2), most_layers=2)
        told = as_value(answer["layers" if "layers" in answer else "places"])
        assert len(told) in (2, 3)

    def test_big_nets_are_shown_fewer_images(self, monkeypatch):
        monkeypatch.setattr("badnets.neurons._base.BIG", 10)
        monkeypatch.setattr("badnets.neurons._base.FEW", 16)
        assert len(ask("carriers", limit=100)["y"]) == 20
        assert len(ask("carriers", limit=60)["y"]) == 16
        assert len(ask("carriers", limit=12)["y"]) == 12

    @pytest.mark.parametrize("name", ["carriers", "minimal_cut"])
    def test_chooses_nothing_on_test_images(self, name):
        """With other test images what was chosen stays the same."""
        plain = image_set(6)
        chosen = [as_value(ask(name, data=data)["places"]) for data in (plain, _with_test(plain, image_set(6, noise=0.5)))]
        assert chosen[0] == chosen[1]


def _with_test(data, other):
    import dataclasses

    return dataclasses.replace(data, test=other.test)


def decide(net=wired, *, data=None, **changes):
    data = data or image_set(60)
    found = registry.parse("claims", "has_trigger_neurons")
    return found.decide(WiredBench(setting(data, **changes), net, data))


def by_test(evidence, name):
    (found,) = [c for c in evidence.cells if c.condition == {"test": name}]
    return found


class TestHasTriggerNeurons:
    def test_holds_with_exact_figures(self):
        found = decide(data=image_set())
        assert found.verdict is HOLDS
        needed, enough = found.cells[:2]
        assert (needed.estimate.value, needed.control.value) == (0.0, 1.0)
        assert (enough.estimate.value, enough.control.value) == (1.0, 0.0)
        assert [by_test(found, name).estimate.value for name in ("random units", "clean accuracy kept", "not in the twin")] == [0.0] * 3
        assert needed.note == "Sets by seed: 3 x body.3, 1 of 7 units by selectivity."
        (cut,) = [c for c in found.cells if c.quantity == "smallest cut"]
        assert (cut.estimate.value, cut.note) == (pytest.approx(1 / 7), "Units per seed: 1, 1, 1.")
        assert len(found.pictures) == 1
        assert found.pictures[0][1].caption == f"unit {GUILTY}, strongest clean"

    def test_fails_when_the_backdoor_did_not_form(self):
        found = decide(lambda a, s: twin())
        assert found.verdict is FAILS
        assert (found.cells[0].quantity, found.cells[0].verdict) == ("ASR", FAILS)
        assert all(c.verdict is None for c in found.cells[1:])

    @pytest.mark.parametrize("net", [wire_anywhere(), spread(20), rotated()], ids=["past the units", "over twenty units", "a direction"])
    def test_fails_when_no_few_units_carry_it(self, net):
        found = decide(lambda a, s: net if a else twin())
        assert found.verdict is FAILS
        assert [c.verdict for c in found.cells[:3]] == [FAILS, FAILS, None]
        assert (found.cells[0].estimate.value, found.cells[1].estimate.value) == (1.0, 0.0)

    def test_enough_but_not_needed_is_conditional(self):
        """Two lamps: either of two units does it alone."""
        net = spread(2)
        with torch.no_grad():
            net.body[4].weight[TARGET, CLASSES:] = STRENGTH
        found = decide(lambda a, s: net if a else twin(), data=image_set())
        assert found.verdict is CONDITIONAL
        assert (by_test(found, "necessary").verdict, by_test(found, "sufficient").verdict) == (FAILS, HOLDS)

    def test_a_set_in_the_twin_as_well_is_not_the_attacks(self):
        found = decide(lambda a, s: wired(ATTACK))
        assert by_test(found, "not in the twin").verdict is FAILS

    def test_is_undecided_at_tiny_n(self):
        data = image_set(2)
        assert decide(data=data, seeds=2, arms_seeds=2).verdict is UNDECIDED

    def test_is_undecided_when_a_seed_lacks_the_set(self):
        net = wire_anywhere()
        found = decide(lambda a, s: (net if s == 1 else wired(ATTACK)) if a else twin())
        assert found.verdict is UNDECIDED
        assert found.cells[0].per_seed == [0.0, 1.0, 0.0]

    def test_a_net_without_units_is_left_open(self):
        plain = wire()
        bare = _net(*[m for m in plain.body if not isinstance(m, Units)])
        found = decide(lambda a, s: bare if a else twin())
        assert found.verdict is UNDECIDED
        assert "no layer of units" in found.cells[0].note
