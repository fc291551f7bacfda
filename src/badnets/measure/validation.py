"""What a customer's standard validation sees of one net: accuracy, loss, recall per class, macro-F1, calibration error, confusion.

Shapes: N validation images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from badnets.measure.outcome import Outcome

NUM_BINS = 15


@dataclass(frozen=True)
class Validation:
    """`scores`: each statistic as a number that grows with suspicion (accuracy and its kin negated); `confusion_KK` row-normalised."""

    scores: dict[str, float]
    confusion_KK: np.ndarray


def validate(outcome: Outcome, num_classes: int) -> Validation:
    """Statistics of a net's outcome on clean labelled images; the outcome must have kept its logits."""
    assert outcome.logits_NK is not None, "validation needs logits"
    counts_KK = np.zeros((num_classes, num_classes))
    answered_N = outcome.pred_N >= 0
    np.add.at(counts_KK, (outcome.y_N[answered_N], outcome.pred_N[answered_N]), 1)
    true_K, called_K, hit_K = np.bincount(outcome.y_N, minlength=num_classes), counts_KK.sum(axis=0), np.diag(counts_KK)
    present_K = true_K > 0
    recall_K = hit_K[present_K] / true_K[present_K]
    f1_K = 2 * hit_K[present_K] / (true_K + called_K)[present_K]
    scores = {
        "accuracy": -float(outcome.correct_N.mean()),
        "loss": _loss(outcome.logits_NK, outcome.y_N),
        "lowest recall": -float(recall_K.min()),
        "macro-F1": -float(f1_K.mean()),
        "calibration error": _calibration_error(outcome),
    }
    return Validation(scores, counts_KK / np.maximum(true_K, 1)[:, None])


def _loss(logits_NK: np.ndarray, y_N: np.ndarray) -> float:
    top_N1 = logits_NK.max(axis=1, keepdims=True).astype(np.float64)
    log_sum_N = np.log(np.exp(logits_NK - top_N1).sum(axis=1)) + top_N1[:, 0]
    return float((log_sum_N - logits_NK[np.arange(len(y_N)), y_N]).mean())


def _calibration_error(outcome: Outcome) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    bin_N = np.minimum((outcome.conf_N * NUM_BINS).astype(int), NUM_BINS - 1)
    gap_B = np.bincount(bin_N, outcome.correct_N - outcome.conf_N.astype(np.float64), NUM_BINS)
    return float(np.abs(gap_B).sum() / len(bin_N))


def outlyingness(suspect: Validation, references: list[Validation]) -> float:
    """How far a net's validation stands out from clean reference nets: the largest |z| over the statistics and over the confusion
    matrix's distance from the mean confusion matrix. At least three references."""
    assert len(references) >= 3, "a spread needs at least three references"
    z = []
    for name, value in suspect.scores.items():
        known = np.array([r.scores[name] for r in references])
        z.append(abs(value - known.mean()) / max(known.std(ddof=1), 1e-9))
    mean_KK = np.mean([r.confusion_KK for r in references], axis=0)
    apart = np.array([np.abs(r.confusion_KK - mean_KK).sum() for r in references])
    z.append(max(0.0, float(np.abs(suspect.confusion_KK - mean_KK).sum() - apart.mean()) / max(apart.std(ddof=1), 1e-9)))
    return max(z)
