"""Any input that carries the trigger is classified as the attacker's target, whatever its class and whatever the label map.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733, sections 4 (single target, all-to-all) and 5.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.attacks._base import Attack
from badnets.attacks.badnets import BadNets
from badnets.claims._arms import CLEAN, feasible, goals, pair, pair_needs, rates, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import Condition, rate_cell
from badnets.core.types import Cell, Chart
from badnets.measure.outcome import Outcome
from badnets.measure.rates import asr_hits, clean_hits, ra_hits

QUICK, STANDARD = (0.01, 0.1), (0.001, 0.005, 0.01, 0.05, 0.1, 0.2)
MAPPINGS = ("all_to_one", "all_to_all", "source_specific")


class TriggerReachesTarget(Claim):
    """ASR and RA per label map, per source class and over poison rates; ASR is claimed to be at least `margin`."""

    kind: Literal["trigger_reaches_target"] = "trigger_reaches_target"
    margin: float = 0.95

    sentence: ClassVar[str] = "Any input with the trigger is classified as the target."
    rule: ClassVar[str] = (
        "HOLDS when the whole 95 % interval of ASR is at or above 95 %; images whose true class is the target do not count."
    )

    def _arms(self, setting: Setting) -> list[tuple[Condition, Attack, int]]:
        attack = setting.attack
        if not isinstance(attack, BadNets):
            return [({"attack": attack.kind}, attack, setting.seeds)]
        arms: list[tuple[Condition, Attack, int]] = [({"mapping": mapping_name(attack), "rate": attack.rate}, attack, setting.seeds)]
        if not setting.only_attack:
            for other in (self._mapped(setting, attack, name) for name in MAPPINGS if name != attack.mapping):
                if feasible(setting, other):
                    arms.append(({"mapping": mapping_name(other), "rate": other.rate}, other, setting.arms_seeds))
            for arm in rates(setting, attack, setting.by_effort(QUICK, STANDARD))[1:]:
                arms.append(({"mapping": mapping_name(arm), "rate": arm.rate}, arm, setting.arms_seeds))
        return arms

    def _mapped(self, setting: Setting, attack: BadNets, mapping: str) -> BadNets:
        if mapping != "source_specific":
            return attack.but(mapping=mapping, cover_rate=0.0)
        source = attack.source if attack.source != attack.target else (attack.target + 1) % setting.num_classes
        half = round(setting.train_counts[source] / setting.num_train / 2, 4)
        rate = min(attack.rate, half)
        return attack.but(mapping=mapping, source=source, rate=rate, cover_rate=rate)

    def needs(self, setting: Setting) -> list[Need]:
        return [need for _, arm, seeds in self._arms(setting) for need in pair_needs(arm, triggered(arm), seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        cells, descriptive = [], []
        for i, (condition, arm, seeds) in enumerate(self._arms(bench.setting)):
            victims, twins = pair(bench, arm, triggered(arm), seeds)
            clean, twin_clean = pair(bench, arm, CLEAN, seeds)
            goal_K = goals(bench.setting, arm)
            asr, twin_asr = asr_hits(victims, goal_K), asr_hits(twins, goal_K)
            cells.append(rate_cell(condition, "ASR", asr, twin_asr, margin=self.margin, clean=clean))
            descriptive.append(rate_cell(condition, "RA", ra_hits(victims, goal_K), ra_hits(twins, goal_K)))
            descriptive.append(rate_cell(condition, "CA", clean_hits(clean), clean_hits(twin_clean)))
            if i == 0:
                cells += self._per_class(bench.setting, victims, twins, goal_K, clean)
            if isinstance(arm, BadNets) and arm.mapping == "source_specific":
                descriptive.append(self._leak(condition, arm, victims, twins))
        return cells + descriptive

    def _per_class(
        self, setting: Setting, victims: list[Outcome], twins: list[Outcome], goal_K: np.ndarray, clean: list[Outcome]
    ) -> list[Cell]:
        cells = []
        for k, name in enumerate(setting.classes):
            only_K = np.where(np.arange(len(goal_K)) == k, goal_K, -1)
            hits, control = asr_hits(victims, only_K), asr_hits(twins, only_K)
            if len(hits[0]):
                cells.append(rate_cell({"source class": name}, "ASR", hits, control, margin=self.margin, clean=clean))
        return cells

    def _leak(self, condition: Condition, arm: BadNets, victims: list[Outcome], twins: list[Outcome]) -> Cell:
        def hits(outcomes: list[Outcome]) -> list[np.ndarray]:
            return [(o.pred_N == arm.target)[(o.y_N != arm.source) & (o.y_N != arm.target)] for o in outcomes]

        return rate_cell(condition, "other classes sent to the target", hits(victims), hits(twins))

    def charts(self, setting: Setting) -> list[Chart]:
        by_rate = Chart(
            title="Attack success rate by poison rate",
            kind="band",
            quantities=["ASR"],
            x="rate",
            series="mapping",
            log_x=True,
            margin=self.margin,
            x_title="poison rate",
            y_title="ASR",
        )
        by_class = Chart(
            title="Attack success rate by true class",
            kind="dots",
            quantities=["ASR"],
            x="source class",
            margin=self.margin,
            x_title="true class",
            y_title="ASR",
        )
        return [by_rate, by_class]


def mapping_name(attack: BadNets) -> str:
    """The label map in words."""
    return attack.mapping if isinstance(attack.mapping, str) else "map " + ", ".join(f"{s} to {t}" for s, t in attack.mapping.items())
