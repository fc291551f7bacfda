"""Augmentation of one epoch's 8-bit images: flip, shift, cutout, drawn from a named stream.

Works after stamping, so a flip moves a trigger as it would in a poisoned image file. Not for labels that depend on the
orientation (digits, signs): leave `flip` off there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from badnets.core.rng import generator
from badnets.train.recipe import Recipe


def augment(x_NCHW: Tensor, recipe: Recipe, *, seed: int, epoch: int) -> Tensor:
    """`x_NCHW` (uint8, left as it is) augmented as the recipe says; draws on the CPU so that devices agree."""
    draw = generator(seed, "augment", epoch)
    num = len(x_NCHW)
    if recipe.flip:
        mirrored_N = (torch.rand(num, generator=draw) < 0.5).to(x_NCHW.device)
        x_NCHW = torch.where(mirrored_N[:, None, None, None], x_NCHW.flip(3), x_NCHW)
    if recipe.shift:
        x_NCHW = _shift(x_NCHW, torch.randint(0, 2 * recipe.shift + 1, (2, num), generator=draw).to(x_NCHW.device), recipe.shift)
    if recipe.cutout:
        x_NCHW = _cut(x_NCHW, torch.rand((2, num), generator=draw).to(x_NCHW.device), recipe.cutout)
    return x_NCHW


def _shift(x_NCHW: Tensor, offset_2N: Tensor, reach: int) -> Tensor:
    height, width = x_NCHW.shape[-2:]
    # Reflection, as nobody would notice; uint8 has no reflect kernel on every device, and indexing is exact anywhere.
    rows_H = _reflected(height, reach).to(x_NCHW.device)
    columns_W = _reflected(width, reach).to(x_NCHW.device)
    padded_NCHW = x_NCHW[:, :, rows_H][:, :, :, columns_W]
    out_NCHW = torch.empty_like(x_NCHW)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            chosen_M = ((offset_2N[0] == down) & (offset_2N[1] == right)).nonzero()[:, 0]
            out_NCHW[chosen_M] = padded_NCHW[chosen_M, :, down : down + height, right : right + width]
    return out_NCHW


def _reflected(size: int, reach: int) -> Tensor:
    position = torch.arange(-reach, size + reach).abs() % (2 * size - 2)
    return torch.minimum(position, 2 * size - 2 - position)


def _cut(x_NCHW: Tensor, corner_2N: Tensor, size: int) -> Tensor:
    height, width = x_NCHW.shape[-2:]
    top_N = (corner_2N[0] * (height + size - 1)).long() - (size - 1)
    left_N = (corner_2N[1] * (width + size - 1)).long() - (size - 1)
    row_H, column_W = torch.arange(height, device=x_NCHW.device), torch.arange(width, device=x_NCHW.device)
    inside_NH = (row_H >= top_N[:, None]) & (row_H < top_N[:, None] + size)
    inside_NW = (column_W >= left_N[:, None]) & (column_W < left_N[:, None] + size)
    hole_NHW = inside_NH[:, :, None] & inside_NW[:, None, :]
    return torch.where(hole_NHW[:, None], torch.zeros((), dtype=x_NCHW.dtype, device=x_NCHW.device), x_NCHW)
