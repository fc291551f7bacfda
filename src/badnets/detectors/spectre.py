"""SPECTRE: whitens every class by a covariance that outliers cannot bend, then scores rows by quantum entropy.

Not where poison is more than a fifth of a class, which is all that is trimmed by default: it then shapes the covariance itself.
J. Hayase, W. Kong, R. Somani, S. Oh (2021), SPECTRE: Defending Against Backdoor Attacks Using Robust Statistics,
https://arxiv.org/abs/2104.11315
Departures: the robust covariance comes from repeated trimming (start from the covariance of directions around the median, keep the
nearest rows, estimate, again), not from the filter of Diakonikolas et al. (2017), which needs the matrix of fourth moments. As in the
paper 1.5 eps is flagged and 2 eps trimmed; eps is not known, so `removal` (1.5 eps) is a guess. Units that fire for one clean row in a
hundred make directions in which the trimmed rows do not vary at all: directions with little variance are left out, and no row longer than
the 1 - eps / 2 quantile bends the covariance that weights directions. The number of directions k is that for which, whitened by the kept
rows, that quantile of the scores is the most times their median (the paper: for which the mean score is largest, which one row can make
so). The same figure of a class is `score_K`.
Shapes: N rows of a class, C rows that changed sides, F features, D and k directions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._rows import Judged, answer, principal, rows_of, top

LEAST, CANDIDATES, ROWS_PER_DIRECTION = 4, 10, 4
FLOOR = 1e-6
"""Smallest variance after trimming, as a share of the largest before: clean rows may not vary at all where poison does."""


class Spectre(Detector):
    """`removal`: the share of every class that is flagged, clean or not. `alpha`: 0 looks at all directions alike, a large one at the
    worst alone. `dimensions`: the largest k that is tried. `smallest`: variance of a direction that is looked at, as a share of the
    largest. `rounds`: of trimming, at most."""

    kind: Literal["spectre"] = "spectre"
    judges = Level.ROWS
    access = Access.TRAINING
    removal: float = Field(default=0.15, gt=0, le=0.4)
    alpha: float = Field(default=4.0, ge=0, le=100)
    dimensions: int = Field(default=100, ge=1, le=1000)
    smallest: float = Field(default=0.01, ge=1e-8, lt=1)
    rounds: int = Field(default=10, ge=1, le=1000)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        rows = rows_of(view, least=LEAST)
        if isinstance(rows, str):
            return Answer(why_not=rows)
        found = {k: self._judge(x_NF) for k, x_NF in rows.by_class().items()}
        return answer(rows.y_N, rows.num_classes, rows.members, found)

    def _judge(self, x_NF: np.ndarray) -> Judged:
        """The answer for the k of the largest figure; of equals, the smallest k."""
        most = min(self.dimensions, max(1, len(x_NF) // ROWS_PER_DIRECTION))
        x_ND = principal(x_NF, most, smallest=self.smallest)
        if not x_ND.shape[1]:
            return Judged(np.zeros(len(x_NF)), np.zeros(len(x_NF), dtype=bool), 1.0)
        tried = np.unique(np.round(np.linspace(1, np.sqrt(x_ND.shape[1]), CANDIDATES) ** 2).astype(int))
        found = [self._with(x_ND, int(k)) for k in tried]
        return found[int(np.argmax([judged.score for judged in found]))]

    def _with(self, x_ND: np.ndarray, k: int) -> Judged:
        x_Nk = np.ascontiguousarray(x_ND[:, :k])
        score_N = self._scores(x_Nk, nearest(x_Nk, 1 - self.removal * 4 / 3, self.rounds))
        bad_N = top(score_N, self.removal)
        seen_N = self._scores(x_ND, ~bad_N)
        return Judged(score_N, bad_N, float(np.quantile(seen_N, 1 - self.removal / 3) / max(np.median(seen_N), 1e-300)))

    def _scores(self, x_Nk: np.ndarray, near_N: np.ndarray) -> np.ndarray:
        white_Nk = whitened(x_Nk, near_N)
        return entropy_scores(white_Nk, bounded(white_Nk, 1 - self.removal / 3), self.alpha)


def nearest(x_Nk: np.ndarray, share: float, rounds: int) -> np.ndarray:
    """The `share` of the rows that lie nearest to each other, as a mask: trimmed again and again by Mahalanobis distance."""
    count = max(2, round(share * len(x_Nk)))
    off_Nk = x_Nk - np.median(x_Nk, axis=0)
    # Directions instead of differences: no row, however far, then weighs more than another.
    unit_Nk = off_Nk / np.linalg.norm(off_Nk, axis=1, keepdims=True).clip(1e-300)
    distance_N = np.square(off_Nk @ _inverse_root(unit_Nk.T @ unit_Nk / len(x_Nk), 1.0)).sum(axis=1)
    near_N, scale = np.zeros(len(x_Nk), dtype=bool), float(x_Nk[:, 0].var())
    sum_k, square_kk = np.zeros(x_Nk.shape[1]), np.zeros((x_Nk.shape[1], x_Nk.shape[1]))
    for _ in range(rounds):
        now_N = _smallest(distance_N, count)
        changed = np.flatnonzero(now_N != near_N)
        if not len(changed):
            break
        # Late rounds change few rows, so sums over the kept ones are brought up to date and not taken again.
        near_N, part_Ck, sign_C = now_N, x_Nk[changed], np.where(now_N[changed], 1.0, -1.0)
        sum_k, square_kk = sum_k + sign_C @ part_Ck, square_kk + (part_Ck.T * sign_C) @ part_Ck
        mean_k = sum_k / count
        root_kk = _inverse_root(square_kk / count - np.outer(mean_k, mean_k), scale)
        white_Nk = x_Nk @ root_kk - mean_k @ root_kk
        distance_N = np.einsum("nk,nk->n", white_Nk, white_Nk)
    return near_N


def _smallest(value_N: np.ndarray, count: int) -> np.ndarray:
    """The `count` smallest values, as a mask; of equals the earlier."""
    last = np.partition(value_N, count - 1)[count - 1]
    small_N = value_N < last
    small_N[np.flatnonzero(value_N == last)[: count - int(np.count_nonzero(small_N))]] = True
    return small_N


def whitened(x_Nk: np.ndarray, near_N: np.ndarray) -> np.ndarray:
    """All rows, moved and scaled so that the chosen ones have mean 0 and the identity as their covariance."""
    near_Mk = x_Nk[near_N]
    mean_k = near_Mk.mean(axis=0)
    near_Mk = near_Mk - mean_k
    # The first direction is the one of largest variance.
    return (x_Nk - mean_k) @ _inverse_root(near_Mk.T @ near_Mk / len(near_Mk), float(x_Nk[:, 0].var()))


def bounded(x_Nk: np.ndarray, share: float) -> np.ndarray:
    """The rows, those longer than the quantile `share` of their lengths drawn back to it."""
    length_N = np.sqrt(np.einsum("nk,nk->n", x_Nk, x_Nk)).clip(1e-300)
    return x_Nk * np.minimum(1.0, np.quantile(length_N, share) / length_N)[:, None]


def entropy_scores(x_Nk: np.ndarray, shape_Nk: np.ndarray, alpha: float) -> np.ndarray:
    """Squares of whitened rows, directions weighted by exp(alpha (C - 1) / (|C| - 1)), where C is the covariance of `shape_Nk`."""
    centred_Nk = shape_Nk - shape_Nk.mean(axis=0)
    variance_k, axes_kk = np.linalg.eigh(centred_Nk.T @ centred_Nk / len(shape_Nk))
    largest = float(variance_k[-1])
    # Divided by the largest weight, which no score sees: the exponential then cannot overflow.
    weight_k = np.exp(alpha * (variance_k - largest) / (largest - 1)) if largest > 1 else np.ones_like(variance_k)
    return np.square(x_Nk @ axes_kk) @ (weight_k / weight_k.sum())


def _inverse_root(covariance_kk: np.ndarray, scale: float) -> np.ndarray:
    variance_k, axes_kk = np.linalg.eigh(covariance_kk)
    return axes_kk / np.sqrt(np.maximum(variance_k, FLOOR * scale))
