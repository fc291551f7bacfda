"""The arms that several claims share: probes, clean outcomes, goals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badnets.attacks._base import Attack
from badnets.attacks.badnets import BadNets
from badnets.claims._base import Bench, Need, Setting
from badnets.claims._cells import CONSTANT_NOTE
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits, at_95, constant_seeds, rate

CLEAN = Probe()
FORMED = 0.5
"""ASR that victims surely have if there is a backdoor to speak of."""


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


def no_backdoor(clean: Sequence[Outcome], shown: Sequence[Outcome], goal_K: np.ndarray) -> str:
    """Why victims say nothing about finding or removing a backdoor: there is none; an empty string where there is one."""
    bad, found = constant_seeds(clean), at_95(rate(asr_hits(shown, goal_K)))
    if bad:
        return CONSTANT_NOTE.format(len(bad), len(clean))
    if found.low is not None and found.low >= FORMED:
        return ""
    level = "is unknown" if found.value is None else f"of {100 * found.value:.1f} % is not surely {100 * FORMED:.0f} %"
    return f"There may be no backdoor here: the ASR {level}, so nothing is concluded."


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


def part(outcome: Outcome, i: int, parts: int) -> Outcome:
    """One of several equal parts of an outcome on images that were shown in so many variants, one after the other."""
    rows = slice(i * len(outcome.y_N) // parts, (i + 1) * len(outcome.y_N) // parts)
    return Outcome(outcome.y_N[rows], outcome.pred_N[rows], outcome.conf_N[rows])
