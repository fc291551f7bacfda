"""A population detector, examined on triggers that it was not shown: it learns from the victims of all other triggers, and from clean nets.

Half of the clean nets for calibration are learned from, the other half give p-values; twins are in neither.
Shapes: P nets, T traits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badnets.claims import _detection as detection
from badnets.claims._base import Bench, Need
from badnets.claims._scanned import Traits
from badnets.claims._variants import Arm

NAME = "population (learned from other triggers)"
FEWEST = 3


def can_learn(arms: Sequence[Arm], clean: Need) -> bool:
    """Whether there are other triggers, and clean nets for calibration, to learn from."""
    return clean.seeds >= 2 * FEWEST and len({arm.attack.trigger.kind for arm in arms}) > 1


def population_rows(bench: Bench, arms: Sequence[Arm], clean: Need) -> dict[int, detection.Row]:
    """By place of the arm. `clean`: the nets for calibration."""
    planted = [_values(bench, Need(arm.attack, Traits(), arm.seeds)) for arm in arms]
    twins_PT, clean_PT = _values(bench, Need(None, Traits(), bench.setting.population)), _values(bench, clean)
    found = {}
    for i, arm in enumerate(arms):
        others = [planted[j] for j, other in enumerate(arms) if other.attack.trigger.kind != arm.attack.trigger.kind]
        found[i] = _row(np.concatenate(others), planted[i], twins_PT, clean_PT)
    return found


def _values(bench: Bench, need: Need) -> np.ndarray:
    return np.array([answer["value_T"] for answer in bench.answers(need)])


def _row(others_PT: np.ndarray, victims_PT: np.ndarray, twins_PT: np.ndarray, clean_PT: np.ndarray) -> detection.Row:
    from badnets.detectors.population import Population, fit, log_odds

    taught_PT, null_PT = clean_PT[::2], clean_PT[1::2]
    planted_P = np.repeat([True, False], [len(others_PT), len(taught_PT)])
    learned = fit(np.concatenate([others_PT, taught_PT]), planted_P, ridge=Population().ridge)
    pos, neg, null = (log_odds(values_PT, learned) for values_PT in (victims_PT, twins_PT, null_PT))
    return detection.Row(*detection.of_scores(pos, neg, null.tolist()), seconds=None, memory_bytes=None)
