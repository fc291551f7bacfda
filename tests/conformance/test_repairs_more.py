"""Repairs by perturbation, sharpness, reconstruction, inversion and a new head: known answers, references, and what they cannot do."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.nn.modules.module import register_module_forward_pre_hook
from wired import CLASSES, SIDE, TARGET, TRIGGER, pictures, wire

from badnets.core.suspect import Suspect
from badnets.core.view import view_of
from badnets.nets._taps import unit_layers
from badnets.nets.fast_cnn import FastCnn
from badnets.nets.fast_resnet import FastResnet
from badnets.repairs import fst as feature_shift
from badnets.repairs import ft_sam as sharpness
from badnets.repairs import unlearning as by_inversion
from badnets.repairs._tuning import hits, parts, recipe, tune
from badnets.repairs.fst import Fst
from badnets.repairs.ft_sam import FtSam
from badnets.repairs.i_bau import INNER_LR, PENALTY, IBau, perturbed_loss
from badnets.repairs.rnp import Rnp
from badnets.repairs.unlearning import Unlearning
from badnets.train.inversion import Inversion, Search, invert

torch.set_num_threads(1)

SHAPE = (1, SIDE, SIDE)
SEE, WRITE, GUILTY = 1, 4, CLASSES
"""Places of the wired net's two linear layers in its body, and its last unit."""


def wired_net(*, planted=True, awake=False):
    """The wired victim or its twin. `awake`: the guilty unit is slightly on for every image, as in trained nets, so that it has gradients;
    off, it is silent on every clean image."""
    network = wire(TRIGGER if planted else None)
    if awake:
        with torch.no_grad():
            network.body[SEE].bias[GUILTY] = -0.2
            network.body[WRITE].weight[TARGET, GUILTY] = 3.0 if planted else 0.0
    return network


def suspect(network, per_class=20):
    return Suspect(network, SHAPE, CLASSES, clean=pictures(per_class, seed=5))


def rates(network):
    """(clean accuracy, attack success) on images that no repair has seen."""
    x_NCHW, y_N = pictures(10, seed=9)
    others = y_N != TARGET
    pred_N, hit_N = (network.predict_logits(torch.from_numpy(x)).argmax(dim=1).numpy() for x in (x_NCHW, TRIGGER.stamp(x_NCHW[others])))
    return float((pred_N == y_N).mean()), float((hit_N == TARGET).mean())


def repaired(method, network, seed=0, per_class=20):
    return method.apply(suspect(network, per_class), rng=np.random.default_rng(seed))


def small(kind=FastCnn, **fields):
    """A seeded small net, its images (class k lights row k) and labels."""
    x_NCHW, y_N = pictures(6, seed=1)
    network = kind(**(fields or {"width": 3, "hidden": 8})).build(SHAPE, CLASSES, seed=2)
    return network, torch.from_numpy(x_NCHW), torch.from_numpy(y_N)


def states_equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class TestTheWiredNets:
    """What the tests below start from."""

    @pytest.mark.parametrize("awake", [False, True])
    def test_victim_and_twin(self, awake):
        assert rates(wired_net(awake=awake)) == (1.0, 1.0)
        assert rates(wired_net(planted=False, awake=awake)) == (1.0, 0.0)

    @pytest.mark.parametrize("awake", [False, True])
    def test_only_the_awake_unit_has_a_gradient_on_clean_images(self, awake):
        network, (x_NCHW, y_N) = wired_net(awake=awake), pictures(5)
        loss = cross_entropy(network(torch.from_numpy(x_NCHW)), torch.from_numpy(y_N))
        (slope_CF,) = torch.autograd.grad(loss, [network.body[SEE].weight])
        assert bool(slope_CF[GUILTY].any()) is awake


class TestIBau:
    METHOD = IBau(rounds=8, batch_size=32, lr=0.02)

    def test_the_worst_perturbation_is_the_trigger(self):
        network = wired_net(awake=True)
        x_NCHW, y_N = (torch.from_numpy(a) for a in pictures(10, seed=5))
        delta_CHW = IBau().worst(network, [(x_NCHW / 255, y_N)], 0.18)
        assert delta_CHW[0, -2:, -2:].square().sum() > 0.8 * delta_CHW.square().sum()
        assert delta_CHW[0, -2:, -2:].min() > 0

    @pytest.mark.parametrize("radius", [0.02, 0.18])
    def test_stays_in_the_ball(self, radius):
        network, x_NCHW, y_N = small()
        delta_CHW = IBau().worst(network, [(x_NCHW / 255, y_N)], radius)
        assert delta_CHW.norm() == pytest.approx(radius * SIDE, rel=0.3)
        assert delta_CHW.norm() <= radius * SIDE * 1.0001

    @pytest.mark.parametrize("powers", [0, 1, 5])
    def test_hypergradient_equals_the_one_with_whole_jacobians(self, powers):
        network, x_NCHW, y_N = small()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            delta_CHW = 0.05 * torch.randn(SHAPE)
        batch, inner = (x_NCHW[:20] / 255, y_N[:20]), (x_NCHW[20:] / 255, y_N[20:])
        parameters = list(network.parameters())
        found = IBau(fixed_points=powers, share=0.3).hypergradient(network, batch, inner, delta_CHW)

        d = delta_CHW.clone().requires_grad_()
        outer = 0.7 * cross_entropy(network(batch[0]), batch[1]) + 0.3 * perturbed_loss(network, batch, d)
        first, *direct = torch.autograd.grad(outer, [d, *parameters], retain_graph=True)
        (slope,) = torch.autograd.grad(PENALTY * d.square().sum() - perturbed_loss(network, inner, d), [d], create_graph=True)
        rows = [torch.autograd.grad(s, [d, *parameters], retain_graph=True) for s in slope.flatten()]
        bend_DD = torch.stack([row[0].flatten() for row in rows])
        step_DD = torch.eye(len(bend_DD)) - INNER_LR * bend_DD
        total_D = sum(torch.linalg.matrix_power(step_DD.T, k) @ first.flatten() for k in range(powers + 1))
        for i, (one, plain) in enumerate(zip(found, direct, strict=True)):
            cross_DP = torch.stack([row[i + 1].flatten() for row in rows])
            torch.testing.assert_close(one.flatten(), plain.flatten() - INNER_LR * total_D @ cross_DP, rtol=1e-3, atol=1e-5)

    def test_removes_a_backdoor_that_clean_images_touch(self):
        accuracy, success = rates(repaired(self.METHOD, wired_net(awake=True)).network)
        assert accuracy == 1.0
        assert success <= 0.1

    def test_spares_the_twin(self):
        assert rates(repaired(self.METHOD, wired_net(planted=False, awake=True)).network) == (1.0, 0.0)

    def test_is_blind_to_a_silent_unit(self):
        """The limit that its docstring states: the perturbation does not find the trigger, and nothing moves the unit."""
        given = wired_net()
        x_NCHW, y_N = (torch.from_numpy(a) for a in pictures(10, seed=5))
        assert not IBau().worst(given, [(x_NCHW / 255, y_N)], 0.18)[0, -2:, -2:].any()
        found = repaired(self.METHOD, given).network
        assert torch.equal(found.body[SEE].weight[GUILTY], given.body[SEE].weight[GUILTY])
        assert not torch.equal(found.body[SEE].weight, given.body[SEE].weight)

    def test_the_last_good_network_is_no_alias_of_the_spoiled_one(self):
        """A defect of a peer's pruning: what it went back to was the net that had gone on changing."""
        given = wired_net(awake=True)
        found = repaired(self.METHOD.but(lr=30.0, rounds=2, max_loss=0.0), given)
        assert found.note == "0 of 2 rounds kept, the last radius 0.045"
        assert states_equal(found.network, given)


class TestFtSam:
    def test_the_perturbation_has_its_length_and_direction(self):
        network, x_NCHW, y_N = small()
        moved = sharpness.worst_weights(network, x_NCHW, y_N, 0.5)
        loss = cross_entropy(network(x_NCHW), y_N)
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        relative = [(moved[n] - p) / p.abs() for n, p in network.named_parameters()]
        uphill = torch.cat([(p.abs() * s).flatten() for p, s in zip(network.parameters(), slopes, strict=True)]).detach()
        flat = torch.cat([r.flatten() for r in relative]).detach().nan_to_num()
        assert flat.norm() == pytest.approx(0.5, rel=1e-3)
        assert cosine_similarity(flat, uphill, dim=0) == pytest.approx(1.0, abs=1e-4)
        worse = cross_entropy(torch.func.functional_call(network, moved, (x_NCHW,)), y_N)
        assert worse > loss

    def test_equals_a_plain_loop(self):
        """One batch of everything: the gradient at the perturbed weights moves the weights themselves."""
        network, x_NCHW, y_N = small()
        plain = copy.deepcopy(network)
        found = FtSam(rho=0.5, epochs=3, lr=0.1, batch_size=len(y_N)).apply(
            Suspect(network, SHAPE, CLASSES, clean=(x_NCHW.numpy(), y_N.numpy())), rng=np.random.default_rng(0)
        )
        speed = [torch.zeros_like(p) for p in plain.parameters()]
        for rate in (0.1 * 5 / 6, 0.1 * 3 / 6, 0.1 * 1 / 6):
            slopes = torch.autograd.grad(cross_entropy(plain(x_NCHW), y_N), list(plain.parameters()))
            length = sum((p.detach() * s).square().sum() for p, s in zip(plain.parameters(), slopes, strict=True)).sqrt()
            worse = copy.deepcopy(plain)
            with torch.no_grad():
                for p, s in zip(worse.parameters(), slopes, strict=True):
                    p += 0.5 * p.square() * s / length
            slopes = torch.autograd.grad(cross_entropy(worse(x_NCHW), y_N), list(worse.parameters()))
            with torch.no_grad():
                for p, s, v in zip(plain.parameters(), slopes, speed, strict=True):
                    downhill = s + (5e-4 * p if p.ndim > 1 else 0)
                    v.mul_(0.9).add_(downhill)
                    p -= rate * (downhill + 0.9 * v)
        for one, other in zip(found.network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    def test_without_a_perturbation_it_is_plain_tuning(self):
        network, x_NCHW, y_N = small()
        same = copy.deepcopy(network)
        tune(network, (x_NCHW, y_N), recipe(2, 0.1, 8), seed=3, objective=sharpness._Sharpness(0.0))
        tune(same, (x_NCHW, y_N), recipe(2, 0.1, 8), seed=3)
        for one, other in zip(network.parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)

    def test_batch_norms_count_every_batch_once_and_unperturbed(self):
        network, x_NCHW, y_N = small(FastResnet, width=2)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        sharpness._Sharpness(5.0).loss(network.train(), x_NCHW, y_N).backward()
        same, *_ = small(FastResnet, width=2)
        same.train()(x_NCHW)
        for one, other in zip(norms, [m for m in same.modules() if isinstance(m, nn.BatchNorm2d)], strict=True):
            assert int(one.num_batches_tracked) == 1
            torch.testing.assert_close(one.running_mean, other.running_mean)
            torch.testing.assert_close(one.running_var, other.running_var)

    def test_cannot_move_a_silent_unit(self):
        """The limit that its docstring states: nothing but weight decay reaches the unit."""
        given = wired_net()
        found = repaired(FtSam(), given).network
        assert rates(found) == (1.0, 1.0)
        torch.testing.assert_close(found.body[SEE].bias[GUILTY], given.body[SEE].bias[GUILTY], rtol=0, atol=0)

    def test_keeps_the_twin(self):
        assert rates(repaired(FtSam(), wired_net(planted=False)).network) == (1.0, 0.0)


class TestRnp:
    def test_prunes_the_guilty_unit_and_nothing_that_is_needed(self):
        found = repaired(Rnp(batch_size=32, unlearn_lr=0.1), wired_net(awake=True)).network
        accuracy, success = rates(found)
        assert (accuracy, success) == (1.0, 0.0)
        assert not found.body[SEE].weight[GUILTY].any()

    def test_recovery_switches_off_what_does_harm_and_nothing_else(self):
        """As if the unlearning had put the guilty unit on for every image: on paper one mask is 0 and the others are 1."""
        exposed = wired_net()
        with torch.no_grad():
            exposed.body[SEE].bias[GUILTY] = 0.5
        learn = parts(view_of(suspect(exposed))).learn
        (mask_C,) = Rnp(batch_size=32)._recovered(exposed.requires_grad_(requires_grad=False), learn, 0).values()
        torch.testing.assert_close(mask_C, torch.tensor([1.0] * CLASSES + [0.0]), rtol=0, atol=1e-3)

    def test_is_blind_to_a_silent_unit(self):
        """The limit that its docstring states."""
        assert rates(repaired(Rnp(batch_size=32, unlearn_lr=0.1), wired_net()).network) == (1.0, 1.0)

    def test_spares_the_twin(self):
        assert rates(repaired(Rnp(batch_size=32, unlearn_lr=0.1), wired_net(planted=False, awake=True)).network) == (1.0, 0.0)

    def test_the_threshold_is_chosen_by_clean_accuracy_not_by_the_success_of_the_attack(self):
        """A defect of peers: thresholds swept on triggered test images. Every image that goes through a net here is a clean one of
        ours, and a victim that answers clean images as its twin does is pruned as its twin is."""
        assert strangers(Rnp(batch_size=32, unlearn_lr=0.1), wired_net(awake=True)) == 0
        pruned = [repaired(Rnp(batch_size=32, unlearn_lr=0.1), wired_net(planted=p)).note for p in (True, False)]
        assert pruned[0] == pruned[1]

    @pytest.mark.parametrize("max_loss", [0.0, 0.1])
    def test_held_out_accuracy_falls_by_no_more_than_allowed(self, max_loss):
        network, *_ = small(width=4, hidden=12)
        given = suspect(network, 12)
        tune(network, tuple(torch.from_numpy(a) for a in given.clean), recipe(20, 0.1, 16), seed=0)
        held_x, held_y = parts(view_of(given)).held
        found = Rnp(batch_size=32, max_loss=max_loss).apply(given, rng=np.random.default_rng(0)).network
        before, after = (float((net.predict_logits(held_x).argmax(1) == held_y).double().mean()) for net in (network, found))
        assert before > 0.8
        assert after >= before - max_loss - 1e-6

    def test_prunes_the_net_as_it_was_given(self):
        """Not the one that was made worse: whatever is not pruned has its bits."""
        given = wired_net(awake=True)
        found = repaired(Rnp(batch_size=32, unlearn_lr=0.1), given).network
        assert torch.equal(found.body[WRITE].weight, given.body[WRITE].weight)
        kept_C = found.body[SEE].weight.any(dim=1)
        assert torch.equal(found.body[SEE].weight[kept_C], given.body[SEE].weight[kept_C])

    def test_unlearning_ends_low_and_stays_finite(self):
        """A collapse is its purpose: no help that undoes collapsed trainings may undo this one."""
        network, *_ = small()
        method = Rnp(unlearn_lr=10.0, epochs=5, batch_size=8, floor=0.0)
        learn = parts(view_of(suspect(network))).learn
        tune(network, learn, recipe(20, 0.1, 16), seed=0)
        assert hits(network, learn) > 0.8 * len(learn[1])
        for lr in (0.1, 10.0):
            worse = method.but(unlearn_lr=lr)._unlearned(copy.deepcopy(network), learn, 0)
            assert all(p.isfinite().all() for p in worse.parameters())
            assert hits(worse, learn) <= 0.3 * len(learn[1])

    def test_a_net_without_marked_units_stays_as_it_is(self):
        given = wired_net()
        given.body[3] = nn.Identity()
        assert not unit_layers(given)
        found = repaired(Rnp(), given)
        assert "no marked units" in found.note
        assert states_equal(found.network, given)


def strangers(method, network):
    """How many images went through nets during a repair that are none of the suspect's clean images."""
    given = suspect(network)
    known = {image.tobytes() for image in given.clean[0]}
    seen = set()

    def look(module, inputs):
        if hasattr(module, "num_classes") and inputs[0].any():  # a blank image is asked to learn the order of layers
            x_NCHW = inputs[0] if inputs[0].dtype == torch.uint8 else (inputs[0] * 255).round().to(torch.uint8)
            seen.update(image.numpy().tobytes() for image in x_NCHW.detach())

    handle = register_module_forward_pre_hook(look)
    try:
        method.apply(given, rng=np.random.default_rng(0))
    finally:
        handle.remove()
    assert seen
    return len(seen - known)


@pytest.mark.parametrize("method", [FtSam(epochs=1), Fst(epochs=1)])
def test_tuning_sees_clean_images_only(method):
    assert strangers(method, wired_net(awake=True)) == 0


def known_trigger():
    """What a perfect inversion would find: the trigger for its target, a whole image for every other class."""
    mask_G1HW = torch.ones(CLASSES, 1, SIDE, SIDE)
    mask_G1HW[TARGET] = 0
    mask_G1HW[TARGET, 0, -2:, -2:] = 1
    norm_G = mask_G1HW.sum(dim=(1, 2, 3))
    return Inversion(mask_G1HW, torch.ones(CLASSES, *SHAPE), norm_G, torch.ones(CLASSES), torch.ones(CLASSES))


class TestUnlearning:
    def lesson(self, share):
        x_NCHW, y_N = (torch.from_numpy(a) for a in pictures(20, seed=5))
        (lesson_NCHW, labels_N), count = by_inversion.stamped((x_NCHW, y_N), known_trigger(), TARGET, share)
        return x_NCHW, y_N, lesson_NCHW, labels_N, count

    @pytest.mark.parametrize("share", [0.2, 1.0])
    def test_stamped_images_keep_their_true_labels_and_are_never_of_the_flagged_class(self, share):
        """A defect of a peer: it stamps images that belong to the flagged class already, and so teaches the trigger once more."""
        x_NCHW, y_N, lesson_NCHW, labels_N, count = self.lesson(share)
        changed_N = (lesson_NCHW != x_NCHW).flatten(1).any(dim=1)
        assert int(changed_N.sum()) == count == round(share * 100)
        assert not (y_N[changed_N] == TARGET).any()
        assert torch.equal(labels_N, y_N)
        expected_NCHW = torch.from_numpy(TRIGGER.stamp(x_NCHW[changed_N].numpy()))
        assert torch.equal(lesson_NCHW[changed_N], expected_NCHW)

    def test_images_of_the_flagged_class_would_not_unlearn_anything(self, monkeypatch):
        """The same defect by its effect, on a victim whose trigger is known: theirs leaves the backdoor, ours removes it."""
        monkeypatch.setattr(by_inversion, "invert", lambda *args: known_trigger())
        assert rates(repaired(Unlearning(), wired_net()).network) == (1.0, 0.0)

        def theirs(clean, found, target, share):
            x_NCHW, y_N = clean
            rows = (y_N == target).nonzero()[:, 0]
            lesson_NCHW = x_NCHW.clone()
            lesson_NCHW[rows] = by_inversion.to_bytes(found.stamp(target, x_NCHW[rows]))
            return (lesson_NCHW, y_N), len(rows)

        monkeypatch.setattr(by_inversion, "stamped", theirs)
        assert rates(repaired(Unlearning(), wired_net()).network) == (1.0, 1.0)

    def test_spares_the_twin(self, monkeypatch):
        monkeypatch.setattr(by_inversion, "invert", lambda *args: known_trigger())
        assert rates(repaired(Unlearning(), wired_net(planted=False)).network) == (1.0, 0.0)

    def test_finds_the_class_and_unlearns_the_trigger_it_found(self):
        """What it found is the faintest trigger that works; a far stronger one may still work afterwards."""
        given = wired_net(awake=True)
        x_NCHW, y_N = (torch.from_numpy(a) for a in pictures(10, seed=9))
        trigger = invert(given, x_NCHW, Search())
        triggered_NCHW = trigger.stamp(TARGET, x_NCHW[y_N != TARGET])
        found = repaired(Unlearning(), given)
        assert found.note.startswith(f"class {TARGET}, ")
        before, after = (float((n.predict_logits(triggered_NCHW).argmax(dim=1) == TARGET).double().mean()) for n in (given, found.network))
        assert before >= 0.95
        assert after <= 0.1
        assert rates(found.network)[0] == 1.0

    def test_the_class_is_the_one_with_the_smallest_trigger(self):
        found = known_trigger()
        assert by_inversion.suspicious(found) == TARGET
        found.norm_G[TARGET] = torch.nan
        found.norm_G[2] = 1.5
        assert by_inversion.suspicious(found) == 2
        found.norm_G[:] = torch.inf
        assert by_inversion.suspicious(found) is None

    def test_without_a_trigger_nothing_is_done(self, monkeypatch):
        nothing = known_trigger()
        nothing.norm_G[:] = torch.inf
        monkeypatch.setattr(by_inversion, "invert", lambda *args: nothing)
        given = wired_net()
        found = repaired(Unlearning(steps=7), given)
        assert found.note == "nothing was done: no trigger of any class was found in 7 steps"
        assert states_equal(found.network, given)

    def test_pixels_are_rounded_not_cut(self):
        assert by_inversion.to_bytes(torch.tensor([0.0, 0.4999 / 255, 0.51 / 255, 1.0])).tolist() == [0, 0, 1, 255]


@functools.cache
def learned(*, planted):
    """A small net trained on pictures of which a quarter carries the trigger with the target's label, or on the pictures alone."""
    x_NCHW, y_N = pictures(40, seed=3)
    if planted:
        x_NCHW[:60], y_N[:60] = TRIGGER.stamp(x_NCHW[:60]), TARGET
    network = FastCnn(width=8, hidden=24).build(SHAPE, CLASSES, seed=1)
    tune(network, (torch.from_numpy(x_NCHW), torch.from_numpy(y_N)), recipe(20, 0.1, 16), seed=0)
    return network


class TestFst:
    METHOD = Fst(alpha=1.0)

    def test_removes_a_learned_backdoor_that_tuning_alone_keeps(self):
        given = learned(planted=True)
        assert min(rates(given)) >= 0.95
        accuracy, success = rates(repaired(self.METHOD, given).network)
        assert accuracy >= 0.95
        assert success <= 0.2
        plain = copy.deepcopy(given)
        tune(plain, tuple(torch.from_numpy(a) for a in suspect(given).clean), recipe(20, 0.05, 32), seed=0)
        assert rates(plain)[1] >= 0.8

    def test_spares_the_twin(self):
        given = learned(planted=False)
        assert rates(given)[0] >= 0.95
        accuracy, success = rates(repaired(self.METHOD, given).network)
        assert accuracy >= 0.95
        assert success <= 0.1

    def test_the_head_keeps_its_length_and_turns(self):
        given = learned(planted=True)
        heads = [repaired(Fst(alpha=alpha), given).network.body[-1].weight.detach() for alpha in (0.0, 3.0)]
        old = given.body[-1].weight.detach()
        for new in heads:
            assert new.norm() == pytest.approx(float(old.norm()), rel=1e-4)
        free, kept_away = (float(cosine_similarity(new.flatten(), old.flatten(), dim=0)) for new in heads)
        assert kept_away < free - 0.3

    def test_equals_a_plain_loop(self):
        """One batch of everything, one step: gradient of the loss at the head's direction, then the old length again."""
        network, x_NCHW, y_N = small()
        last = network.body[-1]
        old, name = last.weight.detach().clone(), "body.11"
        assert dict(network.named_modules())[name] is last
        feature_shift.renew(last, 4)
        plain = copy.deepcopy(network)
        shift = feature_shift._Shift(name, old, 0.3)
        tune(network, (x_NCHW, y_N), recipe(1, 0.01, len(y_N)), seed=0, objective=shift)
        loss = cross_entropy(plain(x_NCHW), y_N) + 0.3 * cosine_similarity(plain.body[-1].weight.flatten(), old.flatten(), dim=0)
        slopes = torch.autograd.grad(loss, list(plain.parameters()))
        for (label, one), p, s in zip(network.named_parameters(), plain.parameters(), slopes, strict=True):
            if label == f"{name}.weight":
                along = p / p.norm()
                s = s - (s * along).sum() * along
            expected = p - 0.5 * 0.01 * 1.9 * (s + (5e-4 * p if p.ndim > 1 else 0))
            torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-6)

    def test_which_class_has_which_number_does_not_matter(self):
        network, *_ = small()
        first, second = network.body[-1], copy.deepcopy(network.body[-1])
        new_K = torch.tensor([3, 0, 5, 1, 4, 2])
        with torch.no_grad():
            for p in second.parameters():
                p.copy_(p[new_K].clone())
        feature_shift.renew(first, 0)
        feature_shift.renew(second, 0)
        torch.testing.assert_close(second.weight, first.weight[new_K])
        torch.testing.assert_close(second.bias, first.bias[new_K])

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_training_that_diverges_gives_back_the_net_as_it_was(self):
        given = wired_net()
        found = repaired(Fst(lr=1e30), given)
        assert "undone" in found.note
        assert states_equal(found.network, given)
