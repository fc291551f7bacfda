"""A network's weights as safetensors bytes, and back: strict, finite numbers only.

Reads weights of our own catalogue's nets; foreign checkpoints are the business of the intake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from badnets.core.errors import RefusedError
from badnets.nets._base import Net, Network, Shape


def to_bytes(network: Network, metadata: Mapping[str, str] | None = None) -> bytes:
    """State dict and metadata as safetensors; equal weights and metadata give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    data = safetensors.torch.save(tensors)
    size = int.from_bytes(data[:8], "little")
    # The library writes metadata in the order of a hash map, which differs between processes; sorted here, so that bits agree.
    header = {"__metadata__": dict(sorted((metadata or {}).items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read_metadata(data: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise _refused("not safetensors") from error
    return metadata


def from_bytes(data: bytes, net: Net, shape: Shape, num_classes: int) -> Network:
    """The network `net` describes, with the weights in `data`, in evaluation mode on the CPU."""
    return load_into(net.build(shape, num_classes, seed=0), data, name=type(net).__name__)


def load_into(network: Network, data: bytes, *, name: str) -> Network:
    """`network` with the weights in `data`, in evaluation mode; refused unless they are exactly those that it has."""
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _refused(f"not safetensors ({error})") from error
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise _refused(f"missing {_some(missing)}, unexpected {_some(unexpected)} for {name}")
    for name, value in tensors.items():
        _check(name, value, own[name])
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def _check(name: str, value: Tensor, own: Tensor) -> None:
    if value.shape != own.shape or value.dtype != own.dtype:
        raise _refused(f"expected {name} {_kind(own)}, got {_kind(value)}")
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise _refused(f"expected finite numbers, got NaN or infinity in {name}")


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _some(keys: list[str]) -> str:
    return (", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")) or "nothing"


def _refused(why: str) -> RefusedError:
    return RefusedError("E-WEIGHTS", f"weights not loaded: {why:.300}.", hint="Check the file, the net and the image shape.")
