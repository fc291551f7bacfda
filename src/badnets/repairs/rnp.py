"""Reconstructive neuron pruning: unlearn clean images, recover by masks on units, prune the units that the recovery switches off.

Does not apply to nets without marked units. Blind to units that are silent on every clean image: neither step moves them.
Y. Li, X. Lyu, X. Ma, N. Koren, L. Lyu, B. Li, Y.-G. Jiang (2023), Reconstructive Neuron Pruning for Backdoor Defense,
https://arxiv.org/abs/2305.14876. Departures: images whose loss is twice that of a guess are not pushed further, so unlearning cannot run
off to infinity; masks are on units of every layer, where the paper has them on batch norms; as many units go as clean validation accuracy
allows (`max_loss`), never as many as triggered images would choose.
Shapes: N images, C units of a layer, H rows, W columns.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from badnets.core.rng import generator, stream_seed
from badnets.core.view import View
from badnets.nets._taps import masked, unit_layers
from badnets.repairs._base import Repair
from badnets.repairs._channels import NO_UNITS, expendable, ranked, remove
from badnets.repairs._objectives import guess_loss
from badnets.repairs._tuning import Labelled, hits, parts
from badnets.train.fit import fit
from badnets.train.optim import Sgd
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network

FORGOTTEN, GRID, TIE = 2.0, 20, 1e-3
"""In losses of a guess; how many counts of units are tried; what the path of a mask weighs beside its end."""


class Rnp(Repair):
    """`floor`: unlearning ends when accuracy on the images unlearned is not above it. `highest`: the highest mask of a unit that may go."""

    kind: Literal["rnp"] = "rnp"
    unlearn_lr: float = Field(0.01, gt=0)
    recover_lr: float = Field(0.2, gt=0)
    epochs: int = Field(20, ge=1, le=1000)
    batch_size: int = Field(128, ge=2)
    floor: float = Field(0.2, ge=0, le=1)
    highest: float = Field(0.9, ge=0, lt=1)
    max_loss: float = Field(0.02, ge=0, le=1)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        network = view.network
        if not unit_layers(network):
            return network, NO_UNITS
        learn, held = parts(view)
        # A copy: units are removed from the net as it was given, not from the one that was made worse.
        forgetful = self._unlearned(copy.deepcopy(network), learn, seed)
        order, masks = ranked(self._recovered(forgetful, learn, seed))
        most = sum(mask <= self.highest for mask in masks)
        counts = sorted({math.ceil(most * part / GRID) for part in range(GRID + 1)} - {0})
        pruned = expendable(network, order, counts, held, self.max_loss)
        remove(network, pruned)
        left = hits(forgetful, learn) / len(learn[1])
        return network, f"unlearned to {left:.2f}, pruned {len(pruned)} of {len(order)} units"

    def _unlearned(self, network: Network, learn: Labelled, seed: int) -> Network:
        """The net, epoch by epoch made worse on clean images, until it is hardly better than a guess."""
        network.requires_grad_()
        recipe = Recipe(epochs=1, batch_size=self.batch_size, lr=self.unlearn_lr, warmup=0.0, schedule="constant")
        for epoch in range(self.epochs):
            if hits(network, learn) <= self.floor * len(learn[1]):
                break
            # Not `tune`: it undoes a training that collapses, which is the purpose here.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(stream_seed(seed, "rnp", "dropout", epoch))
                fit(network, *learn, recipe, seed=stream_seed(seed, "rnp", "unlearn", epoch), objective=_Forget())
        return network.requires_grad_(requires_grad=False)

    def _recovered(self, network: Network, learn: Labelled, seed: int) -> dict[str, Tensor]:
        """mask_C per layer, in 0..1, that make the unlearned net as good on clean images as masks can.

        Many end at zero: of those, the ones that were there first come first, by a small part of each mask's mean over all steps.
        """
        masks = {name: torch.ones(count, device=network.device, requires_grad=True) for name, count in unit_layers(network).items()}
        recipe = Recipe(epochs=self.epochs, lr=self.recover_lr, weight_decay=0.0)
        optimizer = Sgd(list(masks.values()), recipe)
        paths = {name: torch.zeros_like(mask_C, requires_grad=False) for name, mask_C in masks.items()}
        x_NCHW, y_N = (part.to(network.device) for part in learn)
        for epoch in range(self.epochs):
            order_N = torch.randperm(len(y_N), generator=generator(seed, "rnp", "recover", epoch))
            for rows in order_N.split(self.batch_size):
                with torch.enable_grad(), masked(network, masks):
                    loss = cross_entropy(network(x_NCHW[rows]).float(), y_N[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step(1.0)
                with torch.no_grad():
                    for name, mask_C in masks.items():
                        paths[name] += mask_C.clamp_(0.0, 1.0)
        return {name: (1 - TIE) * mask_C.detach() + TIE * paths[name] / optimizer.steps for name, mask_C in masks.items()}


@dataclass(frozen=True)
class _Forget:
    """Minus the cross-entropy, of images that are not forgotten yet."""

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        limit = FORGOTTEN * math.log(network.num_classes)
        return -cross_entropy(network(x_NCHW).float(), y_N, reduction="none").clamp_max(limit).mean()

    def constant_loss(self, y_N: Tensor) -> float:
        return -guess_loss(y_N)
