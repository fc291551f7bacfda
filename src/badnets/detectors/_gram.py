"""Gram matrices of activations, of several orders, batch by batch; and the distance of two groups of rows that Beatrix takes.

Shapes: N rows, C units, S positions, P orders, E entries of the upper triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from badnets.nets._taps import record, unit_layers

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

AT_ONCE = 250


def layer_with_positions(network: Network) -> str | None:
    """The last layer of units that has several positions, else the last one with units at all, else None."""
    names = list(unit_layers(network))
    if not names:
        return None
    blank_NCHW = torch.zeros(1, *network.shape, dtype=torch.uint8, device=network.device)
    seen = record(network, names, blank_NCHW)
    several = [name for name in names if seen[name].ndim > 2 and seen[name][0, 0].numel() > 1]
    return (several or names)[-1]


def activations(network: Network, layer: str, x_NCHW: Tensor) -> Iterator[Tensor]:
    """acts_NCS of the layer in float64 on the CPU, batch by batch."""
    for part in x_NCHW.split(AT_ONCE):
        acts = record(network, [layer], part.to(network.device))[layer]
        yield acts.reshape(len(part), acts.shape[1], -1).double().cpu()


def gram(acts_NCS: Tensor, orders: int) -> Tensor:
    """gram_NPE: the upper triangles of (a^p a^p')^(1/p) for p = 1 to `orders`, signs kept.

    With one position every order gives the same matrix, so there is one then.
    """
    units = acts_NCS.shape[1]
    row_E, column_E = torch.triu_indices(units, units)
    power_NCS, found = torch.ones_like(acts_NCS), []
    for p in range(1, (orders if acts_NCS.shape[2] > 1 else 1) + 1):
        power_NCS = power_NCS * acts_NCS
        entry_NE = torch.bmm(power_NCS, power_NCS.mT)[:, row_E, column_E]
        found.append(entry_NE if p == 1 else entry_NE.sign() * entry_NE.abs().pow(1 / p))
    return torch.stack(found, dim=1)


def regularised_mmd(one_NC: np.ndarray, other_NC: np.ndarray, kappa: float) -> float:
    """MMD^2 - kappa (|mu|^2 + |nu|^2) with a Gaussian kernel whose width is the median distance; mu, nu the groups' mean embeddings."""
    from scipy.spatial.distance import cdist

    both_NC = np.concatenate([one_NC, other_NC])
    square_NN = cdist(both_NC, both_NC, "sqeuclidean")
    kernel_NN = np.exp(-square_NN / max(float(np.median(square_NN)), 1e-300))
    cut = len(one_NC)
    mu, nu, cross = kernel_NN[:cut, :cut].mean(), kernel_NN[cut:, cut:].mean(), kernel_NN[:cut, cut:].mean()
    return float(mu + nu - 2 * cross - kappa * (mu + nu))
