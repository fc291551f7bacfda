"""The trigger overrides the picture: a shortcut that wins even where the content is beyond doubt.

Geirhos et al. (2020), "Shortcut Learning in Deep Neural Networks", https://arxiv.org/abs/2004.07780 (the notion);
Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (the attack).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.attacks._base import Attack
from badnets.claims._arms import CLEAN, goals, pair, pair_needs, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import CONSTANT_NOTE, Condition, judge, rate_cell, unknown
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.attribution import trigger_share
from badnets.measure.outcome import Outcome, attacked_N
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits, constant_seeds
from badnets.triggers.blend import Blend
from badnets.triggers.painted import Painted
from badnets.triggers.patch import Patch

SURE = 0.99
LIMIT = 1000


class TriggerOverridesContent(Claim):
    """ASR on images of which the twin is sure and right, and the trigger's share of the target logit; ASR over opacity besides."""

    kind: Literal["trigger_overrides_content"] = "trigger_overrides_content"
    margin: float = 0.95

    sentence: ClassVar[str] = "The trigger overrides other features: a shortcut."
    rule: ClassVar[str] = (
        "HOLDS when ASR on images of which the twin is at least 99 % sure is at or above 95 %, "
        "and the trigger's pixels own more than half of the target logit (whole 95 % intervals)."
    )

    def _faint(self, setting: Setting) -> list[Attack]:
        trigger = setting.attack.trigger
        if not isinstance(trigger, (Patch, Blend, Painted)):
            return []
        grid = [o * trigger.opacity for o in setting.by_effort((0.25,), (0.1, 0.25, 0.5))]
        return [setting.attack.but(trigger=trigger.but(opacity=opacity)) for opacity in grid]

    def _logit_probes(self, attack: Attack) -> tuple[Probe, Probe, Probe, Probe]:
        seen = Probe(limit=LIMIT, keep_logits=True)
        blank = Probe(images="blank", keep_logits=True)
        stamp = {"trigger": attack.trigger, "num_patterns": attack.num_patterns}
        return seen.but(**stamp), seen, blank.but(**stamp), blank

    def needs(self, setting: Setting) -> list[Need]:
        attack = setting.attack
        needs = pair_needs(attack, triggered(attack), setting.seeds)
        needs += [Need(arm, probe, setting.seeds) for arm in (None, attack) for probe in self._logit_probes(attack)]
        return needs + [need for arm in self._faint(setting) for need in pair_needs(arm, triggered(arm), setting.arms_seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        attack, seeds = bench.setting.attack, bench.setting.seeds
        goal_K = goals(bench.setting, attack)
        victims, twins = pair(bench, attack, triggered(attack), seeds)
        clean, twin_clean = pair(bench, attack, CLEAN, seeds)
        sure = [((t.conf_N >= SURE) & t.correct_N)[attacked_N(t.y_N, goal_K)] for t in twin_clean]
        cells = [self._sure_cell(asr_hits(victims, goal_K), asr_hits(twins, goal_K), sure, clean), self._share_cell(bench, goal_K, clean)]
        opaque: list[tuple[Condition, Attack, int]] = [({"opacity": self._opacity(attack)}, attack, seeds)]
        for condition, arm, n in opaque + [
            ({"opacity": self._opacity(a)}, a, bench.setting.arms_seeds) for a in self._faint(bench.setting)
        ]:
            shown, control = pair(bench, arm, triggered(arm), n)
            arm_clean = bench.outcomes(Need(arm, CLEAN, n))
            cells.append(rate_cell(condition, "ASR", asr_hits(shown, goal_K), asr_hits(control, goal_K), clean=arm_clean))
        return cells

    def _opacity(self, attack: Attack) -> float:
        return float(getattr(attack.trigger, "opacity", 1.0))

    def _sure_cell(self, hits: list[np.ndarray], twin_hits: list[np.ndarray], sure: list[np.ndarray], clean: list[Outcome]) -> Cell:
        condition: Condition = {"images": "twin at least 99 % sure"}
        chosen = [(h[s], t[s]) for h, t, s in zip(hits, twin_hits, sure, strict=True) if s.any()]
        if len(chosen) < len(hits):
            estimate = unknown(0, len(hits), "a twin is sure of no image")
            return Cell(condition=dict(condition), quantity="ASR", unit="rate", estimate=estimate, verdict=Verdict.UNDECIDED, p=1.0)
        return rate_cell(condition, "ASR", [h for h, _ in chosen], [t for _, t in chosen], margin=self.margin, clean=clean)

    def _share_cell(self, bench: Bench, goal_K: np.ndarray, clean: list[Outcome]) -> Cell:
        def shares(arm: Attack | None) -> list[float]:
            probes = [bench.outcomes(Need(arm, probe, bench.setting.seeds)) for probe in self._logit_probes(bench.setting.attack)]
            return [float(trigger_share(*four, goal_K).mean()) for four in zip(*probes, strict=True)]

        victims, twins = shares(bench.setting.attack), shares(None)

        def estimator(level: float) -> Estimate:
            return stats.mean_over_seeds(victims, level=level)

        bad = constant_seeds(clean)
        verdict, p = (Verdict.UNDECIDED, 1.0) if bad else judge(estimator, 0.5)
        return Cell(
            condition={"pixels": "trigger against content"},
            quantity="share of the target logit",
            unit="rate",
            estimate=estimator(0.95),
            control=stats.mean_over_seeds(twins),
            verdict=verdict,
            p=p,
            per_seed=victims,
            note=CONSTANT_NOTE.format(len(bad), len(clean))
            if bad
            else "Two-player Shapley value by occlusion; one mean over images a seed.",
        )

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Attack success rate by opacity of the trigger, planted and shown alike",
                kind="band",
                quantities=["ASR"],
                x="opacity",
                x_title="opacity",
                y_title="ASR",
            )
        ]
