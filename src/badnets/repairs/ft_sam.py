"""Fine-tuning on clean images with sharpness-aware minimisation, whose perturbation grows with the weights.

Does not apply where the units of a backdoor are silent on every clean image: they get neither a gradient nor a perturbation.
M. Zhu, S. Wei, L. Shen, Y. Fan, B. Wu (2023), Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization,
https://arxiv.org/abs/2304.11823; after P. Foret et al. (2020), https://arxiv.org/abs/2010.01412, and J. Kwon et al. (2021), ASAM,
https://arxiv.org/abs/2102.11600. Departures: batches of 32 and 20 epochs, for hundreds of clean images and not thousands; a rate that falls
to zero; statistics of batch norms are those of the unperturbed passes.
Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.repairs._base import Repair
from badnets.repairs._objectives import guess_loss
from badnets.repairs._tuning import recipe, tune

if TYPE_CHECKING:
    from badnets.nets._base import Network

SMALLEST_NORM = 1e-12


class FtSam(Repair):
    """`rho`: the length of the perturbation, measured in weights: e with |e / w| = rho. 0 is plain fine-tuning."""

    kind: Literal["ft_sam"] = "ft_sam"
    rho: float = Field(2.0, ge=0, le=100)
    lr: float = Field(0.01, gt=0)
    epochs: float = Field(20, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        how = recipe(self.epochs, self.lr, self.batch_size)
        note = tune(view.network, view.need_clean(), how, seed=stream_seed(seed, self.kind), objective=_Sharpness(self.rho))
        return view.network, note


@dataclass(frozen=True)
class _Sharpness:
    """The cross-entropy at the worst weights nearby, as a function of the weights themselves."""

    rho: float

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        moved = worst_weights(network, x_NCHW, y_N, self.rho)
        # Copies of the buffers: a batch norm counts every batch once, and never at the perturbed weights.
        kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return cross_entropy(functional_call(network, {**moved, **kept}, (x_NCHW,)).float(), y_N)

    def constant_loss(self, y_N: Tensor) -> float:
        return guess_loss(y_N)


def worst_weights(network: Network, x_NCHW: Tensor, y_N: Tensor, rho: float) -> dict[str, Tensor]:
    """w + e with e = rho w^2 g / |w g|, which to first order raises the loss most among all with |e / w| = rho; e is held constant."""
    given = {name: p for name, p in network.named_parameters() if p.requires_grad}
    loss = cross_entropy(network(x_NCHW).float(), y_N)
    slopes = torch.autograd.grad(loss, list(given.values()), allow_unused=True, materialize_grads=True)
    sizes = [p.detach().abs() for p in given.values()]
    length = torch.stack([(size * slope).square().sum() for size, slope in zip(sizes, slopes, strict=True)]).sum().sqrt()
    step = rho / length.clamp_min(SMALLEST_NORM)
    return {name: p + step * size.square() * slope for (name, p), size, slope in zip(given.items(), sizes, slopes, strict=True)}
