"""BTI-DBF: tells benign features from the rest first, then finds the change that leaves the benign ones alone and moves the rest.

Does not apply to nets without a linear head. It never asks which class is the target, so all-to-all is as good as all-to-one.
X. Xu, K. Huang, Y. Li, Z. Qin, K. Ren (2024), Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling Benign Features,
ICLR, https://openreview.net/forum?id=Tw9wemV6cb
We depart from it in the change, which here is one addition of a fixed length for all images (the paper trains a generator, one change an
image); in the second half of the first loss, bounded here (log of the odds against the label instead of an unbounded negative
cross-entropy); and in making a score of it, since the paper repairs with the trigger: how far the addition drives images from what the net
took them for, the mean over classes of the log odds of leaving.
Shapes: B images, C channels, H rows, W columns, K classes, F features (what the head reads).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from badnets.core.errors import UsageError
from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.nets._base import unit_interval
from badnets.nets._taps import overheard
from badnets.train.distil import head
from badnets.train.inversion import few_of_each

if TYPE_CHECKING:
    from badnets.nets._base import Network

DECOUPLING_STEPS, DECOUPLING_LR = 100, 0.1
"""Of the first half, which sees the head alone and costs next to nothing."""


class BtiDbf(Detector):
    """`length`: of the addition, Euclidean, as a share of the longest possible; `num_images`: clean images, all classes alike."""

    kind: Literal["bti_dbf"] = "bti_dbf"
    judges = Level.MODEL
    access = Access.CLEAN
    steps: int = Field(100, ge=1)
    num_images: int = Field(100, ge=1)
    length: float = Field(0.06, gt=0, le=1)
    sparsity: float = Field(0.01, ge=0)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        network = view.network
        x_BCHW = unit_interval(few_of_each(*view.need_clean(), self.num_images))
        if not len(x_BCHW):
            return Answer(why_not="there are no clean images")
        try:
            reader = head(network)
        except UsageError as error:
            return Answer(why_not=error.message)
        with overheard(network, reader) as heard, torch.no_grad():
            own_B = network(x_BCHW).argmax(dim=1)
            features_BF = heard.pop()
        if len(own_B.unique()) < 2:
            return Answer(why_not="the net gives one class to all the images")
        benign_F = _decouple(features_BF, own_B, reader.weight.detach(), reader.bias, self.sparsity)
        delta_CHW = self._change(network, x_BCHW, features_BF, benign_F)
        with torch.no_grad():
            logits_BK = network((x_BCHW + delta_CHW).clamp_(0, 1)).float()
        moved_B = logits_BK.argmax(dim=1) != own_B
        picture = (0.5 + 0.5 * delta_CHW / delta_CHW.abs().amax().clamp_min(1e-12)).clamp(0, 1).numpy()
        note = f"{moved_B.float().mean():.0%} of the images moved, {benign_F.mean():.0%} of the features are benign"
        return Answer(score=_balanced(_leaving(logits_BK, own_B), own_B), pictures={"addition": picture}, note=note)

    def _change(self, network: Network, x_BCHW: Tensor, features_BF: Tensor, benign_F: Tensor) -> Tensor:
        """The addition after some steps along the normalised gradient, each ending on the sphere of the allowed length."""
        length = self.length * math.sqrt(x_BCHW[0].numel())
        reader, delta_CHW = head(network), torch.zeros_like(x_BCHW[0])
        # Nothing has moved yet and a distance has no slope at 0: the first step starts a little way off, the same everywhere.
        delta_CHW += 1e-2
        for step in range(self.steps):
            changed = (x_BCHW + delta_CHW).requires_grad_()
            with torch.enable_grad(), overheard(network, reader) as heard:
                network(changed.clamp(0, 1))
                off_BF = (heard.pop() - features_BF) / features_BF.std().clamp_min(1e-12)
                loss = (off_BF * benign_F).norm(dim=1).mean() - (off_BF * (1 - benign_F)).norm(dim=1).mean()
                (wish_BCHW,) = torch.autograd.grad(loss, [changed])
            left = 0.5 * (1 + math.cos(math.pi * step / self.steps))
            delta_CHW = delta_CHW - (0.02 + 0.5 * left) * length * _unit(wish_BCHW.sum(dim=0))
            delta_CHW = length * _unit(delta_CHW)
        return delta_CHW


def _decouple(features_BF: Tensor, own_B: Tensor, weight_KF: Tensor, bias_K: Tensor | None, sparsity: float) -> Tensor:
    """benign_F in 0..1: with these features alone the head says what it said, with the others alone it does not."""
    free_F = torch.zeros(features_BF.shape[1], requires_grad=True)
    bias_K = None if bias_K is None else bias_K.detach()
    optimizer = torch.optim.Adam([free_F], lr=DECOUPLING_LR)
    with torch.enable_grad():
        for _ in range(DECOUPLING_STEPS):
            benign_F = free_F.sigmoid()
            kept = cross_entropy(linear(features_BF * benign_F, weight_KF, bias_K), own_B)
            lost = torch.nn.functional.softplus(-_leaving(linear(features_BF * (1 - benign_F), weight_KF, bias_K), own_B)).mean()
            optimizer.zero_grad()
            (kept + lost + sparsity * benign_F.sum()).backward()
            optimizer.step()
    return free_F.detach().sigmoid()


def _leaving(logits_BK: Tensor, own_B: Tensor) -> Tensor:
    """The log odds that an image is none of what the net took it for."""
    own_B1 = own_B[:, None]
    return logits_BK.scatter(1, own_B1, -math.inf).logsumexp(dim=1) - logits_BK.gather(1, own_B1)[:, 0]


def _balanced(value_B: Tensor, own_B: Tensor) -> float:
    return float(torch.stack([value_B[own_B == k].double().mean() for k in own_B.unique()]).mean())


def _unit(v: Tensor) -> Tensor:
    return v / v.norm().clamp_min(1e-20)
