"""The backdoor transfers to students: what a distilled net has of it depends on the images it was distilled on.

Does not speak of triggers made to outlive distillation, nor of students that start from the teacher's own weights.

G. Hinton, O. Vinyals, J. Dean (2015), Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531;
Y. Li et al. (2021), Neural Attention Distillation, https://arxiv.org/abs/2101.05930 (distillation as a repair);
J. Hong et al. (2023), Revisiting Data-Free Knowledge Distillation with Poisoned Teachers, https://arxiv.org/abs/2306.02368.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from badnets.claims._arms import CLEAN, goals, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import Condition, judge, rate_cell, unknown
from badnets.claims._stress import Dose, Images, Stressed
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits, at_95, clean_hits, constant_seeds, per_seed
from badnets.stressors.distillation import Distillation

CLEAN_SET, TRIGGER_SET = "clean images", "images with the trigger"
SETS = (CLEAN_SET, "another data set", "noise", TRIGGER_SET)
TEACHER: Condition = {"transfer set": "none: the teacher"}
LEARNED = 0.5
NOTEWORTHY = 0.10

CONSTANT = "{} of {} nets give one class to nearly every clean image, so nothing is concluded here."
UNLEARNED = "Clean accuracy is {:.0f} % against the teacher's {:.0f} %"
NOT_LEARNED = UNLEARNED + ": a student that has learned so little cannot be said to have left the backdoor behind."
ANYWAY = "{} gives the target to {:.0f} % of these images anyway, so this is not the backdoor's doing alone."


class _Student(NamedTuple):
    """How a student is made; its name is what the report calls it."""

    on: Literal["logits", "features"] = "logits"
    smaller: bool = False

    @property
    def name(self) -> str:
        return f"{'half the width' if self.smaller else 'same size'} ({self.on})"


class _Seen(NamedTuple):
    """Outcomes of the same nets, one per seed: clean test images, and the same with the trigger."""

    clean: Sequence[Outcome]
    shown: Sequence[Outcome]


class TransfersByDistillation(Claim):
    """ASR(student) / ASR(teacher), paired, for each transfer set and student. `plain`: how students are distilled, but for their
    loss and size; all for the same number of steps, which the effort says unless `plain` does."""

    kind: Literal["transfers_by_distillation"] = "transfers_by_distillation"
    margin: float = 0.5
    plain: Distillation = Distillation()

    sentence: ClassVar[str] = "The backdoor transfers to student models."
    rule: ClassVar[str] = (
        "HOLDS when ASR(student) / ASR(teacher) is at or above 0.5 (whole 95 % interval) for every transfer set, loss and student. "
        "Open where students are constant predictors, where a failure comes with less than half of the teacher's clean accuracy, "
        "and where the twin's student, or the student without the trigger, reaches 0.5 as well."
    )
    control: ClassVar[str] = "student of the twin"

    def _students(self, setting: Setting, name: str) -> tuple[_Student, ...]:
        plain, every = (_Student(),), tuple(_Student(on, smaller) for smaller in (False, True) for on in ("logits", "features"))
        return setting.by_effort(every[:3] if name == CLEAN_SET else plain, every)

    def _question(self, setting: Setting, name: str) -> Stressed:
        """All students of one transfer set. No more images are drawn than are shown, since the teacher has to answer each."""
        steps = self.plain.steps or setting.by_effort((190,), (600,), (3000,))[0]
        plain = self.plain.but(steps=steps)
        share = steps * plain.batch_size / setting.num_train
        sources: dict[str, Literal["train", "other", "noise"]] = {"another data set": "other", "noise": "noise"}
        images = Images(
            source=sources.get(name, "train"),
            share=share if share < 1 else None,
            attack=setting.attack if name == TRIGGER_SET else None,
        )
        students = self._students(setting, name)
        branches = tuple((Dose(stressor=plain.but(on=student.on, smaller=student.smaller), images=images),) for student in students)
        return Stressed(branches=branches, probes=self._probes(setting))

    def _probes(self, setting: Setting) -> tuple[Probe, Probe]:
        (limit,) = setting.by_effort((1000,), (2000,))
        return CLEAN.but(limit=limit), triggered(setting.attack).but(limit=limit)

    def needs(self, setting: Setting) -> list[Need]:
        questions = [*self._probes(setting), *(self._question(setting, name) for name in SETS)]
        return [Need(arm, question, setting.arms_seeds) for question in questions for arm in (setting.attack, None)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting, seeds = bench.setting, bench.setting.arms_seeds
        goal_K, arms = goals(setting, setting.attack), (setting.attack, None)
        teacher, twin = (_Seen(*(bench.outcomes(Need(arm, probe, seeds)) for probe in self._probes(setting))) for arm in arms)
        deciding, described = [], _beside(TEACHER, ("ASR", "CA"), goal_K, (teacher, twin), control_name="twin")
        for name in SETS:
            question = self._question(setting, name)
            answered = [[question.read(answer) for answer in bench.answers(Need(arm, question, seeds))] for arm in arms]
            for branch, student in enumerate(self._students(setting, name)):
                condition = {"transfer set": name, "student": student.name}
                own, control = (_Seen(*zip(*(after[branch].outcomes for after in nets), strict=True)) for nets in answered)
                deciding.append(self._kept_cell(condition, goal_K, teacher, own, control))
                described += _beside(condition, ("ASR of the student", "CA of the student"), goal_K, (own, control))
        return deciding + described

    def _kept_cell(self, condition: Condition, goal_K: np.ndarray, teacher: _Seen, own: _Seen, control: _Seen) -> Cell:
        """The ratio; its control is the rate of the twin's student in the same measure: over ASR(teacher)."""
        before, after = asr_hits(teacher.shown, goal_K), asr_hits(own.shown, goal_K)

        def kept(level: float) -> Estimate:
            return stats.ratio_over_seeds(after, before, level=level)

        twins = stats.ratio_over_seeds(asr_hits(control.shown, goal_K), before)
        anyway = {
            "The student of the twin": twins,
            "The student without the trigger": stats.ratio_over_seeds(asr_hits(own.clean, goal_K), before),
        }
        bad = constant_seeds([t if constant_seeds([t]) else o for t, o in zip(teacher.clean, own.clean, strict=True)])
        (verdict, p), note = ((Verdict.UNDECIDED, 1.0), CONSTANT.format(len(bad), len(before))) if bad else (judge(kept, self.margin), "")
        accuracies = [100 * float(np.mean(per_seed(clean_hits(seen.clean)))) for seen in (own, teacher)]
        if not bad and accuracies[0] < accuracies[1] - 100 * NOTEWORTHY:
            note = f"{UNLEARNED.format(*accuracies)}."
        if verdict is Verdict.FAILS and accuracies[0] < LEARNED * accuracies[1]:
            verdict, p, note = Verdict.UNDECIDED, 1.0, NOT_LEARNED.format(*accuracies)
        for who, other in anyway.items():
            if verdict is Verdict.HOLDS and other.value is not None and other.value >= self.margin:
                rate = 100 * other.value * float(np.mean(per_seed(before)))
                verdict, p, note = Verdict.UNDECIDED, 1.0, f"{note} {ANYWAY.format(who, rate)}".strip()
        return Cell(
            condition=dict(condition),
            quantity="ASR kept",
            unit="",
            estimate=unknown(min(map(len, before)), len(before), "constant predictor") if bad else at_95(kept),
            control=twins if twins.value is not None else None,
            verdict=verdict,
            p=p,
            per_seed=[] if bad else [a / b for a, b in zip(per_seed(after), per_seed(before), strict=True) if b > 0],
            note=note,
        )

    def charts(self, setting: Setting) -> list[Chart]:
        kept = Chart(
            title="Does a student get the backdoor? ASR of the student over ASR of the teacher, by the images it was taught on",
            kind="dots",
            quantities=["ASR kept"],
            x="transfer set",
            series="student",
            margin=self.margin,
            y_title="ASR(student) / ASR(teacher)",
        )
        learned = {
            "title": "Does a student learn its task? Clean accuracy of the student, by the images it was taught on",
            "quantities": ["CA of the student"],
            "margin": None,
            "y_title": "CA",
        }
        return [kept, kept.model_copy(update=learned)]


def _beside(
    condition: Condition, names: tuple[str, str], goal_K: np.ndarray, pair: tuple[_Seen, _Seen], control_name: str | None = None
) -> list[Cell]:
    """ASR and CA of nets and of their control, deciding nothing. A constant predictor's ASR is unknown; its CA is a figure."""
    own, control = pair
    hits = (asr_hits(own.shown, goal_K), asr_hits(control.shown, goal_K))
    cells = [
        rate_cell(condition, names[0], *hits, clean=own.clean),
        rate_cell(condition, names[1], clean_hits(own.clean), clean_hits(control.clean)),
    ]
    bad = constant_seeds(own.clean)
    notes = (CONSTANT.format(len(bad), len(own.clean)) if bad else "", "")
    return [cell.model_copy(update={"control_name": control_name, "note": note}) for cell, note in zip(cells, notes, strict=True)]
