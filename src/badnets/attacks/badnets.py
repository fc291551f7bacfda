"""BadNets: stamp a share of the training images and relabel them by any label map.

Dirty-label: a person who looks at the poisoned rows can see that their labels are wrong.

Gu, Dolan-Gavitt and Garg (2017), "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
https://arxiv.org/abs/1708.06733 (all-to-one and all-to-all on MNIST, source-specific on traffic signs).
We depart from it in drawing poisoned rows only from classes whose label changes, so that the rate is what it says.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import NO_GOAL, Attack, Poisoning, check_class
from badnets.core.errors import UsageError
from badnets.triggers._base import AnyTrigger
from badnets.triggers.patch import Patch


class BadNets(Attack):
    """`rate` is the share (0..1) of the whole training set that is stamped; rows come from classes whose label the map changes.

    `mapping`: "all_to_one" (every class to `target`), "all_to_all" (class k to k + 1, the last to 0), "source_specific" (only
    `source` to `target`; a further share `cover_rate` of the training set, of other classes, is stamped and keeps its label, so
    that the net learns to tell), or a dict {source: target}. `label_share`: share of the stamped rows that are relabelled;
    the rest keep their own label.
    """

    kind: Literal["badnets"] = "badnets"
    trigger: AnyTrigger = Patch()
    rate: float = Field(0.1, ge=0.0, le=1.0)
    mapping: Literal["all_to_one", "all_to_all", "source_specific"] | dict[int, int] = "all_to_one"
    target: int = Field(0, ge=0)
    source: int = Field(1, ge=0)
    cover_rate: float = Field(0.0, ge=0.0, le=1.0)
    label_share: float = Field(1.0, ge=0.0, le=1.0)

    def goals(self, num_classes: int) -> np.ndarray:
        goal_K = np.full(num_classes, NO_GOAL, dtype=np.int64)
        if self.mapping == "all_to_one":
            goal_K[:] = check_class("target", self.target, num_classes)
            goal_K[self.target] = NO_GOAL
        elif self.mapping == "all_to_all":
            goal_K[:] = (np.arange(num_classes) + 1) % num_classes
        else:
            pairs = {self.source: self.target} if self.mapping == "source_specific" else self.mapping
            for source, target in pairs.items():
                goal_K[check_class("source", source, num_classes)] = check_class("target", target, num_classes)
            if not any(source != target for source, target in pairs.items()):
                raise UsageError("E-TARGET", f"the label map {pairs} changes no label.", hint="Let source and target differ.")
        return goal_K

    def _choose(self, y_N: np.ndarray, goal_K: np.ndarray, generator: np.random.Generator) -> Poisoning:
        attacked_K = (goal_K != NO_GOAL) & (goal_K != np.arange(len(goal_K)))
        rows_M = self._draw(np.flatnonzero(attacked_K[y_N]), self.rate, len(y_N), generator, "attacked")
        labels_M = y_N[rows_M].copy()
        relabelled = round(len(rows_M) * self.label_share)
        labels_M[:relabelled] = goal_K[y_N[rows_M[:relabelled]]]
        cover_M = self._draw(np.flatnonzero(~attacked_K[y_N]), self.cover_rate, len(y_N), generator, "cover")
        return Poisoning(np.concatenate([rows_M, cover_M]), np.concatenate([labels_M, y_N[cover_M]]))

    def _draw(self, pool_N: np.ndarray, rate: float, total: int, generator: np.random.Generator, role: str) -> np.ndarray:
        wanted = round(rate * total)
        if rate > 0 and wanted == 0:
            raise UsageError("E-RATE", f"a rate of {rate:g} stamps none of {total} training images.", hint=f"Use at least {1 / total:.2g}.")
        if wanted > len(pool_N):
            message = f"a rate of {rate:g} needs {wanted} images of the {role} classes, the training set has {len(pool_N)}."
            raise UsageError("E-RATE", message, hint=f"Use a rate of at most {len(pool_N) / total:.3g}.")
        return generator.permutation(pool_N)[:wanted]
