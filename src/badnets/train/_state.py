"""A training's state as bytes (safetensors, no pickle), so that a resumed training ends with the same bits.

Not a model file: `nets._weights` writes those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from badnets.core.errors import RefusedError


@dataclass(frozen=True)
class Progress:
    """How far a training is, and whose it is: `identity` must agree before a state is used."""

    step: int
    losses: Tensor
    identity: tuple[Any, ...]

    def header(self) -> str:
        return json.dumps({"step": self.step, "identity": self.identity})


def pack(network: nn.Module, optimizer: Optimizer, progress: Progress) -> bytes:
    """Network, optimiser state, losses and step as bytes."""
    tensors = {f"net/{name}": value for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"opt/{index}/{name}": value for name, value in state.items()})
    tensors["losses"] = progress.losses
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(tensors, {"progress": progress.header()})


def unpack(data: bytes, network: nn.Module, optimizer: Optimizer, own: Progress) -> Progress:
    """Puts the state back into network and optimiser; refuses one of another recipe, seed, data size or net."""
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["progress"]
        found = json.loads(header)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _refused("it is damaged") from error
    if found["identity"] != json.loads(own.header())["identity"]:
        raise _refused("it belongs to another recipe, seed or data set")
    weights = {name[4:]: value for name, value in tensors.items() if name.startswith("net/")}
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise _refused("it belongs to another net") from error
    _restore(optimizer, tensors)
    return Progress(found["step"], tensors["losses"], own.identity)


def _restore(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith("opt/"):
            _, index, field = name.split("/")
            p = parameters[int(index)]
            # In the parameter's memory layout, as the optimiser would have made it: same kernels, same bits.
            same = value.shape == p.shape
            place = torch.empty_like(p, requires_grad=False) if same else torch.empty_like(value, device=p.device)
            optimizer.state[p][field] = place.copy_(value)


def _refused(why: str) -> RefusedError:
    return RefusedError("E-CHECKPOINT", f"the saved state of this training cannot be used: {why}.", hint="Delete it; training starts anew.")
