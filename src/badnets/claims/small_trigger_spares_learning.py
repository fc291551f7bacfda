"""A small trigger leaves clean learning undisturbed; a large one would not.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (a single pixel and a pattern of a few).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from badnets.attacks._base import Attack
from badnets.claims._arms import CLEAN, goals, pair, pair_needs, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import Condition, difference_cell, judge, rate_cell
from badnets.core.errors import UsageError
from badnets.core.types import Cell, Chart
from badnets.measure.rates import asr_hits, at_95, clean_hits, difference, rate
from badnets.triggers.patch import Patch

SMALL = 0.02


class SmallTriggerSparesLearning(Claim):
    """CA(twin) - CA(victim) over patch areas; claimed to be at most `margin` for areas up to 2 % of the image."""

    kind: Literal["small_trigger_spares_learning"] = "small_trigger_spares_learning"
    margin: float = 0.01

    sentence: ClassVar[str] = "A small trigger leaves clean learning undisturbed."
    rule: ClassVar[str] = (
        "HOLDS when the whole 95 % interval of CA(twin) - CA(victim) is at or below 1 point, for triggers up to 2 % of the image."
    )

    def obstacle(self, setting: Setting) -> str | None:
        trigger = setting.attack.trigger
        return None if isinstance(trigger, Patch) else f"It varies the size of a patch; this run's trigger is {trigger.kind}."

    def _arms(self, setting: Setting) -> list[tuple[Condition, Attack, int, bool]]:
        trigger = setting.attack.trigger
        assert isinstance(trigger, Patch)
        _, height, width = setting.shape
        wide = [max(1, round(math.sqrt(share * height * width))) for share in setting.by_effort((0.25,), (0.05, 0.10, 0.25))]
        tiny = setting.by_effort((2 if SMALL * height * width >= 4 else 1,), (1, 2))
        arms: list[tuple[Condition, Attack, int, bool]] = []
        for size in filter(lambda size: _fits(trigger.but(size=size), setting.shape), dict.fromkeys((trigger.size, *tiny, *wide))):
            area, seeds = size * size / (height * width), setting.seeds if size == trigger.size else setting.arms_seeds
            arms.append(({"area": round(area, 4)}, setting.attack.but(trigger=trigger.but(size=size)), seeds, area <= SMALL))
        return arms

    def needs(self, setting: Setting) -> list[Need]:
        return [need for _, arm, seeds, _ in self._arms(setting) for need in pair_needs(arm, triggered(arm), seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        losses, rows = [], []
        for condition, arm, seeds, small in self._arms(bench.setting):
            goal_K = goals(bench.setting, arm)
            clean, twin_clean = pair(bench, arm, CLEAN, seeds)
            hits, twin_hits = clean_hits(clean), clean_hits(twin_clean)
            verdict = judge(difference(twin_hits, hits), self.margin, "below") if small else None
            loss = difference_cell(condition, "CA loss", twin_hits, hits, verdict, clean=twin_clean)
            note = loss.note if small else "Larger than the claim speaks of."
            losses.append(loss.model_copy(update={"control": at_95(rate(twin_hits)), "note": note}))
            victims, twins = pair(bench, arm, triggered(arm), seeds)
            rows.append(rate_cell(condition, "ASR", asr_hits(victims, goal_K), asr_hits(twins, goal_K), clean=clean))
        return sorted(losses, key=lambda cell: cell.verdict is None) + rows

    def charts(self, setting: Setting) -> list[Chart]:
        loss = Chart(
            title="Clean accuracy lost by trigger area",
            kind="band",
            quantities=["CA loss"],
            x="area",
            log_x=True,
            margin=self.margin,
            x_title="share of the image",
            y_title="CA(twin) - CA(victim)",
        )
        asr = Chart(
            title="Attack success rate by trigger area",
            kind="band",
            quantities=["ASR"],
            x="area",
            log_x=True,
            x_title="share of the image",
            y_title="ASR",
        )
        return [loss, asr]


def _fits(trigger: Patch, shape: tuple[int, int, int]) -> bool:
    try:
        trigger.check(shape)
    except UsageError:
        return False
    return True
