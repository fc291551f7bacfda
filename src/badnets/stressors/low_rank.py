"""Low rank: every layer is replaced by two thinner ones, the best approximation of its matrix with fewer singular values.

Saves only where rank x (inputs + outputs) is less than inputs x outputs; above half of the full rank a square layer grows.

E. Denton, W. Zaremba, J. Bruna, Y. LeCun, R. Fergus (2014), Exploiting Linear Structure Within Convolutional Networks for Efficient
Evaluation, https://arxiv.org/abs/1404.0736
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from torch import nn

    from badnets.nets._base import Network
    from badnets.stressors._layers import Dense


class LowRank(Stressor):
    """Keeps the share `rank` of each layer's singular values (at least one). `head`: the last layer too, whose rank is the number of
    classes at most, so that few directions there mean few classes."""

    kind: Literal["low_rank"] = "low_rank"
    rank: float = Field(0.25, gt=0, le=1)
    head: bool = False

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        del supply, seed
        from badnets.stressors._layers import compressible

        layers = list(compressible(network, self.kind).items())
        for name, layer in layers if self.head else layers[:-1]:
            network.set_submodule(name, _factors(layer, self.rank))
        return network


def _factors(layer: Dense, share: float) -> nn.Module:
    """Two layers in a row; a convolution becomes a thinner one and a 1x1. Grouped convolutions stay as they are."""
    import torch
    from torch import nn
    from torch.nn.utils import skip_init

    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return layer
    # In double precision, so that the factors are right to the last bit that float32 has.
    u, s, vh = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    rank = max(1, round(share * len(s)))
    root = s[:rank].sqrt()
    narrow, wide = (root[:, None] * vh[:rank]).float(), (u[:, :rank] * root).float()
    # skip_init: their own first weights would be drawn from the caller's random state.
    if isinstance(layer, nn.Linear):
        first = skip_init(nn.Linear, layer.in_features, rank, bias=False)
        second = skip_init(nn.Linear, rank, layer.out_features)
    else:
        place = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        first = skip_init(nn.Conv2d, layer.in_channels, rank, layer.kernel_size, bias=False, **place)
        second = skip_init(nn.Conv2d, rank, layer.out_channels, 1)
    first.register_parameter("weight", nn.Parameter(narrow.reshape(first.weight.shape)))
    second.register_parameter("weight", nn.Parameter(wide.reshape(second.weight.shape)))
    second.register_parameter("bias", layer.bias)
    return nn.Sequential(first, second)
