"""CA, ASR, RA and differences between nets, from outcomes over seeds; each an Estimator, so that a level can be asked for.

Lists run over seeds; the images of all seeds are the same unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badnets.core import stats
from badnets.core.types import Estimate, Estimator
from badnets.measure.outcome import Outcome, attack_hits, robust_hits

CONSTANT_SHARE = 0.95

Hits = Sequence[np.ndarray]


def rate(hits: Hits) -> Estimator:
    """Share of True over seeds x images."""
    return stats.rate_estimator(list(hits))


def difference(hits_a: Hits, hits_b: Hits) -> Estimator:
    """rate(a) - rate(b), paired by seed and by image."""
    return stats.difference_estimator(list(hits_a), list(hits_b))


def clean_hits(outcomes: Sequence[Outcome]) -> list[np.ndarray]:
    """Correct or not, per image, of outcomes on clean images: their rate is CA."""
    return [outcome.correct_N for outcome in outcomes]


def asr_hits(outcomes: Sequence[Outcome], goal_K: np.ndarray) -> list[np.ndarray]:
    """Sent to the goal or not, per image that counts: their rate is ASR."""
    return [attack_hits(outcome, goal_K) for outcome in outcomes]


def ra_hits(outcomes: Sequence[Outcome], goal_K: np.ndarray) -> list[np.ndarray]:
    """Still right or not, per image that counts: their rate is RA."""
    return [robust_hits(outcome, goal_K) for outcome in outcomes]


def per_seed(hits: Hits) -> list[float]:
    """The rate of each seed."""
    return [float(h.mean()) for h in hits if len(h)]


def at_95(estimator: Estimator) -> Estimate:
    """The estimate with its 95 % interval."""
    return estimator(0.95)


def constant_seeds(clean: Sequence[Outcome]) -> list[int]:
    """Positions of nets that give one class to (nearly) everything, seen on clean images: their ASR means nothing.

    A data set in which one class really has such a share is not flagged.
    """
    flagged = []
    for i, outcome in enumerate(clean):
        largest_class = np.bincount(outcome.y_N[outcome.y_N >= 0]).max() / len(outcome.y_N)
        if outcome.constant_share() > max(CONSTANT_SHARE, 1.05 * largest_class):
            flagged.append(i)
    return flagged
