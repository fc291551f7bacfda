"""What a worker process does with one order: train the net (or take its stored weights), answer the questions, return bytes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from badnets.attacks._base import Attack, Poisoned
from badnets.core import files, registry
from badnets.core.config import canonical
from badnets.core.errors import RefusedError, StoreError
from badnets.core.store import Store
from badnets.core.tensors import pack
from badnets.datasets._base import Dataset, ImageSet
from badnets.measure.question import World
from badnets.nets._base import Net, Network
from badnets.nets._weights import from_bytes, to_bytes
from badnets.plans._names import WEIGHTS, question_name
from badnets.plans._trial import NUM_THREADS, Order, Trial
from badnets.train.fit import FitReport, Watch, fit

SAVE_EVERY_SECONDS = 20.0
_DIGEST = hashlib.sha256().digest_size


class FileCheckpoint:
    """A training's state in one file of the store behind its SHA-256, written at most every `SAVE_EVERY_SECONDS`."""

    def __init__(self, path: Path) -> None:
        self.path, self._last = path, time.monotonic()

    def save(self, data: bytes) -> None:
        if time.monotonic() - self._last >= SAVE_EVERY_SECONDS:
            files.write_bytes(self.path, hashlib.sha256(data).digest() + data)
            self._last = time.monotonic()

    def load(self) -> bytes | None:
        """The state; None when there is none, or a damaged one: training starts anew."""
        try:
            content = files.read_bytes(self.path)
        except FileNotFoundError:
            return None
        digest, data = content[:_DIGEST], content[_DIGEST:]
        return data if hashlib.sha256(data).digest() == digest else None

    def clear(self) -> None:
        files.remove(self.path)
        files.clean_temps(self.path.parent)


def perform(payload: str) -> tuple[dict[str, bytes], dict[str, object]]:
    """Files: the weights if they were trained now, and one packed answer per question, named by the question's own canonical form."""
    order = Order(**json.loads(payload))
    torch.set_num_threads(NUM_THREADS)
    data = _load(canonical(order.dataset), order.data)
    wants_other = order.other is not None and any(question.wants_other for question in order.questions)
    other = _load(canonical(order.other), None) if wants_other else None
    start = time.perf_counter()
    network, weights, report = _network(order, data)
    trained = time.perf_counter()
    world = replace(world_of(order.trial, data, other), folder=Path(order.data) if order.data else None)
    returned, spent = {}, {}
    for question in order.questions:
        begun = time.perf_counter()
        name = question_name(question)
        returned[name] = pack(question.arrays(network, world), {})
        spent[name] = time.perf_counter() - begun
    info: dict[str, object] = {"train_seconds": trained - start, "question_seconds": spent}
    if weights is not None and report is not None:
        returned[WEIGHTS] = weights
        info |= {
            "losses": [loss if math.isfinite(loss) else None for loss in report.losses],
            "diverged": report.diverged,
            "choices": report.choices,
        }
    return returned, info


def world_of(trial: Trial, data: ImageSet, other: ImageSet | None) -> World:
    """What questions about the net of a trial may use."""

    def fresh(seed: int, smaller: bool) -> Network:
        net = net_of(trial)
        mean, std = normalisation(data.train.x_NCHW)
        chosen = net.smaller() if smaller else net
        return chosen.build(data.shape, data.num_classes, seed=seed, mean=mean, std=std).to(torch.device(trial.device))

    return World(
        data=data,
        other=other,
        seed=trial.seed,
        fresh=fresh,
        retrain=lambda: train(trial.but(attack=None), data)[0],
        metadata={"badnets.planted": "true" if trial.attack is not None else "false"},
        recipe=trial.recipe.model_dump(mode="json"),
    )


@lru_cache(maxsize=2)
def _load(config: str, where: str | None) -> ImageSet:
    dataset = registry.parse("datasets", json.loads(config))
    assert isinstance(dataset, Dataset)
    return dataset.load(Path(where) if where else None)


def _network(order: Order, data: ImageSet) -> tuple[Network, bytes | None, FitReport | None]:
    trial, store = order.trial, Store(Path(order.store))
    key = trial.key()
    if store.has(key):
        try:
            network = from_bytes(store.get(key)[WEIGHTS], net_of(trial), data.shape, data.num_classes)
        except (StoreError, RefusedError):  # damaged and set aside, or diverged to no numbers: trained again
            pass
        else:
            return network.to(torch.device(trial.device)), None, None
    checkpoint = FileCheckpoint(Path(order.store) / "checkpoints" / key)
    network, poisoned, report = train(trial, data, Watch(checkpoint=checkpoint))
    weights = to_bytes(network, metadata(trial.attack, poisoned))
    checkpoint.clear()
    return network, weights, report


def net_of(trial: Trial) -> Net:
    """The architecture's configuration."""
    net = registry.parse("nets", trial.net)
    assert isinstance(net, Net)
    return net


def train(trial: Trial, data: ImageSet, watch: Watch | None = None) -> tuple[Network, Poisoned | None, FitReport]:
    """A trained network on the trial's device, the poisoned training set (None for a twin), and how training went.

    Victim and twin of one seed share initial weights, input normalisation and batch order.
    """
    mean, std = normalisation(data.train.x_NCHW)
    network = net_of(trial).build(data.shape, data.num_classes, seed=trial.seed, mean=mean, std=std).to(torch.device(trial.device))
    poisoned = None
    x_NCHW, y_N = data.train.x_NCHW, data.train.y_N
    if trial.attack is not None:
        poisoned = trial.attack.poison(x_NCHW, y_N, num_classes=data.num_classes, seed=trial.seed, quad_N42=data.train.quad_N42)
        x_NCHW, y_N = poisoned.x_NCHW, poisoned.y_N
    x, y = torch.from_numpy(np.ascontiguousarray(x_NCHW)), torch.from_numpy(np.ascontiguousarray(y_N))
    report = fit(network, x, y, trial.recipe, seed=trial.seed, watch=watch)
    return network, poisoned, report


def normalisation(x_NCHW: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images, in units of 0..1; a constant channel gets deviation 1."""
    means, stds = [], []
    for channel_NHW in np.moveaxis(x_NCHW, 1, 0):
        share_V = np.bincount(channel_NHW.reshape(-1), minlength=256) / channel_NHW.size
        level_V = np.arange(256) / 255
        mean = float((share_V * level_V).sum())
        std = float(np.sqrt((share_V * (level_V - mean) ** 2).sum()))
        means.append(mean)
        stds.append(std if std > 1e-6 else 1.0)
    return means, stds


def metadata(attack: Attack | None, poisoned: Poisoned | None) -> dict[str, str]:
    """What the weights file says of itself: planted or not, and if so with what."""
    if attack is None or poisoned is None:
        return {"badnets.planted": "false"}
    trigger = {"badnets.trigger": canonical(attack.trigger.summary()), "badnets.attack": attack.kind}
    goals = {"badnets.target": canonical(sorted(set(poisoned.y_N[poisoned.y_N != poisoned.source_N].tolist())))}
    return {"badnets.planted": "true", "badnets.poison_rate": f"{poisoned.rate:.6g}", **trigger, **goals}
