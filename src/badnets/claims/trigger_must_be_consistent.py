"""The trigger must look the same on all poisoned images: with a pattern drawn anew per image the backdoor does not form.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 use one pattern throughout and never vary it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from badnets.attacks._base import Attack
from badnets.claims._arms import CLEAN, goals, pair_needs, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import difference_cell, judge, rate_cell
from badnets.core.types import Cell, Chart
from badnets.measure.rates import asr_hits, difference


class TriggerMustBeConsistent(Claim):
    """ASR(one pattern) - ASR(k patterns drawn at random places), at the same poison count; claimed to be at least `margin`."""

    kind: Literal["trigger_must_be_consistent"] = "trigger_must_be_consistent"
    margin: float = 0.20

    sentence: ClassVar[str] = "The trigger must be visually consistent across the poisoned samples."
    rule: ClassVar[str] = "HOLDS when the whole 95 % interval of ASR(one pattern) - ASR(k patterns) is at or above 20 points."

    def obstacle(self, setting: Setting) -> str | None:
        return None if setting.attack.num_patterns == 1 else "This run's attack is itself planted with several patterns."

    def _arms(self, setting: Setting) -> list[Attack]:
        grid = setting.by_effort((None,), (2, 8, 64, None))
        return [setting.attack.but(num_patterns=k) for k in grid]

    def needs(self, setting: Setting) -> list[Need]:
        consistent = pair_needs(setting.attack, triggered(setting.attack), setting.arms_seeds)
        return consistent + [need for arm in self._arms(setting) for need in pair_needs(arm, triggered(arm), setting.arms_seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting = bench.setting
        seeds, goal_K = setting.arms_seeds, goals(setting, setting.attack)

        def arm_hits(arm: Attack | None, shown: Attack) -> list:
            return asr_hits(bench.outcomes(Need(arm, triggered(shown), seeds)), goal_K)

        one, clean_one = arm_hits(setting.attack, setting.attack), bench.outcomes(Need(setting.attack, CLEAN, seeds))
        rows = [rate_cell({"patterns": "1"}, "ASR", one, arm_hits(None, setting.attack), clean=clean_one)]
        differences = []
        for arm in self._arms(setting):
            many, clean = arm_hits(arm, arm), bench.outcomes(Need(arm, CLEAN, seeds))
            label = {"patterns": "new each time" if arm.num_patterns is None else str(arm.num_patterns)}
            rows.append(rate_cell(label, "ASR", many, arm_hits(None, arm), clean=clean))
            verdict = judge(difference(one, many), self.margin)
            differences.append(
                difference_cell(
                    label, "ASR lost to inconsistency", one, many, verdict, clean=[*clean, *clean_one], control_name="ASR of k patterns"
                )
            )
        return differences[::-1] + rows

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Attack success rate by number of patterns in use",
                kind="dots",
                quantities=["ASR"],
                x="patterns",
                x_title="patterns in use",
                y_title="ASR",
            )
        ]
