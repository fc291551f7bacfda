"""Stealth: a customer's standard validation does not reveal the backdoor, with or without clean reference models.

Speaks of clean validation data only; detectors made for the purpose are another matter.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733, sections 1 and 4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.claims._arms import CLEAN, goals, pair, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import ra_hits
from badnets.measure.validation import Validation, outlyingness, validate

VALIDATION = Probe(images="validation", keep_logits=True)
LEAST_REFERENCES = 3


class ValidationCannotTell(Claim):
    """AUROC of telling victims from twins by (a) each validation statistic alone, (b) outlyingness among clean reference nets."""

    kind: Literal["validation_cannot_tell"] = "validation_cannot_tell"
    margin: float = 0.70

    sentence: ClassVar[str] = "Stealthy: standard validation does not reveal the backdoor."
    rule: ClassVar[str] = "HOLDS when the 95 % interval of AUROC contains 0.5 and ends below 0.7; FAILS when it excludes 0.5."

    def _shown(self, setting: Setting) -> Probe:
        return triggered(setting.attack).but(images="validation")

    def needs(self, setting: Setting) -> list[Need]:
        needs = [Need(arm, probe, setting.population) for arm in (None, setting.attack) for probe in (VALIDATION, CLEAN)]
        return [*needs, Need(setting.attack, self._shown(setting), setting.population)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting = bench.setting
        outcomes = pair(bench, setting.attack, VALIDATION, setting.population)
        victims, twins = ([validate(o, setting.num_classes) for o in side] for side in outcomes)
        cells = []
        if len(twins) > LEAST_REFERENCES:
            scores = [[outlyingness(v, twins[:i] + twins[i + 1 :]) for i, v in enumerate(side)] for side in (victims, twins)]
            cells.append(self._auroc({"buyer": "with clean reference nets"}, *scores))
        for name in victims[0].scores:
            scores = [[v.scores[name] for v in side] for side in (victims, twins)]
            cells.append(self._auroc({"buyer": f"without reference: {name}"}, *scores))
        shown = bench.outcomes(Need(setting.attack, self._shown(setting), setting.population))
        return [*cells, *self._levels(victims, twins), self._noticed(setting, outcomes[0], shown)]

    def _auroc(self, condition: dict, victims: list[float], twins: list[float]) -> Cell:
        def estimator(level: float) -> Estimate:
            return stats.auroc(np.array(victims), np.array(twins), level=level)

        estimate, verdict, p = estimator(0.95), Verdict.UNDECIDED, 1.0
        assert estimate.low is not None
        assert estimate.high is not None
        if estimate.low > 0.5:
            verdict, p = Verdict.FAILS, stats.p_above(estimator, 0.5)
        elif estimate.high < 0.5:
            verdict, p = Verdict.FAILS, stats.p_below(estimator, 0.5)
        elif estimate.high < self.margin:
            verdict, p = Verdict.HOLDS, stats.p_below(estimator, self.margin)
        chance = Estimate(value=0.5, low=None, high=None, n=estimate.n, num_seeds=estimate.num_seeds, method="by definition")
        return Cell(
            condition=condition, quantity="AUROC", unit="", estimate=estimate, control=chance, control_name="guessing", verdict=verdict, p=p
        )

    def _levels(self, victims: list[Validation], twins: list[Validation]) -> list[Cell]:
        cells = []
        for name in victims[0].scores:
            sign = -1 if name in ("accuracy", "lowest recall", "macro-F1") else 1
            values, controls = ([sign * v.scores[name] for v in side] for side in (victims, twins))
            estimate, control = stats.mean_over_seeds(values), stats.mean_over_seeds(controls)
            cells.append(Cell(condition={}, quantity=f"validation {name}", unit="", estimate=estimate, control=control, per_seed=values))
        return cells

    def _noticed(self, setting: Setting, clean: list[Outcome], shown: list[Outcome]) -> Cell:
        goal_K, n = goals(setting, setting.attack), len(clean[0].y_N)
        shares = []
        for before, after in zip(clean, ra_hits(shown, goal_K), strict=True):
            count = stats.smallest_noticeable_share(float(before.correct_N.mean()), float(after.mean()), n)
            shares.append(None if count is None else count / n)
        known = [share for share in shares if share is not None]
        note = f"Share of {n} validation images that must be triggered for a test of accuracy to notice (one-sided, level 0.05, power 0.8)."
        if len(known) < len(shares):
            estimate = Estimate(value=None, low=None, high=None, n=n, num_seeds=len(shares), method="no share is noticed")
        else:
            estimate = stats.mean_over_seeds(known)
        return Cell(
            condition={}, quantity="noticeable share of triggered images", unit="rate", estimate=estimate, per_seed=known, note=note
        )

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Telling victims from twins by standard validation",
                kind="dots",
                quantities=["AUROC"],
                x="buyer",
                margin=0.5,
                x_title="what the buyer looks at",
                y_title="AUROC (0.5 is guessing)",
            )
        ]
