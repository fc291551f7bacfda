"""Transfer learning: the trunk stays to the bit, the new head is the same every time, the cut is where it belongs; its statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from wired import ATTACK, CLASSES, TRIGGER, image_set, pictures, wire, world

from badnets.claims._transfer import Transferred
from badnets.core import registry, stats
from badnets.core.errors import RefusedError, UsageError
from badnets.datasets.folder import Folder
from badnets.measure.outcome import Outcome
from badnets.nets._base import Network
from badnets.plans import _questions
from badnets.stressors._base import Supply
from badnets.stressors._head import cut_of
from badnets.stressors.transfer import Transfer

torch.set_num_threads(1)

NETS = {
    "fast_cnn": {"width": 2, "hidden": 8},
    "paper_cnn": {},
    "fast_resnet": {"width": 2},
    "preact_resnet18": {"width": 2},
    "small_vit": {"width": 8, "depth": 1, "heads": 2},
}


def build(name, shape=(1, 16, 16)):
    return registry.entry("nets", name)(**NETS[name]).build(shape, 10, seed=0)


def supply(count=24, classes=4, side=8, seed=0):
    x_NCHW, y_N = pictures(count // classes, seed=seed, side=side, classes=classes)
    return Supply(torch.from_numpy(x_NCHW), torch.from_numpy(y_N), None)


def bits(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


class TestTheCut:
    @pytest.mark.parametrize(("name", "last", "dense"), [("fast_cnn", "Linear", 4), ("paper_cnn", "Linear", 4)])
    def test_dense_takes_every_linear_layer_behind_the_convolutions(self, name, last, dense):
        net = build(name)
        children = list(net.body.children())
        assert cut_of(net, "last") == len(children) - 1
        assert cut_of(net, "dense") == len(children) - dense
        assert type(children[cut_of(net, "dense")]).__name__ == last

    @pytest.mark.parametrize("name", ["fast_resnet", "preact_resnet18", "small_vit"])
    def test_a_single_linear_layer_is_both(self, name):
        net = build(name)
        assert cut_of(net, "last") == cut_of(net, "dense") == len(net.body) - 1

    def test_a_net_of_linear_layers_keeps_all_but_the_last(self):
        assert cut_of(wire(), "dense") == cut_of(wire(), "last") == 4

    def test_other_bodies_are_refused(self):
        net = Network(torch.nn.Flatten(), (1, 8, 8), 2, mean=[0.0], std=[1.0])
        with pytest.raises(UsageError, match="E-HEAD"):
            cut_of(net, "last")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("layers", ["last", "dense"])
def test_trunk_stays_and_head_is_new(name, layers):
    net, given = build(name), supply(side=16)
    before = bits(net)
    transfer = Transfer(layers=layers, epochs=2)
    moved, again = (transfer.apply(net, given, seed=3) for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    cut = cut_of(net, layers)
    for key, value in moved.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        if key in ("mean", "std") or (key.split(".")[1].isdigit() and int(key.split(".")[1]) < cut):
            assert torch.equal(value, before[key]), f"{key} is part of the trunk"
    assert (moved.num_classes, moved.training) == (4, False)
    assert moved.predict_logits(given.x_NCHW).shape == (24, 4)
    assert not torch.equal(moved.predict_logits(given.x_NCHW), transfer.apply(net, given, seed=4).predict_logits(given.x_NCHW))


def test_learns_the_new_classes():
    moved = Transfer(epochs=60, lr=0.01).apply(wire(), supply(120, classes=CLASSES), seed=0)
    fresh = supply(60, classes=CLASSES, seed=9)
    assert (moved.predict_logits(fresh.x_NCHW).argmax(1) == fresh.y_N).float().mean() == 1.0


@pytest.mark.parametrize(("hidden", "expected"), [(None, [8]), (0, []), (5, [5])])
def test_hidden_layers_of_the_new_head(hidden, expected):
    net = build("fast_cnn")
    assert Transfer(layers="dense", hidden=hidden).widths(net, cut_of(net, "dense")) == expected


def test_needs_labels():
    with pytest.raises(UsageError, match="E-SUPPLY"):
        Transfer().apply(wire(), Supply(supply().x_NCHW, None, None), seed=0)


def question(**changes):
    return Transferred(**{"attack": ATTACK, "transfer": Transfer(lr=0.01), **changes})


class TestTheQuestion:
    def test_without_amplification_it_is_the_stressor(self):
        here, there = image_set(20), image_set(30, name="there")
        asked = question()
        moved = asked.read(asked.arrays(wire(), world(here, there, seed=2)))[0]
        x_NCHW, y_N = torch.from_numpy(there.train.x_NCHW), torch.from_numpy(there.train.y_N)
        net = asked.transfer.apply(wire(), Supply(x_NCHW, y_N, None), seed=2)
        by_hand = Outcome.from_logits(net.predict_logits(torch.from_numpy(there.test.x_NCHW)).numpy(), there.test.y_N, keep_logits=False)
        assert np.array_equal(moved.clean.pred_N, by_hand.pred_N)
        assert np.allclose(moved.clean.conf_N, by_hand.conf_N, atol=1e-6)

    def test_amplifies_the_guilty_unit_and_no_other(self):
        here, there = image_set(20), image_set(30, name="there")
        asked = question(amplifications=(1.0, 100.0))
        answer = asked.arrays(wire(), world(here, there))
        assert (int(answer["units"]), int(answer["all_units"])) == (1, CLASSES + 1)
        plain, loud = asked.read(answer)
        assert np.array_equal(plain.clean.pred_N, loud.clean.pred_N), "on clean images the unit is silent, whatever its factor"
        assert plain.clean.correct_N.mean() > 0.95
        assert len(set(loud.triggered.pred_N)) == 1, "a hundred times the trigger's unit decides alone"

    def test_same_bits_and_input_untouched(self):
        net, here = wire(), image_set(20)
        before, asked = bits(net), question(amplifications=(1.0, 10.0))
        first, second = (asked.arrays(net, world(here, here)) for _ in range(2))
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert not any(m._forward_hooks for m in net.modules())

    def test_a_trunk_without_units_has_nothing_to_amplify(self):
        body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))
        net = Network(body, (1, 8, 8), CLASSES, mean=[0.0], std=[1.0]).eval()
        answer = question(amplifications=(1.0, 50.0)).arrays(net, world(image_set(20), image_set(30)))
        assert int(answer["units"]) == int(answer["all_units"]) == 0
        assert np.array_equal(answer["0.triggered.pred"], answer["1.triggered.pred"])

    def test_travels_and_has_a_key(self):
        asked = question(destination="gtsrb:country=second", limit=7)
        assert _questions.parse(asked.model_dump(mode="json")) == asked
        assert (asked.wants_other, question().wants_other) == (False, True)

    def test_a_destination_by_name_is_loaded(self):
        asked = question(destination="digits", transfer=Transfer(epochs=1), limit=50)
        assert len(asked.arrays(wire(), world(image_set(5)))["0.clean.y"]) > 200

    def test_a_destination_without_a_known_hash_is_refused(self, tmp_path):
        from tiny import pictures as folder

        there = copy.copy(world(image_set(5)))
        object.__setattr__(there, "folder", folder(tmp_path))
        with pytest.raises(RefusedError, match="E-HASH destination folder: expected a data set with a published hash"):
            question(destination=Folder(size=8)).arrays(wire(), there)


class TestContrast:
    def draw(self, rng, seeds=5, n=200, effect=0.1):
        """Four outcomes a seed: images that differ in difficulty, seeds that differ a little; the true contrast is the effect."""
        hard_N = rng.normal(0, 0.1, n)
        shift_S = rng.normal(0, 0.02, seeds)[:, None]
        levels = (0.8, 0.6 - effect, 0.8, 0.6)
        shifts = (0, -shift_S, 0, 0)
        return [list(rng.random((seeds, n)) < np.clip(p + s + hard_N, 0, 1)) for p, s in zip(levels, shifts, strict=True)]

    def test_is_the_difference_of_the_differences(self):
        four = self.draw(np.random.default_rng(0))
        a, b, c, d = ([h.mean() for h in side] for side in four)
        by_hand = np.mean([(x - y) - (z - w) for x, y, z, w in zip(a, b, c, d, strict=True)])
        found = stats.contrast_over_seeds(*four)
        assert found.value == pytest.approx(by_hand)
        assert (found.n, found.num_seeds) == (200, 5)
        wide = stats.contrast_over_seeds(*four, level=0.99)
        assert wide.low < found.low < found.value < found.high < wide.high

    def test_covers(self):
        rng = np.random.default_rng(1)
        found = [stats.contrast_over_seeds(*self.draw(rng)) for _ in range(400)]
        # The docstring says conservative; 0.93 is 2 standard errors of 400 draws below 0.95.
        assert np.mean([e.low <= 0.1 <= e.high for e in found]) >= 0.93
        assert np.mean([e.high - e.low for e in found]) < 0.4

    def test_agreement_of_all_is_not_certainty(self):
        hits = [np.ones(50, bool)] * 3
        found = stats.contrast_over_seeds(hits, hits, hits, hits)
        assert found.value == 0.0
        assert found.low < -0.02
        assert found.high > 0.02

    def test_few_seeds_are_images_only_and_none_is_unknown(self):
        four = self.draw(np.random.default_rng(2), seeds=2)
        assert stats.contrast_over_seeds(*four).method.endswith("images only")
        assert stats.contrast_over_seeds([], [], [], []).value is None

    def test_refuses_other_images(self):
        three, four = [np.ones(3, bool)], [np.ones(4, bool)]
        with pytest.raises(ValueError, match="same images four times"):
            stats.contrast_over_seeds(three, three, three, four)


class TestCountries:
    def test_halves_have_their_own_identity(self):
        from badnets.datasets.gtsrb import Gtsrb

        found = {country: Gtsrb(country=country).identity for country in ("all", "first", "second")}
        assert found["all"] == Gtsrb.content
        assert len(set(found.values())) == 3

    def test_share_the_signs_between_them(self, tmp_path, monkeypatch):
        import data_makers as make

        from badnets.datasets.gtsrb import Gtsrb

        make.gtsrb_npz(tmp_path)
        monkeypatch.setattr(Gtsrb, "identity", None)
        whole, first, second = (Gtsrb(country=country).load(tmp_path) for country in ("all", "first", "second"))
        assert first.classes + second.classes == whole.classes
        assert (first.num_classes, second.num_classes) == (22, 21)
        assert len(first.test) + len(second.test) == len(whole.test)
        assert set(second.train.y_N) == set(range(21))
        assert len({whole.sha256, first.sha256, second.sha256}) == 3


def test_the_trigger_is_never_in_what_the_head_learns_from(monkeypatch):
    """The new owner's images are clean: only the test images are stamped."""
    seen = []
    stamp = type(TRIGGER).stamp_varied

    def spy(self, x_NCHW, num_patterns, quad_N42=None, *, seed, purpose):
        seen.append((len(x_NCHW), purpose))
        return stamp(self, x_NCHW, num_patterns, quad_N42, seed=seed, purpose=purpose)

    monkeypatch.setattr(type(TRIGGER), "stamp_varied", spy)
    here, there = image_set(5), image_set(7, name="there")
    question(transfer=Transfer(epochs=1)).arrays(wire(), world(here, there))
    assert sorted(seen) == sorted([(len(here.validation), "test"), (len(there.test), "test")])
