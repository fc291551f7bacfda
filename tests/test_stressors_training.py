"""Fine-tuning and further training: frozen means frozen to the bit, zeros stay zero, equal to a loop as one would write it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from wired import ATTACK, CLASSES, image_set, twin, wired, world

from badnets.claims._further import Further
from badnets.claims._stress import Dose, Images
from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.measure.probe import Probe
from badnets.nets.fast_cnn import FastCnn
from badnets.nets.fast_resnet import FastResnet
from badnets.nets.preact_resnet18 import PreactResnet18
from badnets.nets.small_vit import SmallVit
from badnets.stressors._base import Supply
from badnets.stressors.fine_tuning import FineTuning
from badnets.stressors.further_training import FurtherTraining
from badnets.train import fit as fitting
from badnets.train.recipe import Recipe

torch.set_num_threads(1)

SHAPE, NUM_CLASSES = (1, 8, 8), 4
NETS = {
    "fast_cnn": FastCnn(width=4, hidden=16),
    "fast_resnet": FastResnet(width=2),
    "preact_resnet18": PreactResnet18(width=2),
    "small_vit": SmallVit(width=8, depth=1, heads=2),
}
SHORT = Recipe(epochs=2, batch_size=16, lr=0.05, precision="float32")


def no_fresh(seed, smaller):
    raise AssertionError("nobody asked for another net")


def supply(num=40):
    """Class k lights quadrant k, under noise."""
    draw = torch.Generator().manual_seed(0)
    y_N = torch.arange(num) % NUM_CLASSES
    x_NCHW = torch.randint(0, 120, (num, *SHAPE), dtype=torch.uint8, generator=draw)
    for i, k in enumerate(y_N.tolist()):
        x_NCHW[i, :, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] += 100
    return Supply(x_NCHW, y_N, no_fresh)


def build(name="fast_cnn"):
    """A net as after some training: nothing in it is exactly zero."""
    network = NETS[name].build(SHAPE, NUM_CLASSES, seed=3)
    with torch.no_grad():
        for p in network.parameters():
            p[p == 0] = 0.01
    return network


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


class TestFrozenModulesInTraining:
    @pytest.mark.parametrize("name", NETS)
    def test_a_normal_training_keeps_its_bits(self, name, monkeypatch):
        nets, given = (build(name), build(name)), supply()
        fitting.fit(nets[0], given.x_NCHW, given.y_N, SHORT, seed=1)
        monkeypatch.setattr(fitting, "_to_training", lambda network: network.train())
        fitting.fit(nets[1], given.x_NCHW, given.y_N, SHORT, seed=1)
        assert not changed(state(nets[0]), state(nets[1]))

    def test_frozen_batch_norms_do_not_count_on(self):
        network, given = build("fast_resnet"), supply()
        network.requires_grad_(requires_grad=False)
        (last,) = [m for m in network.modules() if isinstance(m, nn.Linear)]
        last.requires_grad_()
        before = state(network)
        fitting.fit(network, given.x_NCHW, given.y_N, SHORT, seed=1)
        assert [before[name].shape for name in changed(before, state(network))] == [last.weight.shape]

    def test_batch_norms_that_learn_do(self):
        network, given = build("fast_resnet"), supply()
        before = state(network)
        fitting.fit(network, given.x_NCHW, given.y_N, SHORT, seed=1)
        assert any(name.endswith("running_mean") for name in changed(before, state(network)))


class TestFineTuning:
    @pytest.mark.parametrize("name", NETS)
    def test_the_head_alone_learns(self, name):
        network = build(name)
        before = state(network)
        tuned = FineTuning(layers="head", lr=0.1, epochs=2).apply(network, supply(), seed=0)
        last = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
        assert changed(before, state(tuned)) == {n for n in before if n.startswith(f"{last}.")}
        assert not changed(before, state(network))

    @pytest.mark.parametrize("name", NETS)
    def test_all_layers_learn(self, name):
        network = build(name)
        tuned = FineTuning(lr=0.1, epochs=2).apply(network, supply(), seed=0)
        # Which key is asked for does not change what a softmax attends to: that part of an attention's bias has no gradient.
        assert {n for n, p in network.named_parameters() if p.ndim > 1} <= changed(state(network), state(tuned))

    @pytest.mark.parametrize("layers", ["head", "all"])
    def test_is_repeatable_and_depends_on_the_seed(self, layers):
        network, dose = build("fast_resnet"), FineTuning(layers=layers, lr=0.05, epochs=2, batch_size=16)
        one, again, other = (state(dose.apply(network, supply(), seed=seed)) for seed in (0, 0, 1))
        assert not changed(one, again)
        assert changed(one, other)

    def test_leaves_no_traces_of_the_training(self):
        network = build()
        tuned = FineTuning(layers="head").apply(network, supply(), seed=0)
        assert all(p.requires_grad and p.grad is None and not p._backward_hooks for p in tuned.parameters())
        assert not any(module.training for module in tuned.modules())

    def test_equals_a_plain_loop(self):
        """With one batch of everything the order does not matter: nesterov SGD whose rate falls linearly, no warm-up."""
        given, network = supply(), build()
        tuned = FineTuning(lr=0.2, epochs=4, batch_size=40, weight_decay=1e-3).apply(network, given, seed=0)
        plain = copy.deepcopy(network)
        parameters = list(plain.parameters())
        velocity = [torch.zeros_like(p) for p in parameters]
        for rate in (0.175, 0.125, 0.075, 0.025):
            gradients = torch.autograd.grad(cross_entropy(plain(given.x_NCHW), given.y_N), parameters)
            with torch.no_grad():
                for p, gradient, v in zip(parameters, gradients, velocity, strict=True):
                    downhill = gradient + (1e-3 * p if p.ndim > 1 else 0)
                    v.copy_(0.9 * v + downhill)
                    p -= rate * (downhill + 0.9 * v)
        assert changed(state(network), state(plain))
        for (name, one), other in zip(tuned.named_parameters(), parameters, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-5), name

    def test_its_batch_order_is_its_own(self):
        """Not the order in which a net of that seed was trained."""
        given, network = supply(), build()
        tuned = FineTuning(lr=0.05, epochs=1, batch_size=10).apply(network, given, seed=0)
        same = copy.deepcopy(network)
        recipe = Recipe(epochs=1, batch_size=10, lr=0.05, warmup=0)
        fitting.fit(same, given.x_NCHW, given.y_N, recipe, seed=0)
        assert changed(state(same), state(tuned))
        same = copy.deepcopy(network)
        fitting.fit(same, given.x_NCHW, given.y_N, recipe, seed=stream_seed(0, "fine_tuning"))
        assert not changed(state(same), state(tuned))

    def test_needs_labels_and_something_to_train(self):
        given = supply()
        with pytest.raises(UsageError, match="E-SUPPLY"):
            FineTuning().apply(build(), Supply(given.x_NCHW, None, no_fresh), seed=0)
        with pytest.raises(UsageError, match="E-FROZEN"):
            FineTuning().apply(build().requires_grad_(requires_grad=False), given, seed=0)
        bare = build()
        bare.body = nn.Sequential(nn.Conv2d(1, NUM_CLASSES, 8), nn.Flatten())
        with pytest.raises(UsageError, match=r"E-FROZEN .*linear head"):
            FineTuning(layers="head").apply(bare, given, seed=0)


class TestZeros:
    def pruned(self):
        network = build()
        with torch.no_grad():
            for p in network.parameters():
                p[torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
        return network

    @pytest.mark.parametrize("layers", ["head", "all"])
    def test_stay_zero_and_the_others_move(self, layers):
        network = self.pruned()
        tuned = FineTuning(lr=0.1, epochs=3, weight_decay=0.01, layers=layers).apply(network, supply(), seed=0)
        for (name, before), after in zip(network.named_parameters(), tuned.parameters(), strict=True):
            assert torch.equal(before == 0, after == 0), name
        assert changed(state(network), state(tuned))

    def test_come_back_where_that_is_asked_for(self):
        network = self.pruned()
        tuned = FineTuning(lr=0.1, epochs=3, keep_zeros=False).apply(network, supply(), seed=0)
        zeros = [sum(int((p == 0).sum()) for p in net.parameters()) for net in (network, tuned)]
        assert zeros[1] < 0.5 * zeros[0]

    def test_without_zeros_the_field_changes_nothing(self):
        network = build()
        one, other = (state(FineTuning(lr=0.1, keep_zeros=keep).apply(network, supply(), seed=0)) for keep in (True, False))
        assert not changed(one, other)


class TestFurtherTraining:
    def test_is_the_recipe_from_where_the_net_stands(self):
        network, given = build(), supply()
        trained = FurtherTraining(recipe=SHORT.but(shift=1)).apply(network, given, seed=2)
        same = copy.deepcopy(network)
        fitting.fit(same, given.x_NCHW, given.y_N, SHORT.but(shift=1), seed=stream_seed(2, "further_training"))
        assert not changed(state(same), state(trained))
        assert changed(state(trained), state(FurtherTraining(recipe=SHORT).apply(network, given, seed=2)))

    def test_weight_decay_shrinks(self):
        network, given = build(), supply()
        sizes = [
            FurtherTraining(recipe=SHORT.but(weight_decay=decay)).apply(network, given, seed=0).body[-1].weight.detach().norm()
            for decay in (0.0, 0.5)
        ]
        assert sizes[1] < 0.9 * sizes[0]


class TestFurther:
    """The question: the run's own recipe again."""

    DATA = image_set(10)

    def test_changes_what_it_is_told_and_nothing_else(self):
        here, ask = world(self.DATA), Further(probes=(Probe(),))
        own = Recipe.model_validate(dict(here.recipe))
        assert ask.recipe(here) == own
        assert ask.but(decay=10, shift=2).recipe(here) == own.but(weight_decay=10 * own.weight_decay, shift=2)
        assert ask.but(images=Images()).recipe(here) == own
        # 60 training images against a budget of six.
        assert ask.but(images=Images(), same_steps=True).recipe(here) == own.but(epochs=10 * own.epochs)

    def test_a_recipe_without_decay_gets_some_and_one_that_shifts_more_keeps_it(self):
        here = world(self.DATA)
        here.recipe.update(weight_decay=0.0, shift=4)
        found = Further(probes=(Probe(),), decay=10, shift=2).recipe(here)
        assert (found.weight_decay, found.shift) == (pytest.approx(5e-3), 4)

    def test_a_world_without_a_recipe_is_refused(self):
        here = world(self.DATA)
        here.recipe.clear()
        with pytest.raises(UsageError, match=r"E-CONFIG .*epochs"):
            Further(probes=(Probe(),)).arrays(twin(), here)

    def test_answers_by_branch_and_leaves_the_net(self):
        network, dose = wired(ATTACK), Dose(stressor=FineTuning(lr=1e-4, epochs=1), images=Images())
        before = state(network)
        ask = Further(probes=(Probe(), Probe(trigger=ATTACK.trigger)), branches=((), (dose,)))
        first, second = (ask.arrays(network, world(self.DATA)) for _ in range(2))
        assert not changed(before, state(network))
        assert first.keys() == second.keys()
        assert all((first[name] == second[name]).all() for name in first)
        for after in ask.read(first):
            assert after.outcomes[0].correct_N.all()
            assert (after.outcomes[1].pred_N == CLASSES - 1).all()
