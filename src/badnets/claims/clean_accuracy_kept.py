"""A backdoored net performs normally on clean inputs: its clean accuracy equals its twin's within one point.

Not a statement about other measures of normality: see validation_cannot_tell.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733, section 4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from badnets.attacks.badnets import BadNets
from badnets.claims._arms import CLEAN, badnets_of, needs_badnets, pair, rates
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import difference_cell, judge_within
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate
from badnets.measure.rates import Hits, clean_hits, difference

QUICK, STANDARD = (0.01, 0.1), (0.001, 0.005, 0.01, 0.05, 0.1, 0.2)


class CleanAccuracyKept(Claim):
    """CA(victim) - CA(twin), paired by seed and image, over poison rates; equivalence within `margin`."""

    kind: Literal["clean_accuracy_kept"] = "clean_accuracy_kept"
    margin: float = 0.01

    sentence: ClassVar[str] = "A backdoored net performs normally on clean inputs."
    rule: ClassVar[str] = "HOLDS when the whole 95 % interval of CA(victim) - CA(twin) lies within 1 point of zero (two one-sided tests)."

    def obstacle(self, setting: Setting) -> str | None:
        return needs_badnets(setting)

    def _arms(self, setting: Setting) -> list[tuple[BadNets, int]]:
        arms = rates(setting, badnets_of(setting), setting.by_effort(QUICK, STANDARD))
        return [(arm, setting.seeds if i == 0 else setting.arms_seeds) for i, arm in enumerate(arms)]

    def needs(self, setting: Setting) -> list[Need]:
        return [Need(a, CLEAN, seeds) for arm, seeds in self._arms(setting) for a in (None, arm)]

    def _cells(self, bench: Bench) -> list[Cell]:
        cells = []
        for arm, seeds in self._arms(bench.setting):
            victims, twins = pair(bench, arm, CLEAN, seeds)
            hits, twin_hits = clean_hits(victims), clean_hits(twins)
            verdict = judge_within(difference(hits, twin_hits), self.margin)
            cells.append(difference_cell({"rate": arm.rate}, "CA change", hits, twin_hits, verdict, clean=twins))
            if arm is bench.setting.attack:
                cells.append(self._detectable(arm, hits, twin_hits))
        return cells

    def _detectable(self, arm: BadNets, hits: Hits, twin_hits: Hits) -> Cell:
        value = stats.smallest_detectable_difference(list(hits), list(twin_hits))
        method = "true change that this many seeds and images would find with power 0.8 at level 0.05"
        estimate = Estimate(value=value, low=None, high=None, n=len(hits[0]), num_seeds=len(hits), method=method)
        return Cell(condition={"rate": arm.rate}, quantity="smallest detectable CA change", unit="points", estimate=estimate)

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Clean accuracy against the twin, by poison rate",
                kind="band",
                quantities=["CA change"],
                x="rate",
                log_x=True,
                margin=-self.margin,
                x_title="poison rate",
                y_title="CA(victim) - CA(twin)",
            )
        ]
