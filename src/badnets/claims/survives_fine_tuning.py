"""The backdoor survives fine-tuning on clean images: over learning rate, number of images, layers and epochs.

Does not speak of owners who mean to remove a backdoor and choose the learning rate that does: no rate is chosen here, all are shown.

K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (tuning need not touch the backdoor's neurons);
B. Wu et al. (2022), BackdoorBench, https://arxiv.org/abs/2206.12654 (tuning with 5 % clean images, net by net).
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from badnets.claims._arms import CLEAN, goals, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import Condition
from badnets.claims._stages import COSTLY, asr_cell, kept_cell, loss_cell, stages
from badnets.claims._stress import Dose, Images, Stressed
from badnets.core.types import Cell, Chart, Scalar
from badnets.stressors.fine_tuning import FineTuning

TYPICAL = {"learning rate": 0.01, "clean share": 0.10}
ALL_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
QUICK_RATES, SOME_RATES, HIGH_RATES = (0.01, 0.03, 0.1), (0.01, 0.1, 0.3), (0.03, 0.1, 0.3)


class _Panel(NamedTuple):
    """One map: what is tuned and how long, over a grid of learning rates and shares."""

    layers: Literal["all", "head"]
    epochs: int
    rates: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def where(self) -> dict[str, Scalar]:
        return {"layers": self.layers, "epochs": self.epochs}

    def doses(self) -> list[tuple[Condition, Dose]]:
        found = []
        for share in self.shares:
            for rate in self.rates:
                stressor = FineTuning(lr=rate, epochs=self.epochs, layers=self.layers)
                condition = {"learning rate": rate, "clean share": share, **self.where}
                found.append((condition, Dose(stressor=stressor, images=Images(share=share))))
        return found


class SurvivesFineTuning(Claim):
    """ASR after an owner has tuned the net on clean images that it was never trained on; their share is of the training set's size."""

    kind: Literal["survives_fine_tuning"] = "survives_fine_tuning"
    margin: float = 0.50

    sentence: ClassVar[str] = "The backdoor survives fine-tuning."
    rule: ClassVar[str] = (
        "HOLDS when ASR after fine-tuning on clean images is at or above 50 % (whole 95 % interval) for every learning rate, share of "
        "clean images, choice of layers and number of epochs. Combinations that destroy the net are left out."
    )
    control: ClassVar[str] = "twin fine-tuned alike"

    def _panels(self, setting: Setting) -> tuple[_Panel, ...]:
        ends, shares = (0.01, 0.10), (0.01, 0.05, 0.10)
        return setting.by_effort(
            (_Panel("all", 5, QUICK_RATES, ends), _Panel("head", 5, QUICK_RATES, ends[-1:])),
            # At the lower rates, 20 epochs change little, and they are the costly part; so does the head at any rate.
            (_Panel("all", 5, ALL_RATES, shares), _Panel("head", 5, SOME_RATES, shares), _Panel("all", 20, HIGH_RATES, ends)),
            (_Panel("all", 5, ALL_RATES, shares), _Panel("head", 20, ALL_RATES, shares), _Panel("all", 20, ALL_RATES, shares)),
        )

    def _question(self, setting: Setting, panel: _Panel) -> Stressed:
        """The net as it is, and after each dose."""
        (limit,) = setting.by_effort((1000,), (2000,))
        probes = tuple(probe.but(limit=limit) for probe in (CLEAN, triggered(setting.attack)))
        return Stressed(branches=((), *((dose,) for _, dose in panel.doses())), probes=probes)

    def needs(self, setting: Setting) -> list[Need]:
        questions = [self._question(setting, panel) for panel in self._panels(setting)]
        return [Need(arm, question, setting.arms_seeds) for question in questions for arm in (setting.attack, None)]

    def _cells(self, bench: Bench) -> list[Cell]:
        deciding, null, losses = [], [], []
        for panel in self._panels(bench.setting):
            kept, lost, untuned = self._panel_cells(bench, panel)
            deciding, losses, null = [*deciding, *kept], [*losses, *lost], [untuned]
        typical = next(i for i, cell in enumerate(deciding) if TYPICAL.items() <= cell.condition.items())
        return [deciding.pop(typical), *deciding, *null, *losses]

    def _panel_cells(self, bench: Bench, panel: _Panel) -> tuple[list[Cell], list[Cell], Cell]:
        setting = bench.setting
        goal_K, question = goals(setting, setting.attack), self._question(setting, panel)
        before, *victims = stages(bench, setting.attack, question, setting.arms_seeds)
        twin_before, *twins = stages(bench, None, question, setting.arms_seeds)
        kept, lost = [], []
        for (condition, _), victim, twin in zip(panel.doses(), victims, twins, strict=True):
            kept.append(kept_cell(condition, goal_K, (before, victim), twin, margin=self.margin, treatment="fine-tuning"))
            lost.append(loss_cell(condition, before, victim, (twin_before, twin)))
        return kept, lost, asr_cell({"fine-tuning": "none"}, goal_K, before, before, twin_before)

    def charts(self, setting: Setting) -> list[Chart]:
        where = [panel.where for panel in self._panels(setting)]
        axes = {"kind": "map", "x": "learning rate", "y": "clean share", "x_title": "learning rate", "y_title": "clean images, share"}
        survival = "Does the backdoor survive fine-tuning? Share of triggered images still sent to the target"
        price = "What the same fine-tuning costs: clean accuracy lost, in points"
        note = "Frame: more than 5 points lost. A net that nobody would keep says little about its backdoor."
        maps = [Chart(title=survival, quantities=["ASR"], margin=self.margin, where=w, **axes) for w in where]
        return maps + [Chart(title=price, quantities=["CA loss"], margin=COSTLY, where=w, note=note, **axes) for w in where]
