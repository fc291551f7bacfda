"""Activation clustering: splits the features of every label in two, and suspects the smaller part.

Blind where poison is no minority: at 10 % poison on ten balanced classes half of the target's rows are poison, and which half is called
the smaller cluster is a coin toss. Not for a handful of rows a class either: two clusters are found in anything.
B. Chen, W. Carvalho, N. Baracaldo, H. Ludwig, B. Edwards, T. Lee, I. Molloy, B. Srivastava (2018), Detecting Backdoor Attacks on Deep
Neural Networks by Activation Clustering, https://arxiv.org/abs/1811.03728
Departures: the paper's ICA whitens the strongest directions and rotates them; distances do not see the rotation, nor do 2-means and
the silhouette, so it is not computed ("ica" and whitened PCA are the same here). A row's score is continuous: where it lies on the line
from the larger cluster's centre (0) to the smaller one's (1), times the class's silhouette. Both of the paper's rules must hold for a
flag. The silhouette looks at a thousand rows of either cluster at most. Exclusionary reclassification, which trains anew, is left out.
Shapes: N rows of a class, F features, D directions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector
from badnets.detectors._rows import Judged, answer, principal, rows_of, squares_between, two_means

LEAST, LOOKED_AT = 4, 1000


class ActivationClustering(Detector):
    """Rows of the smaller cluster are flagged where it is less than `size` of its class (the paper's 35 %) and the class's silhouette is
    above `silhouette` (0.10 to 0.15 in the paper). `score_K` is the silhouette."""

    kind: Literal["activation_clustering"] = "activation_clustering"
    judges = Level.ROWS
    access = Access.TRAINING
    dimensions: int = Field(default=10, ge=1, le=1000)
    reduce: Literal["ica", "pca"] = "ica"
    size: float = Field(default=0.35, gt=0, le=0.5)
    silhouette: float = Field(default=0.15, ge=-1, le=1)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        rows = rows_of(view, least=LEAST)
        if isinstance(rows, str):
            return Answer(why_not=rows)
        found = {k: self._judge(x_NF) for k, x_NF in rows.by_class().items()}
        return answer(rows.y_N, rows.num_classes, rows.members, found)

    def _judge(self, x_NF: np.ndarray) -> Judged:
        x_ND = reduced(x_NF, self.dimensions, whiten=self.reduce == "ica")
        small_N = two_means(x_ND)
        if not small_N.any():
            return Judged(np.zeros(len(x_NF)), small_N, 0.0)
        separate = silhouette_of(x_ND, small_N)
        large_D = x_ND[~small_N].mean(axis=0)
        axis_D = x_ND[small_N].mean(axis=0) - large_D
        place_N = (x_ND - large_D) @ axis_D / (axis_D @ axis_D)
        bad = small_N.mean() < self.size and separate > self.silhouette
        return Judged(max(separate, 0.0) * place_N, small_N & bad, separate)


def reduced(x_NF: np.ndarray, dimensions: int, *, whiten: bool) -> np.ndarray:
    """The strongest directions, and each with variance 1 if `whiten`."""
    x_ND = principal(x_NF, dimensions)
    return x_ND / x_ND.std(axis=0) if whiten else x_ND


def silhouette_of(x_ND: np.ndarray, small_N: np.ndarray) -> float:
    """The mean over rows of (b - a) / max(a, b): a, b the mean distances to the own and to the other cluster; 0 for a row on its own."""
    parts = [x_ND[small_N][:LOOKED_AT], x_ND[~small_N][:LOOKED_AT]]
    shares = [small_N.mean(), 1 - small_N.mean()]
    between = np.sqrt(squares_between(*parts))
    total = 0.0
    for own, (share, part_MD) in enumerate(zip(shares, parts, strict=True)):
        if len(part_MD) > 1:
            a_M = np.sqrt(squares_between(part_MD, part_MD)).sum(axis=1) / (len(part_MD) - 1)
            b_M = between.mean(axis=1 - own)
            total += share * float(((b_M - a_M) / np.maximum(np.maximum(a_M, b_M), 1e-300)).mean())
    return float(total)
