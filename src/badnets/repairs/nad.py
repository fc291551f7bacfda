"""Neural attention distillation: the net learns where a fine-tuned copy of itself looks, and the labels.

Does not apply where clean images never wake the backdoor's neurons: teacher and student then agree on every clean image.
Y. Li, X. Lyu, N. Koren, L. Lyu, B. Li, X. Ma (2021), Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks,
https://arxiv.org/abs/2101.05930
Departs from it: every layer of units that has positions instead of the ends of three groups, and so the mean over layers; where no layer
has any, units stand for positions; `beta` weighs the squared distance of maps of length 1, not its mean over positions, and so does not
hang on their number (500 to 1000 there are about 0.5 to 16 here); the rate is half of theirs and falls steadily; no augmentation.
Shapes: N images, C units, H rows, W columns (positions P), K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.nets._taps import overheard, record, unit_layers
from badnets.repairs._base import Repair
from badnets.repairs._channels import NO_UNITS
from badnets.repairs._tuning import recipe, tune

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Nad(Repair):
    """A copy is tuned for `epochs` passes at rate `lr`; then the net itself, with `beta` times the distance of attention maps added to the
    cross-entropy. A map is the sum over units of |activation| to the power `power`."""

    kind: Literal["nad"] = "nad"
    beta: float = Field(3.0, ge=0)
    power: float = Field(2.0, gt=0, le=8)
    lr: float = Field(0.05, gt=0)
    epochs: float = Field(10, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        student = view.network
        if not unit_layers(student):
            return student, NO_UNITS
        teacher, how = copy.deepcopy(student), recipe(self.epochs, self.lr, self.batch_size)
        taught = tune(teacher, view.need_clean(), how, seed=stream_seed(seed, self.kind, "teacher"))
        with _watched(student, teacher, self.beta, self.power) as objective:
            note = tune(student, view.need_clean(), how, seed=stream_seed(seed, self.kind, "student"), objective=objective)
        return student, f"teacher {taught}, student {note}"


def _attention(seen: Tensor, power: float) -> Tensor:
    """map_NP of length 1 from activations with units on axis 1; units stand for positions where there are none."""
    strength = seen.float().abs().pow(power)
    return normalize(strength.sum(dim=1).flatten(1) if seen.ndim > 2 else strength, dim=1)


@dataclass(frozen=True, eq=False)
class _Attention:
    """Cross-entropy of the labels plus `beta` times the mean over layers of the squared distance of attention maps."""

    teacher: Network
    heard: dict[str, list[Tensor]]
    axes: dict[str, int]
    beta: float
    power: float

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        logits_NK = network(x_NCHW).float()
        wanted = record(self.teacher, self.heard, x_NCHW)
        gap = logits_NK.new_zeros(())
        for name, heard in self.heard.items():
            own_NP = _attention(heard.pop().movedim(self.axes[name], 1), self.power)
            gap = gap + (own_NP - _attention(wanted[name], self.power)).square().sum(dim=1).mean()
        return cross_entropy(logits_NK, y_N) + self.beta * gap / len(self.heard)

    def constant_loss(self, y_N: Tensor) -> float:
        share_K = torch.bincount(y_N).double() / len(y_N)
        return float(torch.special.entr(share_K).sum())


@contextmanager
def _watched(student: Network, teacher: Network, beta: float, power: float) -> Generator[_Attention]:
    modules, layers = dict(student.named_modules()), list(unit_layers(student))
    blank_NCHW = torch.zeros(1, *student.shape, device=student.device)
    placed = [name for name, seen in record(student, layers, blank_NCHW).items() if seen.ndim > 2]
    axes = {name: int(modules[name].axis) for name in placed or layers}
    with ExitStack() as stack:
        # A marker is the identity: what it reads is what the layer gives.
        heard = {name: stack.enter_context(overheard(student, modules[name])) for name in axes}
        yield _Attention(teacher, heard, axes, beta, power)
