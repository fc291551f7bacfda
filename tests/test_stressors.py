"""The contract of every stressor: the given net stays as it was to the bit, a new net comes back, the same seed gives the same bits."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from badnets.core import registry
from badnets.core.config import Config, canonical
from badnets.core.errors import UsageError
from badnets.nets._weights import to_bytes
from badnets.stressors._base import Stressor, Supply

torch.set_num_threads(1)

SHAPE, CLASSES = (3, 12, 12), 4
NETS = {
    "fast_cnn": {"width": 4, "hidden": 8},
    "paper_cnn": {},
    "fast_resnet": {"width": 4},
    "preact_resnet18": {"width": 4},
    "small_vit": {"width": 8, "depth": 2, "heads": 2},
    "layered": {},
    "vit": {"width": 8, "hidden": 16, "depth": 2, "heads": 2},
}
STRESSORS = registry.names("stressors")
SHORT = {"epochs": 1, "batch_size": 8}
"""Whatever trains does so for one epoch here."""


def stressor(name) -> Stressor:
    found = registry.entry("stressors", name)
    return found(**{field: value for field, value in SHORT.items() if field in found.model_fields})


def fresh(name, seed, smaller):
    config = registry.entry("nets", name)(**NETS[name])
    return (config.smaller() if smaller else config).build(SHAPE, CLASSES, seed=seed)


@functools.cache
def net(name):
    return fresh(name, 0, smaller=False)


@functools.cache
def images(count=24):
    draw = np.random.default_rng(0)
    x_NCHW = torch.from_numpy(draw.integers(0, 256, (count, *SHAPE), dtype=np.uint8))
    return x_NCHW, torch.arange(count) % CLASSES


def supply(name):
    x_NCHW, y_N = images()
    return Supply(x_NCHW, y_N, lambda seed, smaller: fresh(name, seed, smaller))


def state(network):
    return to_bytes(network), network.training, [p.requires_grad for p in network.parameters()]


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_nets_are_all_there():
    assert set(NETS) == set(registry.names("nets"))


@pytest.mark.parametrize("name", STRESSORS)
@pytest.mark.parametrize("net_name", NETS)
def test_contract(name, net_name):
    given, own, x_NCHW = net(net_name), supply(net_name), images()[0]
    before, pixels, labels, luck = state(given), own.x_NCHW.clone(), own.y_N.clone(), torch.get_rng_state()
    first = stressor(name).apply(given, own, seed=3)
    assert state(given) == before, "the given net was changed"
    assert torch.equal(own.x_NCHW, pixels)
    assert torch.equal(own.y_N, labels)
    assert torch.equal(torch.get_rng_state(), luck), "the caller's random state was used"
    assert first is not given
    shared = {p.data_ptr() for p in given.parameters()} & {p.data_ptr() for p in first.parameters()}
    assert not shared, "the new net shares memory with the given one"
    assert not any(module.training for module in first.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in first.modules())
    logits_NK = first.predict_logits(x_NCHW)
    assert logits_NK.shape == (len(x_NCHW), first.num_classes)
    assert logits_NK.dtype == torch.float32
    assert torch.isfinite(logits_NK).all()
    assert not logits_NK.requires_grad
    again = stressor(name).apply(given, own, seed=3)
    assert same_weights(first.state_dict(), again.state_dict())
    assert torch.equal(again.predict_logits(x_NCHW), logits_NK)


@pytest.mark.parametrize("name", STRESSORS)
def test_a_new_net_can_be_copied_and_weighed(name):
    """What the next stressor in a row does first, and what tells the size of its file."""
    import copy

    found = stressor(name).apply(net("fast_cnn"), supply("fast_cnn"), seed=3)
    x_NCHW = images()[0]
    logits_NK = found.predict_logits(x_NCHW)
    assert torch.equal(copy.deepcopy(found).predict_logits(x_NCHW), logits_NK)
    assert len(to_bytes(found)) > 100


@pytest.mark.parametrize("net_name", NETS)
def test_identity_changes_nothing(net_name):
    given, x_NCHW = net(net_name), images()[0]
    found = stressor("identity").apply(given, supply(net_name), seed=0)
    assert same_weights(found.state_dict(), given.state_dict())
    assert torch.equal(found.predict_logits(x_NCHW), given.predict_logits(x_NCHW))


@pytest.mark.parametrize("name", STRESSORS)
def test_travels_as_json(name):
    import json

    found = stressor(name)
    assert isinstance(found, Config)
    assert registry.parse("stressors", json.loads(canonical(found))) == found
    with pytest.raises(UsageError, match="E-CONFIG"):
        type(found)(no_such_field=1)


@pytest.mark.parametrize("name", STRESSORS)
def test_other_nets_than_identity_do_something(name):
    """None is the identity in disguise."""
    given = net("fast_cnn")
    found = stressor(name).apply(given, supply("fast_cnn"), seed=3)
    assert same_weights(found.state_dict(), given.state_dict()) == (name == "identity")
