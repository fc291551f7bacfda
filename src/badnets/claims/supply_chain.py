"""A pre-trained net from the internet can pass every check of its buyer, be backdoored, and spoil what is built on it.

The accuracy lost to the trigger is that of a new owner's net on other images; the backdoor's own target class is gone there.

Gu, Dolan-Gavitt and Garg (2017), "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
https://arxiv.org/abs/1708.06733, sections 5.3 and 6.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from badnets.attacks._base import Attack
from badnets.claims._arms import CLEAN, goals
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import CONSTANT_NOTE, judge, rate_cell, unknown
from badnets.claims._handover import TOLERANCE, Handover
from badnets.claims._transfer import Moved, Transferred
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Event, Verdict
from badnets.datasets._base import AnyDataset
from badnets.measure.outcome import Outcome
from badnets.measure.rates import asr_hits, at_95, clean_hits, constant_seeds, per_seed
from badnets.stressors.transfer import Transfer


class SupplyChain(Claim):
    """Accuracy that the trigger costs a new owner, on a backdoored trunk beyond an honest one; and the way of the net from hand to hand.

    `destination`: the new owner's data set; by default the run's other one.
    """

    kind: Literal["supply_chain"] = "supply_chain"
    margin: float = 0.05
    tolerance: float = Field(TOLERANCE, ge=0, le=1)
    destination: AnyDataset | None = None

    sentence: ClassVar[str] = "A downloaded pre-trained model looks fine and is backdoored."
    rule: ClassVar[str] = (
        "HOLDS when the trigger costs a new owner, who trains a new head on the frozen backdoored trunk, more than 5 points of accuracy "
        "beyond what it costs on an honest trunk treated alike (whole 95 % interval), at every amplification of the trigger's units."
    )
    control: ClassVar[str] = "honest trunk"

    def _moved(self, setting: Setting) -> Transferred:
        return Transferred(
            attack=setting.attack,
            destination=self.destination,
            transfer=Transfer(layers="dense"),
            amplifications=setting.by_effort((1.0, 10.0, 100.0), (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)),
            limit=setting.by_effort((2_000,), (10_000,))[0],
        )

    def _handed(self, setting: Setting) -> Handover:
        return Handover(attack=setting.attack, tolerance=self.tolerance)

    def needs(self, setting: Setting) -> list[Need]:
        arms = (setting.attack, None)
        needs = [Need(arm, CLEAN, setting.seeds) for arm in arms]
        needs += [Need(arm, self._handed(setting), setting.seeds) for arm in arms]
        return needs + [Need(arm, self._moved(setting), setting.seeds) for arm in arms]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting = bench.setting
        clean = bench.outcomes(Need(setting.attack, CLEAN, setting.seeds))
        sides = [self._by_factor(bench, arm) for arm in (setting.attack, None)]
        deciding, described = [], []
        for victims, honest in zip(*sides, strict=True):
            deciding.append(self._extra_loss(victims, honest, clean))
            condition = {"amplification": victims[0].amplification}
            for quantity, name in (("CA", "clean"), ("RA", "triggered")):
                hits = [clean_hits([getattr(m, name) for m in side]) for side in (victims, honest)]
                described.append(rate_cell({"images": f"destination, {name}", **condition}, quantity, *hits, clean=clean))
        return [*deciding, *described, *self._handover_cells(bench, clean), self._units(bench)]

    def _by_factor(self, bench: Bench, arm: Attack | None) -> list[list[Moved]]:
        """For each factor the seeds' outcomes."""
        question = self._moved(bench.setting)
        found = [question.read(answer) for answer in bench.answers(Need(arm, question, bench.setting.seeds))]
        return [list(seeds) for seeds in zip(*found, strict=True)]

    def _extra_loss(self, victims: list[Moved], honest: list[Moved], clean: list[Outcome]) -> Cell:
        four = [clean_hits(list(o)) for side in (victims, honest) for o in zip(*((m.clean, m.triggered) for m in side), strict=True)]

        def estimator(level: float) -> Estimate:
            return stats.contrast_over_seeds(*four, level=level)

        # A trunk whose own net is a constant predictor has nothing to hand on, and a head that is one has lost nothing to a trigger.
        seen = [clean, [m.clean for m in victims], [m.clean for m in honest]]
        bad = sorted({seed for outcomes in seen for seed in constant_seeds(outcomes)})
        verdict, p = (Verdict.UNDECIDED, 1.0) if bad else judge(estimator, self.margin)
        rates = [per_seed(hits) for hits in four]
        return Cell(
            condition={"amplification": victims[0].amplification},
            quantity="extra loss",
            unit="points",
            estimate=unknown(len(four[0][0]), len(clean), "constant predictor") if bad else at_95(estimator),
            control=stats.difference_over_seeds(four[2], four[3]),
            verdict=verdict,
            p=p,
            per_seed=[] if bad else [(a - b) - (c - d) for a, b, c, d in zip(*rates, strict=True)],
            note=CONSTANT_NOTE.format(len(bad), len(clean)) if bad else "Control: the loss to the trigger on the honest trunk.",
        )

    def _handover_cells(self, bench: Bench, clean: list[Outcome]) -> list[Cell]:
        setting, question = bench.setting, self._handed(bench.setting)
        sides = [bench.answers(Need(arm, question, setting.seeds)) for arm in (setting.attack, None)]
        goal_K = goals(setting, setting.attack)
        used = [asr_hits([question.used(answer) for answer in side], goal_K) for side in sides]
        cells = [rate_cell({"images": "after the download"}, "ASR", *used, clean=clean)]
        for name, of in (("passes the acceptance suite", "accepted"), ("refused when a byte was flipped", "refused")):
            passed = [stats.clopper_pearson(int(sum(a[of].all() for a in side)), len(side), num_seeds=len(side)) for side in sides]
            note = f"One yes or no for each of {len(sides[0])} nets, so n is the number of nets."
            cells.append(Cell(condition={}, quantity=name, unit="rate", estimate=passed[0], control=passed[1], note=note))
        return cells

    def _units(self, bench: Bench) -> Cell:
        setting = bench.setting
        answers = [bench.answers(Need(arm, self._moved(setting), setting.seeds)) for arm in (setting.attack, None)]
        counts = [[float(a["units"]) for a in side] for side in answers]
        note = f"Of {int(answers[0][0]['all_units'])} units of the trunk's last layer; chosen on validation images, by the publisher."
        estimate, control = (stats.mean_over_seeds(side) for side in counts)
        return Cell(condition={}, quantity="units amplified", unit="", estimate=estimate, control=control, per_seed=counts[0], note=note)

    def story(self, bench: Bench) -> list[Event]:
        """The first seed's net on its way."""
        setting, question = bench.setting, self._handed(bench.setting)
        bought, honest = (bench.answers(Need(arm, question, setting.seeds))[0] for arm in (setting.attack, None))
        moved, kept = (self._by_factor(bench, arm)[0][0] for arm in (setting.attack, None))
        losses = [f"from {100 * m.clean.correct_N.mean():.1f} % to {100 * m.triggered.correct_N.mean():.1f} %" for m in (moved, kept)]
        last = Event(
            actor="New owner",
            action="Keeps the trunk and trains a new head for other classes.",
            outcome=f"The trigger takes accuracy {losses[0]}; on an honest trunk {losses[1]}.",
        )
        return [*question.told(setting, bought, honest), last]

    def charts(self, setting: Setting) -> list[Chart]:
        return [
            Chart(
                title="Accuracy that the trigger costs a new owner, beyond an honest trunk",
                kind="band",
                quantities=["extra loss"],
                x="amplification",
                log_x=True,
                margin=self.margin,
                x_title="factor on the trigger's units",
                y_title="extra loss to the trigger",
            ),
            Chart(
                title="The new owner's accuracy on the backdoored trunk",
                kind="band",
                quantities=["CA", "RA"],
                x="amplification",
                series="images",
                log_x=True,
                x_title="factor on the trigger's units",
                y_title="accuracy on the destination",
            ),
        ]
