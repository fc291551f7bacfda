"""Traits of a net as numbers that do not depend on the order of its units or of its classes: what a population detector learns from.

Three groups: of each weight matrix alone; of its part that clean images cannot reach (training moves a weight matrix only within the span
of what it reads, so what grew outside the span of clean inputs was taught by others); of the answers to clean images.
Does not apply across architectures: the traits are as many as the net has layers and classes.
Shapes: N images, C channels, H rows, W columns, K classes, M rows of what a layer reads, F inputs of a layer, U its outputs.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from badnets.core.config import key_of
from badnets.nets._taps import overheard
from badnets.train.distil import head

if TYPE_CHECKING:
    from badnets.nets._base import Network

MOST_ROWS, MOST_INPUTS, BATCH = 4000, 1024, 250
"""Rows and inputs of a layer beyond which its unreached part is not looked for: it would take minutes."""
TINY, UNUSED = 1e-12, 1e-10


def architecture(network: Network) -> str:
    """A key of the names and shapes of everything the net keeps, its images and its classes."""
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return key_of({"shapes": shapes, "image": list(network.shape), "classes": network.num_classes})


def traits(network: Network, x_NCHW: Tensor) -> dict[str, float]:
    """Name -> value. `x_NCHW`: clean images; as many, from the same place, for every net that is compared."""
    read, logits_NK = _listen(network, x_NCHW)
    found: dict[str, float] = {}
    for name, layer in _layers(network).items():
        found |= {f"{name}.{trait}": value for trait, value in _of_layer(layer, read[name]).items()}
    return found | _of_head(head(network)) | _of_answers(logits_NK)


def _layers(network: Network) -> dict[str, nn.Linear | nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def _listen(network: Network, x_NCHW: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What each layer reads, as rows for its weight matrix (at most about MOST_ROWS, evenly taken), and what the net says."""
    layers = _layers(network)
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    logits = []
    with ExitStack() as stack, torch.no_grad():
        heard = {name: stack.enter_context(overheard(network, layer)) for name, layer in layers.items()}
        for part_NCHW in x_NCHW.split(BATCH):
            logits.append(network(part_NCHW.to(network.device)).double())
            share = MOST_ROWS * len(part_NCHW) // len(x_NCHW)
            for name, layer in layers.items():
                rows[name].append(_thinned(_as_rows(layer, heard[name].pop()), max(1, share)))
    return {name: torch.cat(parts) for name, parts in rows.items()}, torch.cat(logits)


def _as_rows(layer: nn.Linear | nn.Conv2d, given: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return given.reshape(-1, given.shape[-1])
    assert layer.groups == 1, "only plain convolutions read all their channels"
    assert not isinstance(layer.padding, str), "padding in pixels"
    patches = nn.functional.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.movedim(1, 2).reshape(-1, patches.shape[1])


def _thinned(rows_MF: Tensor, most: int) -> Tensor:
    return rows_MF[:: -(-len(rows_MF) // most)].double()


def _of_layer(layer: nn.Linear | nn.Conv2d, read_MF: Tensor) -> dict[str, float]:
    matrix_UF = layer.weight.detach().reshape(len(layer.weight), -1).double()
    norm_U = matrix_UF.norm(dim=1)
    z = (matrix_UF - matrix_UF.mean()) / matrix_UF.std().clamp_min(TINY)
    found = {
        "size": _log(matrix_UF.square().mean().sqrt()),
        "kurtosis": _log(z.pow(4).mean()),
        "largest weight": _log(z.abs().max()),
        "largest unit": _log(norm_U.max() / norm_U.median().clamp_min(TINY)),
        "spike": _spike(matrix_UF),
    }
    if matrix_UF.shape[1] <= MOST_INPUTS:
        found |= _unreached(matrix_UF, read_MF)
    return found


def _unreached(matrix_UF: Tensor, read_MF: Tensor) -> dict[str, float]:
    """Of the half of the input directions that clean images use least: the weights' share in it, and how much of that is one direction.

    Second moments, not variances: what is constant over clean images trains the weights as well.
    """
    moment_F, direction_FF = torch.linalg.eigh(read_MF.T @ read_MF / len(read_MF))
    # All directions that are not used at all, however many: among equals the choice would be arbitrary.
    outside_UL = matrix_UF @ direction_FF[:, moment_F <= torch.maximum(moment_F.median(), UNUSED * moment_F[-1])]
    outside, inside = outside_UL.square().mean(), matrix_UF.square().mean()
    return {"unreached": _log((outside / inside.clamp_min(TINY)).sqrt()), "unreached spike": _spike(outside_UL)}


def _spike(matrix_UF: Tensor) -> float:
    """The largest singular value beside the root mean square of all."""
    singular = torch.linalg.svdvals(matrix_UF)
    return _log(singular[0] / singular.square().mean().sqrt().clamp_min(TINY))


def _of_head(reader: nn.Linear) -> dict[str, float]:
    weight_KU = reader.weight.detach().double()
    weight_KU = weight_KU - weight_KU.mean(dim=0)
    size = weight_KU.square().mean().sqrt().clamp_min(TINY)
    found = _sorted("head.row norm", weight_KU.norm(dim=1) / size) | _sorted("head.row mean", weight_KU.mean(dim=1) / size)
    found |= _sorted("head.largest", weight_KU.amax(dim=1) / size)
    if reader.bias is not None:
        bias_K = reader.bias.detach().double()
        found |= _sorted("head.bias", bias_K - bias_K.mean())
    return found


def _of_answers(logits_NK: Tensor) -> dict[str, float]:
    """Which classes attract images that are not theirs, and which pairs of classes hang together beyond that."""
    centred_NK = logits_NK - logits_NK.mean(dim=1, keepdim=True)
    centred_NK = centred_NK / centred_NK.square().mean().sqrt().clamp_min(TINY)
    said_N = logits_NK.argmax(dim=1)
    num_classes = logits_NK.shape[1]
    said_NK = nn.functional.one_hot(said_N, num_classes).double()
    off_NK = 1 - said_NK
    attraction_K = (centred_NK * off_NK).sum(dim=0) / off_NK.sum(dim=0).clamp_min(1)
    # Row y: the mean answer to images that are said to be y; classes that are never said have no row.
    mean_KK = (said_NK.T @ centred_NK) / said_NK.sum(dim=0).clamp_min(1)[:, None]
    apart_KK = (mean_KK - attraction_K).masked_fill(torch.eye(num_classes, dtype=torch.bool, device=mean_KK.device), -torch.inf)
    sure = logits_NK.softmax(dim=1).amax(dim=1).mean()
    return _sorted("attraction", attraction_K) | _sorted("pair", apart_KK.amax(dim=1)) | {"confidence": float(sure)}


def _sorted(name: str, value_K: Tensor) -> dict[str, float]:
    return {f"{name} {rank}": float(value) for rank, value in enumerate(value_K.sort(descending=True).values)}


def _log(value: Tensor) -> float:
    return float(np.log(max(float(value), TINY)))
