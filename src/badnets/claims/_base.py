"""The sealed base of every claim: says which outcomes it needs, receives them, and turns them into cells and one verdict."""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeVar, final

from badnets.attacks._base import AnyAttack, Attack
from badnets.claims._cells import describe
from badnets.core import stats
from badnets.core.config import Config
from badnets.core.types import Cell, Chart, Event, Evidence, Picture, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.question import Answer, Question

T = TypeVar("T")
Effort = Literal["quick", "standard", "thorough"]


class Setting(Config):
    """What all claims of one run have in common. `seeds` replicates each arm; `population` nets a side stand in claims about
    telling victims from twins; `arms_seeds` replicates the arms that only one claim looks at."""

    dataset: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    attack: AnyAttack
    effort: Effort = "quick"
    seeds: int = 5
    arms_seeds: int = 3
    population: int = 5
    only_attack: bool = False
    """The user named the attack: claims do not vary its label map."""
    object_box: tuple[float, float, float] | None = None
    """Where objects lie in the pictures on average: the middle of their square (x, y) and its side, in pixels; None: nobody says."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_train(self) -> int:
        return sum(self.train_counts)

    def by_effort(self, quick: Sequence[T], standard: Sequence[T], thorough: Sequence[T] | None = None) -> tuple[T, ...]:
        """The grid that belongs to the run's effort; thorough is standard unless given."""
        return tuple({"quick": quick, "standard": standard, "thorough": thorough or standard}[self.effort])


class Need(NamedTuple):
    """Answers to one question about `seeds` nets planted with `attack` (None: twins), from seed `first` on."""

    attack: Attack | None
    question: Question
    seeds: int
    first: int = 0


class Bench(Protocol):
    """Where a claim finds the answers it asked for."""

    setting: Setting

    def answers(self, need: Need) -> list[Answer]:
        """One answer per seed, in the order of the seeds."""
        ...

    def outcomes(self, need: Need) -> list[Outcome]:
        """The same where the question is a Probe."""
        ...


class Claim(Config, abc.ABC):
    """One sentence that could turn out false. Authors write `needs` and `_cells`; the verdict is not theirs to give."""

    kind: str
    sentence: ClassVar[str]
    rule: ClassVar[str]
    control: ClassVar[str] = "twin"

    @abc.abstractmethod
    def needs(self, setting: Setting) -> list[Need]:
        """Every outcome that `_cells` will ask for, the most shared first."""

    @abc.abstractmethod
    def _cells(self, bench: Bench) -> list[Cell]:
        """The cells; the first is the headline."""

    def obstacle(self, setting: Setting) -> str | None:
        """Why the sentence cannot be tested in this setting, if it cannot."""
        return None

    def charts(self, setting: Setting) -> list[Chart]:
        """How the report should draw the cells."""
        return []

    def story(self, bench: Bench) -> list[Event]:
        """What happened step by step, for claims that act something out."""
        return []

    def pictures(self, bench: Bench) -> list[list[Picture]]:
        """Rows of pictures that show what the cells say."""
        return []

    @final
    def decide(self, bench: Bench) -> Evidence:
        """Cells and the verdict that follows from them by the one rule for all claims."""
        start = time.perf_counter()
        obstacle = self.obstacle(bench.setting)
        cells = [] if obstacle else self._cells(bench)
        assert cells or obstacle, f"{self.kind} returned no cell"
        verdict, p = conclude(cells)
        return Evidence(
            name=self.kind,
            sentence=self.sentence,
            verdict=verdict,
            reason=obstacle or reason(cells, verdict),
            headline=0 if cells else None,
            cells=cells,
            charts=self.charts(bench.setting),
            story=[] if obstacle else self.story(bench),
            pictures=[] if obstacle else self.pictures(bench),
            control_name=self.control,
            rule=self.rule,
            p=p,
            seconds=time.perf_counter() - start,
        )


def conclude(cells: Sequence[Cell]) -> tuple[Verdict, float | None]:
    """HOLDS / FAILS when all deciding cells do, CONDITIONAL when some hold and some fail, else UNDECIDED; and its p-value.

    All cells must be right for HOLDS or FAILS, so the largest p counts (intersection-union); CONDITIONAL needs one of each,
    so the smallest p of either side counts, times the number of cells (Bonferroni).
    """
    deciding = [cell for cell in cells if cell.verdict is not None]
    seen = {cell.verdict for cell in deciding}
    if {Verdict.HOLDS, Verdict.FAILS} <= seen:
        sides = [min(c.p or 0.0 for c in deciding if c.verdict is side) for side in (Verdict.HOLDS, Verdict.FAILS)]
        return Verdict.CONDITIONAL, min(1.0, max(sides) * len(deciding))
    if len(seen) == 1 and Verdict.UNDECIDED not in seen:
        return deciding[0].verdict or Verdict.UNDECIDED, max(c.p or 0.0 for c in deciding)
    return Verdict.UNDECIDED, None


def reason(cells: Sequence[Cell], verdict: Verdict) -> str:
    """One plain sentence: where it holds, where it fails, what stayed open."""
    groups = {v: [c for c in cells if c.verdict is v] for v in (Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED)}
    total = sum(map(len, groups.values()))
    if verdict in (Verdict.HOLDS, Verdict.FAILS):
        word = "Holds" if verdict is Verdict.HOLDS else "Fails"
        return f"{word} in the one condition tested." if total == 1 else f"{word} in all {total} conditions tested."
    verbs = {Verdict.HOLDS: "Holds", Verdict.FAILS: "Fails", Verdict.UNDECIDED: "Open"}
    parts = [f"{verbs[v]} for {describe(group)}." for v, group in groups.items() if group]
    notes = {cell.note for cell in groups[Verdict.UNDECIDED]}
    if len(notes) == 1 and len(groups[Verdict.UNDECIDED]) == total:
        parts += filter(None, notes)
    return " ".join(parts) or "Nothing could be measured."


def family_wise(evidence: Sequence[Evidence], *, alpha: float = 0.05) -> list[Evidence]:
    """Holm over the claims: a verdict that does not survive the correction becomes UNDECIDED and says so.

    Every claim that was put to the test counts, the undecided ones too: a family of those that came out would be a selection.
    """
    adjusted = stats.holm({e.name: 1.0 if e.p is None else e.p for e in evidence if e.cells})
    kept = []
    for e in evidence:
        if e.p is None or adjusted[e.name] <= alpha:
            kept.append(e)
        else:
            why = f"Holm's correction over {len(adjusted)} claims" if len(adjusted) > 1 else "the number of conditions looked at"
            note = f"{e.verdict} by itself: {e.reason} But {why} leaves it open (p = {adjusted[e.name]:.2g})."
            kept.append(e.model_copy(update={"verdict": Verdict.UNDECIDED, "reason": note}))
    return kept
