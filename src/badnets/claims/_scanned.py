"""The question of the claim about detection: what does a detector say of a net, of inputs with and without the trigger, of training rows?

The judge knows the secret and mixes the exam; the detector sees a Suspect. What it may calibrate on never is what it is examined on.
Shapes: N inputs or rows, R repeats, K classes, T traits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack, Attack
from badnets.core import registry
from badnets.core.finding import Finding, Level
from badnets.core.memory import watched
from badnets.core.rng import numpy_generator
from badnets.core.suspect import Access, Suspect
from badnets.measure.question import Answer, Question, World

if TYPE_CHECKING:
    from badnets.detectors._base import Detector
    from badnets.nets._base import Network

HELD, CLEAN, SHOWN = 0, 1, 2
"""What an input of the exam is: a clean one that only fixes a threshold, a clean one, one with the trigger."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one detector said of one net. `score_R` of the net; `score_N`, `flag_N` (None: no rule) and `part_N` of inputs or rows: HELD,
    CLEAN or SHOWN. All are empty where `analysable` is false."""

    analysable: bool
    score_R: np.ndarray
    target: int | None
    score_N: np.ndarray
    flag_N: np.ndarray | None
    part_N: np.ndarray
    images: int
    seconds: float
    memory_bytes: int | None


class Scanned(Question):
    """`detector` as plain values, so that asking imports no torch. `attack`: the one of the exam, None for clean inputs and rows alone.

    `inputs`: so many clean inputs, and as many with the trigger, from the test images; as many more clean ones from the validation images
    fix thresholds; fewer where there are fewer. `repeats`: of a detector of nets, with other random numbers.
    """

    kind: Literal["scanned"] = "scanned"
    detector: dict[str, Any]
    attack: AnyAttack | None = None
    inputs: int = Field(500, ge=2)
    repeats: int = Field(1, ge=1)

    def arrays(self, network: Network, world: World) -> Answer:
        """The fields of Seen that there are, -1 for what is unknown."""
        from badnets.detectors._base import Detector

        detector = registry.parse("detectors", self.detector)
        assert isinstance(detector, Detector)
        suspect, part_N = self.exam(detector, network, world)
        scores, finding, seconds = [], None, []
        with watched() as peak:
            for repeat in range(self.repeats if detector.level is Level.MODEL else 1):
                finding = detector.scan(suspect, rng=numpy_generator(world.seed, "scan", detector.kind, repeat))
                scores.append(finding.score)
                seconds.append(finding.seconds)
        assert finding is not None
        return _packed(finding, scores, part_N) | {
            "cost": np.array([finding.images, float(np.mean(seconds)), -1 if peak.bytes is None else peak.bytes], dtype=np.float64)
        }

    def exam(self, detector: Detector, network: Network, world: World) -> tuple[Suspect, np.ndarray]:
        """What the detector is handed, and which part each input or row of it is."""
        data, clean = world.data, (world.data.budget.x_NCHW, world.data.budget.y_N)
        if detector.level is Level.MODEL:
            granted = clean if detector.access is not Access.MODEL else None
            return Suspect(network, data.shape, data.num_classes, clean=granted), np.zeros(0, dtype=np.int64)
        if detector.level is Level.ROWS:
            training, stamped_N = _training(self.attack, world)
            suspect = Suspect(network, data.shape, data.num_classes, training=training)
            return suspect, np.where(stamped_N, SHOWN, CLEAN)
        inputs, part_N = self._inputs(world)
        return Suspect(network, data.shape, data.num_classes, clean=clean, inputs=inputs), part_N

    def _inputs(self, world: World) -> tuple[np.ndarray, np.ndarray]:
        """Triggered inputs are of the classes that the attack sends elsewhere, and none of them is among the clean ones."""
        data = world.data
        held, order = (numpy_generator(0, "exam", data.name).permutation(len(part)) for part in (data.validation, data.test))
        count = min(self.inputs, len(order) // 2)
        clean, rest = order[:count], order[count:]
        parts = [(data.validation.x_NCHW[held[: self.inputs]], HELD), (data.test.x_NCHW[clean], CLEAN)]
        if self.attack is not None:
            goal_K = self.attack.goals(data.num_classes)
            y_N = data.test.y_N[rest]
            attacked = rest[(goal_K[y_N] >= 0) & (goal_K[y_N] != y_N)][: self.inputs]
            shown, trigger = data.test.take(attacked), self.attack.trigger
            stamped = trigger.stamp_varied(shown.x_NCHW, self.attack.num_patterns, shown.quad_N42, seed=world.seed, purpose="test")
            parts.append((stamped, SHOWN))
        return np.concatenate([x for x, _ in parts]), np.concatenate([np.full(len(x), part) for x, part in parts])

    def read(self, answer: Answer) -> Seen:
        """The answer as Seen."""
        images, seconds, memory = answer["cost"].tolist()
        target = int(answer["target"])
        return Seen(
            analysable=bool(answer["analysable"]),
            score_R=answer["score_R"],
            target=None if target < 0 else target,
            score_N=answer["score_N"],
            flag_N=answer["flag_N"] if len(answer["flag_N"]) or not len(answer["score_N"]) else None,
            part_N=answer["part_N"],
            images=int(images),
            seconds=seconds,
            memory_bytes=None if memory < 0 else int(memory),
        )


class Traits(Question):
    """What a population detector would learn from: the traits of the net, from so many clean images."""

    kind: Literal["traits"] = "traits"
    images: int = Field(400, ge=2)

    def arrays(self, network: Network, world: World) -> Answer:
        """`value_T`, in the same order for every net of an architecture."""
        import torch

        from badnets.core.view import view_of
        from badnets.detectors._traits import traits

        budget = world.data.budget
        view = view_of(Suspect(network, world.data.shape, world.data.num_classes, clean=(budget.x_NCHW, budget.y_N)))
        with torch.no_grad():
            return {"value_T": np.array(list(traits(view.network, view.need_clean()[0][: self.images]).values()))}


def _training(attack: Attack | None, world: World) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The training set as the net saw it, and which rows were stamped and mislabelled."""
    train = world.data.train
    if attack is None:
        return (train.x_NCHW, train.y_N), np.zeros(len(train), dtype=bool)
    poisoned = attack.poison(train.x_NCHW, train.y_N, num_classes=world.data.num_classes, seed=world.seed, quad_N42=train.quad_N42)
    return (poisoned.x_NCHW, poisoned.y_N), poisoned.stamped_N & (poisoned.y_N != poisoned.source_N)


def _packed(finding: Finding, scores: list[float | None], part_N: np.ndarray) -> Answer:
    per_row = finding.score_N is not None
    known = [score for score in scores if score is not None]
    return {
        "analysable": np.array(finding.analysable and len(known) in (0, len(scores))),
        "score_R": np.array(known, dtype=np.float64),
        "target": np.array(-1 if finding.target is None else finding.target),
        "score_N": np.asarray(finding.score_N, dtype=np.float32) if per_row else np.zeros(0, dtype=np.float32),
        "flag_N": np.zeros(0, dtype=bool) if finding.flag_N is None else finding.flag_N,
        "part_N": part_N.astype(np.uint8) if per_row else np.zeros(0, dtype=np.uint8),
    }
