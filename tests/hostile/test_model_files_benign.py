"""Honest model files: what torch and safetensors write themselves is read, every number as they read it; and what was chosen is said."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from making import Zip, checkpoint, parts, pickled, table, tensor
from torch import nn

from badnets.intake.formats import read_weights
from badnets.nets._weights import to_bytes
from badnets.nets.fast_cnn import FastCnn
from badnets.nets.fast_resnet import FastResnet


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def tied():
    first = nn.Linear(4, 4)
    both = nn.Sequential(first, nn.Linear(4, 4))
    both[1].weight = first.weight
    return both


def everything():
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    return {str(kind): torch.arange(12).reshape(3, 4).to(kind) for kind in kinds}


def pieces():
    flat = torch.arange(12.0)
    return {"a": flat[:4], "b": flat[4:10].view(2, 3), "scalar": flat[10], "empty": flat[:0], "t": torch.arange(6.0).view(2, 3).t()}


def averaged():
    old, new = net().state_dict(), {k: v + 1 for k, v in net().state_dict().items()}
    return {"epoch": 3, "state_dict": old, "state_dict_ema": new, "best": torch.tensor(0.5)}


def trained():
    """As an optimizer would leave it; making one takes torch seconds of imports."""
    state = net().state_dict()
    moments = {i: {"step": torch.tensor(1.0), "exp_avg": torch.ones_like(value)} for i, value in enumerate(state.values())}
    groups = [{"lr": 0.001, "betas": (0.9, 0.999), "amsgrad": False, "foreach": None, "params": list(range(len(state)))}]
    return {"model_state_dict": state, "optimizer": {"state": moments, "param_groups": groups}, "step": 1}


STATES = {
    "state dict": lambda: net().state_dict(),
    "channels last": lambda: net().to(memory_format=torch.channels_last).state_dict(),
    "half": lambda: net().half().state_dict(),
    "bfloat16": lambda: net().bfloat16().state_dict(),
    "double": lambda: net().double().state_dict(),
    "every type": everything,
    "slices of one storage": pieces,
    "tied weights": lambda: tied().state_dict(),
    "data parallel": lambda: nn.DataParallel(net()).state_dict(),
    "plain dict": lambda: dict(net().state_dict()),
    "parameters": lambda: OrderedDict(net().named_parameters()),
    "checkpoint": lambda: {"epoch": 3, "state_dict": net().state_dict(), "lr": 0.1, "names": ["a", "b"], "none": None},
    "checkpoint with optimizer": trained,
    "averaged copy": averaged,
    "checkpoint in model": lambda: {"model": net().state_dict(), "args": {"width": 4}},
    "compiled and parallel": lambda: {f"module._orig_mod.{k}": v for k, v in net().state_dict().items()},
    "catalogue net": lambda: FastCnn(width=2, hidden=4).build((1, 8, 8), 3, seed=0).state_dict(),
    "catalogue residual net": lambda: FastResnet(width=2).build((3, 8, 8), 3, seed=0).state_dict(),
}
INSIDE = {
    "checkpoint": "state_dict",
    "checkpoint with optimizer": "model_state_dict",
    "averaged copy": "state_dict_ema",
    "checkpoint in model": "model",
}


def saved(value, **kwargs):
    out = io.BytesIO()
    torch.save(value, out, **kwargs)
    return out.getvalue()


def same(ours, theirs):
    """The very bits, also of bfloat16."""
    if theirs.dtype == torch.bfloat16:
        return ours.dtype == "bfloat16" and np.array_equal(ours.data, theirs.contiguous().view(torch.int16).numpy().view(np.uint16))
    return ours.dtype == str(theirs.dtype).removeprefix("torch.") and np.array_equal(ours.data, theirs.numpy(), equal_nan=True)


@pytest.mark.parametrize("kind", STATES)
def test_torch_files_are_read_as_torch_reads_them(kind):
    data = saved(STATES[kind]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.load(io.BytesIO(data), weights_only=True)
    theirs = theirs.get(INSIDE.get(kind), theirs)
    found = read_weights(data)
    names = [name.removeprefix("module.").removeprefix("_orig_mod.") for name in theirs]
    assert list(found.tensors) == names
    assert all(same(found.tensors[ours], theirs[name].detach()) for ours, name in zip(names, theirs, strict=True))
    assert found.format == "torch zip"
    assert not found.not_finite
    # and handed on without a loss
    again = read_weights(b"".join(found.to_safetensors()))
    assert list(again.tensors) == names
    assert all(np.array_equal(again.tensors[n].data, found.tensors[n].data) for n in names)
    assert all(again.tensors[n].dtype == found.tensors[n].dtype for n in names)


@pytest.mark.parametrize("kind", ["state dict", "half", "bfloat16", "double", "every type", "catalogue net"])
def test_safetensors_are_read_as_their_library_reads_them(kind):
    tensors = {name: value.contiguous() for name, value in STATES[kind]().items()}
    data = safetensors.torch.save(tensors, {"format": "pt"})
    found = read_weights(data)
    assert found.tensors.keys() == tensors.keys()
    assert all(same(found.tensors[name], value) for name, value in tensors.items())
    theirs = safetensors.torch.load(b"".join(found.to_safetensors()))
    assert all(torch.equal(theirs[name], value) for name, value in tensors.items())


def test_other_ways_in_which_torch_has_written_zip_files():
    """A name of odd characters, sizes before the data, no 64-bit record, no byte order: all were or are torch's."""
    pickle, numbers = pickled(table([("w", tensor())])), np.arange(6, dtype=np.float32).reshape(2, 3)
    ahead = [dataclasses.replace(member, flags=0x0800) for member in parts(pickle)]
    old = [member for member in parts(pickle) if not member.name.endswith(b"byteorder")]
    for written in (
        checkpoint(pickle, root="epoch=3:acc*?"),
        Zip(ahead).written(),
        Zip(parts(pickle), end64=None).written(),
        Zip(old).written(),
    ):
        found = read_weights(written)
        assert np.array_equal(found.tensors["w"].data, numbers)
        assert torch.load(io.BytesIO(written))["w"].tolist() == numbers.tolist()


def test_our_own_files_are_read():
    network = FastCnn(width=2, hidden=4).build((1, 8, 8), 3, seed=0)
    found = read_weights(to_bytes(network, {"badnets.planted": "true"}))
    assert all(same(found.tensors[name], value) for name, value in network.state_dict().items())
    assert found.notes == ()


def test_what_was_chosen_is_said():
    notes = "; ".join(read_weights(saved(averaged())).notes)
    assert "weights taken from 'state_dict_ema'; not looked at: 'state_dict', 1 tensors beside it" in notes
    assert "1 tensors are the same numbers as another" in "; ".join(read_weights(saved(tied().state_dict())).notes)
    assert "prefix module. removed" in read_weights(saved({"module.w": torch.zeros(2)})).notes


def test_bfloat16_and_double_become_float32():
    values = torch.tensor([1.0, -2.5, 3e38, 1e-40])
    found = read_weights(saved({"b": values.bfloat16(), "d": values.double()}))
    assert np.array_equal(found.tensors["b"].to_float32(), values.bfloat16().float().numpy())
    assert np.array_equal(found.tensors["d"].to_float32(), values.numpy())
