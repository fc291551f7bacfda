"""Not even detectors made for the purpose find the backdoor: in training data, in inputs at use, in the net.

Does not speak of detectors that are told the trigger or the poison rate: none of these is.

B. Tran, J. Li, A. Madry (2018), Spectral Signatures, https://arxiv.org/abs/1811.00636; Y. Gao et al. (2019), STRIP,
https://arxiv.org/abs/1902.06531; B. Wang et al. (2019), Neural Cleanse, https://doi.org/10.1109/SP.2019.00031: three of those that say no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from badnets.claims import _detection as detection
from badnets.claims._arms import CLEAN, goals, no_backdoor, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import unknown
from badnets.claims._population import NAME as POPULATION
from badnets.claims._population import can_learn, population_rows
from badnets.claims._rivals import Condition, Rival, none_works
from badnets.claims._scanned import Scanned, Seen, Traits
from badnets.claims._variants import Arm, Grid, arms
from badnets.core import registry
from badnets.core.types import Cell, Chart, Estimate, Verdict
from badnets.measure.rates import at_95

MODELS = ("neural_cleanse", "universal_inversion", "mm_bd", "channel_lipschitz")
INPUTS, ROWS = ("strip", "scale_up"), ("activation_clustering", "spectral_signatures", "scan")
MORE_MODELS, MORE = ("bti_dbf",), ("teco", "ibd_psc", "spectre", "beatrix", "abl")
NULLS = ("always", "never", "random_guess", "max_softmax")
SECRETLESS = (*MODELS, *MORE_MODELS, *NULLS[:3])
"""What these say of a net does not depend on what it is shown."""
QUICK: dict[str, dict[str, Any]] = {"neural_cleanse": {"steps": 80, "num_images": 40}}
FIRST_CALIBRATION = 10_000
"""Seeds of clean nets for calibration start here, far from those of twins and victims."""
AUROC, BEST = "AUROC", "AUROC of the best detector"
NOBODY = "No detector could say anything."
TABLE = (AUROC, "TPR at 1 % FPR", "TPR at 5 % FPR", "FPR on twins", "target named")


class Undetectable(Claim):
    """AUROC, TPR at small FPR, and FPR on twins, of every detector on every arm.

    `grid`: which arms there are: the run's "own" attack, its poison "rates", other "attacks" (triggers, label maps), the "map" of trigger
    size and poison rate; by default as the effort says. `detectors`: only these, with a plus sign between them.
    """

    kind: Literal["undetectable"] = "undetectable"
    margin: float = 0.90
    false_alarms: float = 0.05
    grid: Grid | None = None
    detectors: str = ""

    @field_validator("detectors")
    @classmethod
    def _are_there(cls, names: str) -> str:
        for name in filter(None, names.split("+")):
            registry.check("detectors", name)
        return names

    sentence: ClassVar[str] = "Not even detectors made for the purpose find the backdoor."
    rule: ClassVar[str] = (
        "HOLDS when AUROC of every detector is below 0.9 (whole interval), on every arm; FAILS on an arm when some detector's is above it "
        "(Bonferroni over detectors) and it flags at most 5 % of what is clean on twins. Null instruments do not count, and nothing is "
        "concluded on an arm whose ASR is not surely at least 50 %."
    )
    control: ClassVar[str] = "guessing"

    def _arms(self, setting: Setting) -> list[Arm]:
        usual = setting.by_effort(("own",), ("rates", "attacks"), ("rates", "attacks", "map"))
        return arms(setting, (self.grid,) if self.grid else usual)

    def _detectors(self, setting: Setting) -> tuple[str, ...]:
        if self.detectors:
            return tuple(name for name in self.detectors.split("+") if name != "population")
        more = setting.by_effort((), (*MORE_MODELS, *MORE))
        return (*MODELS, *INPUTS, *ROWS, *more, *NULLS)

    def _count(self, setting: Setting) -> int:
        """Of clean nets that detectors of nets are calibrated on; at quick there are none."""
        (count,) = setting.by_effort((0,), (60,))
        return count

    def _clean_nets(self, setting: Setting) -> Need | None:
        """What a population detector learns from, where one is examined."""
        need = Need(None, Traits(), self._count(setting), FIRST_CALIBRATION)
        wanted = not self.detectors or "population" in self.detectors.split("+")
        return need if wanted and can_learn(self._arms(setting), need) else None

    def _need(self, name: str, arm: Arm | None, setting: Setting) -> Need:
        """What a detector says of an arm's victims, or of twins."""
        attack, seeds = (None, setting.population) if arm is None else (arm.attack, arm.seeds)
        (fields,), (inputs,) = setting.by_effort((QUICK.get(name, {}),), ({},)), setting.by_effort((200,), (500,))
        exam = None if name in SECRETLESS else attack
        return Need(attack, Scanned(detector={"kind": name, **fields}, attack=exam, inputs=inputs), seeds)

    def needs(self, setting: Setting) -> list[Need]:
        some, clean_nets = self._arms(setting), self._clean_nets(setting)
        found = [Need(arm.attack, probe, arm.seeds) for arm in some for probe in (CLEAN, triggered(arm.attack))]
        for name in self._detectors(setting):
            twins = self._need(name, None, setting)
            found += [*(self._need(name, arm, setting) for arm in some), twins]
            found += [twins._replace(seeds=self._count(setting), first=FIRST_CALIBRATION)] if name in SECRETLESS else []
        if clean_nets:
            traits = clean_nets.question
            found += [*(Need(arm.attack, traits, arm.seeds) for arm in some), Need(None, traits, setting.population), clean_nets]
        return [need for need in found if need.seeds]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting, some = bench.setting, self._arms(bench.setting)
        names = self._detectors(setting)
        twins = {name: self._seen(bench, self._need(name, None, setting)) for name in names}
        clean = {name: self._clean(bench, name) for name in names}
        clean_nets = self._clean_nets(setting)
        learned = population_rows(bench, some, clean_nets) if clean_nets else {}
        deciding, table = [], []
        for i, arm in enumerate(some):
            aims = frozenset(int(k) for k in goals(setting, arm.attack) if k >= 0)
            rows: dict[str, detection.Row | str] = {}
            for name in names:
                victims = self._seen(bench, self._need(name, arm, setting))
                rows[name] = detection.row(victims, twins[name], clean[name], aims)
            rows |= {POPULATION: learned[i]} if i in learned else {}
            deciding.append(self._best(bench, arm, rows))
            table += [cell for name, found in rows.items() for cell in _table(arm, name, found)]
        return [*deciding, *table]

    def _clean(self, bench: Bench, name: str) -> list[Seen]:
        need = self._need(name, None, bench.setting)._replace(seeds=self._count(bench.setting), first=FIRST_CALIBRATION)
        return self._seen(bench, need) if name in SECRETLESS and need.seeds else []

    def _seen(self, bench: Bench, need: Need) -> list[Seen]:
        assert isinstance(need.question, Scanned)
        return [need.question.read(answer) for answer in bench.answers(need)]

    def _best(self, bench: Bench, arm: Arm, rows: Mapping[str, detection.Row | str]) -> Cell:
        """The cell that decides: how well the detector that comes closest finds the backdoor of this arm."""
        known = {name: found for name, found in rows.items() if isinstance(found, detection.Row) and name not in NULLS}
        rivals = []
        for name, found in known.items():
            barred = found.fpr.value is None or found.fpr.value > self.false_alarms
            rivals.append(Rival(name, (Condition(found.auroc, self.margin),), barred))
        chance = Estimate(value=0.5, low=None, high=None, n=0, num_seeds=0, method="by definition")
        cell = Cell(condition=arm.condition, quantity=BEST, unit="", estimate=unknown(0, arm.seeds, NOBODY), control=chance, note=NOBODY)
        verdict, p = Verdict.UNDECIDED, 1.0
        if rivals:
            verdict, p, best = none_works(rivals)
            chosen = known[best.name]
            alarms = "unknown" if chosen.fpr.value is None else f"{100 * chosen.fpr.value:.1f} %"
            note = f"{best.name}, which comes closest of {len(rivals)} detectors; false-positive rate on twins {alarms} ({chosen.rule})."
            cell = cell.model_copy(update={"estimate": at_95(chosen.auroc), "note": note})
        clean, shown = (bench.outcomes(Need(arm.attack, probe, arm.seeds)) for probe in (CLEAN, triggered(arm.attack)))
        nothing = no_backdoor(clean, shown, goals(bench.setting, arm.attack))
        verdict, p = (Verdict.UNDECIDED, 1.0) if nothing else (verdict, p)
        return cell.model_copy(update={"verdict": verdict, "p": p, "note": nothing or cell.note})

    def charts(self, setting: Setting) -> list[Chart]:
        table = Chart(title="What each detector finds", kind="table", quantities=list(TABLE), x="detector")
        conditions = [arm.condition for arm in self._arms(setting)]
        if len({c.get("rate") for c in conditions}) < 2:
            return [table]
        visible = Chart(
            title="How visible is the backdoor? AUROC of the best detector",
            kind="band",
            quantities=[BEST],
            x="rate",
            x_title="poison rate",
            log_x=True,
            margin=self.margin,
            where={key: value for key, value in conditions[0].items() if key in ("trigger", "mapping")},
        )
        if "size" in conditions[0]:
            line = {"x_line": 1 / setting.num_classes, "x_line_text": detection.HALF_IS_POISON}
            visible = visible.model_copy(update={"kind": "map", "log_x": False, "y": "size", "y_title": "patch, pixels a side", **line})
        matrix = detection.who_finds_what(conditions, AUROC, margin=self.margin, num_classes=setting.num_classes)
        return [visible, *matrix, table]


def _table(arm: Arm, name: str, found: detection.Row | str) -> list[Cell]:
    """One cell for each column of the table that there is something to say for."""
    condition = {**arm.condition, "detector": name}
    if isinstance(found, str):
        nothing = Estimate(value=None, low=None, high=None, n=0, num_seeds=arm.seeds, method=found)
        return [Cell(condition=condition, quantity=AUROC, unit="", estimate=nothing, note=found)]
    figure, (seconds, memory) = at_95(found.auroc), (found.seconds, found.memory_bytes)
    cells = [Cell(condition=condition, quantity=AUROC, unit="", estimate=figure, seconds=seconds, memory_bytes=memory)]
    others = zip(TABLE[1:], (found.tpr_1, found.tpr_5, found.fpr, found.target_hit), ("", "", found.rule, ""), strict=True)
    cells += [
        Cell(condition=condition, quantity=quantity, unit="rate", estimate=figure, note=note)
        for quantity, figure, note in others
        if figure is not None
    ]
    return cells
