"""Per-example outcomes of one net on one set of images: kept whole, so that paired tests stay possible.

Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNKNOWN = -1
NO_ANSWER = -2


@dataclass(frozen=True)
class Outcome:
    """`y_N` true labels (UNKNOWN where an image has none), `pred_N` predictions (NO_ANSWER where logits were no numbers), `conf_N`
    the probability of the prediction.

    `logits_NK` only where the probe asked for them.
    """

    y_N: np.ndarray
    pred_N: np.ndarray
    conf_N: np.ndarray
    logits_NK: np.ndarray | None = None

    @classmethod
    def from_logits(cls, logits_NK: np.ndarray, y_N: np.ndarray, *, keep_logits: bool) -> Outcome:
        """Predictions and confidences from float logits. Where logits are no numbers (a diverged net) there is no prediction."""
        finite_N = np.asarray(np.isfinite(logits_NK).all(axis=1))
        logits_NK = np.where(finite_N[:, None], logits_NK, 0.0)
        exp_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
        conf_N = np.where(finite_N, exp_NK.max(axis=1) / exp_NK.sum(axis=1), 0.0)
        pred_N = np.where(finite_N, logits_NK.argmax(axis=1), NO_ANSWER)
        kept_NK = logits_NK.astype(np.float32) if keep_logits else None
        return cls(y_N.astype(np.int64), pred_N, conf_N.astype(np.float32), kept_NK)

    @property
    def correct_N(self) -> np.ndarray:
        """True where the prediction is the true label."""
        return self.pred_N == self.y_N

    def constant_share(self) -> float:
        """Share of the images that get the most frequent prediction: near 1 means that the net ignores its input."""
        return float(np.unique(self.pred_N, return_counts=True)[1].max() / len(self.pred_N))

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields as arrays to be packed; labels as int16."""
        packed = {"y": self.y_N.astype(np.int16), "pred": self.pred_N.astype(np.int16), "conf": self.conf_N.astype(np.float32)}
        return packed if self.logits_NK is None else {**packed, "logits": self.logits_NK}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Outcome:
        """Inverse of `arrays`."""
        return cls(arrays["y"].astype(np.int64), arrays["pred"].astype(np.int64), arrays["conf"], arrays.get("logits"))


def attacked_N(y_N: np.ndarray, goal_K: np.ndarray) -> np.ndarray:
    """Images that count towards ASR: their class has a goal and is not that goal already. Without a true label an image
    counts only when every attacked class has the same goal (all-to-one)."""
    classes_K = np.arange(len(goal_K))
    counts_K = (goal_K >= 0) & (goal_K != classes_K)
    labelled_N = y_N != UNKNOWN
    return np.where(labelled_N, counts_K[np.where(labelled_N, y_N, 0)], len(set(goal_K[counts_K])) == 1)


def goal_N(y_N: np.ndarray, goal_K: np.ndarray) -> np.ndarray:
    """The label each image is meant to be sent to; for images without a true label, the one common goal."""
    common = goal_K[(goal_K >= 0) & (goal_K != np.arange(len(goal_K)))].max(initial=UNKNOWN)
    return np.where(y_N != UNKNOWN, goal_K[np.where(y_N != UNKNOWN, y_N, 0)], common)


def attack_hits(outcome: Outcome, goal_K: np.ndarray) -> np.ndarray:
    """True / False for each image that counts towards ASR: classified as its goal?"""
    counts_N = attacked_N(outcome.y_N, goal_K)
    return (outcome.pred_N == goal_N(outcome.y_N, goal_K))[counts_N]


def robust_hits(outcome: Outcome, goal_K: np.ndarray) -> np.ndarray:
    """The same images: still classified as their true label?"""
    return outcome.correct_N[attacked_N(outcome.y_N, goal_K)]
