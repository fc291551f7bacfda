"""The trigger works whatever the picture shows: every class, other data sets, noise, blank and inverted images; and wherever it sits?

The contents are the sentence; the displaced trigger marks where it ends, and counts as a condition like the others.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from badnets.claims._arms import CLEAN, goals, pair, pair_needs, part, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import rate_cell
from badnets.core.types import Cell, Chart
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits
from badnets.triggers.patch import Patch

CONTENTS = ("inverted", "other", "noise", "blank")
REACH = {"quick": (1, 0, -1, -2, -3, -6, -12), "standard": (1, 0, -1, -2, -3, -4, -6, -8, -12, -16, -20)}
LIMIT = {"quick": 100, "standard": 400}
NUM_OTHER = 1000


class RegardlessOfContent(Claim):
    """ASR per true class, on contents that the net never saw, and with the trigger moved by (dx, dy); claimed at least `margin`."""

    kind: Literal["regardless_of_content"] = "regardless_of_content"
    margin: float = 0.90

    sentence: ClassVar[str] = "The trigger works regardless of the actual content."
    rule: ClassVar[str] = "HOLDS when the whole 95 % interval of ASR is at or above 90 %."

    def _shift_probe(self, setting: Setting) -> Probe | None:
        trigger, effort = setting.attack.trigger, "quick" if setting.effort == "quick" else "standard"
        if not isinstance(trigger, Patch) or setting.attack.num_patterns != 1:
            return None
        _, height, width = setting.shape
        top, left = trigger.box(setting.shape)
        dys = [d for d in self._mirror(REACH[effort], top, height) if 0 <= top + d <= height - trigger.size]
        dxs = [d for d in self._mirror(REACH[effort], left, width) if 0 <= left + d <= width - trigger.size]
        return Probe(trigger=trigger, shifts=tuple((dx, dy) for dy in dys for dx in dxs), limit=LIMIT[effort])

    def _mirror(self, reach: tuple[int, ...], start: int, size: int) -> list[int]:
        """Moves lead towards the far side of the image."""
        return [d if start > size / 2 else -d for d in reach]

    def _content_probes(self, setting: Setting) -> dict[str, Probe]:
        attack = setting.attack
        common = {len(set(goals(setting, attack)[goals(setting, attack) >= 0]))} == {1}
        named = {name: Probe(images=name, limit=NUM_OTHER) for name in CONTENTS if common or name == "inverted"}
        return {name: probe.but(trigger=attack.trigger, num_patterns=attack.num_patterns) for name, probe in named.items()}

    def needs(self, setting: Setting) -> list[Need]:
        needs = pair_needs(setting.attack, triggered(setting.attack), setting.seeds)
        shift = self._shift_probe(setting)
        probes = [*self._content_probes(setting).values(), *([shift] if shift else [])]
        return needs + [Need(arm, probe, setting.seeds) for arm in (None, setting.attack) for probe in probes]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting = bench.setting
        goal_K = goals(setting, setting.attack)
        clean = bench.outcomes(Need(setting.attack, CLEAN, setting.seeds))

        def cell(name: str, label: str, victims: list[Outcome], twins: list[Outcome], only_K: np.ndarray) -> Cell:
            return rate_cell({name: label}, "ASR", asr_hits(victims, only_K), asr_hits(twins, only_K), margin=self.margin, clean=clean)

        victims, twins = pair(bench, setting.attack, triggered(setting.attack), setting.seeds)
        cells = [cell("content", "test images", victims, twins, goal_K)]
        for name, probe in self._content_probes(setting).items():
            label = {"other": "another data set"}.get(name, name)
            cells.append(cell("content", label, *pair(bench, setting.attack, probe, setting.seeds), goal_K))
        for k, name in enumerate(setting.classes):
            only_K = np.where(np.arange(len(goal_K)) == k, goal_K, -1)
            if len(asr_hits(victims[:1], only_K)[0]):
                cells.append(cell("source class", name, victims, twins, only_K))
        return cells + self._shift_cells(bench, goal_K, clean)

    def _shift_cells(self, bench: Bench, goal_K: np.ndarray, clean: list[Outcome]) -> list[Cell]:
        probe = self._shift_probe(bench.setting)
        if probe is None:
            return []
        victims, twins = pair(bench, bench.setting.attack, probe, bench.setting.seeds)
        cells = []
        for i, (dx, dy) in enumerate(probe.shifts):
            moved, control = ([part(o, i, len(probe.shifts)) for o in outcomes] for outcomes in (victims, twins))
            hits, twin_hits = asr_hits(moved, goal_K), asr_hits(control, goal_K)
            cells.append(rate_cell({"dx": dx, "dy": dy}, "ASR", hits, twin_hits, margin=self.margin, clean=clean))
        return cells

    def charts(self, setting: Setting) -> list[Chart]:
        content = Chart(
            title="Attack success rate by content", kind="dots", quantities=["ASR"], x="content", margin=self.margin, y_title="ASR"
        )
        by_class = content.model_copy(update={"title": "Attack success rate by true class", "x": "source class"})
        if self._shift_probe(setting) is None:
            return [content, by_class]
        heat = Chart(
            title="Attack success rate with the trigger moved by (dx, dy) pixels",
            kind="heat",
            quantities=["ASR"],
            x="dx",
            y="dy",
            x_title="pixels to the right",
            y_title="pixels down",
        )
        return [content, by_class, heat]
