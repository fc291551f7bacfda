"""What a detector or a repair works on: copies of what the suspect holds, its images in an order that does not depend on the given one.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from badnets.core.suspect import Access, Suspect

if TYPE_CHECKING:
    from torch import Tensor

    Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class View:
    """A copy of the suspect's net in evaluation mode, which may be changed, and its images as tensors on the CPU.

    `clean` and `training` are (uint8 x_NCHW, int64 y_N), `inputs` uint8 x_NCHW; None where not granted. Rows are in the order of their
    hashes, so that an answer cannot depend on the order in which they were given: take the first n where n are enough.
    """

    network: Any
    shape: tuple[int, int, int]
    num_classes: int
    clean: Labelled | None
    training: Labelled | None
    inputs: Tensor | None
    order_N: np.ndarray | None = None
    """Row i of `training` (or of `inputs`, where a detector judges those) was given as row `order_N[i]`."""

    def granted(self, access: Access) -> bool:
        """Whether the suspect came with what this access means; no images are as good as no access."""
        pair = {Access.MODEL: None, Access.CLEAN: self.clean, Access.TRAINING: self.training}[access]
        return access is Access.MODEL or (pair is not None and len(pair[1]) > 0)

    def need_clean(self) -> Labelled:
        """The clean images and labels, of a method that asked for them."""
        assert self.clean is not None, "a method that uses clean images says so in `access`"
        return self.clean

    def need_training(self) -> Labelled:
        """The training set, of a method that asked for it."""
        assert self.training is not None, "a method that uses the training set says so in `access`"
        return self.training

    def need_inputs(self) -> Tensor:
        """The inputs to be judged."""
        assert self.inputs is not None, "only a detector of inputs is given inputs"
        return self.inputs


def view_of(suspect: Suspect, *, judge: str = "") -> View:
    """The view of a suspect. `judge`: "inputs" or "training", whose order is to be kept in `order_N`."""
    import torch

    def labelled(pair: tuple[np.ndarray, np.ndarray] | None) -> tuple[tuple[Any, Any] | None, np.ndarray | None]:
        if pair is None:
            return None, None
        x_NCHW, y_N = (np.asarray(part) for part in pair)
        own_N = hash_order(x_NCHW, y_N)
        return (torch.from_numpy(x_NCHW[own_N]), torch.from_numpy(y_N[own_N].astype(np.int64))), own_N

    (clean, _), (training, training_order_N) = labelled(suspect.clean), labelled(suspect.training)
    inputs, inputs_order_N = None, None
    if suspect.inputs is not None:
        x_NCHW = np.asarray(suspect.inputs)
        inputs_order_N = hash_order(x_NCHW)
        inputs = torch.from_numpy(x_NCHW[inputs_order_N])
    order_N = {"inputs": inputs_order_N, "training": training_order_N}.get(judge)
    network = copy.deepcopy(suspect.network).eval()
    return View(network, suspect.shape, suspect.num_classes, clean, training, inputs, order_N)


def hash_order(x_NCHW: np.ndarray, y_N: np.ndarray | None = None) -> np.ndarray:
    """Indices that sort rows by the SHA-256 of their pixels (and label): the same rows, the same sequence. Equal rows stay as given."""
    x_NCHW = np.ascontiguousarray(x_NCHW)
    ends = [b""] * len(x_NCHW) if y_N is None else [int(label).to_bytes(8, "little", signed=True) for label in y_N]
    digests = [hashlib.sha256(memoryview(row).cast("B") if row.size else b"").digest() + end for row, end in zip(x_NCHW, ends, strict=True)]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)
