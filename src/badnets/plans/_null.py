"""A null population: clean nets of one architecture and data set, trained once, scored by detectors, kept in the store.

A verdict on a suspect is its rank among these. It is right for suspects that, were they clean, could have been one of them: same
architecture, same kind of data. Nets of our own catalogue are trained by the recipe that it names for them; of a stranger's nobody knows
how it was trained, so each clean net beside it gets a recipe of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from badnets.claims._arms import CLEAN
from badnets.claims._base import Effort, Need
from badnets.claims._scanned import Scanned, Seen
from badnets.claims._unlabelled import ScannedUnlabelled
from badnets.claims.undetectable import FIRST_CALIBRATION
from badnets.core import stats
from badnets.core.config import key_of
from badnets.core.engine import Job, JobResult
from badnets.core.errors import RefusedError
from badnets.core.scanned import net_name
from badnets.core.store import Store
from badnets.datasets._base import Dataset, ImageSet
from badnets.measure.question import Question
from badnets.plans._bench import StoreBench
from badnets.plans._jobs import Site, work_through
from badnets.plans._plan import Plan
from badnets.plans._recipes import drawn_recipe
from badnets.plans._recognise import OUTSIDE
from badnets.plans._run import bench_of
from badnets.plans._stop import StopRequest
from badnets.plans._trial import device_name

if TYPE_CHECKING:
    from badnets.core.types import Estimate
    from badnets.detectors._calibration import Calibration, Scores, Spread
    from badnets.intake.unlabelled import Unlabelled

NUM_NETS: Mapping[Effort, int] = {"quick": 39, "standard": 99, "thorough": 199}
NUM_REPEATED, REPEATS, FOLDS = 5, 2, 5
MOST_TRIES = 2
"""For each clean net that is wanted, before it is said that such nets do not learn."""
DATA_FREE = ("channel_lipschitz", "mm_bd")
"""Detectors that look at no image: what they say of clean nets is the same whatever images there are."""


class Watcher(Protocol):
    """Who watches a scan and a null population being made, and may stop it."""

    stop: StopRequest

    def started(self, nets: int, jobs: int) -> None: ...

    def progress(self, done: int, jobs: int, seconds_left: float | None) -> None: ...


@dataclass(frozen=True, eq=False)
class Null:
    """Scores of clean nets: `nets` has a mapping by detector for each; `repeated`: of a few nets, several scores a detector; `seconds` that
    a detector took."""

    nets: Sequence[Scores]
    repeated: Mapping[str, list[list[float]]]
    seconds: Mapping[str, float]
    setting: str

    @property
    def calibration(self) -> Calibration:
        """All nets as what a suspect is judged by."""
        from badnets.detectors._calibration import Calibration

        return Calibration.of(self.nets, setting=self.setting)

    def false_alarms(self, *, alpha: float) -> Estimate:
        """Share of clean nets that a calibration on the others flags: each fifth of them is judged by the other four."""
        from badnets.core import stats
        from badnets.detectors._calibration import Calibration, judge

        verdicts = []
        for fold in range(FOLDS):
            others = Calibration.of([net for i, net in enumerate(self.nets) if i % FOLDS != fold])
            verdicts += [judge(others, net, alpha=alpha).flagged for net in self.nets[fold::FOLDS]]
        known = [verdict for verdict in verdicts if verdict is not None]
        return stats.wilson(sum(known), len(known), num_seeds=len(known))

    def spread(self, name: str, *, alpha: float) -> Spread:
        """How steady one detector is when it is run again with other random numbers."""
        from badnets.core import stats
        from badnets.detectors._calibration import Spread, repeat_spread

        # A net that a detector cannot score has no repeats of it.
        scores_PR = [scores for scores in self.repeated[name] if len(scores) == REPEATS]
        if not scores_PR:
            return Spread(within=None, between=None, reliability=None, unsteady=stats.wilson(0, 0))
        return repeat_spread(self.calibration, name, scores_PR, alpha=alpha)


class Kind(NamedTuple):
    """Which nets: a data set, the same loaded, and an architecture as plain values. `images`: what detectors are shown in place of the
    clean images of the data set."""

    dataset: Dataset
    data: ImageSet
    net: dict[str, Any]
    images: Unlabelled | None = None


def null_population(kind: Kind, detectors: tuple[str, ...], effort: Effort, site: Site, watch: Watcher) -> Null:
    """From the store what is there; what is missing is trained and scored. Stopped in between, the same call continues.

    A detector that can score none of them is left out. Raises StoreError, PartialError, Stopped; RefusedError (E-CLEAN-NETS) where too few
    of the nets learned anything.
    """
    count = NUM_NETS[effort]
    theirs = kind.net["kind"] in OUTSIDE
    nets = _learned(kind, detectors, count, site, watch) if theirs else _Nets(kind, detectors, range(count), site.store)
    if not theirs:
        nets.make(site, watch)
    return _null(nets, kind, detectors, theirs=theirs)


def _learned(kind: Kind, detectors: tuple[str, ...], count: int, site: Site, watch: Watcher) -> _Nets:
    """Nets by drawn recipes; those that did not learn are no nets that anybody hands on, and others take their place."""
    chosen = list(range(count))
    while True:
        nets = _Nets(kind, detectors, chosen, site.store)
        nets.make(site, watch)
        poor = nets.poor()
        if not poor:
            return nets
        if max(chosen) + 1 + len(poor) > MOST_TRIES * count:
            what = f"{len(poor)} of {len(chosen)} clean nets of this architecture learned too little on {kind.data.name}"
            hint = "This does not mean clean: there is nothing to compare it with."
            raise RefusedError("E-CLEAN-NETS", f"not analysable: {what}.", hint=hint)
        following = range(max(chosen) + 1, max(chosen) + 1 + len(poor))
        chosen = [number for number in chosen if number not in poor] + list(following)


def _null(nets: _Nets, kind: Kind, detectors: tuple[str, ...], *, theirs: bool) -> Null:
    seen = {name: nets.seen(name) for name in detectors}
    count = len(nets.numbers)
    # Silence about every clean net is of the architecture. Silence about a suspect alone is of the suspect, and no reason to leave it out.
    able = [name for name in detectors if any(one.analysable for one in seen[name])] or list(detectors)
    scores = [{name: (float(seen[name][i].score_R[0]) if seen[name][i].analysable else None) for name in able} for i in range(count)]
    repeated = {name: [one.score_R.tolist() for one in nets.seen(name, again=True)] for name in able}
    seconds = {name: sum(s.seconds for s in seen[name]) / count for name in able}
    setting = f"{net_name(kind.net)} on {kind.data.name}"
    if theirs:
        epochs = sorted(bench.parts.recipe.epochs for bench in nets.benches.values())
        how = f"each by a recipe drawn for it: SGD or AdamW, {epochs[0]:.3g} to {epochs[-1]:.3g} epochs"
        setting = f"{count} of this architecture trained by us: {setting}, {how}"
    else:
        setting += f", {nets.benches[0].parts.recipe.epochs:g} epochs"
    if kind.images is not None:
        setting += ", shown the same images without labels"
    return Null(scores, repeated, seconds, setting)


class _Nets:
    """Clean nets by their numbers, each with the bench of its recipe, and what is asked about them."""

    def __init__(self, kind: Kind, detectors: tuple[str, ...], numbers: Sequence[int], store: Store) -> None:
        self.kind, self.detectors, self.numbers = kind, detectors, list(numbers)
        # The same nets, whatever they are called.
        self.net = {field: value for field, value in kind.net.items() if field != "title"}
        theirs = self.net["kind"] in OUTSIDE
        shared = None if theirs else self._bench(None, store)
        self.benches = {number: shared or self._bench(number, store) for number in self.numbers}
        self._of: dict[str, StoreBench] = {}
        for name in detectors:
            for number in self.numbers:
                self._want(number, _question(name, kind.images))
            for number in self.numbers[:NUM_REPEATED]:
                self._want(number, _question(name, kind.images, REPEATS))
        if theirs:
            for number in self.numbers:
                self._want(number, CLEAN)

    def _bench(self, number: int | None, store: Store) -> StoreBench:
        dataset, data, net = self.kind.dataset, self.kind.data, self.net
        recipe = None
        if number is not None:
            recipe = drawn_recipe(FIRST_CALIBRATION + number, len(data.train), data.shape[1], transformer=net["kind"] == "vit")
        plan = Plan(name="scan", dataset=dataset, effort="quick", claims=(), net=net, recipe=recipe, seeds=1, arms_seeds=1, population=1)
        return bench_of(plan, data, store, device_name())

    def _want(self, number: int, question: Question) -> None:
        for key, _ in self.benches[number].want(_need(number, question)):
            self._of[key] = self.benches[number]

    def make(self, site: Site, watch: Watcher) -> None:
        """Train and ask what is not in the store."""
        benches = list({id(bench): bench for bench in self.benches.values()}.values())
        with site.store.lock(key_of({"null": self.kind.data.sha256, "net": self.net})):
            for bench in benches:
                bench.load()
            jobs = _in_turn([bench.jobs(str(site.data) if site.data else None) for bench in benches])
            watch.started(len(self.numbers), len(jobs))
            for done, left in work_through(self, jobs, site, watch.stop):
                watch.progress(done, len(jobs), left)

    def receive(self, result: JobResult) -> None:
        """To the bench whose net it is about."""
        self._of[result.key].receive(result)

    def seen(self, name: str, *, again: bool = False) -> list[Seen]:
        """What a detector said, of all nets once or of the first few several times."""
        numbers, question = self.numbers, _question(name, self.kind.images)
        if again:
            numbers, question = numbers[:NUM_REPEATED], _question(name, self.kind.images, REPEATS)
        return [question.read(self.benches[number].answers(_need(number, question))[0]) for number in numbers]

    def poor(self) -> set[int]:
        """Numbers of the nets that are surely less than half as far above guessing as the best of them."""
        import numpy as np

        right = {number: self.benches[number].outcomes(_need(number, CLEAN))[0].correct_N for number in self.numbers}
        guess = float(np.bincount(self.kind.data.test.y_N).max() / len(self.kind.data.test))
        enough = (guess + max(float(hit_N.mean()) for hit_N in right.values())) / 2
        highs = {number: stats.wilson(int(hit_N.sum()), len(hit_N)).high for number, hit_N in right.items()}
        return {number for number, high in highs.items() if high is None or high < enough}


def _in_turn(jobs: Sequence[Sequence[Job]]) -> list[Job]:
    """The first job of every net before any second: what asks a net after its training finds it in the store."""
    turns: dict[int, list[Job]] = {}
    seen: dict[str, int] = {}
    for job in (job for some in jobs for job in some):
        seen[job.key] = seen.get(job.key, 0) + 1
        turns.setdefault(seen[job.key], []).append(job)
    return [job for turn in sorted(turns) for job in turns[turn]]


def _need(number: int, question: Question) -> Need:
    return Need(None, question, 1, FIRST_CALIBRATION + number)


def _question(name: str, images: Unlabelled | None, repeats: int = 1) -> Scanned | ScannedUnlabelled:
    asked = Scanned(detector={"kind": name}, repeats=repeats)
    return asked if images is None or name in DATA_FREE else ScannedUnlabelled(asked=asked, images=images.handed)
