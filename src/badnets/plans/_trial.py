"""One training with its identity: what is trained, on what, how, from which seed; and the keys under which results are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from badnets.attacks._base import AnyAttack
from badnets.core.config import Config, key_of
from badnets.core.hardware import camera_digest, code_digest, defence_digest, study_digest, unlabelled_digest, versions
from badnets.datasets._base import AnyDataset
from badnets.measure.probe import Probe
from badnets.measure.question import Question
from badnets.plans._questions import CAMERA, DEFENCE, UNKEYED, UNLABELLED, AnyQuestion
from badnets.train.recipe import Recipe

NUM_THREADS = 1


@cache
def _torch() -> str:
    """Asked for once per key, and looking through the installed packages takes 20 ms."""
    return versions()["torch"]


@cache
def _onnxruntime() -> str:
    return versions()["onnxruntime"]


@cache
def _sklearn() -> str:
    return versions()["scikit-learn"]


class Trial(Config):
    """A victim (or, without an attack, a twin) before it is trained. `net` is an entry of nets with its fields, kept as plain values
    so that the main process need not import torch; the worker validates it."""

    dataset: str
    data_sha256: str
    net: dict[str, Any]
    recipe: Recipe
    attack: AnyAttack | None
    seed: int
    device: str = "cpu"

    def key(self) -> str:
        """SHA-256 over the trial and over everything else that decides its bits."""
        plain = self.model_dump(mode="json")
        return key_of({"trial": plain, "code": code_digest(mentioned(plain)), "torch": _torch(), "threads": NUM_THREADS})

    def question_key(self, question: Question, other: str | None) -> str:
        """Key of the answer to one question about the net of this trial. `other`: name and SHA-256 of the other data set."""
        plain = question.model_dump(mode="json", exclude=UNKEYED.get(question.kind))
        other = other if question.wants_other else None
        entries = mentioned([self.model_dump(mode="json"), plain, *(other or "").split()])
        # What a probe does is part of the code that the trial's key covers; what is done to a net afterwards must not cost its training.
        code = code_digest(entries) if isinstance(question, Probe) else (study_digest(entries), _onnxruntime())
        if question.kind in DEFENCE | UNLABELLED:
            code = (study_digest(entries), _onnxruntime(), defence_digest(entries), _sklearn())
        if question.kind in UNLABELLED:
            code = (*code, unlabelled_digest())
        if question.kind in CAMERA:
            code = (code_digest(entries), camera_digest())
        return key_of({"trial": self.key(), "question": plain, "other": other, "code": code})


def mentioned(value: object) -> frozenset[str]:
    """All strings in a configuration: the names of entries are among them."""

    def strings(part: object) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            yield from (text for inner in part.values() for text in strings(inner))
        elif isinstance(part, (list, tuple)):
            yield from (text for inner in part for text in strings(inner))

    return frozenset(strings(value))


class Order(Config):
    """What a worker is told: a trial, where its data lie, and which questions to answer."""

    trial: Trial
    dataset: AnyDataset
    data: str | None = None
    other: AnyDataset | None = None
    questions: tuple[AnyQuestion, ...] = ()
    store: str


def device_name() -> str:
    """The device that a run uses; known without importing torch where torch is a CPU build."""
    if _torch().endswith("+cpu"):
        return "cpu"
    from badnets.core.device import choose_device

    return str(choose_device().value)
