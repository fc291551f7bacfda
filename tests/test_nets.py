"""Contract tests over every net: any size, any classes, seeds, weights, units, independence from batch size."""

import json

import pytest
import safetensors.torch
import torch
from torch.nn.functional import cross_entropy

from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.nets import _taps
from badnets.nets._base import Net
from badnets.nets._weights import from_bytes, read_metadata, to_bytes

torch.set_num_threads(1)

NAMES = registry.names("nets")
SMALLER = {
    "preact_resnet18": {"width": 8},
    "fast_resnet": {"width": 8},
    "small_vit": {"width": 32, "depth": 2},
    "vit": {"width": 32, "depth": 2},
}


def net_of(name: str) -> Net:
    return registry.entry("nets", name)(**SMALLER.get(name, {}))


def images(num: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def same_state(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_the_catalogue_has_the_nets_of_the_design():
    assert {"fast_cnn", "fast_resnet", "paper_cnn", "preact_resnet18", "small_vit"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_kind_is_the_file_name_and_the_docstring_has_a_first_line(name):
    net = registry.entry("nets", name)()
    assert net.kind == name
    assert len(registry.describe("nets", name)) > 20
    assert registry.parse("nets", net.model_dump()) == net


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "num_classes"), [((1, 8, 8), 2), ((1, 28, 28), 10), ((3, 32, 32), 43), ((3, 48, 48), 10), ((2, 9, 13), 3), ((4, 33, 21), 2)]
)
def test_any_size_channels_and_classes(name, shape, num_classes):
    network = net_of(name).build(shape, num_classes, seed=1)
    logits = network.predict_logits(images(3, shape))
    assert logits.shape == (3, num_classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert len(logits.unique()) > 1


@pytest.mark.parametrize("name", NAMES)
def test_default_settings_build_and_answer(name):
    network = registry.entry("nets", name)().build((3, 32, 32), 10, seed=0)
    assert network.predict_logits(images(1, (3, 32, 32))).shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits_other_seed_other_bits_and_global_state_untouched(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = net_of(name).build((1, 12, 12), 4, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same_state(first, net_of(name).build((1, 12, 12), 4, seed=7))
    other = net_of(name).build((1, 12, 12), 4, seed=8).state_dict()
    assert all(not torch.equal(v, other[k]) for k, v in first.state_dict().items() if v.ndim >= 2)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    network = net_of(name).build((3, 16, 16), 5, seed=0).train()
    cross_entropy(network(images(8, (3, 16, 16))), torch.arange(8) % 5).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_does_not_depend_on_the_batch_size_or_leave_a_trace(name):
    network = net_of(name).build((1, 28, 28), 10, seed=0).train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    x = images(7, (1, 28, 28))
    whole = network.predict_logits(x)
    torch.testing.assert_close(network.predict_logits(x, batch_size=2), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.predict_logits(x.flip(0), batch_size=3).flip(0), whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(network.predict_logits(x), whole)
    assert network.training
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert network.predict_logits(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("name", NAMES)
def test_8_bit_pixels_and_their_floats_in_0_1_are_the_same_input(name):
    network = net_of(name).build((1, 10, 10), 3, seed=0, mean=[0.3], std=[0.2])
    x = images(4, (1, 10, 10))
    with torch.no_grad():
        assert torch.equal(network(x), network(x.float() / 255))


def test_mean_and_deviation_normalise_the_input():
    x = images(4, (1, 10, 10))
    plain = net_of("fast_cnn").build((1, 10, 10), 3, seed=0, mean=[0.0], std=[1.0])
    moved = net_of("fast_cnn").build((1, 10, 10), 3, seed=0, mean=[0.25], std=[0.5])
    with torch.no_grad():
        torch.testing.assert_close(moved(x), plain.body((x / 255 - 0.25) / 0.5))


@pytest.mark.parametrize(
    ("shape", "num_classes", "more", "code"),
    [
        ((1, 7, 28), 10, {}, "E-SHAPE"),
        ((0, 28, 28), 10, {}, "E-SHAPE"),
        ((1, 28, 28), 1, {}, "E-CLASSES"),
        ((3, 28, 28), 10, {"mean": [0.5]}, "E-NORM"),
        ((1, 28, 28), 10, {"mean": [0.5], "std": [0.0]}, "E-NORM"),
    ],
)
def test_impossible_builds_are_refused(shape, num_classes, more, code):
    with pytest.raises(UsageError) as caught:
        net_of("fast_cnn").build(shape, num_classes, seed=0, **more)
    assert caught.value.code == code


@pytest.mark.parametrize("size", [*range(8, 30), 32, 48, 64])
def test_strides_leave_no_pixel_unseen(size):
    network = net_of("fast_cnn").build((1, size, 9), 2, seed=0)
    for parameter in network.parameters():
        parameter.data.fill_(0.1)
    x = torch.full((1, 1, size, 9), 0.75, requires_grad=True)
    network(x)[0, 0].backward()
    assert (x.grad > 0).all()


# ---- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_record_gives_what_a_plain_hook_sees_and_leaves_no_hook(name):
    network = net_of(name).build((3, 16, 16), 5, seed=0)
    layers, x = _taps.unit_layers(network), images(2, (3, 16, 16))
    assert layers
    seen = _taps.record(network, layers, x)
    assert {key: value.shape[1] for key, value in seen.items()} == layers
    first = next(iter(layers))
    module = network.get_submodule(first)
    got = []
    handle = module.register_forward_hook(lambda m, i, o: got.append(o.detach().movedim(m.axis, 1)))
    with torch.no_grad():
        network(x)
    handle.remove()
    assert torch.equal(got[0], seen[first])
    assert all(not m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_masks_act_on_the_named_units_only_and_only_within_the_context(name):
    network, x = net_of(name).build((3, 16, 16), 5, seed=0), images(2, (3, 16, 16))
    plain = network.predict_logits(x)
    for layer, count in _taps.unit_layers(network).items():
        mask = torch.ones(count)
        with _taps.masked(network, {layer: mask}):
            torch.testing.assert_close(network.predict_logits(x), plain)
        mask[1] = 0
        with _taps.masked(network, {layer: mask}):
            after = _taps.record(network, [layer], x)[layer]
        before = _taps.record(network, [layer], x)[layer]
        assert not after[:, 1].any()
        kept = mask.bool()
        torch.testing.assert_close(after[:, kept], before[:, kept])
        with _taps.masked(network, {layer: torch.zeros(count)}):
            assert not torch.allclose(network.predict_logits(x), plain)
    assert torch.equal(network.predict_logits(x), plain)


def test_a_mask_by_hand_equals_the_masked_net():
    network = net_of("fast_cnn").build((1, 12, 12), 3, seed=0)
    x, last = images(5, (1, 12, 12)), list(_taps.unit_layers(network))[-1]
    hidden = _taps.record(network, [last], x)[last]
    mask = (torch.arange(hidden.shape[1]) % 2).float()
    linear = network.body[-1]
    with _taps.masked(network, {last: mask}):
        torch.testing.assert_close(network.predict_logits(x), ((hidden * mask) @ linear.weight.T + linear.bias).detach())


def test_unknown_layers_and_wrong_masks_are_refused_and_leave_no_hook():
    network = net_of("fast_cnn").build((1, 12, 12), 3, seed=0)
    layer = next(iter(_taps.unit_layers(network)))
    with pytest.raises(UsageError, match="Did you mean 'body") as caught:
        _taps.record(network, [layer, layer + "0"], images(1, (1, 12, 12)))
    assert caught.value.code == "E-LAYER"
    with pytest.raises(UsageError, match="E-MASK"), _taps.masked(network, {layer: torch.ones(3)}):
        pass
    assert all(not m._forward_hooks for m in network.modules())


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_weights_round_trip_with_metadata_and_equal_bytes(name):
    net, x = net_of(name), images(3, (1, 14, 14))
    network = net.build((1, 14, 14), 4, seed=3, mean=[0.2], std=[0.3])
    data = to_bytes(network, {"badnets.planted": "true", "a": "ü"})
    back = from_bytes(data, net, (1, 14, 14), 4)
    assert same_state(network, back)
    assert torch.equal(network.predict_logits(x), back.predict_logits(x))
    assert [p.stride() for p in network.parameters()] == [p.stride() for p in back.parameters()]
    assert read_metadata(data) == {"badnets.planted": "true", "a": "ü"}
    assert to_bytes(back, {"a": "ü", "badnets.planted": "true"}) == data
    assert safetensors.torch.load(data).keys() == network.state_dict().keys()


def tampered(change):
    tensors = dict(net_of("fast_cnn").build((1, 12, 12), 3, seed=0).state_dict())
    change(tensors)
    return safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()})


def first_weight(tensors):
    return next(k for k in tensors if k.endswith("weight"))


def poke(value):
    def change(tensors):
        key = first_weight(tensors)
        tensors[key] = tensors[key].clone()
        tensors[key][0, 0, 0, 0] = value

    return change


CASES = {
    "missing key": lambda t: t.pop(first_weight(t)),
    "unexpected key": lambda t: t.update(extra=torch.zeros(1)),
    "renamed key": lambda t: t.update(renamed=t.pop(first_weight(t))),
    "wrong shape": lambda t: t.update({first_weight(t): torch.zeros(1, 2, 3, 4)}),
    "transposed": lambda t: t.update({first_weight(t): t[first_weight(t)].transpose(0, 1)}),
    "wrong dtype": lambda t: t.update({first_weight(t): t[first_weight(t)].half()}),
    "nan": poke(float("nan")),
    "infinity": poke(float("inf")),
    "nan in the normalisation": lambda t: t.update(mean=torch.tensor([float("nan")])),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_that_do_not_fit_are_refused(case):
    data = tampered(CASES[case])
    with pytest.raises(RefusedError) as caught:
        from_bytes(data, net_of("fast_cnn"), (1, 12, 12), 3)
    assert caught.value.code == "E-WEIGHTS"
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"12345", b"\x08" + b"\0" * 7 + b"notjson!", b"\xff" * 64, json.dumps({"a": 1}).encode()])
def test_bytes_that_are_no_safetensors_are_refused(data):
    for read in (read_metadata, lambda d: from_bytes(d, net_of("fast_cnn"), (1, 12, 12), 3)):
        with pytest.raises(RefusedError, match="E-WEIGHTS"):
            read(data)


def test_truncated_weights_are_refused():
    data = to_bytes(net_of("fast_cnn").build((1, 12, 12), 3, seed=0))
    for cut in (7, 8, 100, len(data) - 1):
        with pytest.raises(RefusedError, match="E-WEIGHTS"):
            from_bytes(data[:cut], net_of("fast_cnn"), (1, 12, 12), 3)


def test_weights_of_other_classes_or_size_are_refused():
    data = to_bytes(net_of("fast_cnn").build((1, 12, 12), 3, seed=0))
    for shape, num_classes in (((1, 12, 12), 4), ((1, 28, 28), 3), ((3, 12, 12), 3)):
        with pytest.raises(RefusedError, match="E-WEIGHTS"):
            from_bytes(data, net_of("fast_cnn"), shape, num_classes)
