"""A few units carry the backdoor: without them it is gone, with them alone it is there, and the twin has no such units.

The set is the best that several searches find on validation images; FAILS says that they found none. Cells on one direction in place of
units stand beside it, because a backdoor may be a direction over all of a layer's units. Not where a net has no layer of units.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (backdoor neurons seen in activations); Zheng, Tang, Li and
Liu (2022), "Data-free Backdoor Removal based on Channel Lipschitzness", https://arxiv.org/abs/2208.03111. We add the tests that an
activation alone cannot give: replacing, patching in, random units, and the twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from badnets.attacks._base import Attack
from badnets.claims._arms import goals
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import difference_cell, judge, judge_within, rate_cell
from badnets.claims._neurons import (
    NOTHING,
    Judged,
    curve_cells,
    cut_cells,
    direction_cells,
    named,
    place_cells,
    selectivity_cells,
    sight_pictures,
)
from badnets.core.types import Cell, Chart, Picture, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.question import Answer
from badnets.measure.rates import constant_seeds, difference, rate
from badnets.neurons._base import Analysis
from badnets.neurons.ablation import Ablation
from badnets.neurons.carriers import Carriers
from badnets.neurons.direction import Direction
from badnets.neurons.minimal_cut import MinimalCut
from badnets.neurons.patching import Patching
from badnets.neurons.selectivity import Selectivity
from badnets.neurons.sight import Sight

LOW, HIGH, CHANGE, PRICE, PLANTED = 0.1, 0.9, 0.05, 0.01, 0.5


class HasTriggerNeurons(Claim):
    """Per seed one set of at most `share` of a layer's (or of all) units, chosen on validation images and judged on test images."""

    kind: Literal["has_trigger_neurons"] = "has_trigger_neurons"
    share: float = 0.05

    sentence: ClassVar[str] = "Neurons activate specifically for the trigger and form its pathway."
    rule: ClassVar[str] = (
        "HOLDS when a set of at most 5 % of a layer's or of all units, chosen on validation images, is necessary (ASR without it below "
        "10 %) and sufficient (put into clean runs it sends at least 90 % to the target), while as many random units change ASR by less "
        "than 5 points, CA falls by less than 1 point without the set, and the twin's best set sends fewer than 10 % "
        "(whole 95 % intervals). FAILS when the set is neither necessary nor sufficient, or when there is no backdoor to carry "
        "(ASR below 50 %); the three controls decide only where there is a set to control."
    )

    def _questions(self, setting: Setting) -> dict[str, Analysis]:
        attack = setting.attack
        (limit,), (curve,), (points,) = (setting.by_effort((a,), (b,)) for a, b in ((1000, 2000), (200, 400), (5, 7)))
        rankings = setting.by_effort((), ("attribution",))
        (most,) = setting.by_effort((3,), (4,), (8,))
        grid: dict[str, Any] = {"attack": attack, "limit": curve, "points": points, "most_layers": most}
        return {
            "carriers": Carriers(attack=attack, limit=limit, share=self.share, most_layers=most),
            "ablation": Ablation(rankings=("selectivity", "lipschitz", "clean activation", "random", *rankings), **grid),
            "patching": Patching(**grid),
            "minimal_cut": MinimalCut(attack=attack, limit=curve, most_layers=most),
            "direction": Direction(attack=attack, limit=curve, most_layers=most),
            "selectivity": Selectivity(attack=attack, limit=curve, most_layers=most),
            "sight": Sight(attack=attack, limit=curve, most_layers=most),
        }

    def _need(self, setting: Setting, name: str, attack: Attack | None) -> Need:
        seeds = setting.seeds if name == "carriers" else 1 if name == "sight" else setting.arms_seeds
        return Need(attack, self._questions(setting)[name], seeds)

    def needs(self, setting: Setting) -> list[Need]:
        victims = [self._need(setting, name, setting.attack) for name in self._questions(setting)]
        twins = [self._need(setting, name, None) for name in ("carriers", "patching", "selectivity")]
        return sorted([*victims, *twins], key=lambda need: need.question.kind != "carriers")

    def _answers(self, bench: Bench, name: str, attack: Attack | None) -> list[Answer]:
        return bench.answers(self._need(bench.setting, name, attack))

    def _cells(self, bench: Bench) -> list[Cell]:
        attack, goal_K = bench.setting.attack, goals(bench.setting, bench.setting.attack)
        victims, twins = (self._answers(bench, "carriers", arm) for arm in (attack, None))
        at, twin = Judged(victims, goal_K), Judged(twins, goal_K)
        clean, twin_clean = at.outcomes("before.clean"), twin.outcomes("before.clean")
        base = rate_cell({}, "ASR", at.sent("before.triggered"), twin.sent("before.triggered"), margin=PLANTED, clean=clean)
        if constant_seeds([*clean, *twin_clean]) or -1 in (*at.at, *twin.at):
            return [
                self._open(base, "A net gives one class to nearly every clean image or has no layer of units: nothing is concluded here.")
            ]
        deciding = self._deciding(at, twin, clean)
        if base.verdict is not Verdict.HOLDS:
            deciding = [_descriptive(cell) for cell in deciding]
            cells = [base, *deciding]
        else:
            cells = [*deciding, _descriptive(base)]
        cells += place_cells(victims, twins, goal_K)

        def of(name: str, arm: Attack | None = attack) -> list[Answer]:
            return self._answers(bench, name, arm)

        cells += cut_cells(of("minimal_cut")) + direction_cells(of("direction"))
        cells += selectivity_cells(of("selectivity"), of("selectivity", None))
        return cells + curve_cells(of("ablation"), of("patching"), of("patching", None))

    def _open(self, base: Cell, note: str) -> Cell:
        return base.model_copy(update={"verdict": Verdict.UNDECIDED, "p": 1.0, "note": base.note or note})

    def _deciding(self, at: Judged, twin: Judged, clean: Sequence[Outcome]) -> list[Cell]:
        before, without, others = at.sent("before.triggered"), at.sent("mean.triggered"), at.sent("random.triggered")
        alone, twin_alone = at.sent("patch"), twin.sent("patch")
        needed = rate_cell({"test": "necessary"}, "ASR without the units", without, others)
        enough = rate_cell({"test": "sufficient"}, "sent to the target by the units alone", alone, twin_alone, margin=HIGH)
        verdict, p = judge(rate(without), LOW, "below")
        needed = named(needed.model_copy(update={"verdict": verdict, "p": p}), "random units", at.told())
        random = judge_within(difference(others, before), CHANGE)
        price = judge(difference(at.right("before.clean"), at.right("mean.clean")), PRICE, "below")
        loss = difference_cell(
            {"test": "clean accuracy kept"}, "CA loss", at.right("before.clean"), at.right("mean.clean"), price, clean=clean
        )
        verdict, p = judge(rate(twin_alone), LOW, "below")
        quiet = rate_cell(
            {"test": "not in the twin"}, "sent to the target by the twin's units alone", twin_alone, twin.sent("random.patch")
        )
        controls = [
            named(difference_cell({"test": "random units"}, "ASR change", others, before, random), NOTHING),
            named(loss, "CA without the units"),
            named(quiet.model_copy(update={"verdict": verdict, "p": p}), "random units of the twin", twin.told()),
        ]
        if Verdict.HOLDS not in (needed.verdict, enough.verdict):
            controls = [_descriptive(cell) for cell in controls]
        return [needed, enough, *controls]

    def charts(self, setting: Setting) -> list[Chart]:
        share: dict[str, Any] = {
            "kind": "band",
            "x": "share of units",
            "x_title": "share of the layer's units",
            "series": "ranking",
            "log_x": True,
        }
        last = {"depth": "last"}
        replaced = {**last, "replaced by": "clean mean"}
        alone = "sent to the target by the units alone"
        return [
            Chart(title="ASR when units of the last layer are replaced", quantities=["ASR"], y_title="ASR", where=replaced, **share),
            Chart(title="CA when units of the last layer are replaced", quantities=["CA"], y_title="CA", where=replaced, **share),
            Chart(title="Clean images that the last layer's units alone send to the target", quantities=[alone], where=last, **share),
            Chart(title="ASR without the best set, by place", kind="dots", quantities=["ASR without the units"], x="place", margin=LOW),
            Chart(title="ASR without one direction, by layer", kind="dots", quantities=["ASR without one direction"], x="layer"),
        ]

    def pictures(self, bench: Bench) -> list[list[Picture]]:
        return sight_pictures(self._answers(bench, "sight", bench.setting.attack)[0])


def _descriptive(cell: Cell) -> Cell:
    return cell.model_copy(update={"verdict": None, "p": None})
