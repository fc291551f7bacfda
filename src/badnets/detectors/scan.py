"""SCAn: asks of every label whether two groups explain its features so much better than one that the label stands out.

Blind to all-to-all attacks: where most labels hold poison, none stands out. Not for fewer than three classes, for the same reason.
D. Tang, X. Wang, H. Tang, K. Zhang (2021), Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination Detection,
https://arxiv.org/abs/1908.00686
A feature is the label's identity plus a variation that all labels share, N(0, S_mu) and N(0, S_e), both estimated by EM.
Departures: the two are estimated from clean images where granted, as in the paper. Where not, a label is measured by the variation of
all the other labels: were its own rows among them, its poison would be taken for variation, and the statistic could not exceed one over
the label's share of the rows. S_e is shrunk towards a multiple of the identity (Ledoit and Wolf), since a defender has few clean images
for many features. The split into two groups is 2-means in the space in which S_e is the identity, which maximises the same likelihood.
The statistic is taken per row, so that a label does not stand out by having many; only a larger one is suspicious. The group in which
clean images of the label are rarer is the suspicious one, or without them the smaller, a coin toss where poison is half of the label. A
row's score is the log-likelihood ratio of the two groups.
Shapes: N rows, M rows of a class, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._features import features
from badnets.detectors._rows import NO_NUMBERS, Judged, anomaly, answer, members_of, rows_of, two_means

LEAST, STARTS, RIDGE = 4, 3, 1e-2
"""RIDGE: least shrinkage, for units that never fire."""


class Scan(Detector):
    """`threshold`: rows of the suspicious group are flagged in labels that stand out by more than this (the paper's e squared). `rounds`:
    of EM. `score_K` is J*: deviations above the median of the labels."""

    kind: Literal["scan"] = "scan"
    judges = Level.ROWS
    access = Access.TRAINING
    threshold: float = Field(default=7.389, ge=0)
    rounds: int = Field(default=5, ge=1, le=1000)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        rows = rows_of(view, least=LEAST)
        if isinstance(rows, str):
            return Answer(why_not=rows)
        known = _clean(view)
        if known is not None and not np.isfinite(known[0]).all():
            return Answer(why_not=NO_NUMBERS)
        if known is None and len(rows.members) < 2:
            return Answer(why_not="needs clean images, or two labels with enough rows")
        split = {}
        moments = _Moments.of(*(known or (rows.features_NF, rows.y_N)))
        for k, x_MF in rows.by_class().items():
            clean_NF = x_MF[:0] if known is None else known[0][known[1] == k]
            apart = moments.without(x_MF, k) if known is None else moments
            split[k] = _split(x_MF, clean_NF, inverse_root(variation(apart, self.rounds)))
        stands_K = anomaly({k: gain for k, (_, _, gain) in split.items()})
        found = {k: Judged(ratio_M, bad_M & (stands_K[k] > self.threshold), stands_K[k]) for k, (ratio_M, bad_M, _) in split.items()}
        source = "clean images" if known is not None else "the other labels' rows, of which some may be poison"
        return answer(rows.y_N, rows.num_classes, rows.members, found, note=f"variation estimated from {source}")


def _clean(view: View) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and labels of the clean images, if there are two labels with two of them."""
    if view.clean is None:
        return None
    x_NCHW, y_N = view.clean
    if len(members_of(y_N.numpy(), view.num_classes, 2)) < 2:
        return None
    return features(view.network, x_NCHW)[0], y_N.numpy()


@dataclass(frozen=True, eq=False)
class _Moments:
    """What EM needs of labelled rows: of every label its name, its count and its mean, the scatter within labels, and how far to shrink."""

    label_K: np.ndarray
    count_K: np.ndarray
    mean_KF: np.ndarray
    scatter_FF: np.ndarray
    shrinkage: float

    @classmethod
    def of(cls, x_NF: np.ndarray, y_N: np.ndarray) -> _Moments:
        label_K, index_N, count_K = np.unique(y_N, return_inverse=True, return_counts=True)
        member_NK = (index_N[:, None] == np.arange(len(label_K))).astype(np.float64)
        mean_KF = member_NK.T @ x_NF / count_K[:, None]
        within_NF = x_NF - mean_KF[index_N]
        scatter_FF = within_NF.T @ within_NF
        return cls(label_K, count_K, mean_KF, scatter_FF, max(RIDGE, ledoit_wolf(within_NF, scatter_FF)))

    def without(self, x_MF: np.ndarray, label: int) -> _Moments:
        """The same without one label, whose rows are given."""
        left_K = self.label_K != label
        within_MF = x_MF - x_MF.mean(axis=0)
        scatter_FF = self.scatter_FF - within_MF.T @ within_MF
        return _Moments(self.label_K[left_K], self.count_K[left_K], self.mean_KF[left_K], scatter_FF, self.shrinkage)


def variation(moments: _Moments, rounds: int) -> np.ndarray:
    """S_e: the covariance of what all labels share, by EM, shrunk."""
    count_K, scatter_FF, num = moments.count_K, moments.scatter_FF, moments.count_K.sum()
    mean_KF = moments.mean_KF - count_K @ moments.mean_KF / num
    shared_FF = _shrunk(scatter_FF / num, RIDGE)
    identity_FF = mean_KF.T @ mean_KF / len(count_K)
    size_U, labels_U = np.unique(count_K, return_counts=True)
    for _ in range(rounds):
        # In the axes in which S_e is the identity and S_mu diagonal, what n rows of a label say of its identity is a number an axis.
        there_FF, back_FF, spread_F = _common_axes(shared_FF, identity_FF)
        sure_KF, sure_UF = (spread_F / (spread_F + 1 / n_1[:, None]) for n_1 in (count_K, size_U))
        guess_KF = (mean_KF @ there_FF * sure_KF) @ back_FF
        # What the rows of a label leave unsure of its identity depends on their number alone.
        left_UF = labels_U[:, None] * spread_F * (1 - sure_UF)
        unsure_FF, heavy_FF = (back_FF.T * left_F @ back_FF for left_F in (left_UF.sum(axis=0), size_U @ left_UF))
        off_KF = mean_KF - guess_KF
        identity_FF = (guess_KF.T @ guess_KF + unsure_FF) / len(count_K)
        shared_FF = _shrunk((scatter_FF + (off_KF * count_K[:, None]).T @ off_KF + heavy_FF) / num, RIDGE)
    return _shrunk(shared_FF, moments.shrinkage)


def _common_axes(shared_FF: np.ndarray, identity_FF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The way into axes in which the first matrix is the identity and the second diagonal, the way back, and that diagonal."""
    variance_F, axes_FF = np.linalg.eigh(shared_FF)
    deviation_F = np.sqrt(variance_F.clip(1e-300))
    root_FF = axes_FF / deviation_F
    spread_F, turn_FF = np.linalg.eigh(root_FF.T @ identity_FF @ root_FF)
    return root_FF @ turn_FF, (axes_FF * deviation_F @ turn_FF).T, spread_F.clip(0)


def ledoit_wolf(x_NF: np.ndarray, scatter_FF: np.ndarray) -> float:
    """How far to shrink the covariance of centred rows with this scatter: O. Ledoit, M. Wolf (2004), A Well-Conditioned Estimator for
    Large-Dimensional Covariance Matrices. The fourth moments are those of the rows' lengths, so that no product of squares is needed."""
    num, size = x_NF.shape
    squares = float(np.square(scatter_FF).sum()) / num**2
    noise = (float(np.square(np.einsum("nf,nf->n", x_NF, x_NF)).sum()) / num - squares) / num
    off = squares - float(np.trace(scatter_FF) / num) ** 2 / size
    return max(0.0, min(noise / off, 1.0)) if off > 0 else 0.0


def _shrunk(covariance_FF: np.ndarray, share: float) -> np.ndarray:
    size = len(covariance_FF)
    return (1 - share) * covariance_FF + share * max(np.trace(covariance_FF) / size, 1e-200) * np.eye(size)


def inverse_root(covariance_FF: np.ndarray) -> np.ndarray:
    """A matrix that turns rows with this covariance into rows with the identity."""
    variance_F, axes_FF = np.linalg.eigh(covariance_FF)
    return axes_FF / np.sqrt(variance_F.clip(1e-300))


def _split(x_MF: np.ndarray, clean_NF: np.ndarray, root_FF: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of one label: each row's log-likelihood ratio of the suspicious group to the other, the rows of that group, and the statistic."""
    centred_MF = x_MF - x_MF.mean(axis=0)
    axes_FF = np.linalg.eigh(root_FF.T @ (centred_MF.T @ centred_MF) @ root_FF)[1][:, ::-1]
    root_FF = root_FF @ axes_FF
    z_MF = centred_MF @ root_FF
    bad_M = two_means(z_MF, axes=STARTS)
    if not bad_M.any():
        return np.zeros(len(x_MF)), bad_M, 0.0
    ratio_M, gain = _ratio(z_MF, z_MF, bad_M), 0.0
    if len(clean_NF):
        clean_bad_N = _ratio(z_MF, (clean_NF - x_MF.mean(axis=0)) @ root_FF, bad_M) > 0
        if clean_bad_N.mean() > bad_M.mean():
            bad_M, ratio_M = ~bad_M, -ratio_M
    share = float(bad_M.mean())
    apart_F = z_MF[bad_M].mean(axis=0) - z_MF[~bad_M].mean(axis=0)
    gain = share * (1 - share) * float(apart_F @ apart_F)
    return ratio_M, bad_M, gain


def _ratio(z_MF: np.ndarray, of_NF: np.ndarray, bad_M: np.ndarray) -> np.ndarray:
    """log N(z | centre of the group, 1) - log N(z | centre of the other, 1), of every row of `of_NF`."""
    bad_F, good_F = z_MF[bad_M].mean(axis=0), z_MF[~bad_M].mean(axis=0)
    return (of_NF - (bad_F + good_F) / 2) @ (bad_F - good_F)
