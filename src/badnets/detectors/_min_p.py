"""Many scores as one p-value: each net's smallest p-value over detectors, and its rank in these.

Not for p-values that come from elsewhere: the suspect and the clean nets are ranked together, detector by detector, from their scores.
P. H. Westfall, S. S. Young (1993), Resampling-Based Multiple Testing (min-p).
Departure: ties of the smallest p-value, of which few nets leave many, are broken by how far the score lies outside.
Shapes: P nets known to be clean, Q those and the suspect (last), D detectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy import ndarray

NOT_ASKED = -np.inf
"""The score of a detector that could still say anything: all that is open in it is decided against the suspect."""


def combined_p(rows_PD: ndarray, scores: Sequence[float | None]) -> float | None:
    """The p-value of all scores together; None where no detector has said anything.

    With NOT_ASKED among the scores it is the largest that can come out once those detectors were asked: whatever they say, the suspect can
    only move past clean nets, and these reach nothing that they were not granted before.
    """
    if all(score is None or score == NOT_ASKED for score in scores):
        return None
    smallest_Q, outside_Q = np.full(len(rows_PD) + 1, np.inf), np.full(len(rows_PD) + 1, -np.inf)
    for place, score in enumerate(scores):
        if score is None:
            continue
        pooled_Q = np.concatenate([rows_PD[:, place], [score]])
        p_Q = tail_shares(pooled_Q)
        far_Q = robust_z(pooled_Q) if score != NOT_ASKED else np.where(pooled_Q == NOT_ASKED, -np.inf, np.inf)
        outside_Q = np.where(p_Q < smallest_Q, far_Q, np.where(p_Q == smallest_Q, np.maximum(outside_Q, far_Q), outside_Q))
        smallest_Q = np.minimum(smallest_Q, p_Q)
    ahead_Q = (smallest_Q < smallest_Q[-1]) | ((smallest_Q == smallest_Q[-1]) & (outside_Q >= outside_Q[-1]))
    return int(ahead_Q.sum()) / len(ahead_Q)


def tail_shares(values_Q: ndarray) -> ndarray:
    """For each value the share of all values that are at least as large."""
    return (len(values_Q) - np.searchsorted(np.sort(values_Q), values_Q, side="left")) / len(values_Q)


def robust_z(values_Q: ndarray) -> ndarray:
    """How many robust standard deviations each value lies above the median."""
    away_Q = values_Q - np.median(values_Q)
    spread = 1.4826 * float(np.median(np.abs(away_Q))) or float(np.std(values_Q))
    return away_Q / spread if spread > 0 else away_Q
