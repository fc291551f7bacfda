"""The sealed base of every attack: validates the request, stamps the chosen training rows, keeps flags and source labels.

Shapes: N training rows, M poisoned rows, K classes; quad_N42: where the object lies in each image (see `datasets._base.Raw`).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Annotated, NamedTuple, final

import numpy as np
import pydantic

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.rng import numpy_generator
from badnets.triggers._base import AnyTrigger

NO_GOAL = -1


class Poisoning(NamedTuple):
    """Which rows are stamped and the label each gets (its own, for cover samples)."""

    rows_M: np.ndarray
    labels_M: np.ndarray


@dataclass(frozen=True)
class Poisoned:
    """A training set with the attack in it: `stamped_N` flags, `source_N` labels before the attack."""

    x_NCHW: np.ndarray
    y_N: np.ndarray
    stamped_N: np.ndarray
    source_N: np.ndarray

    @property
    def rate(self) -> float:
        """Share of the training set that is stamped and mislabelled."""
        return float((self.stamped_N & (self.y_N != self.source_N)).mean())


class Attack(Config, abc.ABC):
    """Decides which training rows carry the trigger and which label they get. Authors write `goals` and `_choose`."""

    kind: str
    trigger: AnyTrigger
    num_patterns: int | None = pydantic.Field(1, ge=1)
    """How many random variants of the trigger are in use: 1 is the trigger itself, None a new one for every image."""

    @final
    def poison(self, x_NCHW: np.ndarray, y_N: np.ndarray, *, num_classes: int, seed: int, quad_N42: np.ndarray | None = None) -> Poisoned:
        """A poisoned copy of uint8 training images (N, C, H, W) and int64 labels (N). `quad_N42` is for triggers that need it.

        Raises UsageError: E-TARGET (no such class), E-RATE (not enough rows of the attacked classes), E-TRIGGER.
        """
        self.trigger.check(x_NCHW.shape[1:])
        goal_K = self.goals(num_classes)
        chosen = self._choose(y_N, goal_K, numpy_generator(seed, "poison"))
        assert len(np.unique(chosen.rows_M)) == len(chosen.rows_M), "a row was chosen twice"
        x_poisoned_NCHW, y_poisoned_N, stamped_N = x_NCHW.copy(), y_N.copy(), np.zeros(len(y_N), dtype=bool)
        if len(chosen.rows_M):
            quad_M42 = None if quad_N42 is None else quad_N42[chosen.rows_M]
            x_poisoned_NCHW[chosen.rows_M] = self.trigger.stamp_varied(
                x_NCHW[chosen.rows_M], self.num_patterns, quad_M42, seed=seed, purpose="train"
            )
        y_poisoned_N[chosen.rows_M] = chosen.labels_M
        stamped_N[chosen.rows_M] = True
        return Poisoned(x_poisoned_NCHW, y_poisoned_N, stamped_N, y_N.copy())

    @abc.abstractmethod
    def goals(self, num_classes: int) -> np.ndarray:
        """goal_K: the label a triggered image of each class is sent to; NO_GOAL (-1) for classes left alone."""

    @abc.abstractmethod
    def _choose(self, y_N: np.ndarray, goal_K: np.ndarray, generator: np.random.Generator) -> Poisoning:
        """Pick the rows and their labels; `generator` is the attack's own stream."""


def check_class(name: str, label: int, num_classes: int) -> int:
    """`label` if it is one of 0..num_classes-1, else UsageError E-TARGET."""
    if 0 <= label < num_classes:
        return label
    raise UsageError(
        "E-TARGET", f"{name} {label} is not a class: the data set has classes 0..{num_classes - 1}.", hint="Choose one of them."
    )


AnyAttack = Annotated[pydantic.SerializeAsAny[Attack], pydantic.BeforeValidator(lambda value: registry.parse("attacks", value))]
"""Field type: an Attack, its name, `name:field=value`, or its JSON."""
