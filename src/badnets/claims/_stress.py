"""The question of the claims about persistence: what do nets answer after an owner has done something to them?

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack
from badnets.core.config import Config
from badnets.core.rng import numpy_generator
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe, fit_quads, fit_to
from badnets.measure.question import Answer, Question, World
from badnets.stressors._base import AnyStressor, Supply

if TYPE_CHECKING:
    from badnets.nets._base import Network

TIMED_IMAGES, TIMED_REPEATS = 100, 5


class Images(Config):
    """Which images an owner has. `source`: the clean "budget" (never trained on), the training images ("train", clean), another data set's
    ("other", unlabelled), or uniform "noise" (unlabelled, as many as the training set has).

    `share` of the training set's size; None is all there are. `attack`: somebody has poisoned these images; `count`: so many of them,
    else at the attack's own rate.
    """

    source: Literal["budget", "train", "other", "noise"] = "budget"
    share: float | None = Field(None, gt=0, le=1)
    attack: AnyAttack | None = None
    count: int | None = Field(None, ge=1)

    def draw(self, world: World) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 images and their labels; fewer images than asked for where there are no more."""
        x_NCHW, y_N, _ = self.placed(world)
        return x_NCHW, y_N

    def placed(self, world: World) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Like `draw`, with the quads (where the object lies in each image) that triggers may need."""
        x_NCHW, y_N, quad_N42 = self._source(world)
        if self.share is not None:
            wanted = min(len(x_NCHW), max(2, round(self.share * len(world.data.train))))
            rows = numpy_generator(world.seed, "supply", self.source).permutation(len(x_NCHW))[:wanted]
            x_NCHW, y_N = x_NCHW[rows], None if y_N is None else y_N[rows]
            quad_N42 = None if quad_N42 is None else quad_N42[rows]
        if self.attack is None:
            return x_NCHW, y_N, quad_N42
        attack = self.attack if self.count is None else self.attack.but(rate=self.count / len(x_NCHW))
        labels_N = np.zeros(len(x_NCHW), dtype=np.int64) if y_N is None else y_N
        poisoned = attack.poison(x_NCHW, labels_N, num_classes=world.data.num_classes, seed=world.seed, quad_N42=quad_N42)
        return poisoned.x_NCHW, None if y_N is None else poisoned.y_N, quad_N42

    def _source(self, world: World) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        data = world.data
        if self.source in ("budget", "train"):
            own = data.budget if self.source == "budget" else data.train
            return own.x_NCHW, own.y_N, own.quad_N42
        if self.source == "noise":
            x_NCHW = numpy_generator(world.seed, "supply", "noise").integers(0, 256, data.train.x_NCHW.shape, dtype=np.uint8)
            return x_NCHW, None, data.train.quad_N42
        assert world.other is not None, "images of another data set need that data set"
        return fit_to(world.other.train.x_NCHW, data.shape), None, fit_quads(world.other.train, data.train)


class Dose(Config):
    """One stressor with the images it is given."""

    stressor: AnyStressor
    images: Images = Images()

    def apply(self, network: Network, world: World) -> Network:
        """A new net."""
        import torch

        x_NCHW, y_N = self.images.draw(world)
        labels = None if y_N is None else torch.from_numpy(np.ascontiguousarray(y_N))
        supply = Supply(torch.from_numpy(np.ascontiguousarray(x_NCHW)), labels, world.fresh)
        return self.stressor.apply(network, supply, seed=world.seed)


@dataclass(frozen=True, eq=False)
class After:
    """One branch of a Stressed: an outcome per probe, the size of the net's file (deflated), seconds per image (None: not timed)."""

    outcomes: list[Outcome]
    size_bytes: int
    seconds: float | None


class Stressed(Question):
    """`steps` are done one after the other; from there each of the `branches` (sequences of further steps; the empty one stops there) gives
    a net that answers all `probes`."""

    kind: Literal["stressed"] = "stressed"
    steps: tuple[Dose, ...] = ()
    branches: tuple[tuple[Dose, ...], ...] = ((),)
    probes: tuple[Probe, ...]
    timed: bool = False

    @property
    def wants_other(self) -> bool:
        doses = [*self.steps, *(dose for branch in self.branches for dose in branch)]
        return any(d.images.source == "other" for d in doses) or any(probe.wants_other for probe in self.probes)

    def arrays(self, network: Network, world: World) -> Answer:
        """Per branch b and probe p the outcome's fields as `b.p.field`, `b.size` in bytes, and `b.seconds` where timed."""
        trunk = _through(self.steps, network, world)
        answer: Answer = {}
        for b, branch in enumerate(self.branches):
            stressed = _through(branch, trunk, world)
            for p, probe in enumerate(self.probes):
                outcome = probe.answer(stressed, world.data, world.other, seed=world.seed)
                answer |= {f"{b}.{p}.{name}": values for name, values in outcome.arrays().items()}
            answer[f"{b}.size"] = np.array(file_size(stressed), dtype=np.int64)
            if self.timed:
                answer[f"{b}.seconds"] = np.array(seconds_per_image(stressed, world))
        return answer

    def read(self, answer: Answer) -> list[After]:
        """The branches of an answer."""
        found = []
        for b in range(len(self.branches)):
            outcomes = []
            for p in range(len(self.probes)):
                start = f"{b}.{p}."
                outcomes.append(Outcome.from_arrays({k.removeprefix(start): v for k, v in answer.items() if k.startswith(start)}))
            seconds = float(answer[f"{b}.seconds"]) if self.timed else None
            found.append(After(outcomes, int(answer[f"{b}.size"]), seconds))
        return found


def _through(doses: tuple[Dose, ...], network: Network, world: World) -> Network:
    for dose in doses:
        network = dose.apply(network, world)
    return network


def file_size(network: Network) -> int:
    """Bytes of the net's weights as safetensors, deflated: zeros and short numbers count for less, as they would in a download."""
    from badnets.nets._weights import to_bytes

    return len(zlib.compress(to_bytes(network), level=6))


def seconds_per_image(network: Network, world: World) -> float:
    """Median over repeats of the time for one batch of test images, per image."""
    import torch

    x_NCHW = torch.from_numpy(np.ascontiguousarray(world.data.test.x_NCHW[:TIMED_IMAGES]))
    network.predict_logits(x_NCHW)
    times = []
    for _ in range(TIMED_REPEATS):
        start = time.perf_counter()
        network.predict_logits(x_NCHW)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / len(x_NCHW)
