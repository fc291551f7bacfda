"""One training with its identity: what is trained, on what, how, from which seed; and the keys under which results are stored."""

from __future__ import annotations

from functools import cache
from typing import Any

from badnets.attacks._base import AnyAttack
from badnets.core.config import Config, key_of
from badnets.core.hardware import code_digest, defence_digest, study_digest, versions
from badnets.datasets._base import AnyDataset
from badnets.measure.probe import Probe
from badnets.measure.question import Question
from badnets.plans._questions import DEFENCE, AnyQuestion
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

    data_sha256: str
    net: dict[str, Any]
    recipe: Recipe
    attack: AnyAttack | None
    seed: int
    device: str = "cpu"

    def key(self) -> str:
        """SHA-256 over the trial and over everything else that decides its bits."""
        return key_of({"trial": self.model_dump(mode="json"), "code": code_digest(), "torch": _torch(), "threads": NUM_THREADS})

    def question_key(self, question: Question, other_sha256: str | None) -> str:
        """Key of the answer to one question about the net of this trial."""
        other = other_sha256 if question.wants_other else None
        # Probes are part of the code that the trial's key covers; what is done to a net afterwards must not cost its training.
        code = None if isinstance(question, Probe) else (study_digest(), _onnxruntime())
        if question.kind in DEFENCE:
            code = (study_digest(), _onnxruntime(), defence_digest(), _sklearn())
        return key_of({"trial": self.key(), "question": question.model_dump(mode="json"), "other": other, "code": code})


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
