"""MM-BD: climbs to the largest logit margin that any image reaches for each class, and asks whether one class stands out.

Data-free and blind to the kind of trigger. Does not apply below three classes (the other classes are the null), and sees one target
among many: where every class is a target (all-to-all), every margin grows and none stands out.
H. Wang, Z. Xiang, D. J. Miller, G. Kesidis (2024), MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor Pattern
Types Using a Maximum Margin Statistic, https://arxiv.org/abs/2205.06900
Departures: steps are divided by the gradient's mean size, so that the scale of the logits does not matter; all classes climb from the same
random images in one batch, which are dark to bright, since from uniform noise no gradient leads to what only a bright corner wakes;
every class is compared with the mean of the others, not only the largest, which gives the same answer for it.
Shapes: B climbers (starts times classes), R starts, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from badnets.core.finding import Answer, Level
from badnets.core.rng import generator
from badnets.core.view import View
from badnets.detectors._base import Detector

if TYPE_CHECKING:
    from badnets.nets._base import Network

AT_ONCE = 512
DARKEST = 8.0
"""The power that noise is raised to in the darkest start, and its inverse in the brightest."""
LARGEST_RATIO = 1000.0
"""A class that is the only one that can be reached at all would have an endless ratio."""


class MmBd(Detector):
    """`starts` random images climb `steps` steps for each class; a step moves a pixel by `step_size` on average, less towards the end.

    Score: -log of the paper's p-value, of the class with the largest margin, under an exponential null fitted to the other classes.
    """

    kind: Literal["mm_bd"] = "mm_bd"
    judges = Level.MODEL
    steps: int = Field(default=40, ge=1, le=10_000)
    starts: int = Field(default=8, ge=1, le=1000)
    step_size: float = Field(default=0.1, gt=0, le=1)

    def _scan(self, view: View, seed: int) -> Answer:
        if view.num_classes < 3:
            return Answer(why_not="needs at least three classes: the others are the null")
        power_R = DARKEST ** torch.linspace(1, -1, self.starts) if self.starts > 1 else torch.ones(1)
        noise_RCHW = torch.rand(self.starts, *view.shape, generator=generator(seed, "mm_bd", "starts"))
        start_RCHW = noise_RCHW ** power_R[:, None, None, None]
        margin_KR, best_KRCHW = self._climb(view.network, start_RCHW, view.num_classes)
        margin_K = margin_KR.amax(dim=1).double().cpu().numpy()
        if not np.isfinite(margin_K).all():
            return Answer(why_not="a margin is not finite: the net gives no numbers")
        score_K = surprise(margin_K)
        target = int(score_K.argmax())
        picture = best_KRCHW[target, int(margin_KR[target].argmax())].cpu().numpy()
        p = float(np.exp(-score_K[target]))
        note = f"margin {margin_K[target]:.3g} for class {target}, median {np.median(margin_K):.3g}, p {p:.2g}"
        return Answer(score=float(score_K[target]), score_K=score_K, target=target, pictures={"largest margin": picture}, note=note)

    def _climb(self, network: Network, start_RCHW: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """The largest margin of each class from each start, and the image that has it."""
        network.requires_grad_(False)
        class_B = torch.arange(num_classes).repeat_interleave(len(start_RCHW))
        x_BCHW = start_RCHW.repeat(num_classes, 1, 1, 1)
        margins, images = [], []
        for part_B, part_BCHW in zip(class_B.split(AT_ONCE), x_BCHW.split(AT_ONCE), strict=True):
            margin_B, best_BCHW = self._one_batch(network, part_BCHW.to(network.device), part_B.to(network.device))
            margins.append(margin_B)
            images.append(best_BCHW)
        shape = (num_classes, len(start_RCHW))
        return torch.cat(margins).view(shape), torch.cat(images).view(*shape, *start_RCHW.shape[1:])

    def _one_batch(self, network: Network, x_BCHW: Tensor, class_B: Tensor) -> tuple[Tensor, Tensor]:
        best_B, best_BCHW = torch.full((len(x_BCHW),), -torch.inf, device=x_BCHW.device), x_BCHW

        def keep(margin_B: Tensor, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            better_B = margin_B > best_B
            return torch.where(better_B, margin_B, best_B), torch.where(better_B[:, None, None, None], x_BCHW, best_BCHW)

        for step in range(self.steps):
            with torch.enable_grad():
                pixels = x_BCHW.detach().requires_grad_()
                margin_B = margins(network(pixels), class_B)
                (grad_BCHW,) = torch.autograd.grad(margin_B.sum(), [pixels])
            best_B, best_BCHW = keep(margin_B.detach(), x_BCHW)
            size_B111 = grad_BCHW.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
            x_BCHW = (x_BCHW + self.step_size * (1 - step / self.steps) * grad_BCHW / size_B111).clamp(0, 1)
        with torch.no_grad():
            return keep(margins(network(x_BCHW), class_B), x_BCHW)


def margins(logits_BK: Tensor, class_B: Tensor) -> Tensor:
    """The logit of the wanted class minus the largest other one."""
    own_B = logits_BK.gather(1, class_B[:, None])[:, 0]
    return own_B - logits_BK.scatter(1, class_B[:, None], -torch.inf).amax(dim=1)


def surprise(margin_K: np.ndarray) -> np.ndarray:
    """-log p of each class: p = 1 - F(margin)^(K - 1), F the exponential distribution with the mean of the other classes' margins.

    A class that no image reaches has margin 0.
    """
    reached_K = np.maximum(margin_K, 0.0)
    others = len(reached_K) - 1
    mean_K = (reached_K.sum() - reached_K) / others
    ratio_K = np.clip(reached_K / np.maximum(mean_K, reached_K / LARGEST_RATIO + 1e-300), 1e-12, LARGEST_RATIO)
    # Far out p underflows, and is others * exp(-ratio) to all digits.
    near_K = np.minimum(ratio_K, 30.0)
    exact_K = -np.log(-np.expm1(others * np.log1p(-np.exp(-near_K))))
    return np.where(ratio_K < 30, exact_K, ratio_K - np.log(others))
