"""A training's state as bytes (safetensors, no pickle), so that a resumed training ends with the same bits.

Not a model file: `nets._weights` writes those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from badnets.core.errors import RefusedError
from badnets.train.optim import Optimizer


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
    for index, state in enumerate(optimizer.state):
        tensors.update({f"opt/{index}/{field}": value for field, value in state.items()})
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
    for index, state in enumerate(optimizer.state):
        for field, value in state.items():
            # Copied into what is there: it keeps the parameter's memory layout, so the same kernels give the same bits.
            value.copy_(tensors[f"opt/{index}/{field}"])
    optimizer.steps = found["step"]
    return Progress(found["step"], tensors["losses"], own.identity)


def _refused(why: str) -> RefusedError:
    return RefusedError("E-CHECKPOINT", f"the saved state of this training cannot be used: {why}.", hint="Delete it; training starts anew.")
