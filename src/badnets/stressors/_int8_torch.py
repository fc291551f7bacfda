"""int8 layers on torch's own oneDNN kernels, as its compiler for x86 calls them: integers in, integer sums, float32 out.

Without 8-bit dot-product instructions (VNNI) the kernels of x86 are slower and add products in pairs of 16 bits, which overflow where what
comes in has 8 bits: there it has 7, as torch's own quantisation has for such processors.
Imports torch: import this late. Shapes: N images, C channels, H rows, W columns, F features, O output channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from badnets.core.device import cpu_flags
from badnets.core.errors import RefusedError
from badnets.nets._base import Network
from badnets.stressors._layers import Dense, dense_layers, fold_batch_norms

BATCH = 500
ROWS = 100
"""How many rows the kernel of a linear layer shall expect when it lays out its weights; any number is right, a guess is faster."""


def most_levels() -> int:
    """The largest number that stands for what comes into a layer on this machine: 255, or 127 where products would overflow."""
    flags = cpu_flags()
    return 127 if "avx2" in flags and not any("vnni" in flag for flag in flags) else 255


def quantise(network: Network, x_NCHW: Tensor) -> Network:
    """`network` with every convolution and linear layer replaced; ranges are those seen on `x_NCHW`."""
    if "onednn" not in torch.backends.quantized.supported_engines:
        hint = "Use int8:runtime=onnxruntime (pip install 'badnets[deploy]')."
        raise RefusedError("E-ENGINE", "expected a torch with oneDNN's integer kernels, got one without.", hint=hint)
    fold_batch_norms(network)
    watched = {name: _Watched(layer) for name, layer in dense_layers(network).items()}
    for name, watch in watched.items():
        network.set_submodule(name, watch)
    with torch.inference_mode():
        for part in x_NCHW.split(BATCH):
            network(part)
    for name, watch in watched.items():
        network.set_submodule(name, Int8Layer(watch.layer, watch.low, watch.high))
    return network


class _Watched(nn.Module):
    """A layer and the range of what came into it (zero always included: padding must be exact)."""

    def __init__(self, layer: Dense) -> None:
        super().__init__()
        self.layer, self.low, self.high = layer, 0.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        return self.layer(x)


class Int8Layer(nn.Module):
    """(x_q - zero) times weight in integers, scaled back: `x_q` is x / scale + zero rounded into 0..`most_levels`, weights -127..127."""

    weight: Tensor
    weight_scale_O: Tensor
    weight_zero_O: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, layer: Dense, low: float, high: float) -> None:
        super().__init__()
        scale = (high - low) / most_levels() or 1.0
        flat = layer.weight.detach().float().flatten(1)
        largest_O = flat.abs().amax(dim=1)
        weight_scale_O = torch.where(largest_O == 0, 1.0, largest_O / 127)
        weight = (flat / weight_scale_O[:, None]).round().to(torch.int8).reshape(layer.weight.shape)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale_O", weight_scale_O)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero", torch.tensor(round(-low / scale), dtype=torch.uint8))
        self.register_buffer("weight_zero_O", torch.zeros(len(flat), dtype=torch.int64), persistent=False)
        self.bias = layer.bias
        conv = isinstance(layer, nn.Conv2d)
        self.place = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups) if conv else None
        self._ready: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The kernel's own layout of the weights cannot be copied; a copy of the net makes it anew.
        return {**self.__dict__, "_ready": None}

    def _prepare(self) -> tuple[Any, ...]:
        if self._ready is None:
            scale, zero = float(self.scale), int(self.zero)
            if self.place is None:
                packed = torch.ops.onednn.qlinear_prepack(self.weight, [ROWS, self.weight.shape[1]])
            else:
                packed = torch.ops.onednn.qconv_prepack(self.weight, self.weight_scale_O, scale, zero, *self.place, None)
            # Rounds half up when cut to an integer, and in one pass with the scaling.
            self._ready = (packed, scale, zero, torch.tensor(zero + 0.5))
        return self._ready

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        packed, scale, zero, shift = self._prepare()
        x_q = torch.add(shift, x.float(), alpha=1 / scale).clamp_(0, most_levels()).to(torch.uint8)
        given = (scale, zero, packed, self.weight_scale_O, self.weight_zero_O, self.bias)
        if self.place is not None:
            return torch.ops.onednn.qconv2d_pointwise(x_q, *given, *self.place, 1.0, 0, torch.float32, "none", [], "")
        out = torch.ops.onednn.qlinear_pointwise(x_q.flatten(0, -2), *given, 1.0, 0, torch.float32, "none", [], "")
        return out.unflatten(0, x.shape[:-1])
