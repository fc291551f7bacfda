"""Spectral signatures: scores rows by how far they lie along the direction in which their class varies most.

Not where clean rows of a class vary more than poison differs from them, nor where poison is most of the class: it then is the centre.
B. Tran, J. Li, A. Madry (2018), Spectral Signatures in Backdoor Attacks, https://arxiv.org/abs/1811.00636
Departures: the paper knows how much poison there is at most (eps) and removes 1.5 times that of every class. Nobody tells a defender, so
`removal` is a guess: 0.15, which is right for a tenth of a class, the most that the paper plants. The paper names no class; `score_K`
is the variance along that direction over the median of the classes', a large top singular value being what betrays poison there.
Shapes: N rows of a class, F features.
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

LEAST = 3


class SpectralSignatures(Detector):
    """`removal`: the share of every class that is flagged, clean or not."""

    kind: Literal["spectral_signatures"] = "spectral_signatures"
    judges = Level.ROWS
    access = Access.TRAINING
    removal: float = Field(default=0.15, gt=0, le=0.5)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        rows = rows_of(view, least=LEAST)
        if isinstance(rows, str):
            return Answer(why_not=rows)
        scores = {k: squared_projection(x_NF) for k, x_NF in rows.by_class().items()}
        usual = max(float(np.median([score_N.mean() for score_N in scores.values()])), 1e-300)
        found = {k: Judged(score_N, top(score_N, self.removal), float(score_N.mean()) / usual) for k, score_N in scores.items()}
        return answer(rows.y_N, rows.num_classes, rows.members, found)


def squared_projection(x_NF: np.ndarray) -> np.ndarray:
    """Of every row, centred on the class's mean, on the top right singular vector; zeros where all rows are the same."""
    return np.square(principal(x_NF, 1)).sum(axis=1)
