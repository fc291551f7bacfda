"""Nets with some of their units replaced: which units, by what, and what the net then answers.

One pass an edit, from the edited layer onwards: on one CPU core a batch of copies (or a vmapped pass) is no faster than a loop, since a
pass of a hundred images already keeps the core busy, while running only the rest of the net saves up to all of the convolutions.
Shapes: M edits, N images, K classes, C units of a layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from badnets.measure.outcome import NO_ANSWER

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

BATCH = 125

Unit = tuple[str, int]
How = Literal["mean", "zero", "patch"]
Means = dict[str, "Tensor"]


class Edit(NamedTuple):
    """Units that are replaced by their clean mean, by zero, or (patch) by their activations on the donor images."""

    units: tuple[Unit, ...]
    how: How


def edited_logits(network: Network, x_NCHW: Tensor, edits: Sequence[Edit], means: Means, donor_NCHW: Tensor | None = None) -> Tensor:
    """logits_MNK on the CPU. `means`: the clean mean of each layer; `donor_NCHW`: one image for each of `x_NCHW`."""
    import torch

    logits_MNK = torch.zeros(len(edits), len(x_NCHW), network.num_classes)
    with torch.inference_mode():
        for start in range(0, len(x_NCHW), BATCH):
            rows = slice(start, start + BATCH)
            donor = None if donor_NCHW is None else donor_NCHW[rows].to(network.device)
            for m, logits_NK in _batch(network, x_NCHW[rows].to(network.device), edits, means, donor):
                logits_MNK[m, rows] = logits_NK.float().cpu()
    return logits_MNK.clone()


def _batch(network: Network, x: Tensor, edits: Sequence[Edit], means: Means, donor: Tensor | None) -> Iterable[tuple[int, Tensor]]:
    from badnets.nets._taps import record, rest_after, swapped, unit_layers

    counts = unit_layers(network)
    patched = {layer for edit in edits if edit.how == "patch" for layer, _ in edit.units}
    given = record(network, sorted(patched), donor) if patched and donor is not None else {}
    groups: dict[str | None, list[int]] = {}
    for m, edit in enumerate(edits):
        touched = {layer for layer, _ in edit.units}
        groups.setdefault(next((name for name in counts if name in touched), None), []).append(m)
    for first, members in groups.items():
        rest, entered = (network, x) if first is None else rest_after(network, first, x)
        for m in members:
            with swapped(network, _swaps(counts, edits[m], means, given)):
                yield m, rest(entered)


def _swaps(counts: dict[str, int], edit: Edit, means: Means, given: Means) -> dict[str, Any]:
    import torch

    from badnets.nets._taps import Swap

    swaps = {}
    for layer, units in grouped(edit.units).items():
        mask_C = torch.zeros(counts[layer], dtype=torch.bool)
        mask_C[units] = True
        value = torch.zeros(counts[layer]) if edit.how == "zero" else means[layer] if edit.how == "mean" else given[layer]
        swaps[layer] = Swap(mask_C, value)
    return swaps


def grouped(units: Iterable[Unit]) -> dict[str, list[int]]:
    """Layer -> its units among these."""
    found: dict[str, list[int]] = {}
    for layer, unit in units:
        found.setdefault(layer, []).append(unit)
    return found


def edited_predictions(
    network: Network, x_NCHW: Tensor, edits: Sequence[Edit], means: Means, donor_NCHW: Tensor | None = None
) -> np.ndarray:
    """pred_MN as int16; NO_ANSWER where logits are no numbers."""
    return predictions(edited_logits(network, x_NCHW, edits, means, donor_NCHW))


def predictions(logits_MNK: Tensor) -> np.ndarray:
    """The largest logit's class, as int16; NO_ANSWER where logits are no numbers."""
    finite = logits_MNK.isfinite().all(-1).numpy()
    return np.where(finite, logits_MNK.nan_to_num().argmax(-1).numpy(), NO_ANSWER).astype(np.int16)


def drawn_predictions(
    network: Network, x_NCHW: Tensor, draws: Sequence[Sequence[Edit]], means: Means, donor_NCHW: Tensor | None = None
) -> np.ndarray:
    """pred_MN where image i meets the M edits of draw i modulo the number of draws: the mean over draws, and no image counts twice."""
    pred_MN = np.zeros((len(draws[0]), len(x_NCHW)), dtype=np.int16)
    for r, edits in enumerate(draws):
        rows = slice(r, None, len(draws))
        donor = None if donor_NCHW is None else donor_NCHW[rows]
        pred_MN[:, rows] = edited_predictions(network, x_NCHW[rows], edits, means, donor)
    return pred_MN


def as_array(value: object) -> np.ndarray:
    """Plain values as an array of JSON bytes, so that an answer can say what its arrays are."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def as_value(array: np.ndarray) -> Any:
    """Inverse of `as_array`."""
    return json.loads(array.tobytes())
