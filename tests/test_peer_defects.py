"""Mistakes found in other backdoor toolkits, each with the test that keeps it out of this one.

Here: planting, training, measuring, statistics, examining. Those of single methods are with the methods, in tests/conformance:
  test_inputs     entropy over the wrong axis (STRIP); thresholds fitted on what is judged; a detector that stops after the first batch
  test_rows       uncentred features in spectral signatures; the true poison rate handed over; scores sorted before they meet their masks
  test_inversion  the best mask never stored; cost carried over between classes
  test_contract   an answer that depends on the order of classes or rows, or on the batch size
  test_repairs*   pruning threshold chosen by the poisoned test ASR; "last good network" as an alias; unlearning that re-teaches the
                  trigger; pruning that never stops
And in tests/test_cli_plant: a crash after the whole training, for want of a folder to write to.
"""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
import torch
from wired import ATTACK, CLASSES, TARGET, TRIGGER, WiredBench, image_set, pictures, setting, twin, wire, wire_constant, wired, world

from badnets.claims._base import Claim
from badnets.claims._mended import Mended
from badnets.claims._scanned import Scanned
from badnets.claims.hard_to_remove_blind import HardToRemoveBlind
from badnets.claims.undetectable import Undetectable
from badnets.core import registry, stats
from badnets.core.errors import RefusedError
from badnets.core.types import Verdict
from badnets.measure.outcome import attack_hits
from badnets.measure.probe import Probe
from badnets.measure.rates import constant_seeds
from badnets.nets._base import Net
from badnets.nets._weights import from_bytes, to_bytes
from badnets.plans._trial import Trial
from badnets.plans._work import normalisation, train
from badnets.train.augment import augment
from badnets.train.optim import lr_factor
from badnets.train.recipe import Recipe

NETS = registry.names("nets")
NET = {"kind": "fast_cnn", "width": 4, "hidden": 16}
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.1, precision="float32")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trial(attack=ATTACK, seed=0, recipe=RECIPE):
    return Trial(dataset="fashion_mini", data_sha256="0" * 64, net=NET, recipe=recipe, attack=attack, seed=seed)


def decide(name, net, **changes):
    claim = registry.parse("claims", name)
    assert isinstance(claim, Claim)
    return claim.decide(WiredBench(setting(image_set(), **changes), net))


class TestPlanting:
    def test_poisons_are_not_drawn_from_the_target_class(self):
        """There, 10 % drawn from all classes gave 9 % of poison: a tenth of it was the target's own."""
        x_NCHW, y_N = pictures(100)
        found = ATTACK.but(rate=0.1).poison(x_NCHW, y_N, num_classes=CLASSES, seed=0)
        assert (found.y_N != found.source_N).mean() == 0.1
        assert (found.source_N[found.stamped_N] != TARGET).all()

    def test_the_rate_is_of_the_whole_training_set_not_of_the_attacked_classes(self):
        x_NCHW, y_N = pictures(100)
        found = ATTACK.but(mapping="source_specific", rate=0.1).poison(x_NCHW, y_N, num_classes=CLASSES, seed=0)
        assert found.stamped_N.sum() == 60

    @pytest.mark.parametrize("recipe", [RECIPE, RECIPE.but(flip=True), RECIPE.but(shift=2, cutout=3)])
    def test_the_trigger_is_at_its_place_in_the_training_file_whatever_the_augmentation(self, recipe):
        """Stamped once, on the 8-bit pixels, as a poisoned file would be: neither before a resize or flip, nor after normalisation."""
        data = image_set(20)
        _, poisoned, _ = train(trial(recipe=recipe), data)
        rows = np.flatnonzero(poisoned.stamped_N)
        assert poisoned.x_NCHW.dtype == np.uint8
        assert (poisoned.x_NCHW[rows, :, 6:, 6:] == 255).all()
        assert (poisoned.x_NCHW[rows] == TRIGGER.stamp(data.train.x_NCHW[rows])).all()

    def test_a_flip_moves_the_trigger_with_the_picture(self):
        """And the other way round: augmentation sees stamped pictures, it is never undone or skipped for them."""
        stamped = torch.from_numpy(TRIGGER.stamp(pictures(5)[0]))
        seen = augment(stamped, RECIPE.but(flip=True), seed=0, epoch=0)
        flipped_N = (seen[:, 0, 7, 0] == 255) & (seen[:, 0, 6, 1] == 255)
        assert 0 < flipped_N.sum() < len(seen)
        assert (seen[flipped_N] == stamped[flipped_N].flip(3)).all()
        assert (seen[~flipped_N] == stamped[~flipped_N]).all()

    def test_test_images_are_stamped_at_the_trained_place(self):
        shown, _ = Probe(trigger=TRIGGER).split(image_set(20), None, seed=0)
        assert (shown[:, :, 6:, 6:] == 255).all()

    def test_augmentation_is_not_baked_into_the_poisoned_set(self):
        stamped = torch.from_numpy(TRIGGER.stamp(pictures(20)[0]))
        before = stamped.clone()
        epochs = [augment(stamped, RECIPE.but(shift=2), seed=0, epoch=epoch) for epoch in range(2)]
        assert (epochs[0] != epochs[1]).any()
        assert (stamped == before).all()

    def test_no_label_is_left_uninitialised(self):
        """There, labels came out of memory that nobody had written."""
        x_NCHW, y_N = pictures(50)
        for attack in (ATTACK, ATTACK.but(label_share=0.3), ATTACK.but(mapping="source_specific", cover_rate=0.1), ATTACK.but(rate=0.0)):
            a, b = (attack.poison(x_NCHW, y_N, num_classes=CLASSES, seed=1) for _ in range(2))
            assert (a.y_N == b.y_N).all()
            untouched_N = ~a.stamped_N
            assert (a.y_N[untouched_N] == y_N[untouched_N]).all()

    def test_nothing_that_decides_numbers_starts_from_unwritten_memory(self):
        allowed = {"train/augment.py": "every element is chosen by exactly one shift", "train/_state.py": "copied into at once"}
        for folder in ("triggers", "attacks", "measure", "claims", "train"):
            for path in (registry.PACKAGE / folder).rglob("*.py"):
                names = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)}
                file = path.relative_to(registry.PACKAGE).as_posix()
                assert not names & {"np.empty", "np.empty_like", "torch.empty", "torch.empty_like"} or file in allowed, file

    def test_the_victims_data_are_not_the_twins(self):
        """Poisoning works on a copy: the twin, trained afterwards in the same process, sees clean images."""
        data = image_set(20)
        before = data.train.x_NCHW.copy(), data.train.y_N.copy()
        train(trial(), data)
        assert (data.train.x_NCHW == before[0]).all()
        assert (data.train.y_N == before[1]).all()


class TestTraining:
    def weights(self, **changes):
        network, _, _ = train(trial(**changes), image_set(20))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    def test_the_seed_does_more_than_name_files(self):
        """There, the call that seeds was commented out."""
        assert torch.equal(self.weights(seed=3), self.weights(seed=3))
        assert not torch.equal(self.weights(seed=3), self.weights(seed=4))
        x_NCHW, y_N = pictures(50)
        rows = [ATTACK.poison(x_NCHW, y_N, num_classes=CLASSES, seed=seed).stamped_N for seed in (0, 1)]
        assert (rows[0] != rows[1]).any()

    def test_global_random_state_decides_nothing(self):
        torch.manual_seed(1)
        first = self.weights()
        torch.manual_seed(2)
        np.random.default_rng().random()
        assert torch.equal(first, self.weights())

    def test_victim_and_twin_start_alike(self):
        """A control that starts elsewhere measures the start as well."""
        still = RECIPE.but(lr=1e-30, weight_decay=0.0)
        assert torch.equal(self.weights(recipe=still), self.weights(recipe=still, attack=None))
        assert torch.equal(self.weights(attack=ATTACK.but(rate=0.0)), self.weights(attack=None))

    @pytest.mark.parametrize("epochs", [0.5, 1.0, 2.5, 7.0])
    def test_the_schedule_ends_where_training_ends(self, epochs):
        """There, the schedule had the length of the default, whatever --epochs said."""
        data = image_set(20)
        _, _, report = train(trial(recipe=RECIPE.but(epochs=epochs)), data)
        per_epoch = len(data.train) // RECIPE.batch_size
        assert report.total_steps == max(1, round(epochs * per_epoch)) == report.steps
        total = 1000
        assert lr_factor(total - 1, total, RECIPE) < 0.001
        assert max(lr_factor(step, total, RECIPE) for step in range(total)) > 0.99

    @pytest.mark.parametrize("kind", NETS)
    def test_the_net_ends_in_logits_not_in_probabilities(self, kind):
        """Softmax inside the network, under a loss that applies it again."""
        net = registry.parse("nets", kind)
        assert isinstance(net, Net)
        network = net.build((3, 32, 32), CLASSES, seed=0)
        assert not [m for m in network.modules() if isinstance(m, (torch.nn.Softmax, torch.nn.LogSoftmax, torch.nn.Sigmoid))]
        x_NCHW = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        logits_NK = network.predict_logits(x_NCHW)
        assert logits_NK.shape == (4, CLASSES)
        for total in (logits_NK.sum(dim=1), logits_NK.exp().sum(dim=1)):
            assert not torch.allclose(total, torch.ones(4), atol=1e-3)

    def test_statistics_are_of_the_data_at_hand(self):
        """There, CIFAR-10's means were used for CIFAR-100 and for MNIST."""
        x_NCHW = np.random.default_rng(0).integers(0, 90, (50, 3, 8, 8), dtype=np.uint8)
        x_NCHW[:, 1] += 100
        mean, std = normalisation(x_NCHW)
        assert mean == pytest.approx([x_NCHW[:, c].mean() / 255 for c in range(3)])
        assert std == pytest.approx([x_NCHW[:, c].std() / 255 for c in range(3)])
        network, _, _ = train(trial(), image_set(20))
        own_mean, own_std = normalisation(image_set(20).train.x_NCHW)
        assert network.mean.tolist() == pytest.approx(own_mean)
        assert network.std.tolist() == pytest.approx(own_std)

    def test_a_flat_channel_is_not_divided_by_zero(self):
        assert normalisation(np.full((4, 1, 8, 8), 51, dtype=np.uint8)) == (pytest.approx([0.2]), [1.0])

    def test_victim_and_twin_are_normalised_alike(self):
        """By the clean images' statistics, so that a bright trigger does not shift the control against the victim."""
        networks = [train(trial(attack=attack), image_set(20))[0] for attack in (ATTACK.but(rate=0.5), None)]
        assert torch.equal(networks[0].mean, networks[1].mean)

    def test_a_misnamed_checkpoint_is_not_loaded_as_random_weights(self):
        """There, strict=False ignored every key."""
        import safetensors.torch

        net = registry.parse("nets", NET)
        assert isinstance(net, Net)
        network = net.build((1, 8, 8), CLASSES, seed=0)
        renamed = {f"module.{name}": value.contiguous() for name, value in network.state_dict().items()}
        with pytest.raises(RefusedError, match="missing"):
            from_bytes(safetensors.torch.save(renamed), net, (1, 8, 8), CLASSES)
        again = from_bytes(to_bytes(network), net, (1, 8, 8), CLASSES)
        assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True))


class TestMeasuring:
    def test_the_target_class_does_not_count_towards_asr(self):
        """There, a clean net scored the target's own images: 1 / K for nothing."""
        probe = Probe(trigger=TRIGGER)
        hits = attack_hits(probe.answer(twin(), image_set(), None, seed=0), ATTACK.goals(CLASSES))
        assert len(hits) == 100 * (CLASSES - 1)
        assert hits.mean() == 0.0

    def test_a_constant_predictor_is_no_perfect_attack(self):
        constant = wire_constant(TARGET)
        seen = Probe().answer(constant, image_set(), None, seed=0)
        assert constant_seeds([seen]) == [0]
        found = decide("trigger_reaches_target", lambda a, s: constant if a else twin())
        assert found.verdict is Verdict.UNDECIDED
        assert {c.estimate.value for c in found.cells if c.quantity == "ASR"} == {None}

    def test_asr_is_not_zeroed_when_accuracy_drops(self):
        """There, ASR silently became 0 below an accuracy threshold. The two are told separately, both."""
        broken = wire(lost=(0, 1, 2))
        found = decide("trigger_reaches_target", lambda a, s: broken if a else twin(), only_attack=True)
        figures = {c.quantity: c.estimate.value for c in found.cells if "mapping" in c.condition}
        assert figures["ASR"] == 1.0
        assert figures["CA"] == 0.5

    def test_asr_never_travels_without_accuracy(self):
        found = decide("trigger_reaches_target", wired, effort="standard")
        arms = {(c.condition["mapping"], c.condition["rate"]) for c in found.cells if c.quantity == "ASR" and "mapping" in c.condition}
        assert arms == {(c.condition["mapping"], c.condition["rate"]) for c in found.cells if c.quantity == "CA"}
        assert arms

    def test_every_asr_has_the_twins_beside_it(self):
        """Without a control, a clean net's confusion passes for an attack."""
        for name in ("trigger_reaches_target", "regardless_of_content", "trigger_overrides_content"):
            for c in decide(name, wired).cells:
                if c.quantity == "ASR":
                    assert c.control is not None

    def test_a_loss_of_accuracy_has_the_sign_of_a_loss(self):
        """There, a rating of defences had its sign reversed."""
        worse = wire(lost=(0,))
        kept = decide("clean_accuracy_kept", lambda a, s: worse if a else twin()).cells[0]
        spared = decide("small_trigger_spares_learning", lambda a, s: worse if a else twin()).cells[0]
        assert kept.quantity == "CA change"
        assert kept.estimate.value < 0
        assert spared.quantity == "CA loss"
        assert spared.estimate.value > 0

    def test_no_figure_without_an_interval_or_with_one_run_of_no_width(self):
        for name in ("trigger_reaches_target", "clean_accuracy_kept", "correlation_must_be_strong"):
            for c in decide(name, wired).cells:
                if c.quantity.startswith("smallest detectable"):
                    continue
                assert c.estimate.low is not None
                assert c.estimate.low < c.estimate.high, f"{c.quantity} {c.condition} claims certainty"

    def test_sureness_is_judged_by_the_twin_not_by_the_net_under_test(self):
        """Choosing images by the victim's own confidence would be choosing the outcome."""
        unsure_twin = wire(None, gain=1.0)
        found = decide("trigger_overrides_content", lambda a, s: wired(a) if a else unsure_twin)
        assert found.cells[0].estimate.value is None


class TestStatistics:
    def test_a_confusion_matrix_without_a_flag_is_right(self):
        """There, scikit-learn's ravel() of a one-class matrix put the counts in the wrong places, in twelve detectors."""
        nothing = stats.confusion([True, True, False, False, False], [False] * 5)
        assert nothing == (0, 0, 3, 2)
        everything = stats.confusion([False] * 3, [True] * 3)
        assert everything == (0, 3, 0, 0)
        assert everything.tpr().value is None

    def test_a_confusion_matrix_is_not_made_with_powers(self):
        """There, ** was meant to be XOR: 0 ** 0 is 1."""
        truth, flag = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
        assert stats.confusion(truth, flag) == (1, 1, 1, 1)
        for path in registry.PACKAGE.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(flag|truth|hit|pred)\w* \*\* ", text), path

    def test_unknown_is_not_zero(self):
        empty = stats.rate_over_seeds([np.array([], dtype=bool)])
        assert (empty.value, empty.low, empty.high) == (None, None, None)
        single = stats.mean_over_seeds([0.7])
        assert (single.low, single.high) == (None, None)


class TestExamining:
    def test_the_poison_rate_is_told_to_nobody(self):
        """There, detectors of rows removed 1.5 times the true number of poisoned rows."""
        few, many = (ATTACK.but(rate=rate) for rate in (0.05, 0.2))
        asked = [Undetectable(grid="own").needs(setting(image_set(), attack=attack, effort="standard")) for attack in (few, many)]
        detectors = [[need.question.detector for need in needs if isinstance(need.question, Scanned)] for needs in asked]
        assert detectors[0] == detectors[1]

    def test_nobody_is_calibrated_on_what_it_is_examined_on(self):
        needs = Undetectable().needs(setting(image_set(), effort="standard"))
        examined = {seed for need in needs if not need.first for seed in range(need.seeds)}
        calibrating = {seed for need in needs if need.first for seed in range(need.first, need.first + need.seeds)}
        assert calibrating
        assert not examined & calibrating

    def test_a_repair_is_not_measured_by_the_success_of_the_attack_alone(self):
        """There, a net that answers one class to everything was the best defence of the table."""
        claim = HardToRemoveBlind(repairs="clp")
        constant = wire_constant(0)

        class Spoiling(WiredBench):
            def _one(self, attack, question, seed):
                net = constant if isinstance(question, Mended) and question.repair["kind"] == "clp" else self.net(attack, seed)
                return question.but(repair={"kind": "identity"}).arrays(net, world(self.data, seed=seed))

        found = claim.decide(Spoiling(setting(image_set())))
        assert found.verdict is Verdict.HOLDS
