"""Half precision: weights and arithmetic in bfloat16 or float16, as a deployed net often has them.

Slow on a processor without instructions for the type, which emulates it; the numbers are the same.

P. Micikevicius et al. (2018), Mixed Precision Training, https://arxiv.org/abs/1710.03740 (float16);
D. Kalamkar et al. (2019), A Study of BFLOAT16 for Deep Learning Training, https://arxiv.org/abs/1905.12322
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.stressors._base import Stressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network


class LowPrecision(Stressor):
    """The normalised image is rounded to `dtype`, everything after it is stored and computed in it; logits are given back as float32."""

    kind: Literal["low_precision"] = "low_precision"
    dtype: Literal["bfloat16", "float16"] = "bfloat16"

    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        del supply, seed
        import torch

        from badnets.stressors._half import Half

        network.body = Half(network.body, torch.bfloat16 if self.dtype == "bfloat16" else torch.float16)
        return network
