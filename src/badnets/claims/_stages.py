"""Nets before and after something that is claimed to leave the backdoor in them: outcomes by stage, and the cells made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from badnets.attacks._base import Attack
from badnets.claims._base import Bench, Need
from badnets.claims._cells import Condition, difference_cell, rate_cell
from badnets.claims._further import Further
from badnets.claims._stress import Stressed
from badnets.core.types import Cell
from badnets.measure.outcome import Outcome
from badnets.measure.rates import asr_hits, at_95, clean_hits, constant_seeds, difference, per_seed

COSTLY = 0.05
DESTROYED_NOTE = "{} of {} nets were destroyed by the {} itself (one class for nearly every clean image), so this decides nothing."
COST_NOTE = "Clean accuracy fell by {:.1f} points."


class Stage(NamedTuple):
    """Outcomes of the same nets, one per seed, on `clean` images and on images `shown` with the trigger."""

    clean: list[Outcome]
    shown: list[Outcome]


def stages(bench: Bench, attack: Attack | None, question: Stressed | Further, seeds: int) -> list[Stage]:
    """One stage per branch of a question whose probes are (clean, triggered)."""
    seen = [question.read(answer) for answer in bench.answers(Need(attack, question, seeds))]
    return [Stage([a.outcomes[0] for a in branch], [a.outcomes[1] for a in branch]) for branch in zip(*seen, strict=True)]


def asr_cell(condition: Condition, goal_K: np.ndarray, before: Stage, after: Stage, control: Stage | None, quantity: str = "ASR") -> Cell:
    """ASR after something that decides nothing, beside that of the control.

    A net that was a constant predictor before it, or has become one, makes the figure unknown.
    """
    worst = [b if constant_seeds([b]) else a for b, a in zip(before.clean, after.clean, strict=True)]
    other = asr_hits(control.shown, goal_K) if control is not None else None
    return rate_cell(condition, quantity, asr_hits(after.shown, goal_K), other, clean=worst)


def kept_cell(
    condition: Condition, goal_K: np.ndarray, stages: tuple[Stage, Stage], control: Stage, *, margin: float, treatment: str
) -> Cell:
    """ASR after `treatment`, claimed to be at least `margin`; `stages`: the victims before and after it.

    Victims that were constant predictors from the start leave the cell open. Victims that the treatment itself has made constant do not:
    a destroyed net neither has the backdoor nor is it rid of it, and more seeds would not tell.
    """
    before, after = stages
    hits, twins = asr_hits(after.shown, goal_K), asr_hits(control.shown, goal_K)
    if constant_seeds(before.clean):
        return rate_cell(condition, "ASR", hits, twins, margin=margin, clean=before.clean)
    cell = rate_cell(condition, "ASR", hits, twins, margin=margin, clean=after.clean)
    destroyed = constant_seeds(after.clean)
    if destroyed:
        note = DESTROYED_NOTE.format(len(destroyed), len(after.clean), treatment)
        return cell.model_copy(update={"verdict": None, "p": None, "note": note})
    loss = float(np.mean(per_seed(clean_hits(before.clean))) - np.mean(per_seed(clean_hits(after.clean))))
    return cell.model_copy(update={"note": COST_NOTE.format(100 * loss)}) if loss >= COSTLY else cell


def loss_cell(condition: Condition, before: Stage, after: Stage, twins: tuple[Stage, Stage]) -> Cell:
    """CA of the victims before less after, beside the same of the twins."""
    cell = difference_cell(condition, "CA loss", clean_hits(before.clean), clean_hits(after.clean), None)
    lost = difference(*(clean_hits(stage.clean) for stage in twins))
    return cell.model_copy(update={"control": at_95(lost), "control_unit": None})


def gap_cell(condition: Condition, quantity: str, goal_K: np.ndarray, stage: Stage, control: Stage, control_name: str) -> Cell:
    """ASR less the control's, paired by seed and image; descriptive."""
    clean: Sequence[Outcome] = [*stage.clean, *control.clean]
    hits, other = asr_hits(stage.shown, goal_K), asr_hits(control.shown, goal_K)
    return difference_cell(condition, quantity, hits, other, None, clean=clean, control_name=control_name)
