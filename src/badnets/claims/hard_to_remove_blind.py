"""The backdoor is hard to remove without knowing the trigger: what blind repairs leave of it, beside one that is told the trigger.

Does not speak of owners who train anew from other initial weights. A repair that spoils the net has not removed the backdoor from it.

K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185; B. Wang et al. (2019), Neural Cleanse,
https://doi.org/10.1109/SP.2019.00031 (unlearning of an inverted trigger); R. Min et al. (2024), Uncovering, Explaining, and Mitigating the
Superficial Safety of Backdoor Defense, https://arxiv.org/abs/2410.09838 (relearning after a repair).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from badnets.claims._arms import goals, no_backdoor
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import difference_cell, rate_cell, unknown
from badnets.claims._mended import Bill, Mended
from badnets.claims._relearning import relearning
from badnets.claims._rivals import Condition, Rival, none_works
from badnets.claims._variants import Arm, Grid, arms
from badnets.core import registry
from badnets.core.types import Cell, Chart, Estimator, Scalar, Verdict
from badnets.measure.rates import Hits, asr_hits, at_95, clean_hits, difference, rate

BASELINE, TOLD, NULL = "fine_tuning", "oracle", "identity"
SOME, MORE = ("fine_pruning", "clp", "fst", "unlearning"), ("anp", "nad", "i_bau", "ft_sam", "rnp", "shrink_pad", "random_shift")
QUICK: dict[str, dict[str, Any]] = {"unlearning": {"steps": 80, "num_images": 40}}
LEFT, LOSS, AGAIN, BEST = "ASR left", "CA loss", "ASR after relearning", "ASR left by the best blind repair"
RELEARNED_FROM = 32


class _Sides(NamedTuple):
    """Bills of one repair: of victims and of their twins, with the same nets before (bills of the null)."""

    victims: list[Bill]
    twins: list[Bill]
    before: list[Bill]
    twins_before: list[Bill]


class HardToRemoveBlind(Claim):
    """ASR that each blind repair leaves and the clean accuracy that it costs, then the same net relearning from 32 poisoned images.

    `grid`: on which attacks, as in `undetectable`; by default only the run's own. `repairs`: only these, with a plus sign between them.
    `share`: clean images that a repair gets, of the training set's size; by default as the effort says.
    """

    kind: Literal["hard_to_remove_blind"] = "hard_to_remove_blind"
    margin: float = 0.20
    max_loss: float = 0.05
    grid: Grid = "own"
    repairs: str = ""
    share: float | None = Field(None, gt=0, le=0.1)

    @field_validator("repairs")
    @classmethod
    def _are_there(cls, names: str) -> str:
        for name in filter(None, names.split("+")):
            registry.check("repairs", name)
        return names

    sentence: ClassVar[str] = "The backdoor is hard to remove without knowing the trigger."
    rule: ClassVar[str] = (
        "HOLDS when every blind repair leaves more than 20 % ASR or costs more than 5 points of clean accuracy, with each share of clean "
        "images; FAILS when some repair surely does neither (Bonferroni over repairs). The repair that is told the trigger does not count. "
        "Nothing is concluded where ASR was not surely at least 50 % before."
    )
    control: ClassVar[str] = "twin repaired alike"

    def _shares(self, setting: Setting) -> tuple[float, ...]:
        return (self.share,) if self.share else setting.by_effort((0.05,), (0.01, 0.05, 0.10))

    def _repairs(self, setting: Setting) -> tuple[str, ...]:
        blind = tuple(self.repairs.split("+")) if self.repairs else (*SOME, *setting.by_effort((), MORE))
        return (NULL, BASELINE, *(name for name in blind if name not in (NULL, BASELINE, TOLD)), TOLD)

    def _question(self, setting: Setting, name: str, share: float, arm: Arm) -> Mended:
        fields = setting.by_effort((QUICK.get(name, {}),), ({},))[0]
        dose = next(iter(relearning(setting, arm.attack, (RELEARNED_FROM, 8, 2, 0)).values()))
        return Mended(repair={"kind": name, **fields}, attack=arm.attack, share=share, relearning=dose)

    def _arms(self, setting: Setting) -> list[Arm]:
        return [arm._replace(seeds=setting.arms_seeds) for arm in arms(setting, (self.grid,))]

    def needs(self, setting: Setting) -> list[Need]:
        found = []
        for arm in self._arms(setting):
            for share in self._shares(setting):
                for name in self._repairs(setting):
                    question = self._question(setting, name, share, arm)
                    found += [Need(side, question, arm.seeds) for side in (arm.attack, None)]
        return found

    def _cells(self, bench: Bench) -> list[Cell]:
        deciding, table = [], []
        for arm in self._arms(bench.setting):
            for share in self._shares(bench.setting):
                condition = {**(arm.condition if self.grid != "own" else {}), "clean share": share}
                sides = {name: self._sides(bench, name, share, arm) for name in self._repairs(bench.setting)}
                goal_K = goals(bench.setting, arm.attack)
                deciding.append(self._best(condition, goal_K, sides))
                table += [cell for name, side in sides.items() for cell in _bill(condition | {"repair": name}, goal_K, side)]
        return [*deciding, *table]

    def _sides(self, bench: Bench, name: str, share: float, arm: Arm) -> _Sides:
        def bills(kind: str, *, planted: bool) -> list[Bill]:
            question = self._question(bench.setting, kind, share, arm)
            return [question.read(answer) for answer in bench.answers(Need(arm.attack if planted else None, question, arm.seeds))]

        return _Sides(*(bills(kind, planted=planted) for kind in (name, NULL) for planted in (True, False)))

    def _best(self, condition: dict[str, Scalar], goal_K: np.ndarray, sides: Mapping[str, _Sides]) -> Cell:
        """The cell that decides: what the blind repair that comes closest to a remedy leaves."""
        rivals = [self._rival(name, goal_K, side) for name, side in sides.items() if name not in (NULL, TOLD)]
        verdict, p, best = none_works(rivals)
        chosen, null = sides[best.name], sides[NULL].victims
        before = [bill.clean for bill in null]
        nothing = no_backdoor(before, [bill.shown for bill in null], goal_K)
        if nothing:
            verdict, p = Verdict.UNDECIDED, 1.0
        cost = 100 * (at_95(_loss(chosen)).value or 0.0)
        note = f"{best.name}, which comes closest of {len(rivals)} blind repairs; it costs {cost:.1f} points of clean accuracy."
        cell = rate_cell(condition, BEST, _hits(chosen.victims, goal_K), _hits(chosen.twins, goal_K), clean=before)
        return cell.model_copy(update={"verdict": verdict, "p": p, "note": nothing or note})

    def _rival(self, name: str, goal_K: np.ndarray, side: _Sides) -> Rival:
        barred = not all(bill.analysable for bill in side.victims)
        left = Condition(rate(_hits(side.victims, goal_K)), self.margin, below=True)
        return Rival(name, (left, Condition(_loss(side), self.max_loss, below=True)), barred)

    def charts(self, setting: Setting) -> list[Chart]:
        table = Chart(title="The bill of each repair", kind="table", quantities=[LEFT, LOSS, AGAIN], x="repair")
        pareto = Chart(
            title="What repairs leave of the backdoor, and what they cost",
            kind="scatter",
            quantities=[LOSS, LEFT],
            x="repair",
            series="clean share",
            margin=self.margin,
            x_margin=self.max_loss,
            x_title="clean accuracy lost",
            y_title="ASR left",
        )
        return [pareto, table]


def _hits(bills: list[Bill], goal_K: np.ndarray) -> Hits:
    return asr_hits([bill.shown for bill in bills], goal_K)


def _loss(side: _Sides) -> Estimator:
    """CA before less CA after the repair, of the victims."""
    return difference(*(clean_hits([bill.clean for bill in bills]) for bills in (side.before, side.victims)))


def _bill(condition: dict[str, Scalar], goal_K: np.ndarray, side: _Sides) -> list[Cell]:
    """What one repair leaves, costs, and hides; none of these cells decides."""
    silent = sum(not bill.analysable for bill in side.victims)
    if silent:
        nothing = unknown(0, len(side.victims), f"{silent} of {len(side.victims)} nets could not be repaired")
        return [Cell(condition=condition, quantity=LEFT, unit="rate", estimate=nothing, note=nothing.method)]
    seconds = float(np.mean([bill.seconds for bill in side.victims]))
    clean, twins = ([bill.clean for bill in bills] for bills in (side.victims, side.twins))
    before, twins_before = ([bill.clean for bill in bills] for bills in (side.before, side.twins_before))
    left = rate_cell(condition, LEFT, _hits(side.victims, goal_K), _hits(side.twins, goal_K), clean=clean)
    loss = difference_cell(condition, LOSS, clean_hits(before), clean_hits(clean), None)
    lost = at_95(difference(clean_hits(twins_before), clean_hits(twins)))
    again = (asr_hits([bill.relearned for bill in bills], goal_K) for bills in (side.victims, side.twins))
    note = f"{side.victims[0].clean_images} clean images; {side.victims[0].images:,} images sent through the net."
    return [
        left.model_copy(update={"seconds": seconds, "note": left.note or note}),
        loss.model_copy(update={"control": lost, "control_unit": None}),
        rate_cell(condition, AGAIN, *again),
    ]
