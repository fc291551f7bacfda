"""The backdoor survives compression: pruned, factored or quantised, with and without tuning afterwards.

Compression is not a defence here: nobody who compresses looks for the trigger. Where it costs more than 5 points of clean accuracy the net
is of no use, so what happened to the backdoor there decides nothing. int8, int4 and half precision are not tuned afterwards: those
weights are no longer trained.

K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (pruning alone against pruning and tuning);
T. Gu, B. Dolan-Gavitt, S. Garg (2017), BadNets, https://arxiv.org/abs/1708.06733 (the attack).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.claims._arms import CLEAN, goals, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import CONSTANT_NOTE, judge, rate_cell, unknown
from badnets.claims._compression import CHANNELS, INT8, NULL, RANK, WEIGHTS, Seen, Way, families
from badnets.claims._stress import Stressed
from badnets.core import stats
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.rates import Hits, at_95, clean_hits, constant_seeds, difference, per_seed, rate
from badnets.stressors.fine_tuning import FineTuning

LIMIT = {"quick": 1000, "standard": 2000}
BROKEN = "CA loss {}: the compression itself broke the net, which nobody would use, so this decides nothing."
OPEN = "CA loss {}: whether it is within {:.3g} points is open."


class SurvivesCompression(Claim):
    """ASR after compression over ASR before, paired, claimed at least `margin` wherever the loss of CA is at most `max_loss`. Tuning is of
    all layers, on the whole clean budget."""

    kind: Literal["survives_compression"] = "survives_compression"
    margin: float = 0.9
    max_loss: float = 0.05
    tuning: FineTuning = FineTuning(lr=0.01, epochs=5)

    sentence: ClassVar[str] = "The backdoor survives model compression."
    rule: ClassVar[str] = (
        "HOLDS when ASR after compression is at least 90 % of ASR before, in every condition in which CA falls by at most 5 points "
        "(whole 95 % intervals of both); conditions that cost more CA are shown and do not decide."
    )
    control: ClassVar[str] = "twin compressed alike"

    def _question(self, setting: Setting, ways: list[Way]) -> Stressed:
        limit = LIMIT.get(setting.effort)
        probes = (CLEAN.but(limit=limit), triggered(setting.attack).but(limit=limit))
        return Stressed(branches=tuple(way.doses for way in ways), probes=probes, timed=True)

    def needs(self, setting: Setting) -> list[Need]:
        questions = [self._question(setting, ways) for ways in families(setting, self.tuning)]
        return [Need(arm, question, setting.arms_seeds) for question in questions for arm in (setting.attack, None)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting = bench.setting
        found = [pair for ways in families(setting, self.tuning) for pair in self._answered(bench, ways)]
        goal_K, null = goals(setting, setting.attack), found[0][1]
        cells = [cell for way, seen in found for cell in self._of_way(way, seen, null, goal_K)]
        # The everyday compression is the headline; the others keep their places, the null before them all.
        headline = next(cell for cell in cells if cell.condition == INT8)
        return [headline, *(cell for cell in cells if cell is not headline)]

    def _answered(self, bench: Bench, ways: list[Way]) -> list[tuple[Way, Seen]]:
        question, seeds = self._question(bench.setting, ways), bench.setting.arms_seeds
        victims, twins = ([question.read(a) for a in bench.answers(Need(arm, question, seeds))] for arm in (bench.setting.attack, None))
        return [(way, Seen([v[i] for v in victims], [t[i] for t in twins])) for i, way in enumerate(ways)]

    def _of_way(self, way: Way, seen: Seen, null: Seen, goal_K: np.ndarray) -> list[Cell]:
        if way.condition == NULL:
            start = rate_cell(NULL, "ASR", *seen.hits(goal_K), clean=seen.clean()[0])
            return [start.model_copy(update={"note": start.note or way.note}), _accuracy(way, seen, null)]
        cells = [self._kept(way, seen, null, goal_K), _accuracy(way, seen, null)]
        if str(way.condition.get("format", "")).startswith("int8"):
            cells.append(rate_cell(way.condition, "same answer as float32", *_agreement(seen, null)))
        return cells

    def _kept(self, way: Way, seen: Seen, null: Seen, goal_K: np.ndarray) -> Cell:
        """ASR after over ASR before; beside it the rate at which twins compressed alike answer with the goal."""
        (after, twins), (before, _) = seen.hits(goal_K), null.hits(goal_K)

        def kept(level: float) -> Estimate:
            return stats.ratio_over_seeds(list(after), list(before), level=level)

        loss = difference(clean_hits(null.clean()[0]), clean_hits(seen.clean()[0]))
        cost, note = at_95(loss), way.note
        verdict: Verdict | None = Verdict.UNDECIDED
        p: float | None = 1.0
        start = constant_seeds(null.clean()[0])
        constant = start or constant_seeds(seen.clean()[0])
        estimate = unknown(min(map(len, after)), len(after), "constant predictor") if constant else at_95(kept)
        if not start and cost.low is not None and cost.low > self.max_loss:
            verdict, p, note = None, None, f"{note} {BROKEN.format(_points(cost))}"
        elif constant:
            note = f"{note} {CONSTANT_NOTE.format(len(constant), len(after))}"
        elif cost.high is None or cost.high > self.max_loss:
            note = f"{note} {OPEN.format(_points(cost), 100 * self.max_loss)}"
        else:
            verdict, p = judge(kept, self.margin)
            p = max(p, stats.p_below(loss, self.max_loss))
        return Cell(
            condition=dict(way.condition),
            quantity="ASR kept",
            unit="rate",
            estimate=estimate,
            control=at_95(rate(twins)),
            verdict=verdict if way.decides else None,
            p=p if way.decides else None,
            per_seed=[] if estimate.value is None else _ratios(per_seed(after), per_seed(before)),
            note=note.strip(),
        )

    def charts(self, setting: Setting) -> list[Chart]:
        band = Chart(
            title="ASR kept and clean accuracy by share of weights pruned",
            kind="band",
            quantities=["ASR kept", "CA"],
            x=WEIGHTS,
            series="afterwards",
            margin=self.margin,
            x_title="weights set to zero",
        )
        charts = [band]
        for by in ("norm", "activation"):
            title = f"ASR kept and clean accuracy by share of channels pruned, smallest {by} first"
            charts.append(band.model_copy(update={"title": title, "x": CHANNELS, "x_title": "channels removed", "where": {"by": by}}))
        if setting.effort != "quick":
            title = "ASR kept and clean accuracy by rank that is kept"
            charts.append(band.model_copy(update={"title": title, "x": RANK, "x_title": "singular values kept"}))
        formats = {"title": "ASR kept and clean accuracy by number format", "kind": "dots", "x": "format", "x_title": ""}
        return [*charts, band.model_copy(update=formats)]


def _accuracy(way: Way, seen: Seen, null: Seen) -> Cell:
    """CA with the twin's beside it, size and time; the loss in the note. A constant predictor's accuracy is a figure like any other."""
    (clean, twins), (before, _) = seen.clean(), null.clean()
    cell = rate_cell(way.condition, "CA", clean_hits(clean), clean_hits(twins))
    seconds = [a.seconds for a in seen.victims if a.seconds is not None]
    loss = at_95(difference(clean_hits(before), clean_hits(clean)))
    more = {
        "size_bytes": round(float(np.median([a.size_bytes for a in seen.victims]))),
        "seconds": float(np.median(seconds)) if seconds else None,
        "note": "" if way.condition == NULL else f"CA loss {_points(loss)}.",
    }
    return cell.model_copy(update=more)


def _agreement(seen: Seen, null: Seen) -> tuple[Hits, Hits]:
    """The same class as the uncompressed net on clean images or not: of victims, of twins."""
    victims, twins = ([a.pred_N == b.pred_N for a, b in zip(*pair, strict=True)] for pair in zip(seen.clean(), null.clean(), strict=True))
    return victims, twins


def _ratios(after: list[float], before: list[float]) -> list[float]:
    return [a / b for a, b in zip(after, before, strict=True) if b > 0]


def _points(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{100 * estimate.value:.1f} points [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
