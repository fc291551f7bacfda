"""What detectors of the training set share: rows by label, an answer made of the classes', 2-means, an index of anomaly.

A class with too few rows cannot be judged: its `score_K` is NaN, and its rows get the median score of the others and no flag. `target` is
the class with the largest `score_K`: the best guess there is, not an accusation.
Shapes: N rows, F features, D directions, S starts, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from badnets.core.finding import Answer
from badnets.core.view import View
from badnets.detectors._features import features

NO_NUMBERS = "the features are not finite: the net gives no numbers"
SMALLEST_VARIANCE = 1e-8
"""Of a direction, as a share of the largest: below it float32 features hold rounding and little else."""
GAUSSIAN = 1.4826
"""The standard deviation of Gaussian numbers in units of their median absolute deviation."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What the net's head reads of each training row, the given labels, and the rows of every class that has enough of them."""

    features_NF: np.ndarray
    y_N: np.ndarray
    num_classes: int
    members: Mapping[int, np.ndarray]

    def by_class(self) -> dict[int, np.ndarray]:
        """The features of every class in `members`."""
        return {k: self.features_NF[index] for k, index in self.members.items()}


class Judged(NamedTuple):
    """What was found in one class: of its rows in their order, and of the class."""

    score_N: np.ndarray
    flag_N: np.ndarray | None
    score: float


def rows_of(view: View, *, least: int) -> Rows | str:
    """The training rows by class, or why there is nothing to judge. A class needs `least` rows."""
    x_NCHW, labels_N = view.need_training()
    if lacks_head(view):
        return "needs a net with a linear head"
    y_N = labels_N.numpy()
    members = members_of(y_N, view.num_classes, least)
    if not members:
        return f"no class has {least} rows"
    features_NF, _ = features(view.network, x_NCHW)
    if not np.isfinite(features_NF).all():
        return NO_NUMBERS
    return Rows(features_NF, y_N, view.num_classes, members)


def lacks_head(view: View) -> bool:
    """Whether the net has no linear layer, and so no features that could be read (quantised nets)."""
    from torch import nn

    return not any(isinstance(module, nn.Linear) for module in view.network.modules())


def members_of(y_N: np.ndarray, num_classes: int, least: int) -> dict[int, np.ndarray]:
    """Class -> its rows, of every class that has `least` of them."""
    found = {k: np.flatnonzero(y_N == k) for k in range(num_classes)}
    return {k: index for k, index in found.items() if len(index) >= least}


def answer(y_N: np.ndarray, num_classes: int, members: Mapping[int, np.ndarray], found: Mapping[int, Judged], note: str = "") -> Answer:
    """An Answer from what was found in each class."""
    score_N, flag_N, known_N = np.zeros(len(y_N)), np.zeros(len(y_N), dtype=bool), np.zeros(len(y_N), dtype=bool)
    score_K = np.full(num_classes, np.nan)
    for k, judged in found.items():
        score_N[members[k]], known_N[members[k]], score_K[k] = judged.score_N, True, judged.score
        if judged.flag_N is not None:
            flag_N[members[k]] = judged.flag_N
    score_N[~known_N] = np.median(score_N[known_N])
    skipped = sorted({int(k) for k in y_N[~known_N]})
    notes = [note] if note else []
    notes += [f"not judged, having too few rows: classes {skipped}"] if skipped else []
    target = int(np.nanargmax(score_K)) if np.isfinite(score_K).any() else None
    flags = None if all(judged.flag_N is None for judged in found.values()) else flag_N
    return Answer(score_N=score_N, flag_N=flags, score_K=score_K, target=target, note="; ".join(notes))


def top(score_N: np.ndarray, share: float) -> np.ndarray:
    """The rows with the largest scores, `share` of all (rounded, at least one); ties go to the earlier row."""
    flag_N = np.zeros(len(score_N), dtype=bool)
    flag_N[np.argsort(-score_N, kind="stable")[: max(1, round(share * len(score_N)))]] = True
    return flag_N


def principal(x_NF: np.ndarray, most: int, *, smallest: float = SMALLEST_VARIANCE) -> np.ndarray:
    """Centred rows in the coordinates of their principal axes, the strongest first; at most `most`, each with more than the share
    `smallest` of the first one's variance."""
    centred_NF = x_NF - x_NF.mean(axis=0)
    variance_F, axes_FF = np.linalg.eigh(centred_NF.T @ centred_NF / len(x_NF))
    kept = [f for f in np.argsort(-variance_F)[:most] if variance_F[f] > smallest * max(variance_F[-1], 1e-300)]
    return centred_NF @ axes_FF[:, kept]


def two_means(x_ND: np.ndarray, *, axes: int = 10, steps: int = 100) -> np.ndarray:
    """The smaller cluster of the best 2-means split found, as a mask; all False where the rows are all the same.

    No randomness: it starts from cuts at the mean, and 1.5 deviations to either side of it, along the first `axes` coordinates, and goes
    from each of them. Of two clusters of the same size the one without the first row counts as the smaller.
    """
    x_ND = x_ND - x_ND.mean(axis=0)
    num, starts_DN = len(x_ND), x_ND[:, :axes].T
    deviation_D1 = starts_DN.std(axis=1, keepdims=True)
    inside_SN = np.concatenate([starts_DN > cut * deviation_D1 for cut in (0.0, 1.5, -1.5)])
    inside_SN = inside_SN[inside_SN.any(axis=1) & ~inside_SN.all(axis=1)]
    if not len(inside_SN):
        return np.zeros(num, dtype=bool)
    best_N = max(_settled(x_ND, inside_SN, steps), key=lambda split: split[0])[1]
    size = int(best_N.sum())
    return ~best_N if 2 * size > num or (2 * size == num and best_N[0]) else best_N


def _settled(x_ND: np.ndarray, inside_SN: np.ndarray, steps: int) -> list[tuple[float, np.ndarray]]:
    """Where each start ends after `steps` of 2-means at most, and how much that split takes off the squares.

    Most starts meet on the way, and only one of those that met goes on; one that has settled costs nothing more.
    """
    num, x_DN, found = len(x_ND), np.ascontiguousarray(x_ND.T), []
    size_S, sum_SD = np.count_nonzero(inside_SN, axis=1), inside_SN.astype(np.float64) @ x_ND
    for _ in range(steps):
        axis_SD, middle_SD, gain_S = _centroids(sum_SD, size_S, num)
        moved_SN = axis_SD @ x_DN > (axis_SD * middle_SD).sum(axis=1, keepdims=True)
        changed_SN = moved_SN != inside_SN
        settled_S = ~changed_SN.any(axis=1)
        found += zip(gain_S[settled_S].tolist(), inside_SN[settled_S], strict=True)
        on_S = ~settled_S & _first_of_its_kind(moved_SN)
        if not on_S.any():
            return found
        # Late steps move few rows, whose sum is cheaper than that of all that are inside.
        rows = np.flatnonzero(changed_SN[on_S].any(axis=0))
        step_SR = moved_SN[on_S][:, rows] - inside_SN[on_S][:, rows].astype(np.float64)
        inside_SN, size_S, sum_SD = moved_SN[on_S], size_S[on_S] + step_SR.sum(axis=1), sum_SD[on_S] + step_SR @ x_ND[rows]
    return [*found, *zip(_centroids(sum_SD, size_S, num)[2].tolist(), inside_SN, strict=True)]


def _first_of_its_kind(inside_SN: np.ndarray) -> np.ndarray:
    """Which splits no earlier one equals, whichever side is called inside."""
    kinds = [row.tobytes() for row in np.packbits(inside_SN ^ inside_SN[:, :1], axis=1)]
    return np.array([kinds.index(kind) == s for s, kind in enumerate(kinds)])


def _centroids(sum_SD: np.ndarray, size_S: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every split of `num` centred rows, from the sum and the number of those inside: from one centroid to the other, the point between
    them, how much the split takes off the squares."""
    # A cluster is empty only after its centroid met the other one, and the split gains nothing then.
    size_S = size_S.clip(1, num - 1)
    one_SD, other_SD = sum_SD / size_S[:, None], -sum_SD / (num - size_S)[:, None]
    axis_SD = one_SD - other_SD
    return axis_SD, (one_SD + other_SD) / 2, size_S * (num - size_S) / num * np.square(axis_SD).sum(axis=1)


def squares_between(one_ND: np.ndarray, other_MD: np.ndarray) -> np.ndarray:
    """The squared distance of every row to every row, |a|^2 - 2 a b + |b|^2 as one matrix product: good to 1e-15 of the largest square."""
    middle_D = one_ND.mean(axis=0)
    one_ND, other_MD = one_ND - middle_D, other_MD - middle_D
    one_N1, other_M1 = np.square(one_ND).sum(axis=1, keepdims=True), np.square(other_MD).sum(axis=1, keepdims=True)
    left_NE = np.concatenate([one_ND, one_N1, np.ones_like(one_N1)], axis=1)
    right_ME = np.concatenate([-2 * other_MD, np.ones_like(other_M1), other_M1], axis=1)
    square_NM = left_NE @ right_ME.T
    return square_NM.clip(0, out=square_NM)


def anomaly(value_K: Mapping[int, float]) -> dict[int, float]:
    """How many deviations each class lies above the median of the classes, the deviation taken from the median absolute one.

    One-sided: less than usual is not suspicious. Fewer than three classes say nothing of what is usual, so each gets 0 then.
    """
    values = np.array(list(value_K.values()))
    if len(values) < 3:
        return dict.fromkeys(value_K, 0.0)
    off = values - np.median(values)
    spread = GAUSSIAN * float(np.median(np.abs(off)))
    return {k: float(o) for k, o in zip(value_K, off / max(spread, 1e-9 * float(np.abs(values).max()), 1e-300), strict=True)}
