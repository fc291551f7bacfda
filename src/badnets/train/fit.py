"""The one training loop: 8-bit tensors on the device, one shuffled copy per epoch, a schedule that ends where training ends.

Not for data that do not fit the device's memory as 8-bit pixels twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from badnets.core.device import choose_layout, choose_precision
from badnets.core.errors import UsageError
from badnets.core.rng import generator
from badnets.nets._base import Network, autocast
from badnets.train._state import Progress, pack, unpack
from badnets.train.augment import augment
from badnets.train.optim import lr_factor, make_optimizer
from badnets.train.recipe import Recipe


class Checkpoint(Protocol):
    """Where a training keeps its state; `load` gives None before the first `save`."""

    def save(self, data: bytes) -> None: ...

    def load(self) -> bytes | None: ...


class Objective(Protocol):
    """What a training minimises where that is not the cross-entropy of labels; what stands in for labels is its own business."""

    def loss(self, network: Network, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        """The mean over a batch."""
        ...

    def constant_loss(self, y_N: Tensor) -> float:
        """The loss of the best answer that ignores the images."""
        ...


class Interrupted(Exception):  # noqa: N818 (an event, as KeyboardInterrupt is, not an error)
    """`should_stop` said so; with a checkpoint, the same call continues to the same bits."""


@dataclass(frozen=True)
class EpochNews:
    """What the progress callback is told after each epoch (the last one may be a part)."""

    epoch: int
    step: int
    total_steps: int
    loss: float


@dataclass(frozen=True)
class Watch:
    """How the outside follows, stops and resumes one training."""

    progress: Callable[[EpochNews], None] | None = None
    should_stop: Callable[[], bool] | None = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class FitReport:
    """What one training did. `losses` has one mean per epoch.

    `constant`: the last of them is no better than the loss of the best constant answer, so ASR would mean nothing.
    `seconds` and `images` are this call's own: after a resume, not those before it.
    """

    steps: int
    total_steps: int
    losses: tuple[float, ...]
    diverged: bool
    diverged_step: int | None
    constant: bool
    images: int
    seconds: float
    choices: tuple[str, ...]


def fit(
    network: Network,
    x_NCHW: Tensor,
    y_N: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    watch: Watch | None = None,
    objective: Objective | None = None,
) -> FitReport:
    """Trains `network` in place on uint8 images and labels (int64, or soft float NK); it is in evaluation mode afterwards.

    Parameters that want no gradient stay as they are, and so do the statistics of batch norms that have only such parameters.

    The batch order and the augmentation depend on (seed, epoch, number of images) only, never on the labels. A loss that is not
    finite ends the training at that epoch's end and is reported, not raised.
    """
    _check(network, x_NCHW, y_N)
    if objective is None:
        _check_labels(network, y_N)
    return _Fit(network, x_NCHW, y_N, recipe, seed, watch or Watch(), objective).run()


def _to_training(network: Network) -> None:
    """Training mode; but modules whose own parameters are all frozen stay as in use: a frozen batch norm would go on counting."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.training = False


def _check(network: Network, x_NCHW: Tensor, y_N: Tensor) -> None:
    if x_NCHW.dtype != torch.uint8 or tuple(x_NCHW.shape[1:]) != network.shape:
        raise UsageError("E-IMAGES", f"expected uint8 images {network.shape}, got {x_NCHW.dtype} {tuple(x_NCHW.shape[1:])}.")
    if len(x_NCHW) != len(y_N) or len(x_NCHW) < 2:
        raise UsageError("E-IMAGES", f"expected at least two images and as many labels, got {len(x_NCHW)} and {len(y_N)}.")


def _check_labels(network: Network, y_N: Tensor) -> None:
    hard = y_N.ndim == 1 and y_N.dtype == torch.int64 and int(y_N.min()) >= 0 and int(y_N.max()) < network.num_classes
    if not hard and not (y_N.is_floating_point() and tuple(y_N.shape[1:]) == (network.num_classes,)):
        raise UsageError("E-LABELS", f"expected int64 labels in 0..{network.num_classes - 1}, got {y_N.dtype} {tuple(y_N.shape)}.")


class _Fit:
    """The state of one call of `fit`."""

    def __init__(
        self, network: Network, x_NCHW: Tensor, y_N: Tensor, recipe: Recipe, seed: int, watch: Watch, objective: Objective | None = None
    ) -> None:
        self.network, self.recipe, self.seed, self.watch, self.objective = network, recipe, seed, watch, objective
        device = network.device
        self.x_NCHW, self.y_N = x_NCHW.to(device), y_N.to(device)
        # Every batch has batch_size images or one more share of the remainder, so none is too small for batch norm.
        self.per_epoch = max(1, len(x_NCHW) // recipe.batch_size)
        self.total = max(1, round(recipe.epochs * self.per_epoch))
        self.precision = choose_precision(device, recipe.precision)
        self.choices = (str(self.precision), str(choose_layout(device)))
        self.optimizer = make_optimizer(network, recipe)
        self.losses_T = torch.zeros(self.total, device=device)
        self.step = 0

    def run(self) -> FitReport:
        self._resume()
        first, start, diverged_step = self.step, time.perf_counter(), None
        _to_training(self.network)
        try:
            while self.step < self.total and diverged_step is None:
                self._epoch(self.step // self.per_epoch)
                diverged_step = self._first_bad()
                if diverged_step is None:
                    self._save()
                self._tell()
        finally:
            self.network.eval()
        return self._report(diverged_step, self.step - first, time.perf_counter() - start)

    def _epoch(self, epoch: int) -> None:
        order_N = torch.randperm(len(self.x_NCHW), generator=generator(self.seed, "order", epoch)).to(self.network.device)
        x_NCHW = augment(self.x_NCHW[order_N], self.recipe, seed=self.seed, epoch=epoch)
        y_N = self.y_N[order_N]
        last = min(self.total, (epoch + 1) * self.per_epoch)
        for step in range(self.step, last):
            if self.watch.should_stop is not None and self.watch.should_stop():
                self._save()
                raise Interrupted(f"stopped before step {step} of {self.total}")
            batch = self._batch(step % self.per_epoch)
            self._train_step(step, x_NCHW[batch], y_N[batch])
            self.step = step + 1

    def _batch(self, index: int) -> slice:
        num = len(self.x_NCHW)
        return slice(index * num // self.per_epoch, (index + 1) * num // self.per_epoch)

    def _train_step(self, step: int, x_NCHW: Tensor, y_N: Tensor) -> None:
        if self.objective is not None:
            with autocast(self.network.device, self.precision.value):
                loss = self.objective.loss(self.network, x_NCHW, y_N)
        else:
            with autocast(self.network.device, self.precision.value):
                logits_NK = self.network(x_NCHW)
            loss = cross_entropy(logits_NK.float(), y_N, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(lr_factor(step, self.total, self.recipe))
        # Kept on the device: reading it here would make a GPU wait in every step.
        self.losses_T[step] = loss.detach()

    def _first_bad(self) -> int | None:
        bad_M = (~self.losses_T[: self.step].isfinite()).nonzero()
        return int(bad_M[0]) if len(bad_M) else None

    def _mean_losses(self) -> tuple[float, ...]:
        return tuple(float(part.mean()) for part in self.losses_T[: self.step].split(self.per_epoch))

    def _tell(self) -> None:
        if self.watch.progress is not None:
            losses = self._mean_losses()
            self.watch.progress(EpochNews(len(losses), self.step, self.total, losses[-1]))

    def _save(self) -> None:
        if self.watch.checkpoint is not None:
            self.watch.checkpoint.save(pack(self.network, self.optimizer, self._progress()))

    def _resume(self) -> None:
        data = self.watch.checkpoint.load() if self.watch.checkpoint is not None else None
        if data is not None:
            done = unpack(data, self.network, self.optimizer, self._progress())
            self.step = done.step
            self.losses_T[: done.step] = done.losses.to(self.losses_T.device)

    def _progress(self) -> Progress:
        return Progress(self.step, self.losses_T[: self.step], identity=(self.recipe.model_dump_json(), self.seed, len(self.x_NCHW)))

    def _report(self, diverged_step: int | None, steps: int, seconds: float) -> FitReport:
        losses = self._mean_losses()
        return FitReport(
            steps=self.step,
            total_steps=self.total,
            losses=losses,
            diverged=diverged_step is not None,
            diverged_step=diverged_step,
            constant=not losses[-1] < 0.98 * self._constant_loss(),
            images=round(steps * len(self.x_NCHW) / self.per_epoch),
            seconds=seconds,
            choices=self.choices,
        )

    def _constant_loss(self) -> float:
        if self.objective is not None:
            return self.objective.constant_loss(self.y_N)
        num_classes = self.network.num_classes
        share_K = torch.bincount(self.y_N, minlength=num_classes) / len(self.y_N) if self.y_N.ndim == 1 else self.y_N.mean(dim=0)
        smooth_K = (1 - self.recipe.label_smoothing) * share_K.double() + self.recipe.label_smoothing / num_classes
        return float(torch.special.entr(smooth_K).sum())
