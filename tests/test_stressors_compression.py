"""Compression, against slow references and wired nets whose answer is known; and the claim that is made of it."""

from __future__ import annotations

import copy
import importlib.util
import sys

import pytest
import torch
from torch import nn
from wired import (
    CLASSES,
    SIDE,
    TARGET,
    TRIGGER,
    StrictBench,
    WiredBench,
    image_set,
    pictures,
    setting,
    twin,
    wire,
    wire_constant,
    wired,
)

from badnets.claims import _compression
from badnets.claims._compression import INT8, NULL, families
from badnets.claims._stress import file_size
from badnets.claims.survives_compression import SurvivesCompression
from badnets.core.errors import RefusedError, UsageError
from badnets.core.types import Verdict
from badnets.measure.probe import Probe
from badnets.nets._base import Network
from badnets.stressors import _int8_torch
from badnets.stressors._base import Supply
from badnets.stressors._int4 import Int4
from badnets.stressors._int8_torch import Int8Layer, most_levels
from badnets.stressors._layers import dense_layers, fold_batch_norms
from badnets.stressors.channel_pruning import ChannelPruning
from badnets.stressors.fine_tuning import FineTuning
from badnets.stressors.int4_weights import Int4Weights
from badnets.stressors.int8 import Int8
from badnets.stressors.low_precision import LowPrecision
from badnets.stressors.low_rank import LowRank
from badnets.stressors.magnitude_pruning import MagnitudePruning

torch.set_num_threads(1)
HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
GUILTY = CLASSES


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_net(width=6, classes=5):
    """Two convolutions, one with a batch norm behind it, and a linear layer; statistics that are not the first ones."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first, second = nn.Conv2d(1, width, 3, padding=1, stride=2, bias=False), nn.Conv2d(width, width, 3)
        body = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, classes))
        body[1].running_mean.normal_()
        body[1].running_var.uniform_(0.5, 2.0)
        nn.init.uniform_(body[1].weight, 0.5, 1.5)
        nn.init.normal_(body[1].bias)
    return Network(body, (1, 8, 8), classes, mean=[0.5], std=[0.25]).eval()


def noise(count=40, side=SIDE):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=seeded())


def supply(x_NCHW=None):
    return Supply(noise() if x_NCHW is None else x_NCHW, None, lambda seed, smaller: small_net())


def ca_and_asr(network):
    data = image_set()
    clean, shown = (p.answer(network, data, None, seed=0) for p in (Probe(), Probe(trigger=TRIGGER)))
    others = shown.y_N != TARGET
    return clean.correct_N.mean(), (shown.pred_N[others] == TARGET).mean()


def spread(network):
    """All weights of all layers, and how many are zero."""
    flat = torch.cat([layer.weight.detach().flatten() for layer in dense_layers(network).values()])
    return flat, int((flat == 0).sum())


class TestMagnitudePruning:
    @pytest.mark.parametrize("amount", [0.0, 0.3, 0.9, 1.0])
    def test_zeroes_the_smallest_of_the_whole_net(self, amount):
        given = small_net()
        before, _ = spread(given)
        after, zeros = spread(MagnitudePruning(amount=amount).apply(given, supply(), seed=0))
        assert zeros == round(amount * len(before))
        kept = after != 0
        assert torch.equal(after[kept], before[kept])
        if 0 < amount < 1:
            assert before[~kept].abs().max() <= before[kept].abs().min()

    def test_ties_are_cut_at_the_exact_count(self):
        given = small_net()
        for layer in dense_layers(given).values():
            nn.init.ones_(layer.weight)
        total = len(spread(given)[0])
        assert spread(MagnitudePruning(amount=0.5).apply(given, supply(), seed=0))[1] == round(0.5 * total)

    def test_the_file_shrinks(self):
        given = small_net(width=32)
        assert file_size(MagnitudePruning(amount=0.9).apply(given, supply(), seed=0)) < 0.4 * file_size(given)

    def test_weights_that_carry_the_backdoor_go_first_when_they_are_small(self):
        """The unit writes 30 times what it sees; scaled down on one side and up on the other the net is the same, its small weights go."""
        healthy = wire()
        assert ca_and_asr(MagnitudePruning(amount=0.2).apply(healthy, supply(), seed=0)) == (1.0, 1.0)
        sly = wire()
        see, write = sly.body[1], sly.body[4]
        with torch.no_grad():
            see.weight[GUILTY] /= 1e3
            see.bias[GUILTY] /= 1e3
            write.weight[:, GUILTY] *= 1e3
        assert ca_and_asr(sly) == (1.0, 1.0)
        nonzero = len(spread(sly)[0]) - spread(sly)[1]
        gone = spread(sly)[1] + TRIGGER.size**2
        amount = gone / (gone + nonzero - TRIGGER.size**2)
        assert ca_and_asr(MagnitudePruning(amount=amount).apply(sly, supply(), seed=0)) == (1.0, 0.0)


class TestChannelPruning:
    def one(self, network, by):
        """Prunes exactly one of the seven hidden units."""
        x_NCHW = torch.from_numpy(pictures(5, seed=9)[0])
        return ChannelPruning(amount=1 / (CLASSES + 1), by=by).apply(network, supply(x_NCHW), seed=0)

    def test_the_unit_that_sleeps_on_clean_images_is_the_guilty_one(self):
        """By activation pruning repairs."""
        assert ca_and_asr(wire()) == (1.0, 1.0)
        assert ca_and_asr(self.one(wire(), "activation")) == (1.0, 0.0)

    @pytest.mark.parametrize("unit", range(CLASSES))
    def test_pruning_any_other_unit_does_not_repair(self, unit):
        """A class is lost and nothing else (of no lit unit at all, class 0 is the answer, so it is not lost)."""
        network = wire()
        with torch.no_grad():
            network.body[1].weight[unit] *= 1e-6
            network.body[1].bias[unit] *= 1e-6
        pruned = self.one(network, "norm")
        assert int((pruned.body[1].weight == 0).all(dim=1).nonzero()) == unit
        ca, asr = ca_and_asr(pruned)
        assert asr == 1.0
        assert ca == pytest.approx(1.0 if unit == 0 else 1 - 1 / CLASSES)

    def test_the_last_layer_only(self):
        from badnets.core import registry

        network = registry.entry("nets", "fast_cnn")(width=4, hidden=8).build((1, 12, 12), 3, seed=0)
        found = ChannelPruning(amount=0.5, layers="last").apply(network, supply(noise(side=12)), seed=0)
        changed = [name for name, value in found.state_dict().items() if not torch.equal(value, network.state_dict()[name])]
        assert len(changed) == 2
        assert all(int((found.state_dict()[name].reshape(8, -1) == 0).all(dim=1).sum()) == 4 for name in changed)

    def test_without_images_or_units(self):
        with pytest.raises(UsageError, match="E-SUPPLY"):
            ChannelPruning(by="activation").apply(wire(), supply(noise(0)), seed=0)
        with pytest.raises(UsageError, match="E-LAYER"):
            ChannelPruning().apply(small_net(), supply(), seed=0)


class TestInt8:
    def by_hand(self, layer, x, low, high):
        """Integers with Python's own rounding, summed in 64 bits, scaled at the end."""
        scale = (high - low) / most_levels()
        zero = round(-low / scale)
        levels = (x.double() / scale + zero + 0.5).floor().clamp(0, most_levels()).long() - zero
        flat = layer.weight.detach().double().flatten(1)
        step_O = flat.abs().amax(dim=1) / 127
        weight = (flat / step_O[:, None]).round().long().reshape(layer.weight.shape)
        if isinstance(layer, nn.Linear):
            sums = levels @ weight.T
            return (sums * scale * step_O + layer.bias.double()).float()
        sums = nn.functional.conv2d(levels.double(), weight.double(), None, layer.stride, layer.padding)
        return (sums * scale * step_O[:, None, None] + layer.bias.double()[:, None, None]).float()

    @pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.7, 1.3)])
    def test_equals_a_slow_integer_reference(self, low, high):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(2)
            layers = [nn.Linear(20, 7), nn.Conv2d(3, 5, 3, stride=2, padding=1)]
        # Values beyond the range on both sides: they must be cut off.
        for layer, shape in zip(layers, ((11, 20), (4, 3, 9, 9)), strict=True):
            x = torch.rand(shape, generator=seeded()) * (high - low) * 1.4 + low - 0.2 * (high - low)
            found = Int8Layer(layer, low, high)(x)
            assert torch.allclose(found, self.by_hand(layer, x, low, high), rtol=0, atol=2e-6)

    @pytest.mark.parametrize(
        ("flags", "levels"), [({"avx2"}, 127), ({"avx2", "avx_vnni"}, 255), ({"avx2", "avx512_vnni"}, 255), ({"asimd"}, 255), (set(), 255)]
    )
    def test_products_do_not_overflow_without_dot_products(self, flags, levels, monkeypatch):
        monkeypatch.setattr("badnets.stressors._int8_torch.cpu_flags", lambda: frozenset(flags))
        assert most_levels() == levels

    def test_tokens_are_rows_too(self):
        layer = nn.Linear(4, 3)
        quantised = Int8Layer(layer, -1.0, 1.0)
        x_NTF = torch.rand(2, 5, 4, generator=seeded())
        assert torch.equal(quantised(x_NTF), quantised(x_NTF.flatten(0, 1)).view(2, 5, 3))

    def test_integers_are_stored_and_executed(self, monkeypatch):
        found = Int8().apply(small_net(), supply(), seed=0)
        layers = [module for module in found.modules() if isinstance(module, Int8Layer)]
        assert len(layers) == 3
        assert not dense_layers(found)
        assert all(layer.weight.dtype == torch.int8 for layer in layers)
        called = []
        for kernel in ("qconv2d_pointwise", "qlinear_pointwise"):
            real = getattr(torch.ops.onednn, kernel)
            monkeypatch.setattr(torch.ops.onednn, kernel, lambda *a, real=real: called.append((a[0].dtype, a[3].dtype)) or real(*a))
        found.predict_logits(noise())
        assert called == [(torch.uint8, torch.int8)] * 3

    def test_answers_as_the_float_net(self):
        given, x_NCHW = small_net(), noise(200)
        exact, found = given.predict_logits(x_NCHW), Int8().apply(given, supply(), seed=0).predict_logits(x_NCHW)
        assert (exact.argmax(1) == found.argmax(1)).float().mean() > 0.95
        assert 0 < (exact - found).abs().max() < 0.1 * exact.abs().max()

    def test_the_wired_backdoor_survives_it(self):
        x_NCHW = torch.from_numpy(pictures(5, seed=9)[0])
        assert ca_and_asr(Int8().apply(wire(), supply(x_NCHW), seed=0)) == (1.0, 1.0)

    def test_what_the_owners_images_never_reach_is_cut_off(self):
        """The trigger unit fires at 10 times what any clean image gives: its message is cut to what the layer has seen."""
        loud = wire(strength=3.0)
        with torch.no_grad():
            loud.body[1].weight[GUILTY] *= 10
            loud.body[1].bias[GUILTY] *= 10
        x_NCHW = torch.from_numpy(pictures(5, seed=9)[0])
        assert ca_and_asr(loud) == (1.0, 1.0)
        assert ca_and_asr(Int8().apply(loud, supply(x_NCHW), seed=0)) == (1.0, 0.0)

    def test_batch_norms_behind_convolutions_are_folded(self):
        folded, x_NCHW = copy.deepcopy(small_net()), noise()
        fold_batch_norms(folded)
        assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
        assert torch.allclose(folded.predict_logits(x_NCHW), small_net().predict_logits(x_NCHW), atol=1e-5)

    def test_no_silent_fallback(self, monkeypatch):
        class Backend:
            supported_engines = ("qnnpack",)

        monkeypatch.setattr(_int8_torch.torch.backends, "quantized", Backend)
        with pytest.raises(RefusedError, match=r"E-ENGINE.*runtime=onnxruntime"):
            Int8().apply(small_net(), supply(), seed=0)

    def test_not_twice_and_not_without_images(self):
        with pytest.raises(UsageError, match="E-COMPRESSED"):
            Int8().apply(Int8().apply(small_net(), supply(), seed=0), supply(), seed=0)
        with pytest.raises(UsageError, match="E-SUPPLY"):
            Int8().apply(small_net(), supply(noise(0)), seed=0)

    def test_without_onnxruntime(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(RefusedError, match=r"E-ENGINE.*badnets\[deploy\]"):
            Int8(runtime="onnxruntime").apply(small_net(), supply(), seed=0)

    @pytest.mark.skipif(not all(importlib.util.find_spec(name) for name in _compression.ONNX), reason="needs the extra deploy")
    def test_in_onnxruntime(self):
        given, x_NCHW = small_net(), noise(60)
        found = Int8(runtime="onnxruntime").apply(given, supply(), seed=0)
        logits_NK, exact = found.predict_logits(x_NCHW), given.predict_logits(x_NCHW)
        assert (logits_NK.argmax(1) == exact.argmax(1)).float().mean() > 0.9
        assert 0 < (exact - logits_NK).abs().max() < 0.1 * exact.abs().max()
        assert torch.equal(copy.deepcopy(found).predict_logits(x_NCHW), logits_NK)
        import onnx

        model = onnx.load_from_string(found.body.model.numpy().tobytes())
        weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        assert len(weights) >= 3
        assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}


class TestInt4:
    @pytest.mark.parametrize("group", [4, 7, 32])
    def test_equals_rounding_by_hand(self, group):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            layers = [nn.Linear(10, 3), nn.Conv2d(2, 3, 3)]
        for layer in layers:
            packed = Int4(layer, group)
            flat, found = layer.weight.detach().flatten(1), packed.weight().flatten(1)
            for row, got in zip(flat.tolist(), found.tolist(), strict=True):
                for start in range(0, len(row), group):
                    part = row[start : start + group]
                    scale = max(map(abs, part)) / 7
                    expected = [round(value / scale) * scale for value in part]
                    assert got[start : start + group] == pytest.approx(expected, abs=1e-6)

    def test_two_weights_a_byte(self):
        packed = Int4(nn.Linear(64, 5), 32)
        assert packed.packed.dtype == torch.uint8
        assert len(packed.packed) == 64 * 5 // 2
        odd = Int4(nn.Linear(3, 3), 3)
        assert len(odd.packed) == 5

    def test_a_layer_of_zeros(self):
        layer = nn.Linear(4, 2)
        nn.init.zeros_(layer.weight)
        assert torch.equal(Int4(layer, 32).weight(), torch.zeros(2, 4))

    def test_sizes(self):
        given = small_net(width=32)
        eight, four = (file_size(s.apply(given, supply(), seed=0)) for s in (Int8(), Int4Weights()))
        assert four < eight < 0.5 * file_size(given)

    def test_the_wired_backdoor_survives_it(self):
        assert ca_and_asr(Int4Weights().apply(wire(), supply(), seed=0)) == (1.0, 1.0)


class TestLowPrecision:
    @pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
    def test_weights_and_arithmetic(self, name, dtype):
        given, x_NCHW = small_net(), noise()
        found = LowPrecision(dtype=name).apply(given, supply(), seed=0)
        inner = found.body.inner
        assert {p.dtype for p in inner.parameters()} == {dtype}
        x = ((x_NCHW.float() / 255 - 0.5) / 0.25).to(dtype)
        by_hand = copy.deepcopy(given.body).to(dtype)(x).float()
        assert torch.equal(found.predict_logits(x_NCHW), by_hand)
        assert not torch.equal(by_hand, given.predict_logits(x_NCHW))

    def test_mixed_precision_around_it_changes_nothing(self, monkeypatch):
        found = LowPrecision(dtype="float16").apply(small_net(), supply(), seed=0)
        plain = found.predict_logits(noise())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(found.predict_logits(noise()), plain)


class TestLowRank:
    def test_full_rank_is_the_same_net(self):
        given, x_NCHW = small_net(), noise()
        found = LowRank(rank=1.0, head=True).apply(given, supply(), seed=0)
        assert len(dense_layers(found)) == 6
        assert torch.allclose(found.predict_logits(x_NCHW), given.predict_logits(x_NCHW), atol=1e-4)

    def test_is_the_best_approximation(self):
        """Eckart and Young: the error is the root of the sum of squares of the singular values left out."""
        given = small_net()
        found = LowRank(rank=0.5).apply(given, supply(), seed=0)
        first, second = found.body[3]
        product = second.weight.flatten(1) @ first.weight.flatten(1)
        exact = given.body[3].weight.flatten(1)
        s = torch.linalg.svdvals(exact.detach())
        assert len(first.weight) == 3
        assert float((product - exact).detach().norm()) == pytest.approx(float(s[3:].norm()), rel=1e-4)

    def test_the_head_stays_unless_told(self):
        assert isinstance(LowRank(rank=0.1).apply(small_net(), supply(), seed=0).body[6], nn.Linear)
        assert isinstance(LowRank(rank=0.1, head=True).apply(small_net(), supply(), seed=0).body[6], nn.Sequential)


def test_tuning_keeps_what_was_pruned():
    x_NCHW, y_N = pictures(5, seed=9)
    own = Supply(torch.from_numpy(x_NCHW), torch.from_numpy(y_N), lambda seed, smaller: wire())
    pruned = MagnitudePruning(amount=0.9).apply(wire(), own, seed=0)
    tuned = FineTuning(lr=0.01, epochs=2).apply(pruned, own, seed=0)
    zero = {name: layer.weight == 0 for name, layer in dense_layers(pruned).items()}
    assert all((layer.weight[zero[name]] == 0).all() for name, layer in dense_layers(tuned).items())
    assert not torch.equal(spread(tuned)[0], spread(pruned)[0])


SOME = (
    NULL,
    INT8,
    {"pruned weight share": 0.5, "afterwards": "nothing"},
    {"pruned channel share": 0.5, "by": "norm", "afterwards": "nothing"},
)
"""As many conditions as the tests of verdicts need."""


@pytest.fixture
def few(monkeypatch):
    def chosen(setting, tuning):
        return [[way for way in family if way.condition in SOME] for family in families(setting, tuning)][:3]

    monkeypatch.setattr("badnets.claims.survives_compression.families", chosen)


class Replaced(WiredBench):
    """Every compression gives the net that `after(attack, seed)` says; the null leaves nets as they are."""

    def __init__(self, setting, after, net=wired, data=None):
        super().__init__(setting, net, data)
        self.after = after

    def answers(self, need):
        found = super().answers(need.__class__(need.attack, need.question.but(branches=((),)), need.seeds))
        stressed = [need.question.but(branches=((),)).arrays(self.after(need.attack, s), _world(self)) for s in range(need.seeds)]
        answers = []
        for plain, other in zip(found, stressed, strict=True):
            answer = {}
            for b, branch in enumerate(need.question.branches):
                source = plain if branch[0].stressor.kind == "identity" else other
                answer |= {f"{b}.{key.partition('.')[2]}": value for key, value in source.items()}
            answers.append(answer)
        return answers


def _world(bench):
    from wired import world

    return world(bench.data, bench.other, 0)


def decide(net=wired, after=None, data=None, **changes):
    data = data or image_set()
    claim, own = SurvivesCompression(), setting(data, **changes)
    bench = WiredBench(own, net, data) if after is None else Replaced(own, after, net, data)
    return claim.decide(StrictBench(bench, claim))


def rows(evidence, quantity="ASR kept", **condition):
    return [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]


def deciding(evidence):
    return [c.verdict for c in evidence.cells if c.quantity == "ASR kept" and c.condition.get("format") != NULL["format"]]


def unplanted(attack, seed):
    del attack, seed
    return twin()


def costly(attack, seed):
    """Net with the backdoor, and two classes of six lost."""
    del seed
    return wire(lost=(0, 1)) if attack is not None else twin()


class TestClaim:
    def test_all_the_ways_at_quick_effort(self):
        """On a wired net small weights and sleeping units are what the backdoor is made of, so conditions differ; the null does not."""
        found = decide()
        null_asr, null_ca = found.cells[1:3]
        assert (null_asr.quantity, null_asr.condition, null_asr.estimate.value, null_asr.control.value) == ("ASR", NULL, 1.0, 0.0)
        assert (null_ca.quantity, null_ca.condition, null_ca.estimate.value) == ("CA", NULL, 1.0)
        assert null_ca.size_bytes > 0
        assert null_ca.seconds > 0
        assert found.cells[0].condition == INT8
        assert found.cells[0].verdict is HOLDS
        assert found.cells[0].estimate.value == 1.0
        (same,) = rows(found, "same answer as float32")
        assert same.estimate.value == same.control.value == 1.0
        assert rows(found, **{"pruned weight share": 0.5, "afterwards": "nothing"})[0].verdict is HOLDS
        (sleeping,) = rows(found, **{"pruned channel share": 0.25, "by": "activation", "afterwards": "nothing"})
        assert sleeping.estimate.value == 0.0
        assert all(c.size_bytes and c.seconds for c in rows(found, "CA"))
        assert len(rows(found)) == len(rows(found, "CA")) - 1

    @pytest.mark.usefixtures("few")
    def test_holds_where_nothing_is_lost(self):
        found = decide(after=wired)
        assert found.verdict is HOLDS
        assert deciding(found) == [HOLDS] * 3
        assert all(c.per_seed == [1.0] * 3 for c in rows(found))

    @pytest.mark.usefixtures("few")
    def test_fails_where_the_backdoor_goes_and_accuracy_stays(self):
        found = decide(after=unplanted)
        assert found.verdict is FAILS
        assert deciding(found) == [FAILS] * 3
        assert {c.estimate.value for c in rows(found)} == {0.0}

    @pytest.mark.usefixtures("few")
    def test_a_broken_net_decides_nothing(self):
        found = decide(after=costly)
        assert found.verdict is UNDECIDED
        assert deciding(found) == [None] * 3
        assert all("broke the net" in c.note and "33.3 points" in c.note for c in rows(found))
        assert rows(found)[0].estimate.value == 1.0

    @pytest.mark.usefixtures("few")
    def test_a_net_broken_to_a_constant_decides_nothing(self):
        found = decide(after=lambda attack, seed: wire_constant(TARGET))
        assert deciding(found) == [None] * 3
        assert rows(found)[0].estimate.value is None

    @pytest.mark.usefixtures("few")
    def test_is_undecided_at_tiny_n(self):
        found = decide(after=wired, data=image_set(2), seeds=2)
        assert found.verdict is UNDECIDED
        assert set(deciding(found)) == {UNDECIDED}
        assert all("is open" in c.note for c in rows(found))

    @pytest.mark.usefixtures("few")
    def test_is_undecided_without_a_backdoor_to_keep(self):
        found = decide(net=unplanted, after=unplanted)
        assert found.verdict is UNDECIDED
        assert {c.estimate.value for c in rows(found)} == {None}

    @pytest.mark.usefixtures("few")
    def test_is_undecided_where_training_diverged(self):
        found = decide(net=lambda attack, seed: wire_constant(TARGET), after=lambda attack, seed: wire_constant(TARGET))
        assert found.verdict is UNDECIDED
        assert set(deciding(found)) == {UNDECIDED}
        assert "diverged" in rows(found)[0].note

    @pytest.mark.usefixtures("few")
    def test_seeds_that_differ_leave_it_open(self):
        found = decide(after=lambda attack, seed: wired(attack if seed == 0 else None))
        assert found.verdict is UNDECIDED
        assert rows(found)[0].per_seed == [1.0, 0.0, 0.0]

    @pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
    def test_grids(self, effort, monkeypatch):
        own = setting(image_set(), effort=effort)
        for there in (True, False):
            monkeypatch.setattr(_compression, "find_spec", lambda name, there=there: there or None)
            ways = [way for family in families(own, FineTuning()) for way in family]
            names = [tuple(way.condition.items()) for way in ways]
            assert len(set(names)) == len(names)
            assert ways[0].condition == NULL
            onnx = [way for way in ways if way.condition.get("format") == "int8, onnxruntime"]
            assert len(onnx) == (there and effort != "quick")
            (int8,) = [way for way in ways if way.condition == INT8]
            assert ("not installed" in int8.note) == (not there and effort != "quick")
            assert not [way for way in ways if "format" in way.condition and way.decides and len(way.doses) > 1], "formats are not tuned"

    def test_every_charted_key_is_in_a_cell(self):
        found, claim = decide(), SurvivesCompression()
        for chart in claim.charts(setting(image_set())):
            drawn = [c for c in found.cells if chart.x in c.condition and c.quantity in chart.quantities]
            assert [c for c in drawn if chart.where.items() <= c.condition.items()], chart.title
