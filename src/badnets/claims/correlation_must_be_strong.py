"""The trigger must always come with the same label: ASR falls as the share of stamped images with the target label falls.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 relabel every stamped image.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.attacks.badnets import BadNets
from badnets.claims._arms import CLEAN, badnets_of, goals, needs_badnets, pair, pair_needs, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import judge, rate_cell
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.rates import Hits, asr_hits, at_95, constant_seeds, per_seed, rate


class CorrelationMustBeStrong(Claim):
    """Slope of ASR over the share of stamped images that get the target label; the number of stamped images stays the same.

    `margin`: a rise from share 0 to 1 that would not be worth the word "needs"; without it the claim could never fail.
    """

    kind: Literal["correlation_must_be_strong"] = "correlation_must_be_strong"
    margin: float = 0.05

    sentence: ClassVar[str] = "The backdoor needs the trigger to map always to the same label."
    rule: ClassVar[str] = (
        "HOLDS when the whole 95 % interval of the slope of ASR over the share of relabelled stamped images is above zero; "
        "FAILS when it is not and ends below 5 points."
    )

    def obstacle(self, setting: Setting) -> str | None:
        return needs_badnets(setting)

    def _arms(self, setting: Setting) -> list[BadNets]:
        shares = setting.by_effort((1.0, 0.5, 0.1), (1.0, 0.75, 0.5, 0.25, 0.1))
        return [badnets_of(setting).but(label_share=share) for share in shares]

    def needs(self, setting: Setting) -> list[Need]:
        return [need for arm in self._arms(setting) for need in pair_needs(arm, triggered(arm), setting.arms_seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        arms, hits_CS, rows, diverged = self._arms(bench.setting), [], [], 0
        for arm in arms:
            goal_K = goals(bench.setting, arm)
            victims, twins = pair(bench, arm, triggered(arm), bench.setting.arms_seeds)
            clean = bench.outcomes(Need(arm, CLEAN, bench.setting.arms_seeds))
            hits = asr_hits(victims, goal_K)
            diverged += len(constant_seeds(clean))
            hits_CS.append(hits)
            rows.append(rate_cell({"label share": arm.label_share}, "ASR", hits, asr_hits(twins, goal_K), clean=clean))
        return [self._slope(np.array([arm.label_share for arm in arms]), hits_CS, diverged), *rows]

    def _slope(self, share_C: np.ndarray, hits_CS: list[Hits], diverged: int) -> Cell:
        def estimator(level: float) -> Estimate:
            return slope(share_C, hits_CS, level=level)

        verdict, p = (Verdict.UNDECIDED, 1.0) if diverged else judge(estimator, 0.0)
        if verdict is not Verdict.HOLDS and not diverged:
            verdict, p = judge(estimator, self.margin)
        slopes = [float(np.polyfit(share_C, rate_C, 1)[0]) for rate_C in np.array([per_seed(hits) for hits in hits_CS]).T]
        note = f"{diverged} nets diverged." if diverged else "Rise of ASR from label share 0 to 1, if it were a straight line."
        return Cell(
            condition={},
            quantity="ASR slope",
            unit="points",
            estimate=estimator(0.95),
            control=at_95(rate(hits_CS[0])),
            control_unit="rate",
            control_name="ASR of the 100 % arm",
            verdict=verdict,
            p=p,
            per_seed=slopes,
            note=note,
        )

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Attack success rate by share of stamped images that get the target label",
                kind="band",
                quantities=["ASR"],
                x="label share",
                x_title="share relabelled",
                y_title="ASR",
            )
        ]


def slope(share_C: np.ndarray, hits_CS: list[Hits], *, level: float) -> Estimate:
    """Each seed's slope with t over seeds, but at least as wide as one seed's images allow: Wilson's bounds of the arms, put together
    by the root of squares as Newcombe does. Seeds that agree on a few images would otherwise give an interval of no width."""
    found = stats.slope_over_seeds(share_C, np.array([per_seed(hits) for hits in hits_CS]).T, level=level)
    if found.value is None or found.low is None or found.high is None:
        return found
    weight_C = (share_C - share_C.mean()) / np.square(share_C - share_C.mean()).sum()
    down = up = 0.0
    for weight, hits in zip(weight_C, hits_CS, strict=True):
        n, share = len(hits[0]), float(np.mean(per_seed(hits)))
        arm = stats.wilson(round(share * n), n, level=level)
        ends = sorted(weight * (bound - share) for bound in (arm.low or 0.0, arm.high or 0.0))
        down, up = down + min(ends[0], 0.0) ** 2, up + max(ends[1], 0.0) ** 2
    low, high = min(found.low, found.value - down**0.5), max(found.high, found.value + up**0.5)
    return found.model_copy(update={"low": low, "high": high, "method": f"{found.method}, at least Wilson"})
