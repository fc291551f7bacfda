"""Gram matrices of activations, of several orders, batch by batch; and the distance of two groups of rows that Beatrix takes.

Shapes: N rows, C units, S positions, P orders, E entries of the upper triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from badnets.detectors._rows import squares_between
from badnets.nets._taps import record, unit_layers

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

AT_ONCE, CACHED = 250, 64
"""CACHED: rows whose matrices of one order stay near the processor."""


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
    found = [signed_power(gram_NCC[:, row_E, column_E], 1 / p) for p, gram_NCC in enumerate(unrooted(acts_NCS, orders), start=1)]
    return torch.stack(found, dim=1)


def unrooted(acts_NCS: Tensor, orders: int) -> Iterator[Tensor]:
    """gram_NCC of a^p and a^p, of every order; its root is not taken."""
    power_NCS = torch.ones_like(acts_NCS)
    for _ in range(orders if acts_NCS.shape[2] > 1 else 1):
        power_NCS = power_NCS * acts_NCS
        yield torch.bmm(power_NCS, power_NCS.mT)


def signed_power(x: Tensor, exponent: float) -> Tensor:
    """|x| to that power, with the sign of x."""
    return x if exponent == 1 else x.sign() * x.abs().pow(exponent)


@final
class Fence:
    """Bands of one class's entries, `low_PE` to `high_PE`, made to hold many rows against them. Few entries lie outside: the edges are
    raised to the power of each order, once, and roots are taken of those entries alone."""

    def __init__(self, low_PE: Tensor, high_PE: Tensor, scale_P1: Tensor, *, units: int) -> None:
        self._entries, self._edges = low_PE.numel(), []
        at_E = np.ravel_multi_index(torch.triu_indices(units, units).numpy(), (units, units))
        for p, (low_E, high_E, scale_1) in enumerate(zip(low_PE, high_PE, scale_P1, strict=True), start=1):
            pair = [np.full(units**2, limit) for limit in (-np.inf, np.inf)]
            for edge_E, filled in zip((low_E, high_E), pair, strict=True):
                filled[at_E] = edge_E.numpy()
            self._edges.append((*pair, *(signed_power(torch.from_numpy(edge), p).numpy() for edge in pair), float(scale_1)))

    def deviation(self, acts_NCS: Tensor) -> np.ndarray:
        """How far each row's matrices lie outside, relative to the edge, on average over orders and entries."""
        return np.concatenate([self._deviation(part_NCS) for part_NCS in acts_NCS.split(CACHED)])

    def _deviation(self, acts_NCS: Tensor) -> np.ndarray:
        total_N = np.zeros(len(acts_NCS))
        for p, gram_NCC in enumerate(unrooted(acts_NCS, len(self._edges)), start=1):
            low_E, high_E, from_E, to_E, scale = self._edges[p - 1]
            entry_NE = gram_NCC.numpy().reshape(len(total_N), -1)
            # Asked in this way, what is no number lies outside.
            inside_NE = entry_NE >= from_E
            inside_NE &= entry_NE <= to_E
            outside = np.flatnonzero(~inside_NE)
            row = outside // entry_NE.shape[1]
            place = outside - row * entry_NE.shape[1]
            value = signed_power(torch.from_numpy(entry_NE.ravel()[outside]), 1 / p).numpy()
            low, high = low_E[place], high_E[place]
            below = value < low
            off = np.where(below, low - value, np.maximum(value - high, 0)) / (np.abs(np.where(below, low, high)) + scale)
            total_N += np.bincount(row, weights=off, minlength=len(total_N))
        return total_N / self._entries


def regularised_mmd(one_NC: np.ndarray, other_NC: np.ndarray, kappa: float) -> float:
    """MMD^2 - kappa (|mu|^2 + |nu|^2) with a Gaussian kernel whose width is the median distance; mu, nu the groups' mean embeddings."""
    both_NC = np.concatenate([one_NC, other_NC])
    square_NN = squares_between(both_NC, both_NC)
    kernel_NN = np.exp(-square_NN / max(float(np.median(square_NN)), 1e-300))
    cut = len(one_NC)
    mu, nu, cross = kernel_NN[:cut, :cut].mean(), kernel_NN[cut:, cut:].mean(), kernel_NN[:cut, cut:].mean()
    return float(mu + nu - 2 * cross - kappa * (mu + nu))
