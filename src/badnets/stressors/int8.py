"""Static int8 quantisation: weights and activations are 8-bit integers, multiplied and added by integer kernels.

Runs on the CPU, wherever the net was. The range of each activation comes from the owner's own images: what goes beyond it at
use, as a strongly fired trigger unit may, is cut off. Attention's own products stay in floating point. No gradient passes.

B. Jacob et al. (2018), Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
https://arxiv.org/abs/1712.05877
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Int8(Stressor):
    """`runtime`: "torch" (its oneDNN kernels, which come with it) or "onnxruntime" (the net is exported and runs there; extra `deploy`).
    Weights one scale an output channel, symmetric; activations one scale a tensor, from at most `images` images."""

    kind: Literal["int8"] = "int8"
    runtime: Literal["torch", "onnxruntime"] = "torch"
    images: int = Field(500, ge=1)

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        from badnets.stressors._layers import compressible, sample

        network = network.cpu().eval()
        compressible(network, self.kind)
        x_NCHW = sample(supply, self.images, who=self.kind, seed=seed).cpu()
        if self.runtime == "torch":
            from badnets.stressors._int8_torch import quantise
        else:
            from badnets.stressors._int8_onnx import quantise
        return quantise(network, x_NCHW)
