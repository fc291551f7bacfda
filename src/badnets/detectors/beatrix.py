"""Beatrix: compares the Gram matrices of a late layer's activations with the bands that its class's matrices stay in.

Without clean images the bands come from rows of the training set: poison that is most of a class is then what is normal. Not for nets
without named units.
W. Ma, D. Wang, R. Sun, M. Xue, S. Wen, Y. Xiang (2023), The "Beatrix" Resurrections: Robust Backdoor Detection via Gram Matrices,
https://arxiv.org/abs/2209.11715
Departures: rows of the training set are judged by the class of their label, inputs in the paper by that of their prediction. A deviation
is divided by the edge of the band plus the mean entry of that order, since the edge of a dead unit's band is zero. At most `units` units
are looked at, those that vary most. Where a layer has no positions, every order gives the same matrix and one is taken. Thresholds
come from clean images alone; without them nothing is flagged, and the groups that classes are compared by are cut at the same quantile
of their own rows. The two groups are compared in the units' means over positions.
Shapes: N rows, M rows of a class, C units, S positions, P orders, E entries of the upper triangle, H rows and W columns of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._gram import Fence, activations, gram, layer_with_positions, regularised_mmd
from badnets.detectors._rows import NO_NUMBERS, Judged, anomaly, answer, members_of

if TYPE_CHECKING:
    from torch import Tensor

LEAST, FOLDS, COMPARED = 5, 5, 500


class _Band(NamedTuple):
    low_PE: Tensor
    high_PE: Tensor
    scale_P1: Tensor

    def deviation(self, gram_NPE: Tensor) -> Tensor:
        """How far outside, relative to the edge, on average over orders and entries."""
        below_NPE = (self.low_PE - gram_NPE).relu() / (self.low_PE.abs() + self.scale_P1)
        above_NPE = (gram_NPE - self.high_PE).relu() / (self.high_PE.abs() + self.scale_P1)
        return (below_NPE + above_NPE).mean(dim=(1, 2))


class _Normal(NamedTuple):
    """Of one class: the band, the threshold, and its reference rows' unit means."""

    band: _Band
    threshold: float
    mean_MC: np.ndarray


class Beatrix(Detector):
    """`orders`: highest power. `width`: of the bands, in median absolute deviations to either side. `reference`: rows a class that make
    them. `false_alarms`: the share of reference rows above the threshold. `kappa`: how much the MMD is regularised. `score_K`:
    deviations above the median of the classes."""

    kind: Literal["beatrix"] = "beatrix"
    judges = Level.ROWS
    access = Access.TRAINING
    orders: int = Field(default=8, ge=1, le=16)
    width: float = Field(default=10.0, gt=0)
    reference: int = Field(default=100, ge=LEAST)
    units: int = Field(default=64, ge=1)
    false_alarms: float = Field(default=0.05, gt=0, lt=1)
    kappa: float = Field(default=1.0, ge=0, le=1)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        x_NCHW, labels_N = view.need_training()
        y_N, layer = labels_N.numpy(), layer_with_positions(view.network)
        members = members_of(y_N, view.num_classes, LEAST)
        if layer is None or not members:
            return Answer(why_not="needs a net with named units" if layer is None else f"no class has {LEAST} rows")
        pool_NCHW, pool_K, clean = _pool(view, members)
        pool_K = {k: index[: self.reference] for k, index in pool_K.items()}
        known_NCS = torch.cat(list(activations(view.network, layer, pool_NCHW[np.concatenate(list(pool_K.values()))])))
        if not torch.isfinite(known_NCS).all():
            return Answer(why_not=NO_NUMBERS)
        chosen_C = known_NCS.var(dim=(0, 2)).argsort(descending=True, stable=True)[: self.units].sort().values
        # Powers of numbers near 1 neither overflow nor vanish; every order of the matrix scales alike, so nothing else sees it.
        largest = float(known_NCS.abs().amax().clamp_min(1e-30))
        normal_K = self._normal(known_NCS[:, chosen_C] / largest, pool_K)
        score_N, mean_NC = np.zeros(len(y_N)), np.zeros((len(y_N), len(chosen_C)))
        for k, index in members.items():
            fence, start = Fence(*normal_K[k].band, units=len(chosen_C)), 0
            for acts_NCS in activations(view.network, layer, x_NCHW[index]):
                part_N, start = index[start : start + len(acts_NCS)], start + len(acts_NCS)
                acts_NCS = acts_NCS[:, chosen_C] / largest
                mean_NC[part_N] = acts_NCS.mean(dim=2).numpy()
                score_N[part_N] = fence.deviation(acts_NCS)
        if not np.isfinite(score_N).all():
            return Answer(why_not=NO_NUMBERS)
        apart_K = anomaly({k: self._apart(normal_K[k], score_N[index], mean_NC[index]) for k, index in members.items()})
        found = {
            k: Judged(score_N[index], score_N[index] > normal_K[k].threshold if clean else None, apart_K[k]) for k, index in members.items()
        }
        note = f"layer {layer}; bands from {'clean images' if clean else 'the training set itself, so without a threshold'}"
        return answer(y_N, view.num_classes, members, found, note=note)

    def _normal(self, known_NCS: Tensor, pool_K: dict[int, np.ndarray]) -> dict[int, _Normal]:
        """What is normal in each class, from its reference rows; they lie class by class in `known_NCS`."""
        parts = dict(zip(pool_K, known_NCS.split([len(index) for index in pool_K.values()]), strict=True))
        sums_KP = torch.stack([gram(part_MCS, self.orders).abs().mean(dim=2).sum(dim=0) for part_MCS in parts.values()])
        scale_P1 = (sums_KP.sum(dim=0) / len(known_NCS)).clamp_min(1e-30)[:, None]
        return {k: self._class(part_MCS, scale_P1) for k, part_MCS in parts.items()}

    def _class(self, acts_MCS: Tensor, scale_P1: Tensor) -> _Normal:
        """The threshold is the quantile of rows judged by bands that the other four fifths made."""
        gram_MPE, mean_MC = gram(acts_MCS, self.orders), acts_MCS.mean(dim=2).numpy()
        fold_M = torch.arange(len(gram_MPE)) % FOLDS
        out = [self._band(gram_MPE[fold_M != fold], scale_P1).deviation(gram_MPE[fold_M == fold]) for fold in range(FOLDS)]
        threshold = float(np.quantile(torch.cat(out).numpy(), 1 - self.false_alarms))
        return _Normal(self._band(gram_MPE, scale_P1), threshold, mean_MC)

    def _band(self, gram_MPE: Tensor, scale_P1: Tensor) -> _Band:
        median_PE = gram_MPE.median(dim=0).values
        reach_PE = self.width * (gram_MPE - median_PE).abs().median(dim=0).values
        return _Band(median_PE - reach_PE, median_PE + reach_PE, scale_P1)

    def _apart(self, normal: _Normal, score_M: np.ndarray, mean_MC: np.ndarray) -> float:
        """How far the class's suspicious rows lie from what is normal; no such rows, no distance."""
        odd_MC = mean_MC[score_M > normal.threshold][:COMPARED]
        if not len(odd_MC):
            return -2.0 * self.kappa
        return regularised_mmd(odd_MC, normal.mean_MC, self.kappa)


def _pool(view: View, members: dict[int, np.ndarray]) -> tuple[Tensor, dict[int, np.ndarray], bool]:
    """Images that say what is normal, those of each class, and whether they are clean: if every class to be judged has enough of them."""
    if view.clean is not None:
        x_NCHW, y_N = view.clean
        found = members_of(y_N.numpy(), view.num_classes, LEAST)
        if members.keys() <= found.keys():
            return x_NCHW, {k: found[k] for k in members}, True
    return view.need_training()[0], members, False
