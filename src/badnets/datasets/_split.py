"""Who gets which image: disjoint, stratified by class, drawn from a stream that depends on the data set's name only.

Does not apply to sets where a class has fewer than four different images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from badnets.core.errors import RefusedError
from badnets.core.rng import numpy_generator
from badnets.datasets._open import show

SHARE_BUDGET_OF_TRAIN = 0.10
SHARE_VALIDATION_OF_TEST = 0.20
SHARES_SINGLE = (0.15, 0.08, 0.07)
"""Test, budget, validation of a set without an official test part; the rest is for training."""


class Rows(NamedTuple):
    """Sorted rows of each split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    budget: np.ndarray


def official_rows(
    name: str, y_train: np.ndarray, y_test: np.ndarray, *, groups: np.ndarray | None = None, left_out: np.ndarray | None = None
) -> Rows:
    """Training part -> 90 % train + 10 % budget; test part -> 20 % validation + 80 % test. `groups` concern the training part."""
    kept = np.setdiff1d(np.arange(len(y_train)), () if left_out is None else left_out)
    grouped = kept if groups is None else groups[kept]
    budget, train = _divide(name, "train", y_train[kept], grouped, (SHARE_BUDGET_OF_TRAIN,))
    validation, test = _divide(name, "test", y_test, np.arange(len(y_test)), (SHARE_VALIDATION_OF_TEST,))
    return Rows(kept[train], validation + len(y_train), test + len(y_train), kept[budget])


def single_rows(name: str, y_N: np.ndarray, classes: tuple[str, ...], *, groups: np.ndarray | None = None) -> Rows:
    """One part -> 70 % train, 15 % test, 8 % budget, 7 % validation, with at least one group of each class in each."""
    grouped = np.arange(len(y_N)) if groups is None else groups
    for label, known in enumerate(classes):
        distinct = len(np.unique(grouped[y_N == label]))
        if distinct < len(SHARES_SINGLE) + 1:
            raise RefusedError(
                "E-FEW", f"class {show(known)}: expected at least 4 different images, got {distinct}.", hint="Add images to that class."
            )
    test, budget, validation, train = _divide(name, "all", y_N, grouped, SHARES_SINGLE)
    return Rows(train, validation, test, budget)


def _divide(name: str, part: str, y_N: np.ndarray, groups: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Rows of each share and of the rest. A group belongs to the class of its first row, so all its rows stay together."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    # raw 64-bit draws: unlike `permutation`, their meaning cannot change with the NumPy version
    draws = numpy_generator(0, "split", name, part).bit_generator.random_raw(len(first))
    group_label = y_N[first]
    share_of_group = np.full(len(first), len(shares))
    for label in np.unique(group_label):
        mine = np.flatnonzero(group_label == label)
        mine = mine[np.argsort(draws[mine], kind="stable")]
        start = 0
        for index, share in enumerate(shares):
            count = max(1, round(share * len(mine)))
            share_of_group[mine[start : start + count]] = index
            start += count
    return [np.flatnonzero(share_of_group[member] == index) for index in range(len(shares) + 1)]
