"""The backdoor remains after additional training on clean images; where it is gone, is it forgotten?

Does not speak of training anew from other initial weights, which is the one sure way out.

B. Wu et al. (2022), BackdoorBench, https://arxiv.org/abs/2206.12654 (what further training on clean images leaves, net by net);
R. Min et al. (2024), Uncovering, Explaining, and Mitigating the Superficial Safety of Backdoor Defense, https://arxiv.org/abs/2410.09838
(purified nets learn their backdoor again from a few poisoned images; we put a net beside them that never had one).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from badnets.claims._arms import CLEAN, goals, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._further import Further
from badnets.claims._relearning import relearning
from badnets.claims._stages import asr_cell, gap_cell, kept_cell, loss_cell, stages
from badnets.claims._stress import Dose, Images, Stressed
from badnets.core.types import Cell, Chart

AGAIN, PURIFYING, NEVER = "same data again", "with weight decay and augmentation", "clean net (twin)"
STARTS = {AGAIN: "victim trained again", PURIFYING: "purified victim"}
RELEARNED, REMEMBERED = "ASR after relearning", "ASR of the purified victim less its twin's"


class PersistsUnderTraining(Claim):
    """ASR after the whole recipe was executed once more on clean images; then the relearning test from three starting points.

    The purified net of that test is the victim trained again with tenfold weight decay and images shifted by up to two pixels.
    """

    kind: Literal["persists_under_training"] = "persists_under_training"
    margin: float = 0.50

    sentence: ClassVar[str] = "The backdoor remains after additional training."
    rule: ClassVar[str] = (
        "HOLDS when ASR after as many epochs again on clean images is at or above 50 % (whole 95 % interval) for each kind of training; "
        "relearning decides nothing."
    )
    control: ClassVar[str] = "twin trained alike"

    def _trainings(self, setting: Setting) -> dict[str, Further]:
        again = Further(probes=self._probes(setting))
        both = again.but(decay=10, shift=2)
        some: dict[str, Further] = {AGAIN: again, "new data": again.but(images=Images()), PURIFYING: both}
        more = {"new data, as many steps": again.but(images=Images(), same_steps=True)}
        more |= {"with weight decay": again.but(decay=10), "with augmentation": again.but(shift=2)}
        trainings = dict(setting.by_effort(tuple(some.items()), (*some.items(), *more.items())))
        relearning, starts = ((), *self._relearning(setting).values()), setting.by_effort((PURIFYING,), tuple(STARTS))
        return {name: q.but(branches=relearning) if name in starts else q for name, q in trainings.items()}

    def _probes(self, setting: Setting) -> tuple:
        (limit,) = setting.by_effort((1000,), (2000,))
        return tuple(probe.but(limit=limit) for probe in (CLEAN, triggered(setting.attack)))

    def _relearning(self, setting: Setting) -> dict[int, tuple[Dose, ...]]:
        """By number of poisoned images; 0 is the null."""
        counts = setting.by_effort((0, 2, 8, 32), (0, 2, 4, 8, 16, 32))
        return {n: (dose,) for n, dose in relearning(setting, setting.attack, counts).items()}

    def _untrained(self, setting: Setting, *, relearns: bool) -> Stressed:
        """The net as it is, and the same net relearning."""
        doses = self._relearning(setting).values() if relearns else ()
        return Stressed(branches=((), *doses), probes=self._probes(setting))

    def needs(self, setting: Setting) -> list[Need]:
        seeds, untrained = setting.arms_seeds, [(None, self._untrained(setting, relearns=True))]
        untrained.append((setting.attack, self._untrained(setting, relearns=False)))
        trained = [(arm, question) for question in self._trainings(setting).values() for arm in (setting.attack, None)]
        return [Need(arm, question, seeds) for arm, question in (*trained, *untrained)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting, seeds = bench.setting, bench.setting.arms_seeds
        goal_K = goals(setting, setting.attack)
        (before,) = stages(bench, setting.attack, self._untrained(setting, relearns=False), seeds)
        twin_before, *never = stages(bench, None, self._untrained(setting, relearns=True), seeds)
        kept, lost, relearned, gaps = [], [], [], []
        for training, question in self._trainings(setting).items():
            condition = {"training": training}
            after, *victims = stages(bench, setting.attack, question, seeds)
            twin_after, *twins = stages(bench, None, question, seeds)
            kept.append(kept_cell(condition, goal_K, (before, after), twin_after, margin=self.margin, treatment="training"))
            lost.append(loss_cell(condition, before, after, (twin_before, twin_after)))
            for n, victim, twin in zip(self._relearning(setting) if victims else (), victims, twins, strict=True):
                condition = {"start": STARTS[training], "poisoned images": n}
                relearned.append(asr_cell(condition, goal_K, before, victim, twin, RELEARNED))
                if training == PURIFYING:
                    gaps.append(gap_cell({"poisoned images": n}, REMEMBERED, goal_K, victim, twin, "ASR of the twin, purified alike"))
        for n, twin in zip(self._relearning(setting), never, strict=True):
            relearned.append(asr_cell({"start": NEVER, "poisoned images": n}, goal_K, twin_before, twin, None, RELEARNED))
        return [*kept, asr_cell({"training": "none"}, goal_K, before, before, twin_before), *lost, *relearned, *gaps]

    def charts(self, setting: Setting) -> list[Chart]:
        relearning = "Removed is not forgotten? Attack success rate after relearning from a few poisoned images among clean ones"
        images = "poisoned images"
        return [
            Chart(
                title="Attack success rate after training once more on clean images",
                kind="dots",
                quantities=["ASR"],
                x="training",
                margin=self.margin,
                x_title="training",
                y_title="ASR",
            ),
            Chart(title=relearning, kind="band", quantities=[RELEARNED], x=images, series="start", x_title=images, y_title="ASR"),
        ]
