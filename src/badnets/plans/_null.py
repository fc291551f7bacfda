"""A null population: clean nets of one architecture and data set, trained once, scored by detectors, kept in the store.

A verdict on a suspect is its rank among these. It is right for suspects that, were they clean, could have been one of them: same
architecture, same kind of data, a recipe like ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from badnets.claims._base import Effort, Need
from badnets.claims._scanned import Scanned, Seen
from badnets.claims._unlabelled import ScannedUnlabelled
from badnets.claims.undetectable import FIRST_CALIBRATION
from badnets.core.config import key_of
from badnets.core.scanned import net_name
from badnets.datasets._base import Dataset, ImageSet
from badnets.plans._jobs import Site, work_through
from badnets.plans._plan import Plan
from badnets.plans._recognise import OUTSIDE
from badnets.plans._run import bench_of
from badnets.plans._stop import StopRequest
from badnets.plans._trial import device_name

if TYPE_CHECKING:
    from badnets.core.types import Estimate
    from badnets.detectors._calibration import Calibration, Scores, Spread
    from badnets.intake.unlabelled import Unlabelled
    from badnets.train.recipe import Recipe

NUM_NETS: Mapping[Effort, int] = {"quick": 39, "standard": 99, "thorough": 199}
NUM_REPEATED, REPEATS, FOLDS = 5, 2, 5
EPOCHS, MOST_EPOCHS, FEWEST_STEPS, BATCH = 5, 50, 300, 128
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

    A detector that can score none of them is left out. Raises StoreError, PartialError, Stopped.
    """
    dataset, data, named, images = kind
    net = {field: value for field, value in named.items() if field != "title"}  # the same nets, whatever they are called
    count = NUM_NETS[effort]
    asked = {name: Need(None, _question(name, images), count, FIRST_CALIBRATION) for name in detectors}
    again = {name: Need(None, _question(name, images, REPEATS), NUM_REPEATED, FIRST_CALIBRATION) for name in detectors}
    own = _recipe(len(data.train)) if net["kind"] in OUTSIDE else None
    plan = Plan(name="scan", dataset=dataset, effort=effort, claims=(), net=net, recipe=own, seeds=1, arms_seeds=1, population=1)
    bench = bench_of(plan, data, site.store, device_name())
    with site.store.lock(key_of({"null": data.sha256, "net": net})):
        for need in (*asked.values(), *again.values()):
            bench.want(need)
        bench.load()
        jobs = bench.jobs(str(site.data) if site.data else None)
        watch.started(count, len(jobs))
        for done, left in work_through(bench, jobs, site, watch.stop):
            watch.progress(done, len(jobs), left)
    seen = {name: [_seen(need, answer) for answer in bench.answers(need)] for name, need in asked.items()}
    # Silence about every clean net is of the architecture. Silence about a suspect alone is of the suspect, and no reason to leave it out.
    able = [name for name in detectors if any(one.analysable for one in seen[name])] or list(detectors)
    scores = [{name: (float(seen[name][i].score_R[0]) if seen[name][i].analysable else None) for name in able} for i in range(count)]
    repeated = {name: [_seen(again[name], answer).score_R.tolist() for answer in bench.answers(again[name])] for name in able}
    seconds = {name: sum(s.seconds for s in seen[name]) / count for name in able}
    setting = f"{net_name(named)} on {data.name}, {bench.parts.recipe.epochs:g} epochs"
    if own is not None:
        setting = f"{count} of this architecture trained by us: {setting} of our own recipe"
    if images is not None:
        setting += ", shown the same images without labels"
    return Null(scores, repeated, seconds, setting)


def _recipe(num_train: int) -> Recipe:
    """For whatever architecture: slow and steady, since nobody has tried what suits it."""
    from badnets.train.recipe import Recipe

    epochs = min(MOST_EPOCHS, max(EPOCHS, FEWEST_STEPS * BATCH / num_train))
    return Recipe(epochs=round(epochs, 2), batch_size=BATCH, optimizer="adamw", lr=2e-3, weight_decay=0.01, label_smoothing=0.0)


def _question(name: str, images: Unlabelled | None, repeats: int = 1) -> Scanned | ScannedUnlabelled:
    asked = Scanned(detector={"kind": name}, repeats=repeats)
    return asked if images is None or name in DATA_FREE else ScannedUnlabelled(asked=asked, images=images.handed)


def _seen(need: Need, answer: Any) -> Seen:
    assert isinstance(need.question, Scanned | ScannedUnlabelled)
    return need.question.read(answer)
