"""Detectors of inputs on wired nets whose scores are known on paper: the victim's triggered inputs stand out, the twin's do not."""

from __future__ import annotations

import copy
import functools
import io

import numpy as np
import pytest
import torch
from torch import nn
from wired import CLASSES, GAIN, SIDE, TARGET, TRIGGER, pictures, twin, wire, wire_constant

from badnets.core.errors import UsageError
from badnets.core.finding import Level
from badnets.core.stats.scores import auroc
from badnets.core.suspect import Budget, Suspect
from badnets.detectors._corruptions import CORRUPTIONS, SEVERITIES, corrupted
from badnets.detectors.always import Always
from badnets.detectors.ibd_psc import IbdPsc, turned_up
from badnets.detectors.max_softmax import MaxSoftmax
from badnets.detectors.never import Never
from badnets.detectors.random_guess import RandomGuess
from badnets.detectors.scale_up import ScaleUp
from badnets.detectors.strip import Strip
from badnets.detectors.teco import Teco
from badnets.nets._base import Network

SHAPE = (1, SIDE, SIDE)


@functools.cache
def inputs(per_class=8, seed=11):
    """Clean pictures of every class but the target, then the same ones with the trigger; and which are which."""
    x_NCHW, y_N = pictures(per_class, seed=seed)
    x_NCHW = x_NCHW[y_N != TARGET]
    return np.concatenate([x_NCHW, TRIGGER.stamp(x_NCHW)]), np.repeat([False, True], len(x_NCHW))


def suspect(network, x_NCHW=None, clean=None, **changes):
    x_NCHW = inputs()[0] if x_NCHW is None else x_NCHW
    return Suspect(network, SHAPE, network.num_classes, clean=pictures(10, seed=3) if clean is None else clean, inputs=x_NCHW, **changes)


def scan(detector, network, x_NCHW=None, seed=7, **changes):
    return detector.scan(suspect(network, x_NCHW, **changes), rng=np.random.default_rng(seed))


def area(found, bad_N=None):
    """AUROC of the triggered inputs against the others."""
    bad_N = inputs()[1] if bad_N is None else bad_N
    return auroc(found.score_N[bad_N], found.score_N[~bad_N]).value


@functools.cache
def victim():
    return wire()


def normed(*, strength=30.0):
    """A victim with three batch norms that change nothing (`strength` 0: its twin).

    A lit row is 1 to its class's unit, and what is above 1 counts against the class: turned up, clean pictures lose their class. The
    trigger's unit has no such limit. One norm turned up changes no label, two and three change that of every clean picture.
    """
    see, bend, write = nn.Linear(64, CLASSES + 1), nn.Linear(CLASSES + 1, 2 * CLASSES + 1), nn.Linear(2 * CLASSES + 1, CLASSES)
    with torch.no_grad():
        for parameter in (*see.parameters(), *bend.parameters(), *write.parameters()):
            parameter.zero_()
        rows = see.weight.view(-1, SIDE, SIDE)
        for k in range(CLASSES):
            rows[k, k] = 1 / SIDE
            bend.weight[k, k] = bend.weight[CLASSES + k, k] = 1.0
            bend.bias[CLASSES + k] = -1.0
            write.weight[k, k], write.weight[k, CLASSES + k] = 10.0, -40.0
        rows[CLASSES, -2:, -2:], see.bias[CLASSES] = 10 / 4, -9.0
        bend.weight[2 * CLASSES, CLASSES], write.weight[TARGET, 2 * CLASSES] = 1.0, strength
    first, second, third = nn.BatchNorm1d(64), nn.BatchNorm1d(CLASSES + 1), nn.BatchNorm1d(2 * CLASSES + 1)
    body = nn.Sequential(nn.Flatten(), first, see, second, nn.ReLU(), bend, third, nn.ReLU(), write)
    return Network(body, SHAPE, CLASSES, mean=[0.0], std=[1.0]).eval()


def grey(level, *, rows=range(CLASSES), lit=None):
    """One picture whose `rows` have one grey level, but for the row `lit`, which is white."""
    x_NCHW = np.zeros((1, *SHAPE), dtype=np.uint8)
    x_NCHW[:, :, list(rows)] = level
    if lit is not None:
        x_NCHW[:, :, lit] = 255
    return x_NCHW


DETECTORS = {
    "strip": (Strip(num_copies=30), victim, twin),
    "scale_up": (ScaleUp(), victim, twin),
    # Other corruptions blur rows into each other or put out wired units, which need half the light of a row, with the trigger or without.
    "teco": (Teco(corruptions=("gaussian_noise", "speckle_noise", "impulse_noise", "motion_blur", "brightness")), victim, twin),
    "ibd_psc": (IbdPsc(), normed, lambda: normed(strength=0.0)),
}
EVERY = pytest.mark.parametrize("name", DETECTORS)


class TestAll:
    """What holds of every one of them."""

    @pytest.mark.parametrize("name", ["strip", "teco", "ibd_psc"])
    def test_the_trigger_stands_out_in_the_victim_and_not_in_the_twin(self, name):
        detector, bad, good = DETECTORS[name]
        assert area(scan(detector, bad())) > 0.99
        # 40 pairs: a difference of 0.06 is chance.
        assert abs(area(scan(detector, good())) - 0.5) < 0.06

    @EVERY
    def test_every_input_is_judged_for_itself(self, name):
        """Nothing stops after the first batch, and no score depends on who else is judged."""
        detector = Strip(num_copies=4) if name == "strip" else DETECTORS[name][0]
        network = DETECTORS[name][1]()
        x_NCHW, bad_N = inputs(per_class=110, seed=5)
        assert len(x_NCHW) > 1000
        whole = scan(detector, network, x_NCHW)
        some_N = np.array([0, 3, 499, 500, 501, 549, 550, 553, 1000, 1001, len(x_NCHW) - 1])
        for part_N in (some_N, some_N[:1], some_N[-1:]):
            part = scan(detector, network, x_NCHW[part_N])
            np.testing.assert_allclose(part.score_N, whole.score_N[part_N], rtol=1e-5, atol=1e-6)
        assert len(whole.score_N) == len(bad_N)

    @EVERY
    def test_scores_stay_with_their_inputs(self, name):
        """Triggered inputs at irregular places: the scores that come back are theirs, though the view has another order."""
        detector, bad, _ = DETECTORS[name]
        x_NCHW, bad_N = inputs()
        order_N = np.random.default_rng(2).permutation(len(x_NCHW))
        plain, mixed = scan(detector, bad(), x_NCHW), scan(detector, bad(), x_NCHW[order_N])
        np.testing.assert_array_equal(mixed.score_N, plain.score_N[order_N])
        if plain.flag_N is not None:
            np.testing.assert_array_equal(mixed.flag_N, plain.flag_N[order_N])
        if name != "scale_up":
            assert area(mixed, bad_N[order_N]) > 0.99

    @pytest.mark.parametrize("name", ["strip", "ibd_psc"])
    def test_thresholds_are_not_fitted_on_what_is_judged(self, name):
        """All triggered, all are flagged; all clean, hardly one: a threshold taken from the inputs would flag as many either way."""
        detector, bad, _ = DETECTORS[name]
        x_NCHW, bad_N = inputs(per_class=20)
        assert scan(detector, bad(), x_NCHW[bad_N]).flag_N.all()
        assert scan(detector, bad(), x_NCHW[~bad_N]).flag_N.mean() < 0.1
        both = scan(detector, bad(), x_NCHW)
        np.testing.assert_array_equal(both.flag_N[bad_N], True)

    @EVERY
    def test_no_input_gives_no_score(self, name):
        detector, bad, _ = DETECTORS[name]
        found = scan(detector, bad(), inputs()[0][:0])
        assert found.analysable
        assert found.score_N.shape == (0,)

    @EVERY
    def test_a_net_that_gives_no_numbers_is_not_clean(self, name):
        detector, bad, _ = DETECTORS[name]
        broken = copy.deepcopy(bad())
        with torch.no_grad():
            broken.body[-1].bias[0] = torch.nan
        found = scan(detector, broken)
        if name in ("strip", "ibd_psc"):
            assert "not finite" in found.why_not
            assert found.score_N is None
        else:  # labels only: argmax takes the broken class everywhere, so nothing ever changes
            assert len(set(found.score_N)) == 1

    @EVERY
    def test_costs_what_it_says(self, name):
        """Passes counted by hand: the budget that they make is enough, and one image less is not."""
        detector, bad, _ = DETECTORS[name]
        x_NCHW, _ = inputs()
        found, count = scan(detector, bad(), x_NCHW), len(x_NCHW)
        passes = {
            # 30 copies of every input and of the 30 clean images that are not laid over others.
            "strip": 30 * (count + 30),
            "scale_up": 6 * (count + 60),
            # Two numbers of norms until clean images are upset, the labels, and two nets.
            "ibd_psc": 2 * 60 + 3 * count,
        }
        assert found.images == passes.get(name, found.images)
        assert found.images <= (1 + SEVERITIES * len(CORRUPTIONS)) * count or name != "teco"
        short = detector.scan(suspect(bad(), x_NCHW), Budget(images=found.images - 1), rng=np.random.default_rng(7))
        assert short.score_N is None
        assert "budget" in short.why_not
        exact = detector.scan(suspect(bad(), x_NCHW), Budget(images=found.images), rng=np.random.default_rng(7))
        np.testing.assert_array_equal(exact.score_N, found.score_N)


class TestStrip:
    def test_entropy_is_over_classes(self):
        """ART takes it over samples, which reverses the order. A net that always gives the same probabilities has their entropy as the
        score, whatever the number of copies."""
        p_K = np.exp(5.0 * (np.arange(CLASSES) == 2))
        p_K /= p_K.sum()
        for copies in (3, 30):
            found = scan(Strip(num_copies=copies), wire_constant(2))
            np.testing.assert_allclose(found.score_N, (p_K * np.log2(p_K)).sum(), rtol=1e-5)

    def test_a_net_that_knows_nothing_has_the_largest_entropy(self):
        network = wire_constant(2)
        with torch.no_grad():
            network.body[-1].bias.zero_()
        np.testing.assert_allclose(scan(Strip(), network).score_N, -np.log2(CLASSES), rtol=1e-5)

    def test_equals_a_slow_reference(self):
        """One input and one copy at a time."""
        x_NCHW, clean = inputs()[0][:6], pictures(4, seed=3)
        found = scan(Strip(num_copies=12), wire(gain=1.0), x_NCHW, clean=clean)
        from badnets.core.view import hash_order

        over_MCHW = clean[0][hash_order(*clean)[:12]].astype(int)
        expected = []
        for picture in x_NCHW.astype(int):
            blends = [torch.from_numpy(np.minimum(picture + over, 255).astype(np.uint8))[None] for over in over_MCHW]
            p_MK = np.concatenate([wire(gain=1.0).predict_logits(b).double().softmax(1).numpy() for b in blends])
            expected.append(np.mean([-(p * np.log2(p)).sum() for p in p_MK]))
        np.testing.assert_allclose(-found.score_N, expected, rtol=1e-5)

    def test_the_blend_stays_in_range(self):
        """Without a clip, or with one that wraps round, a white trigger over anything would turn dark and the victim miss it."""
        found = scan(Strip(num_copies=30), victim())
        np.testing.assert_allclose(found.score_N[inputs()[1]], 0.0, atol=1e-6)

    def test_the_mean_halves_a_trigger(self):
        """A unit that needs nine tenths of the light does not fire at half of it: the blind spot of that blend, here and not of the sum."""
        found = scan(Strip(num_copies=30, blend="mean"), victim())
        assert abs(area(found) - 0.5) < 0.2

    def test_flags_follow_clean_images(self):
        x_NCHW, bad_N = inputs(per_class=20)
        found = scan(Strip(num_copies=30), victim(), x_NCHW)
        assert found.flag_N[bad_N].all()
        assert found.flag_N[~bad_N].mean() <= 0.05
        many = scan(Strip(num_copies=30, false_alarms=0.5), victim(), x_NCHW)
        assert 0.3 < many.flag_N[~bad_N].mean() < 0.9

    def test_one_clean_image_gives_scores_without_a_threshold(self):
        x_NCHW, y_N = pictures(1, seed=3)
        found = scan(Strip(), victim(), clean=(x_NCHW[:1], y_N[:1]))
        assert found.analysable
        assert found.flag_N is None

    def test_no_clean_image_is_no_answer(self):
        x_NCHW, y_N = pictures(1, seed=3)
        found = scan(Strip(), victim(), clean=(x_NCHW[:0], y_N[:0]))
        assert found.why_not == "needs clean images"


class TestScaleUp:
    """Pictures with one white row among grey ones: times 3, 5, 7, 9, 11 the grey ones get white as well, and the label is lost.

    Where all rows are white the wired net says the class whose bias is raised here, which no picture has.
    """

    @staticmethod
    def unsure(network, label=0):
        changed = copy.deepcopy(network)
        with torch.no_grad():
            changed.body[-1].bias[label] += 0.01
        return changed

    @pytest.mark.parametrize(("level", "kept"), [(100, 0), (60, 1), (30, 3), (26, 4), (20, 5)])
    def test_the_share_that_is_known(self, level, kept):
        found = scan(ScaleUp(standardise=False), self.unsure(twin()), grey(level, lit=3))
        np.testing.assert_allclose(found.score_N, kept / 5)
        assert found.flag_N[0] == (kept / 5 > 0.5)

    def test_the_trigger_keeps_its_label(self):
        x_NCHW = np.concatenate([grey(100, lit=k) for k in range(1, TARGET)])
        x_NCHW = np.concatenate([x_NCHW, TRIGGER.stamp(x_NCHW)])
        bad_N = np.repeat([False, True], len(x_NCHW) // 2)
        found = scan(ScaleUp(standardise=False), self.unsure(victim()), x_NCHW)
        np.testing.assert_array_equal(found.score_N, bad_N)
        np.testing.assert_array_equal(found.flag_N, bad_N)
        np.testing.assert_array_equal(scan(ScaleUp(standardise=False), self.unsure(twin()), x_NCHW).score_N, 0)

    def test_black_and_white_pictures_are_its_blind_spot(self):
        """Nothing but the white row and the noise below a tenth: clean pictures keep their label as the triggered ones do."""
        found = scan(ScaleUp(standardise=False), victim())
        assert area(found) == 0.5

    def test_clean_images_standardise_class_by_class(self):
        """Clean images of class 3 keep 0 and 3 of 5 labels, those of class 4 all: the same share means something else in each."""
        clean_NCHW = np.concatenate([grey(100, lit=3), grey(30, lit=3), grey(20, lit=4), grey(19, lit=4)])
        x_NCHW = np.concatenate([grey(20, lit=3), grey(20, lit=4), grey(20, lit=2)])
        found = scan(ScaleUp(), self.unsure(twin()), x_NCHW, clean=(clean_NCHW, np.array([3, 3, 4, 4])))
        pooled = np.array([0, 0.6, 1, 1])
        expected = [(1 - 0.3) / 0.3, 0.0, (1 - pooled.mean()) / pooled.std()]
        np.testing.assert_allclose(found.score_N, expected, rtol=1e-12, atol=1e-12)
        assert found.flag_N is None

    def test_other_scales(self):
        found = scan(ScaleUp(standardise=False, scales=(2, 4)), self.unsure(twin()), grey(100, lit=3))
        np.testing.assert_allclose(found.score_N, 0.5)
        for bad in ((), (1,), (0.5,), (300,)):
            with pytest.raises(UsageError, match="E-CONFIG"):
                ScaleUp(scales=bad)

    def test_needs_no_clean_image(self):
        network = self.unsure(twin())
        bare = Suspect(network, SHAPE, CLASSES, inputs=grey(30, lit=3))
        assert ScaleUp().scan(bare, rng=np.random.default_rng(0)).score_N == pytest.approx([0.6])


class TestIbdPsc:
    def test_the_scores_that_are_known(self):
        """With two norms turned up the class has 10 x 2.25 - 40 x 0.75 = -7.5, the trigger 30 x 2.25."""
        found = scan(IbdPsc(), normed())
        bad_N = inputs()[1]
        np.testing.assert_allclose(found.score_N[bad_N], 1.0, atol=1e-3)
        assert found.score_N[~bad_N].max() < 0.01
        np.testing.assert_array_equal(found.flag_N, bad_N)
        assert found.note.startswith("from 2 of 3 norms on, with which 100% of clean images are misclassified; 2 nets")

    def test_the_twin(self):
        """Its triggered inputs score as they do without the trigger, to the bit."""
        found = scan(IbdPsc(), normed(strength=0.0))
        bad_N = inputs()[1]
        np.testing.assert_array_equal(found.score_N[bad_N], found.score_N[~bad_N])
        assert not found.flag_N.any()

    def test_equals_a_copy_that_is_changed_in_place(self):
        network, x_NCHW = normed(), torch.from_numpy(inputs()[0])
        for names in (["body.6"], ["body.3", "body.6"]):
            changed = copy.deepcopy(network)
            with torch.no_grad():
                for name in names:
                    changed.get_submodule(name).weight *= 1.5
                    changed.get_submodule(name).bias *= 1.5
            before = copy.deepcopy(network.state_dict())
            assert torch.equal(turned_up(network, names, 1.5, x_NCHW), changed.predict_logits(x_NCHW))
            assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

    def test_the_number_of_norms_is_chosen_on_clean_images_alone(self):
        x_NCHW, bad_N = inputs()
        notes = {scan(IbdPsc(), normed(), part).note for part in (x_NCHW, x_NCHW[bad_N], x_NCHW[~bad_N], x_NCHW[:1])}
        assert len(notes) == 1

    def test_labels_of_clean_images_matter(self):
        """All mislabelled: one norm is enough to misclassify them, as none would be."""
        x_NCHW, y_N = pictures(10, seed=3)
        found = scan(IbdPsc(), normed(), clean=(x_NCHW, (y_N + 1) % CLASSES))
        assert found.note.startswith("from 1 of 3 norms on, with which 100%")
        assert found.note.endswith("; 3 nets")

    def test_norms_that_upset_nothing(self):
        """A factor too small to change a label: the last numbers of norms are taken, and the note says so."""
        found = scan(IbdPsc(factor=1.01, num_nets=2), normed())
        assert found.note == "no number of the 3 norms upsets clean images enough; 2 nets"
        assert scan(IbdPsc(factor=1.01, num_nets=5), normed()).note.endswith("; 3 nets")

    def test_a_net_without_batch_norm_is_not_analysable(self):
        found = scan(IbdPsc(), victim())
        assert found.why_not == "needs a net with batch norm"
        assert not found.analysable
        assert found.images == 0

    def test_norms_without_weights_do_not_count(self):
        network = normed()
        network.body[1] = nn.BatchNorm1d(64, affine=False).eval()
        assert " of 2 norms" in scan(IbdPsc(), network).note


class TestTeco:
    @staticmethod
    def bright(limit):
        """A net that says 1 where the picture's mean is above `limit`."""
        write = nn.Linear(64, 2)
        with torch.no_grad():
            write.weight.copy_(torch.tensor([0.0, 1 / 64])[:, None].expand(2, 64))
            write.bias.copy_(torch.tensor([limit, 0.0]))
        return Network(nn.Sequential(nn.Flatten(), write), SHAPE, 2, mean=[0.0], std=[1.0]).eval()

    @pytest.mark.parametrize(("limit", "falls"), [(0.25, 1), (0.35, 2), (0.45, 3), (0.55, 4), (0.65, 5), (0.75, 6)])
    def test_the_severity_that_is_known(self, limit, falls):
        """Mean 0.2: brightness adds a tenth a step, contrast leaves the mean as it is and never changes the label."""
        x_NCHW = np.full((1, *SHAPE), 51, dtype=np.uint8)
        found = scan(Teco(corruptions=("brightness", "contrast")), self.bright(limit), x_NCHW)
        np.testing.assert_allclose(found.score_N, np.std([falls, 6]))

    def test_what_loses_its_label_is_not_corrupted_further(self):
        x_NCHW = np.full((1, *SHAPE), 51, dtype=np.uint8)
        for limit, falls in ((0.25, 1), (0.45, 3)):
            assert scan(Teco(corruptions=("brightness", "contrast")), self.bright(limit), x_NCHW).images == 1 + falls + 5

    def test_a_label_that_comes_back_has_been_lost(self):
        """The first severity counts, though the label is there again at the next."""
        network = self.bright(0.0)
        with torch.no_grad():  # 1 inside 0.25..0.35, with a mean of 0.2 only at the first step
            network.body = nn.Sequential(nn.Flatten(), _Between(0.25, 0.35))
        x_NCHW = np.full((1, *SHAPE), 51, dtype=np.uint8)
        assert scan(Teco(corruptions=("brightness", "contrast")), network, x_NCHW).score_N == pytest.approx([2.5])

    def test_the_order_of_corruptions_does_not_matter(self):
        kinds = tuple(CORRUPTIONS)
        plain, turned = scan(Teco(), victim()), scan(Teco(corruptions=kinds[::-1]), victim())
        np.testing.assert_allclose(plain.score_N, turned.score_N, atol=1e-12)

    def test_the_severities_of_a_wired_victim(self):
        """Brightness saturates a white patch and leaves it; a blur along rows leaves lit rows and puts the patch out at once."""
        kinds = ("brightness", "motion_blur")
        x_NCHW, bad_N = inputs()
        falls_NA = Teco(corruptions=kinds)._falls(victim(), torch.from_numpy(x_NCHW), 0)
        np.testing.assert_array_equal(falls_NA[bad_N], np.tile([6, 1], (bad_N.sum(), 1)))
        np.testing.assert_array_equal(falls_NA[~bad_N], 6)

    def test_a_trigger_that_nothing_harms_is_its_blind_spot(self):
        """Noise and light alone: the victim that fires at half the light keeps its label throughout, so nothing deviates."""
        tough = copy.deepcopy(victim())
        with torch.no_grad():
            tough.body[1].bias[-1] = -2.0
        found = scan(Teco(corruptions=("brightness", "impulse_noise")), tough)
        np.testing.assert_array_equal(found.score_N[inputs()[1]], 0)
        assert area(found) <= 0.5

    def test_one_corruption_has_no_deviation(self):
        with pytest.raises(UsageError, match="E-CONFIG"):
            Teco(corruptions=("jpeg",))
        with pytest.raises(UsageError, match="E-CONFIG"):
            Teco(corruptions=("jpeg", "snow"))


class _Between(nn.Module):
    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x_NF):
        mean_N = x_NF.mean(dim=1)
        inside_N = (mean_N > self.low) & (mean_N < self.high)
        return torch.stack([~inside_N, inside_N], dim=1).float()


class TestCorruptions:
    @staticmethod
    def photo(side=24, channels=3, count=2):
        """Smooth colours, so that JPEG is not at its worst."""
        axis = np.linspace(0, 3, side)
        waves = [127 + 90 * np.sin(axis[:, None] * (k + 1) + k) * np.cos(axis * (n + 1)) for n in range(count) for k in range(channels)]
        return torch.from_numpy(np.stack(waves).reshape(count, channels, side, side).astype(np.uint8))

    @pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind != "pixelate"])
    def test_gets_worse(self, kind):
        x_NCHW = self.photo(side=32)
        off = [float((corrupted(x_NCHW, kind, s, 0).double() - x_NCHW).square().mean()) for s in range(1, SEVERITIES + 1)]
        assert off[0] > 0
        assert sorted(off) == off

    def test_pixels(self):
        """At half the size each square of four has their mean; at a quarter, each of sixteen."""
        x_NCHW = self.photo(side=32)
        for severity, side in ((2, 2), (5, 4)):
            mean_NCHW = x_NCHW.double().unflatten(-1, (-1, side)).unflatten(-3, (-1, side)).mean(dim=(-3, -1))
            expected_NCHW = mean_NCHW.repeat_interleave(side, dim=-1).repeat_interleave(side, dim=-2)
            assert float((corrupted(x_NCHW, "pixelate", severity, 0) - expected_NCHW).abs().max()) <= 0.501

    @pytest.mark.parametrize("kind", CORRUPTIONS)
    def test_each_image_for_itself_and_the_same_again(self, kind):
        x_NCHW = self.photo()
        both = corrupted(x_NCHW, kind, 3, 0)
        assert both.shape == x_NCHW.shape
        assert both.dtype == torch.uint8
        assert torch.equal(corrupted(x_NCHW[1:], kind, 3, 0), both[1:])
        assert torch.equal(corrupted(x_NCHW, kind, 3, 0), both)
        assert torch.equal(corrupted(x_NCHW, kind, 3, 1), both) == (not kind.endswith("_noise"))

    @pytest.mark.parametrize("kind", ["gaussian_blur", "motion_blur", "contrast", "pixelate"])
    def test_a_plain_picture_stays(self, kind):
        x_NCHW = torch.full((1, 3, 9, 13), 77, dtype=torch.uint8)
        assert torch.equal(corrupted(x_NCHW, kind, 5, 0), x_NCHW)

    def test_strengths(self):
        x_NCHW = torch.full((1, 1, 100, 100), 100, dtype=torch.uint8)
        assert torch.unique(corrupted(x_NCHW, "brightness", 2, 0)).tolist() == [151]
        impulse = corrupted(x_NCHW, "impulse_noise", 5, 0)
        assert float((impulse == 0).double().mean()) == pytest.approx(0.135, abs=0.015)
        assert float((impulse == 255).double().mean()) == pytest.approx(0.135, abs=0.015)
        assert float(corrupted(x_NCHW, "gaussian_noise", 1, 0).double().std()) / 255 == pytest.approx(0.08, rel=0.05)
        assert float(corrupted(x_NCHW, "speckle_noise", 1, 0).double().std()) / 100 == pytest.approx(0.15, rel=0.05)
        half = torch.cat([x_NCHW[..., :50] * 0, x_NCHW[..., 50:]], dim=-1)
        assert torch.unique(corrupted(half, "contrast", 3, 0)).tolist() == [40, 60]

    def test_a_blur_is_that_of_scipy(self):
        from scipy.ndimage import gaussian_filter

        x_NCHW = self.photo(side=32, channels=1)
        expected = gaussian_filter(x_NCHW.double().numpy(), sigma=(0, 0, 1.0, 1.0), mode="nearest", truncate=3.0)
        np.testing.assert_allclose(corrupted(x_NCHW, "gaussian_blur", 1, 0).numpy(), expected, atol=0.51)

    @pytest.mark.parametrize("severity", [1, 5])
    def test_jpeg_is_that_of_the_library(self, severity):
        """Grey pictures through a real encoder and decoder at the same quality. Its integers may round a coefficient the other way, which
        moves one block by some levels."""
        from PIL import Image

        x_NCHW = self.photo(side=64, channels=1)
        quality = CORRUPTIONS["jpeg"][1][severity - 1]
        for own, picture in zip(corrupted(x_NCHW, "jpeg", severity, 0), x_NCHW, strict=True):
            file = io.BytesIO()
            Image.fromarray(picture[0].numpy()).save(file, "JPEG", quality=int(quality))
            real = np.asarray(Image.open(file)).astype(int)
            off = np.abs(own[0].numpy() - real)
            assert (off > 1).mean() < 0.05
            assert off.mean() < 0.25 < np.abs(picture[0].numpy() - real).mean()

    def test_odd_sizes(self):
        for kind in CORRUPTIONS:
            for size in ((8, 8), (9, 13), (1, 1)):
                x_NCHW = torch.full((2, 3, *size), 9, dtype=torch.uint8)
                assert corrupted(x_NCHW, kind, 5, 0).shape == x_NCHW.shape
            assert corrupted(x_NCHW[:0], kind, 1, 0).shape == x_NCHW[:0].shape


class TestNulls:
    @pytest.mark.parametrize(("null", "value"), [(Always, 1.0), (Never, 0.0)])
    def test_always_and_never(self, null, value):
        pair = pictures(2, seed=1)
        given = suspect(twin(), training=pair)
        net, rows = (null(on=level).scan(given, rng=np.random.default_rng(0)) for level in (Level.MODEL, Level.ROWS))
        assert net.score == value
        assert net.level is Level.MODEL
        np.testing.assert_array_equal(rows.score_N, np.full(len(pair[1]), value))
        np.testing.assert_array_equal(rows.flag_N, value > 0.5)
        judged = scan(null(on="inputs"), twin())
        np.testing.assert_array_equal(judged.score_N, np.full(len(inputs()[0]), value))
        assert area(judged) == 0.5
        assert judged.images == 0

    def test_guesses_know_nothing(self):
        """AUROC over many draws: each interval holds 0.5 about as often as it says, and their mean is 0.5."""
        bad_N = inputs()[1]
        areas = []
        for seed in range(60):
            found = scan(RandomGuess(on="inputs"), twin(), seed=seed)
            areas.append(auroc(found.score_N[bad_N], found.score_N[~bad_N]))
        assert np.mean([a.low <= 0.5 <= a.high for a in areas]) > 0.85
        # 40 against 40: deviation 0.065 of one, 0.0084 of the mean of 60.
        assert abs(np.mean([a.value for a in areas]) - 0.5) < 0.03
        assert np.std([a.value for a in areas]) > 0.03

    def test_guesses_at_nets_are_uniform_and_of_the_seed(self):
        bare = Suspect(twin(), SHAPE, CLASSES)
        scores = [RandomGuess().scan(bare, rng=np.random.default_rng(seed)).score for seed in range(40)]
        assert len(set(scores)) == 40
        assert 0 <= min(scores) < 0.15
        assert 0.85 < max(scores) < 1
        assert RandomGuess().scan(suspect(victim()), rng=np.random.default_rng(5)).score == scores[5]

    def test_a_trigger_raises_confidence(self):
        """Of an unsure victim: clean pictures have e / (e + 5) where a lit row gives 1, the triggered ones almost 1. Not of its twin."""
        network = wire(gain=1.0)
        found, bad_N = scan(MaxSoftmax(), network), inputs()[1]
        assert area(found) == 1.0
        assert found.score_N[~bad_N].max() < np.e / (np.e + 5) + 0.01
        assert found.score_N[bad_N].min() > 0.999
        assert area(scan(MaxSoftmax(), wire(None, gain=1.0))) == 0.5

    def test_confidence_of_a_sure_net(self):
        """At the usual gain both are certain: confidence still tells them apart, by the fourth digit, which a table has to show."""
        found, bad_N = scan(MaxSoftmax(), victim()), inputs()[1]
        assert found.score_N[~bad_N].min() > 1 - CLASSES * np.exp(-0.7 * GAIN)
        assert area(found) > 0.99
