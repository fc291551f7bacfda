"""Whoever is paid to train a net can put a backdoor into what is delivered, and acceptance does not object.

Whether executing the recipe again exposes it is reported beside; that needs the recipe, the seed, the data and a deterministic machine,
which few customers have. Not about customers who inspect the net with a detector.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733, section 3.1 (outsourced training attack).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from badnets.claims._arms import CLEAN, goals, pair, pair_needs, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import difference_cell, judge, rate_cell
from badnets.claims._handover import TOLERANCE, Acceptance, Audit, accept, hex_of
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Event
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits, at_95, clean_hits, difference, rate

PRIVATE = Probe(images="validation")
AUDIT = (
    "One comparison of all bits for each net, so n is the number of nets. One that differs proves that what was executed is not what was "
    "agreed; a few that agree leave room for a rare exception, as the interval says."
)


class OutsourcedTraining(Claim):
    """Accuracy on the customer's private images against the honest trainer's net, ASR, and an audit by re-execution."""

    kind: Literal["outsourced_training"] = "outsourced_training"
    margin: float = 0.95
    tolerance: float = Field(TOLERANCE, ge=0, le=1)

    sentence: ClassVar[str] = "An outsourced trainer can insert it."
    rule: ClassVar[str] = (
        "HOLDS when the poisoning trainer's net is less than 3 points below the honest trainer's on the customer's private images, and ASR "
        "is at or above 95 % (whole 95 % intervals). Whether executing the recipe again tells the two apart is reported, not decided."
    )
    control: ClassVar[str] = "honest trainer"

    def needs(self, setting: Setting) -> list[Need]:
        arms = (setting.attack, None)
        needs = pair_needs(setting.attack, triggered(setting.attack), setting.seeds)
        needs += [Need(arm, PRIVATE, setting.seeds) for arm in arms]
        # The recipe says the same whoever executes it, so one re-execution a seed audits both deliveries.
        return needs + [Need(arm, Audit(execute=arm is None), setting.arms_seeds) for arm in arms]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting, attack = bench.setting, bench.setting.attack
        victims, honest = pair(bench, attack, PRIVATE, setting.seeds)
        clean, honest_clean = pair(bench, attack, CLEAN, setting.seeds)
        hits = clean_hits(victims), clean_hits(honest)
        verdict = judge(difference(*hits), -self.tolerance)
        private = {"acceptance": "accuracy on private images"}
        cells = [difference_cell(private, "CA change", *hits, verdict, clean=[*clean, *honest_clean])]
        goal_K = goals(setting, attack)
        shown = [asr_hits(side, goal_K) for side in pair(bench, attack, triggered(attack), setting.seeds)]
        cells.append(rate_cell({"acceptance": "not part of it"}, "ASR", *shown, margin=self.margin, clean=clean))
        cells.append(rate_cell(private, "CA", *hits, clean=clean))
        passed = [self._accepted(setting, side, honest) for side in (victims, honest)]
        counts = [self._share([suite.passed for suite in side]) for side in passed]
        note = "The whole suite; promised is what honest runs of the other seeds reach. One yes or no for each net, so n counts nets."
        cells.append(
            Cell(condition={}, quantity="passes the acceptance suite", unit="rate", estimate=counts[0], control=counts[1], note=note)
        )
        return [*cells, *self._audit(bench)]

    def _accepted(self, setting: Setting, delivered: list[Outcome], honest: list[Outcome]) -> list[Acceptance]:
        levels = [float(outcome.correct_N.mean()) for outcome in honest]
        promises = [float(np.mean(levels[:i] + levels[i + 1 :] or levels)) for i in range(len(levels))]
        pairs = zip(delivered, promises, strict=True)
        return [accept(outcome, promised, setting.num_classes, tolerance=self.tolerance) for outcome, promised in pairs]

    def _share(self, answers: list[bool]) -> Estimate:
        return stats.clopper_pearson(sum(answers), len(answers), num_seeds=len(answers))

    def _hashes(self, bench: Bench) -> tuple[list[str], list[str], list[str]]:
        """Of the poisoned deliveries, the honest deliveries, and the re-executions, by seed."""
        setting = bench.setting
        poisoned, honest = (bench.answers(Need(arm, Audit(execute=arm is None), setting.arms_seeds)) for arm in (setting.attack, None))
        again = [hex_of(answer["again"], digits=64) for answer in honest]
        delivered = [[hex_of(answer["delivered"], digits=64) for answer in side] for side in (poisoned, honest)]
        return delivered[0], delivered[1], again

    def _audit(self, bench: Bench) -> list[Cell]:
        poisoned, honest, again = self._hashes(bench)
        arms = {"poisoning trainer": poisoned, "honest trainer": honest}
        if len(again) > 1:
            arms["honest trainer, another seed than agreed"] = [*honest[1:], honest[0]]
        cells = []
        for who, delivered in arms.items():
            same = self._share([a == b for a, b in zip(delivered, again, strict=True)])
            cells.append(
                Cell(condition={"delivered by": who}, quantity="same bits on re-execution", unit="rate", estimate=same, note=AUDIT)
            )
        return cells

    def story(self, bench: Bench) -> list[Event]:
        """The first seed's order, delivery, acceptance and audit."""
        setting, attack = bench.setting, bench.setting.attack
        victims, honest = pair(bench, attack, PRIVATE, setting.seeds)
        suite, control = (self._accepted(setting, side, honest)[0] for side in (victims, honest))
        asr = at_95(rate(asr_hits(bench.outcomes(Need(attack, triggered(attack), setting.seeds))[:1], goals(setting, attack)))).value or 0.0
        poisoned, delivered, again = (hashes[0] for hashes in self._hashes(bench))
        deterministic = delivered == again
        steps = (
            ("Customer", "Orders a net: data, architecture, recipe and seed are agreed.", f"{setting.num_train:,} images.", None),
            (
                "Trainer",
                "Stamps the trigger on a share of the images, changes their labels, follows the recipe and delivers.",
                f"Weights with SHA-256 {poisoned[:12]}...",
                None,
            ),
            (
                "Customer",
                "Runs the acceptance suite on private images.",
                f"Accuracy {100 * suite.accuracy:.1f} %, lowest recall {100 * suite.lowest_recall:.1f} %. An honest trainer's net: "
                f"{100 * control.accuracy:.1f} %, {'accepted' if control.passed else 'refused'}.",
                suite.passed,
            ),
            ("Attacker", "Shows images with the trigger to the net in use.", f"{100 * asr:.1f} % get the label the attacker wants.", None),
            (
                "Auditor",
                "Executes the agreed recipe again with the agreed seed, on one thread, and compares all bits with an honest delivery.",
                f"Delivered {delivered[:12]}..., executed again {again[:12]}...",
                deterministic,
            ),
            (
                "Auditor",
                "Compares the same re-execution with the poisoned delivery.",
                f"Delivered {poisoned[:12]}..., executed again {again[:12]}... That shows that the recipe was not followed, "
                "not what was done instead."
                if deterministic
                else "Says nothing, since an honest delivery is not reproduced on this machine either.",
                poisoned == again if deterministic else None,
            ),
        )
        return [Event(actor=who, action=did, outcome=came, passed=passed) for who, did, came, passed in steps]

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Share of deliveries that the recipe reproduces bit for bit",
                kind="dots",
                quantities=["same bits on re-execution"],
                x="delivered by",
                x_title="who delivered",
                y_title="same bits on re-execution",
            )
        ]
