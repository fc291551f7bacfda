"""Feature shift tuning: a new head that is kept away from the old one's weights, tuned with the whole net on clean images.

Does not apply to nets without a linear head. Keeps a backdoor whose features lead to the target by the old and the new head alike.
R. Min, Z. Qin, L. Shen, M. Cheng (2023), Towards Stable Backdoor Purification through Feature Shift Tuning,
https://arxiv.org/abs/2310.01875. Departures: the head's length is held by writing its weight as a direction of fixed length, where the
paper puts it back after each step; the penalty is the cosine, where the paper has the inner product, which grows with the square of the
length and at the paper's 0.2 turns the head of a small net into minus the old one; batches of 32 at a higher rate and more epochs, for
hundreds of clean images and not thousands.
Shapes: K classes, F features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, cross_entropy

from badnets.core.rng import generator, stream_seed
from badnets.core.view import View
from badnets.repairs._base import Repair
from badnets.repairs._objectives import guess_loss
from badnets.repairs._tuning import recipe, tune
from badnets.train.distil import head

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Fst(Repair):
    """`alpha`: the weight in the loss of the cosine between the new head and the old one, which are of one length."""

    kind: Literal["fst"] = "fst"
    alpha: float = Field(0.2, ge=0)
    lr: float = Field(0.05, gt=0)
    epochs: float = Field(20, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        before, network = copy.deepcopy(view.network), view.network
        last = head(network)
        old_KF = last.weight.detach().clone()
        shift = _Shift(next(name for name, module in network.named_modules() if module is last), old_KF, self.alpha)
        renew(last, seed)
        new_KF = last.weight.detach().clone()
        how = recipe(self.epochs, self.lr, self.batch_size)
        note = tune(network, view.need_clean(), how, seed=stream_seed(seed, self.kind), objective=shift)
        # A training that diverged is undone as far as the new head, which has learned nothing.
        if torch.equal(last.weight, new_KF):
            return before, note
        with torch.no_grad():
            last.weight.copy_(shift.of_old_length(last.weight))
            likeness = cosine_similarity(last.weight.flatten(), old_KF.flatten(), dim=0)
        return network, f"{note}, the new head is at a cosine of {float(likeness):.2f} to the old one"


def renew(last: nn.Linear, seed: int) -> None:
    """New weights of the old length and new biases, drawn as torch draws those of a linear layer.

    The draws go to the classes in the order of their old weights' lengths: which class has which number must not matter.
    """
    bound = last.in_features**-0.5
    draws_KG = torch.rand(last.out_features, last.in_features + 1, generator=generator(seed, "fst", "head")).mul_(2 * bound).sub_(bound)
    with torch.no_grad():
        order_K = last.weight.norm(dim=1).argsort(stable=True).cpu()
        fresh_KG = torch.empty_like(draws_KG)
        fresh_KG[order_K] = draws_KG
        fresh_KF = fresh_KG[:, :-1].to(last.weight)
        last.weight.copy_(fresh_KF * last.weight.norm() / fresh_KF.norm())
        if last.bias is not None:
            last.bias.copy_(fresh_KG[:, -1])


@dataclass(frozen=True, eq=False)
class _Shift:
    """Cross-entropy plus alpha times the cosine to the old head, as a function of the new head's direction alone."""

    name: str
    old_KF: Tensor
    alpha: float

    def of_old_length(self, weight_KF: Tensor) -> Tensor:
        return weight_KF * self.old_KF.norm() / weight_KF.norm()

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        weight_KF = self.of_old_length(head(network).weight)
        logits_NK = functional_call(network, {f"{self.name}.weight": weight_KF}, (x_NCHW,))
        return cross_entropy(logits_NK.float(), y_N) + self.alpha * cosine_similarity(weight_KF.flatten(), self.old_KF.flatten(), dim=0)

    def constant_loss(self, y_N: Tensor) -> float:
        return guess_loss(y_N)
