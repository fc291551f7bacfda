"""Reading, masking, patching, projecting and pruning inside every net of the catalogue; nothing is left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from badnets.core import registry
from badnets.core.errors import UsageError
from badnets.core.rng import generator
from badnets.nets import _taps
from badnets.nets._base import Net, Network

SMALL = {
    "fast_cnn": {"width": 4, "hidden": 12},
    "fast_resnet": {"width": 4},
    "paper_cnn": {},
    "preact_resnet18": {"width": 4},
    "small_vit": {"width": 16, "depth": 2, "heads": 2},
    "layered": {},
    "vit": {"width": 16, "hidden": 24, "depth": 2, "heads": 2},
}
SHAPE = (2, 16, 16)
NAMES = registry.names("nets")


def build(name: str) -> Network:
    """A small net with norms that are not at their start, so that their affine parts matter."""
    net = registry.parse("nets", name).but(**SMALL[name])
    assert isinstance(net, Net)
    network = net.build(SHAPE, 4, seed=1)
    draw = generator(0, "norms")
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            for parameter in (module.weight, module.bias):
                parameter.data.copy_(torch.rand(parameter.shape, generator=draw) + 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(module.num_features, generator=draw) - 0.5)
            module.running_var.copy_(torch.rand(module.num_features, generator=draw) + 0.5)
    return network


def images(num: int, stream: str = "images") -> torch.Tensor:
    return torch.randint(0, 256, (num, *SHAPE), dtype=torch.uint8, generator=generator(0, stream))


def some_units(count: int) -> list[int]:
    return [1, count - 1]


def no_hooks(network: nn.Module) -> bool:
    return all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


def test_every_net_of_the_catalogue_is_here():
    assert SMALL.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_zeroed_units_equal_the_masked_net(name):
    x = images(3)
    for layer, count in _taps.unit_layers(build(name)).items():
        network = build(name)
        plain, units = network.predict_logits(x), some_units(count)
        mask = torch.ones(count)
        mask[units] = 0
        with _taps.masked(network, {layer: mask}):
            expected = network.predict_logits(x)
        _taps.zero_units(network, layer, units)
        torch.testing.assert_close(network.predict_logits(x), expected)
        assert not torch.allclose(expected, plain)
        assert no_hooks(network)
        assert not network.training


def test_zeroing_removes_the_convolution_under_a_norm_and_nothing_else():
    network = build("fast_resnet")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _taps.zero_units(network, "body.0.3", torch.tensor([2]))
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"body.0.0.weight", "body.0.1.weight", "body.0.1.bias"}
    assert not network.state_dict()["body.0.0.weight"][2].any()
    assert network.state_dict()["body.0.0.weight"][[0, 1, 3]].all()


def test_the_stem_that_a_shortcut_reads_is_not_zeroed():
    network = build("preact_resnet18")
    stem = network.body[0].weight.clone()
    _taps.zero_units(network, "body.1.units1", [0])
    assert torch.equal(network.body[0].weight, stem)


def test_zeroing_nothing_changes_nothing_and_the_training_mode_is_kept():
    network = build("fast_resnet").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _taps.zero_units(network, "body.0.3", [])
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_cannot_be_zeroed_is_refused():
    network = build("fast_cnn")
    layer = next(iter(_taps.unit_layers(network)))
    with pytest.raises(UsageError, match="E-LAYER"):
        _taps.zero_units(network, layer + "0", [0])
    with pytest.raises(UsageError, match="E-MASK"):
        _taps.zero_units(network, layer, [4])
    odd = Network(
        nn.Sequential(nn.Flatten(), nn.Linear(512, 6), nn.GLU(), _taps.Units(3), nn.Linear(3, 4)), SHAPE, 4, mean=[0, 0], std=[1, 1]
    )
    with pytest.raises(UsageError, match="not made by one"):
        _taps.zero_units(odd, "body.3", [0])


@pytest.mark.parametrize("name", NAMES)
def test_a_swap_to_its_own_activations_is_nothing_and_to_zero_is_a_mask(name):
    network, x = build(name), images(3)
    plain = network.predict_logits(x)
    layers = _taps.unit_layers(network)
    own = _taps.record(network, layers, x)
    for layer, count in layers.items():
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[some_units(count)] = True
        with _taps.swapped(network, {layer: _taps.Swap(chosen, own[layer])}):
            torch.testing.assert_close(network.predict_logits(x), plain)
        with _taps.masked(network, {layer: (~chosen).float()}):
            expected = network.predict_logits(x)
        with _taps.swapped(network, {layer: _taps.Swap(chosen, torch.zeros(count))}):
            torch.testing.assert_close(network.predict_logits(x), expected)
    assert no_hooks(network)


@pytest.mark.parametrize("name", NAMES)
def test_patching_puts_in_what_other_images_gave(name):
    network, x, donor = build(name), images(3), images(3, "donors")
    layers = _taps.unit_layers(network)
    layer, count = list(layers.items())[len(layers) // 2]
    given, own = _taps.record(network, [layer], donor)[layer], _taps.record(network, [layer], x)[layer]
    chosen = torch.arange(count) % 2 == 0
    with _taps.swapped(network, {layer: _taps.Swap(chosen, given)}):
        seen = _taps.record(network, [layer], x)[layer]
    torch.testing.assert_close(seen[:, chosen], given[:, chosen])
    torch.testing.assert_close(seen[:, ~chosen], own[:, ~chosen])


@pytest.mark.parametrize("name", NAMES)
def test_all_units_of_the_last_layer_patched_give_the_donors_answer(name):
    """Holds where everything passes the layer: not in residual nets with a skip around it."""
    network, x, donor = build(name), images(3), images(3, "donors")
    layers = _taps.unit_layers(network)
    last, count = list(layers.items())[-1]
    everything = torch.ones(count, dtype=torch.bool)
    given = _taps.record(network, [last], donor)[last]
    with _taps.swapped(network, {last: _taps.Swap(everything, given)}):
        seen = network.predict_logits(x)
    same = torch.allclose(seen, network.predict_logits(donor), atol=1e-5)
    assert same == (name != "fast_resnet")


@pytest.mark.parametrize("name", NAMES)
def test_after_projection_nothing_differs_along_the_direction(name):
    network, x = build(name), images(3)
    for layer, count in _taps.unit_layers(network).items():
        draw = generator(0, "direction", layer)
        axis = _taps.Axis(5 * torch.randn(count, generator=draw), torch.randn(count, generator=draw))
        own = _taps.record(network, [layer], x)[layer].movedim(1, -1)
        with _taps.projected(network, {layer: axis}):
            seen = _taps.record(network, [layer], x)[layer].movedim(1, -1)
        d = axis.direction_C / axis.direction_C.norm()
        assert torch.allclose(seen @ d, (axis.centre_C @ d).expand(seen.shape[:-1]), atol=1e-4)
        across = torch.linalg.qr(torch.cat([d[:, None], torch.randn(count, 1, generator=draw)], dim=1))[0][:, 1]
        torch.testing.assert_close(seen @ across, own @ across, atol=1e-4, rtol=1e-4)
    assert no_hooks(network)


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_after_a_layer_gives_the_same_logits_edited_and_not(name):
    network, x = build(name), images(3)
    for layer, count in _taps.unit_layers(network).items():
        with torch.inference_mode():
            rest, entered = _taps.rest_after(network, layer, x)
            torch.testing.assert_close(rest(entered), network(x))
            mask = (torch.arange(count) % 2).float()
            with _taps.masked(network, {layer: mask}):
                torch.testing.assert_close(rest(entered), network(x))
    assert no_hooks(network)


def test_the_rest_of_a_sequential_runs_nothing_before_the_layer():
    network = build("fast_cnn")
    last = list(_taps.unit_layers(network))[-1]
    rest, entered = _taps.rest_after(network, last, images(3))
    assert tuple(entered.shape) == (3, 12)
    assert [type(m).__name__ for m in rest] == ["Units", "Linear"]


def test_incoming_weights_carry_the_norms_factor():
    network = build("fast_resnet")
    conv, norm = network.body[0][0], network.body[0][1]
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(_taps.incoming(network, "body.0.3"), (conv.weight * factor[:, None, None, None]).detach())
    cnn = build("fast_cnn")
    hidden = list(_taps.unit_layers(cnn))[-1]
    assert torch.equal(_taps.incoming(cnn, hidden), cnn.body[-4].weight)
    preact = build("preact_resnet18")
    norm = preact.body[1].norm1
    torch.testing.assert_close(_taps.incoming(preact, "body.1.units1"), (norm.weight / (norm.running_var + norm.eps).sqrt()).detach())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_say_what_a_small_change_does(name):
    network, x = build(name), images(2)
    layers = _taps.unit_layers(network)
    layer, count = list(layers.items())[-1]
    values, grads, of_pixels = _taps.gradients(network, layers, x, lambda logits: logits[:, 1].sum())
    assert of_pixels.shape == x.shape
    assert all(values[n].shape == grads[n].shape for n in layers)
    with torch.no_grad():
        everything = torch.ones(count, dtype=torch.bool)
        bumped = [values[layer] + sign * 1e-2 * grads[layer] / grads[layer].norm() for sign in (1, -1)]
        up, down = [_score_with(network, layer, everything, value, x) for value in bumped]
    assert (up - down) / 2e-2 == pytest.approx(float(grads[layer].norm()), rel=2e-2)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert no_hooks(network)


def _score_with(network, layer, everything, value, x):
    with _taps.swapped(network, {layer: _taps.Swap(everything, value)}):
        return float(network(x)[:, 1].double().sum())


def test_wrong_edits_are_refused_and_leave_no_hook():
    network = build("fast_cnn")
    layer = next(iter(_taps.unit_layers(network)))
    with (
        pytest.raises(UsageError, match="E-MASK"),
        _taps.swapped(network, {layer: _taps.Swap(torch.ones(3, dtype=torch.bool), torch.zeros(3))}),
    ):
        pass
    with pytest.raises(UsageError, match="E-MASK"), _taps.projected(network, {layer: _taps.Axis(torch.ones(3), torch.ones(3))}):
        pass
    with pytest.raises(UsageError, match="E-LAYER"), _taps.projected(network, {"no": _taps.Axis(torch.ones(3), torch.ones(3))}):
        pass
    assert no_hooks(network)
