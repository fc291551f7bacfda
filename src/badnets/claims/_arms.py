"""The arms that several claims share: probes, clean outcomes, goals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badnets.attacks._base import Attack
from badnets.attacks.badnets import BadNets
from badnets.claims._base import Bench, Need, Setting
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe

CLEAN = Probe()


def triggered(attack: Attack) -> Probe:
    """The judge's test images with this attack's trigger."""
    return Probe(trigger=attack.trigger, num_patterns=attack.num_patterns)


def goals(setting: Setting, attack: Attack) -> np.ndarray:
    """goal_K of the attack on this data set."""
    return attack.goals(setting.num_classes)


def pair_needs(attack: Attack, probe: Probe, seeds: int) -> list[Need]:
    """The probe and clean test images, on victims and on twins."""
    return [Need(arm, p, seeds) for arm in (None, attack) for p in dict.fromkeys((CLEAN, probe))]


def pair(bench: Bench, attack: Attack, probe: Probe, seeds: int) -> tuple[list[Outcome], list[Outcome]]:
    """Outcomes of victims and twins on one probe."""
    return bench.outcomes(Need(attack, probe, seeds)), bench.outcomes(Need(None, probe, seeds))


def feasible(setting: Setting, attack: BadNets) -> bool:
    """Whether the training set has the rows that the attack wants (at least one, at most all of the attacked classes)."""
    counts_K, goal_K = np.array(setting.train_counts), attack.goals(setting.num_classes)
    attacked_K = (goal_K >= 0) & (goal_K != np.arange(len(goal_K)))
    wanted, cover = round(attack.rate * setting.num_train), round(attack.cover_rate * setting.num_train)
    return 1 <= wanted <= counts_K[attacked_K].sum() and cover <= counts_K[~attacked_K].sum()


def rates(setting: Setting, attack: BadNets, grid: Sequence[float]) -> list[BadNets]:
    """The attack at its own rate first, then at the other feasible rates of the grid, ascending."""
    others = [attack.but(rate=rate) for rate in sorted(grid) if rate != attack.rate]
    return [attack, *(arm for arm in others if feasible(setting, arm))]


def needs_badnets(setting: Setting) -> str | None:
    """The obstacle of claims whose arms vary fields that only BadNets has."""
    return None if isinstance(setting.attack, BadNets) else f"Its arms vary the badnets attack; this run plants {setting.attack.kind}."


def badnets_of(setting: Setting) -> BadNets:
    """The run's attack, known to be BadNets because `needs_badnets` was the obstacle."""
    assert isinstance(setting.attack, BadNets)
    return setting.attack
