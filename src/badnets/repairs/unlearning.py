"""Unlearning: finds the class with the smallest inverted trigger and teaches the true labels of images that carry it.

Does not apply to a backdoor with many targets, nor to a trigger that no small mask imitates (faint and everywhere). Always takes a class;
of a clean net that is the one with the smallest natural trigger, which costs little.
B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao (2019), Neural Cleanse, section VI,
https://sites.cs.ucsb.edu/~bolunwang/assets/docs/backdoor-sp19.pdf. Departures: images of the found class never carry the trigger, for with
their own label they would teach it again; ten passes over hundreds of images where the paper has one over thousands; `train.inversion` does
the search for triggers.
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.nets._base import unit_interval
from badnets.repairs._base import Repair
from badnets.repairs._tuning import Labelled, recipe, tune
from badnets.train.inversion import Inversion, Search, few_of_each, invert

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Unlearning(Repair):
    """`share`: of the clean images of other classes, those that carry the trigger. `steps`, `num_images`: of the search for triggers."""

    kind: Literal["unlearning"] = "unlearning"
    steps: int = Field(200, ge=1)
    num_images: int = Field(100, ge=1)
    share: float = Field(0.2, gt=0, le=1)
    lr: float = Field(0.01, gt=0)
    epochs: float = Field(10, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        network, clean = view.network, view.need_clean()
        found = invert(network, few_of_each(*clean, self.num_images), Search(steps=self.steps))
        target = suspicious(found)
        if target is None:
            return network, f"nothing was done: no trigger of any class was found in {self.steps} steps"
        lesson, count = stamped(clean, found, target, self.share)
        how = recipe(self.epochs, self.lr, self.batch_size)
        note = tune(network, lesson, how, seed=stream_seed(seed, self.kind))
        return network, f"class {target}, mask of {float(found.norm_G[target]):.1f}, on {count} images; {note}"


def suspicious(found: Inversion) -> int | None:
    """The class with the smallest trigger, None where none was found."""
    norm_K = found.norm_G.where(found.norm_G.isfinite(), torch.inf)
    return int(norm_K.argmin()) if bool(norm_K.isfinite().any()) else None


def stamped(clean: Labelled, found: Inversion, target: int, share: float) -> tuple[Labelled, int]:
    """The clean images with their own labels, a share of those that are not of the class `target` with its trigger; and how many."""
    x_NCHW, y_N = clean
    others_N = (y_N != target).nonzero()[:, 0]
    # The first ones: a View is in the order of hashes, which has nothing to do with what is in the pictures.
    chosen_N = others_N[: max(1, round(share * len(others_N)))]
    lesson_NCHW = x_NCHW.clone()
    lesson_NCHW[chosen_N] = to_bytes(found.stamp(target, x_NCHW[chosen_N].to(found.mask_G1HW.device))).cpu()
    return (lesson_NCHW, y_N), len(chosen_N)


def to_bytes(x_NCHW: Tensor) -> Tensor:
    """Pixels in 0..1 as 8-bit pixels."""
    return unit_interval(x_NCHW).mul(255).round().clamp(0, 255).to(torch.uint8)
