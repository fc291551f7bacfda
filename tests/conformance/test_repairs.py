"""Repairs by tuning and by pruning: what they must remove, what they cannot, and mistakes of other toolkits kept out.

Victims are wired: unit k sees row k, the last unit sees the 2x2 corner and writes into class 5. Shapes: N images, C channels, H rows,
W columns.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from wired import CLASSES, TARGET, TRIGGER, pictures, twin, wire, wire_constant, wired

from badnets.attacks.badnets import BadNets
from badnets.core import registry
from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.core.suspect import Suspect
from badnets.core.view import view_of
from badnets.nets._base import Network
from badnets.nets._taps import Units, incoming, masked, record, unit_layers, zero_units
from badnets.repairs._channels import Unit, expendable, ranked, remove, scales
from badnets.repairs._tuning import hits, parts, recipe, tune
from badnets.repairs.anp import Anp
from badnets.repairs.clp import Clp, _bound_C, _outliers
from badnets.repairs.fine_pruning import FinePruning
from badnets.repairs.fine_tuning import FineTuning
from badnets.repairs.identity import Identity
from badnets.repairs.nad import Nad, _attention, _watched
from badnets.repairs.oracle import Oracle

torch.set_num_threads(1)

GUILTY = CLASSES
LAYER = "body.3"
"""The one layer of units of a wired net."""
QUIET = {"epochs": 1, "lr": 1e-9}
"""Tuning that leaves every answer as it was."""
GENTLE = {"steps": 60, "lr": 0.005, "alpha": 0.5}
"""For logits as large as those of wired nets; at the paper's rate every mask would fall to zero at once."""
NETS = {
    "fast_cnn": {"width": 4, "hidden": 8},
    "paper_cnn": {},
    "fast_resnet": {"width": 4},
    "preact_resnet18": {"width": 4},
    "small_vit": {"width": 8, "depth": 2, "heads": 2},
}


def suspect(network, per_class=20, *, noise=0.1, clean=True):
    pair = pictures(per_class, seed=11, noise=noise, side=network.shape[1])
    return Suspect(network, network.shape, CLASSES, clean=pair if clean else None)


def repaired(method, network, *, seed=0, **how):
    stamp = TRIGGER.stamp if method.told else None
    return method.apply(suspect(network, **how), rng=np.random.default_rng(seed), stamp=stamp)


def ca(network, noise=0.1):
    x_NCHW, y_N = pictures(30, seed=5, noise=noise)
    return float((network.predict_logits(torch.from_numpy(x_NCHW)).argmax(1).numpy() == y_N).mean())


def asr(network, goal_K=None, trigger=TRIGGER):
    x_NCHW, y_N = pictures(30, seed=6)
    goal_K = np.full(CLASSES, TARGET) if goal_K is None else goal_K
    keep_N = goal_K[y_N] != y_N
    pred_N = network.predict_logits(torch.from_numpy(trigger.stamp(x_NCHW[keep_N]))).argmax(1).numpy()
    return float((pred_N == goal_K[y_N[keep_N]]).mean())


def removed(network):
    """Units of a wired net that nothing makes any more."""
    see = network.body[1]
    return [unit for unit in range(len(see.weight)) if not see.weight[unit].any() and see.bias[unit] == 0]


def small(name, classes=4):
    return registry.entry("nets", name)(**NETS[name]).build((3, 12, 12), classes, seed=0)


def noise_images(count=24, classes=4):
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (count, 3, 12, 12), dtype=np.uint8), (np.arange(count) % classes).astype(np.int64)


def skewed():
    """A net without a backdoor that gives one class to everything, for want of a right bias."""
    network = wire(None, gain=5.0)
    with torch.no_grad():
        network.body[4].bias[2] = 8.0
    return network


def eager():
    """A victim whose trigger unit is always on, so that it ranks last by clean activation; what it always writes is taken off again."""
    network = wire(strength=3.0)
    with torch.no_grad():
        network.body[1].bias[GUILTY] = 5.0
        network.body[4].bias[TARGET] = -15.0
    return network


class TestParts:
    @pytest.mark.parametrize(("count", "held"), [(5, 1), (9, 1), (10, 2), (24, 4), (500, 100)])
    def test_every_fifth_image_is_held_out(self, count, held):
        x_NCHW, y_N = pictures(100)
        found = parts(view_of(Suspect(twin(), (1, 8, 8), CLASSES, clean=(x_NCHW[:count], y_N[:count]))))
        assert (len(found.learn[1]), len(found.held[1])) == (count - held, held)
        rows = [{row.numpy().tobytes() for row in part[0]} for part in found]
        assert not rows[0] & rows[1]
        assert len(rows[0] | rows[1]) == count

    def test_the_same_images_in_any_order(self):
        x_NCHW, y_N = pictures(10)
        order = np.random.default_rng(0).permutation(60)
        plain = parts(view_of(Suspect(twin(), (1, 8, 8), CLASSES, clean=(x_NCHW, y_N))))
        other = parts(view_of(Suspect(twin(), (1, 8, 8), CLASSES, clean=(x_NCHW[order], y_N[order]))))
        assert all(torch.equal(a, b) for p, q in zip(plain, other, strict=True) for a, b in zip(p, q, strict=True))

    def test_too_few_to_hold_any_out(self):
        x_NCHW, y_N = pictures(1)
        found = parts(view_of(Suspect(twin(), (1, 8, 8), CLASSES, clean=(x_NCHW[:4], y_N[:4]))))
        assert len(found.learn[1]) == len(found.held[1]) == 4


class _First:
    """Wants the logit of class 0 as large as it can be."""

    def loss(self, network, x_NCHW, y_N):
        return -network(x_NCHW)[:, 0].mean()

    def constant_loss(self, y_N):
        return 0.0


class TestTuning:
    def test_a_training_that_diverges_at_every_rate_is_undone_and_said(self):
        found = repaired(FineTuning(lr=1e30, epochs=3), wire())
        assert found.note == "the training collapsed at every rate and was undone"
        assert torch.equal(found.network.body[1].weight, wire().body[1].weight)
        assert torch.equal(found.network.body[4].weight, wire().body[4].weight)

    def test_a_training_that_ends_in_a_constant_is_repeated_at_half_the_rate(self):
        """A net that gives one class to everything has no backdoor, and a table of repairs would call it a success.

        Here only the bias of class 0 learns, and its gradient is -1: three steps with momentum raise it by 3.51 times the rate. Right
        answers have logits of 8 to 10, so rates of 8 and 4 give class 0 to everything, and 2 to nothing else than class 0.
        """
        network, (x_NCHW, y_N) = wire(None).requires_grad_(requires_grad=False), pictures(20)
        network.body[4].bias.requires_grad_()
        note = tune(network, (torch.from_numpy(x_NCHW), torch.from_numpy(y_N)), recipe(1, 8.0, 32), seed=0, objective=_First())
        assert note == "trained 3 steps from rate 2"
        assert network.body[4].bias.tolist() == pytest.approx([2 * (1.9 * 5 / 6 + 2.71 / 2 + 3.439 / 6), 0, 0, 0, 0, 0], rel=1e-4)
        assert ca(network) == 1.0

    def test_what_was_undone_is_not_an_alias_of_what_was_trained(self):
        network, pair = wire(), view_of(suspect(wire())).need_clean()
        before = copy.deepcopy(network.state_dict())
        tune(network, pair, recipe(1, 1e30, 32), seed=0)
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_nothing_to_train_is_a_usage_error(self):
        with pytest.raises(UsageError, match="E-FROZEN"):
            repaired(FineTuning(), wire().requires_grad_(requires_grad=False))

    def test_a_dropout_draws_from_a_stream(self):
        body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, CLASSES))
        with torch.no_grad():
            body[2].weight.zero_()
            body[2].bias.zero_()
        network = Network(body, (1, 8, 8), CLASSES, mean=[0.0], std=[1.0]).eval()
        luck = torch.get_rng_state()
        first = repaired(FineTuning(epochs=2), network).network.body[2].weight
        assert torch.equal(torch.get_rng_state(), luck)
        torch.rand(3)
        assert torch.equal(repaired(FineTuning(epochs=2), network).network.body[2].weight, first)
        torch.set_rng_state(luck)

    def test_no_gradient_is_left_behind(self):
        assert all(p.grad is None for p in repaired(FineTuning(epochs=1), wire()).network.parameters())

    def test_it_says_how_long(self):
        assert repaired(FineTuning(epochs=2, batch_size=32), wire()).note == "trained 6 steps from rate 0.05"


class TestFineTuning:
    def test_restores_what_was_lost(self):
        assert ca(skewed()) < 0.2
        assert ca(repaired(FineTuning(), skewed()).network) >= 0.98

    def test_does_not_hold_against_a_unit_that_clean_images_never_wake(self):
        """What is silent has no gradient: only the decay of weights touches it."""
        found = repaired(FineTuning(), wire()).network
        assert asr(found) == 1.0
        assert ca(found) == 1.0

    def test_a_twin_stays_right(self):
        found = repaired(FineTuning(), twin()).network
        assert (ca(found), asr(found)) == (1.0, 0.0)


class TestFinePruning:
    def test_removes_exactly_the_guilty_unit(self):
        assert asr(wire()) == 1.0
        found = repaired(FinePruning(max_loss=0.02), wire())
        assert removed(found.network) == [GUILTY]
        assert found.note.startswith(f"pruned 1 of {CLASSES + 1} units of {LAYER}, trained ")
        assert (ca(found.network), asr(found.network)) == (1.0, 0.0)

    def test_a_twin_stays_right(self):
        found = repaired(FinePruning(), twin()).network
        assert (ca(found), asr(found)) == (1.0, 0.0)

    def test_does_not_hold_against_a_unit_that_clean_images_use(self):
        """The paper's pruning-aware attack: the guilty unit is the most active one."""
        assert (ca(eager()), asr(eager())) == (1.0, 1.0)
        found = repaired(FinePruning(**QUIET), eager()).network
        assert GUILTY not in removed(found)
        assert (ca(found), asr(found)) == (1.0, 1.0)

    @pytest.mark.parametrize("max_loss", [0.0, 0.04, 0.2, 0.5, 0.8])
    def test_the_last_good_network_is_not_an_alias_of_the_over_pruned_one(self, max_loss):
        """There, the network kept for stepping back was the very one that went on being pruned."""
        learn, held = parts(view_of(suspect(wire())))
        seen = record(wire(), [LAYER], learn[0])[LAYER].abs().mean(dim=0)
        good = best = copy.deepcopy(wire())
        for unit in seen.argsort(stable=True)[:-1].tolist():
            best = copy.deepcopy(best)
            zero_units(best, LAYER, [unit])
            if hits(best, held) < hits(wire(), held) - max_loss * len(held[1]) - 1e-6:
                break
            good = best
        found = repaired(FinePruning(max_loss=max_loss, **QUIET), wire()).network
        assert removed(found) == removed(good)
        assert hits(found, held) >= hits(wire(), held) - max_loss * len(held[1]) - 1e-6
        assert GUILTY in removed(found)

    @pytest.mark.parametrize("portions", [1, 4, 1000])
    def test_pruning_ends_and_leaves_a_unit(self, portions):
        """There, pruning went on for as long as accuracy did not fall; here it never falls, and still it ends."""
        found = repaired(FinePruning(portions=portions, **QUIET), wire_constant(2))
        assert found.note.startswith(f"pruned {CLASSES} of {CLASSES + 1} units")

    def test_portions_are_of_the_units(self):
        """In two portions of three units each, the first one costs too much: nothing is pruned."""
        assert repaired(FinePruning(portions=2, **QUIET), wire()).note.startswith("pruned 0 of")

    def test_what_was_pruned_stays_pruned_while_the_net_learns(self):
        """In a net without ReLU a removed unit would get gradients, and come back."""
        network, pair = small("small_vit"), noise_images()
        method = FinePruning(max_loss=0.9, lr=0.1, epochs=3, batch_size=8)
        given = Suspect(network, network.shape, 4, clean=pair)
        found = method.apply(given, rng=np.random.default_rng(0))
        layer = list(unit_layers(network))[-1]
        seen = record(found.network, [layer], torch.from_numpy(pair[0]))[layer]
        assert found.note.startswith("pruned 7 of 8")
        assert int((seen == 0).all(dim=0).sum()) == 7
        before, after = network.state_dict(), found.network.state_dict()
        assert not torch.equal(before["body.0.project.weight"], after["body.0.project.weight"])
        revived = copy.deepcopy(network)
        zero_units(revived, layer, range(7))
        tune(revived, (torch.from_numpy(pair[0]), torch.from_numpy(pair[1])), recipe(3, 0.1, 8), seed=0)
        assert record(revived, [layer], torch.from_numpy(pair[0]))[layer][:, :7].any()


class TestAttention:
    def test_map_on_paper(self):
        seen = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, -1.0]]]])
        assert torch.allclose(_attention(seen, 2.0), torch.tensor([[5.0, 0.0, 0.0, 10.0]]) / 125**0.5)
        assert torch.allclose(_attention(seen, 1.0), torch.tensor([[3.0, 0.0, 0.0, 4.0]]) / 5)

    def test_units_stand_for_positions_where_there_are_none(self):
        assert torch.allclose(_attention(torch.tensor([[3.0, -4.0]]), 1.0), torch.tensor([[0.6, 0.8]]))

    def test_size_does_not_count_and_nothing_seen_is_no_error(self):
        seen = torch.rand(2, 3, 4, 4)
        assert torch.allclose(_attention(seen, 2.0), _attention(7 * seen, 2.0), atol=1e-6)
        assert not _attention(torch.zeros(1, 3, 2, 2), 2.0).any()


class TestNad:
    def test_restores_what_was_lost(self):
        assert ca(repaired(Nad(), skewed()).network) >= 0.98

    def test_does_not_hold_against_a_unit_that_clean_images_never_wake(self):
        found = repaired(Nad(), wire()).network
        assert asr(found) == 1.0
        assert ca(found) == 1.0

    def test_beta_brings_the_student_to_look_where_the_teacher_looks(self):
        x_NCHW, y_N = (torch.from_numpy(part) for part in noise_images())
        teacher = registry.entry("nets", "fast_cnn")(**NETS["fast_cnn"]).build((3, 12, 12), 4, seed=1)

        def distances(beta):
            student = small("fast_cnn")
            with _watched(student, teacher, beta, 2.0) as objective:
                assert list(objective.heard) == ["body.3", "body.6"], "the hidden layer has no positions"
                tune(student, (x_NCHW, y_N), recipe(20, 0.01, 8), seed=0, objective=objective)
            own, wanted = (record(network, objective.heard, x_NCHW) for network in (student, teacher))
            return [float((_attention(own[n], 2) - _attention(wanted[n], 2)).square().sum()) for n in objective.heard]

        near, far = distances(3.0), distances(0.0)
        assert near[0] < 0.7 * far[0]
        assert near[1] < 0.7 * far[1]

    def test_without_beta_it_is_tuning(self):
        """And the hearing of layers changes nothing by itself."""
        network, given = wire(), suspect(wire())
        found = Nad(beta=0.0, epochs=2).apply(given, rng=np.random.default_rng(0)).network
        seed = stream_seed(int(np.random.default_rng(0).integers(2**62)), "nad", "student")
        tune(network, view_of(given).need_clean(), recipe(2, Nad().lr, 32), seed=seed)
        assert torch.allclose(found.body[4].weight, network.body[4].weight, atol=1e-6)


class TestAnp:
    def test_removes_the_unit_that_a_perturbation_wakes(self):
        found = repaired(Anp(**GENTLE), wire(), noise=0.8)
        assert removed(found.network) == [GUILTY]
        assert (ca(found.network), asr(found.network)) == (1.0, 0.0)

    def test_does_not_hold_against_a_unit_that_no_perturbation_wakes(self):
        """On dark pictures it would need weights ten times as large."""
        found = repaired(Anp(**GENTLE), wire(), noise=0.1)
        assert removed(found.network) == []
        assert asr(found.network) == 1.0

    def test_a_twin_loses_nothing(self):
        found = repaired(Anp(**GENTLE), twin(), noise=0.8)
        assert removed(found.network) in ([], [GUILTY])
        assert ca(found.network) == 1.0

    def test_the_threshold_is_chosen_by_clean_accuracy_only(self):
        """There, it was swept on triggered test images, and took what clean accuracy it liked. Here: the guilty unit stays where it
        comes after one that is needed, though removing both would leave no attack."""
        _, held = parts(view_of(suspect(wire())))
        needed, guilty = Unit(LAYER, 1), Unit(LAYER, GUILTY)
        assert expendable(wire(), [needed, guilty], [1, 2], held, 0.02) == []
        assert expendable(wire(), [guilty, needed], [1, 2], held, 0.02) == [guilty]
        both = wire()
        remove(both, [needed, guilty])
        assert asr(both) == 0.0

    def test_no_place_for_triggered_images(self):
        """A repair that is not told has nowhere to take them from, and refuses what knows the trigger."""
        with pytest.raises(UsageError, match="E-TOLD"):
            Anp(**GENTLE).apply(suspect(wire()), rng=np.random.default_rng(0), stamp=TRIGGER.stamp)

    def test_units_above_the_highest_mask_stay(self):
        """Even where clean accuracy would let everything go."""
        found = repaired(Anp(steps=1, lr=1e-9, max_loss=0.99), wire(), noise=0.8)
        assert found.note == f"pruned 0 of {CLASSES + 1} units"

    def test_the_given_net_is_perturbed_and_never_changed(self):
        view = view_of(suspect(wire(), noise=0.8))
        before = copy.deepcopy(view.network.state_dict())
        learn, _ = parts(view)
        masks = Anp(**GENTLE)._learn(view.network, learn, 0)
        assert all(torch.equal(before[name], value) for name, value in view.network.state_dict().items())
        assert masks[LAYER].min() >= 0
        assert masks[LAYER].max() <= 1
        assert masks[LAYER].argmin() == GUILTY

    @pytest.mark.parametrize("net_name", NETS)
    def test_batch_norms_keep_their_statistics(self, net_name):
        network, pair = small(net_name), noise_images()
        found = Anp(steps=2, batch_size=8, max_loss=0.0).apply(Suspect(network, network.shape, 4, clean=pair), rng=np.random.default_rng(0))
        buffers = dict(found.network.named_buffers())
        assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())


class TestScales:
    @pytest.mark.parametrize("net_name", ["fast_cnn", "paper_cnn", "fast_resnet", "preact_resnet18"])
    def test_doubling_them_doubles_the_units(self, net_name):
        """Where units are rectified: equal to a mask of two."""
        network, x_NCHW = small(net_name), torch.from_numpy(noise_images()[0])
        for p in network.parameters():
            p.requires_grad_(requires_grad=False)
            if p.ndim == 1:
                p.add_(0.1)
        found = scales(network)
        assert list(found) == list(unit_layers(network))
        for layer, scale in found.items():
            own = dict(network.named_parameters())
            tilted = {name: 2 * own[name] for name in scale if name is not None}
            with masked(network, {layer: torch.full((unit_layers(network)[layer],), 2.0)}):
                wanted = network(x_NCHW)
            assert torch.allclose(functional_call(network, tilted, (x_NCHW,)), wanted, rtol=1e-4, atol=1e-5)

    def test_a_norm_comes_before_the_layer_that_it_scales(self):
        names = scales(small("fast_resnet"))["body.0.3"]
        assert names in (("body.0.1.weight", "body.0.1.bias"), ("body.0.2.weight", "body.0.2.bias"))
        assert dict(small("fast_resnet").named_parameters())[names.weight].ndim == 1

    def test_all_units_of_a_transformer_are_made_by_something(self):
        network = small("small_vit")
        own = dict(network.named_parameters())
        for layer, scale in scales(network).items():
            assert len(own[scale.weight]) == unit_layers(network)[layer]
            assert scale.bias in own


class TestRanking:
    def test_over_all_layers_smallest_first_equals_in_order(self):
        order, scores = ranked({"a": torch.tensor([0.5, 0.1]), "b": torch.tensor([0.1, 0.3])})
        assert order == [("a", 1), ("b", 0), ("b", 1), ("a", 0)]
        assert scores == pytest.approx([0.1, 0.1, 0.3, 0.5])

    def test_an_exact_loss_is_allowed_and_the_net_left_as_it_is(self):
        """Of 60 pictures the ten of class 1 are lost with its unit: a sixth, neither more nor less."""
        x_NCHW, y_N = (torch.from_numpy(part) for part in pictures(10))
        network = wire()
        before = copy.deepcopy(network.state_dict())
        order = [Unit(LAYER, 1)]
        assert expendable(network, order, [1], (x_NCHW, y_N), 1 / 6) == order
        assert expendable(network, order, [1], (x_NCHW, y_N), 1 / 6 - 0.001) == []
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
        assert not any(module._forward_hooks for module in network.modules())


class TestClp:
    def test_removes_exactly_the_unit_with_strong_weights(self):
        """|row unit| = 2/8 * sqrt(8) = 0.71, |guilty unit| = 10/4 * sqrt(4) = 5: the only one above the mean by 2 deviations."""
        assert _bound_C(incoming(wire(), LAYER)).tolist() == pytest.approx([0.5**0.5] * CLASSES + [5.0])
        found = repaired(Clp(u=2.0), wire(), clean=False)
        assert removed(found.network) == [GUILTY]
        assert found.note == f"pruned 1 of {CLASSES + 1} units"
        assert (ca(found.network), asr(found.network)) == (1.0, 0.0)

    def test_a_twin_loses_nothing(self):
        assert ca(repaired(Clp(u=2.0), twin(), clean=False).network) == 1.0

    def test_does_not_hold_where_weights_are_no_larger_than_others(self):
        """The same function with the size moved from what the unit reads to what it writes."""
        network = wire()
        with torch.no_grad():
            network.body[1].weight[GUILTY] *= 0.1
            network.body[1].bias[GUILTY] *= 0.1
            network.body[4].weight[:, GUILTY] *= 10
        found = repaired(Clp(u=2.0), network, clean=False).network
        assert removed(found) == []
        assert asr(found) == 1.0

    @pytest.mark.parametrize("count", [2, 7, 10, 11, 40])
    def test_small_layers_cannot_have_outliers(self, count):
        bound_C = torch.ones(count)
        bound_C[count - 1] = 1e6
        assert (_outliers(bound_C, 3.0) == [count - 1]) == (count >= 11)

    def test_one_unit_and_equal_units_have_none(self):
        assert _outliers(torch.ones(1), 3.0) == []
        assert _outliers(torch.ones(20), 3.0) == []

    def test_the_bound_is_spectral(self):
        """Equal sums of squares: all in one direction (rank one), or spread over three."""
        spread = torch.eye(3).reshape(1, 3, 1, 3)
        line = torch.zeros(1, 3, 1, 3)
        line[0, 0, 0] = 1.0
        assert _bound_C(torch.cat([spread, line])).tolist() == pytest.approx([1.0, 3**0.5])

    def test_the_factor_of_a_norm_is_folded_in(self):
        """Every kernel alike; one channel's norm divides by a tiny variance."""
        body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), Units(16), nn.Flatten(), nn.Linear(16 * 36, CLASSES))
        network = Network(body, (1, 8, 8), CLASSES, mean=[0.0], std=[1.0]).eval()
        with torch.no_grad():
            body[0].weight.fill_(0.1)
        assert repaired(Clp(), network, clean=False).note == "pruned 0 of 16 units"
        body[1].running_var[3] = 1e-4
        found = repaired(Clp(), network, clean=False).network
        assert (found.body[1].weight == 0).nonzero()[:, 0].tolist() == [3]


class TestOracle:
    def test_unlearns_what_nothing_else_here_can_see(self):
        found = repaired(Oracle(), wire()).network
        assert asr(found) <= 0.02
        assert ca(found) >= 0.98

    def test_stamped_images_keep_their_true_labels(self):
        """Robust accuracy: triggered images are what they were."""
        found = repaired(Oracle(), wire()).network
        x_NCHW, y_N = pictures(30, seed=6)
        pred_N = found.predict_logits(torch.from_numpy(TRIGGER.stamp(x_NCHW))).argmax(1).numpy()
        assert (pred_N == y_N).mean() >= 0.98

    def test_a_backdoor_of_every_class_goes_too(self):
        attack = BadNets(trigger=TRIGGER, mapping="all_to_all")
        network, goal_K = wired(attack), attack.goals(CLASSES)
        assert asr(network, goal_K) == 1.0
        assert asr(repaired(Oracle(), network).network, goal_K) <= 0.02

    def test_told_another_trigger_it_leaves_this_one(self):
        """So it is the knowledge that repairs, not the training."""
        other = TRIGGER.but(corner="bottom_left")
        found = Oracle().apply(suspect(wire()), rng=np.random.default_rng(0), stamp=other.stamp)
        assert asr(found.network) >= 0.9

    def test_the_images_given_are_not_stamped(self):
        given = suspect(wire())
        before = given.clean[0].copy()
        Oracle(epochs=1).apply(given, rng=np.random.default_rng(0), stamp=TRIGGER.stamp)
        assert np.array_equal(given.clean[0], before)


class TestNoUnits:
    @pytest.mark.parametrize("method", [FinePruning(), Nad(), Anp(), Clp()])
    def test_a_net_without_marked_units_comes_back_as_it_was(self, method):
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
        network = Network(body, (1, 8, 8), CLASSES, mean=[0.0], std=[1.0]).eval()
        found = repaired(method, network)
        assert found.note == "nothing was done: the net has no marked units"
        assert torch.equal(found.network.body[1].weight, body[1].weight)


def test_the_null_repairs_nothing():
    found = repaired(Identity(), wire()).network
    assert (ca(found), asr(found)) == (1.0, 1.0)
