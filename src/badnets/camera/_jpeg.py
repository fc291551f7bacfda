"""JPEG there and back, as a baseline encoder and decoder do it: chroma at half size, blocks of 8 x 8, the standard tables.

Entropy coding loses nothing and is left out. Every rounding lets gradients through as if it were not there, so pictures have the bits that
storing gives them and still can be learned from (Shin and Song (2017), "JPEG-resistant Adversarial Images"). Does not apply to other
subsampling than 4:2:0, to other tables, or to progressive files' order of transmission, which changes no pixel.

ITU-T T.81 (1992), annexes A and K, https://www.w3.org/Graphics/JPEG/itu-t81.pdf; JFIF 1.02 for the colours.
Shapes: N images, C channels, H rows, W columns, 8 x 8 the places in a block, B blocks of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 8
UNIT = 2 * SIDE
"""Pixels along a side of what is coded together: four blocks of luma, and one each of the chromas at half size."""

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg(x_N3HW: Tensor, quality_N: Tensor) -> Tensor:
    """Pixels 0..1 as they come back from a JPEG of that quality (1..100, one an image): whole levels of 8 bits."""
    height, width = x_N3HW.shape[2:]
    padded = functional.pad(x_N3HW.clamp(0, 1), (0, -width % UNIT, 0, -height % UNIT), mode="replicate")
    ycc_3NHW = _mixed(_rounded(255 * padded.transpose(0, 1)), _TO_YCC)
    # A pure colour's 127.5 has to fit into eight bits.
    chroma_2NHW = _through(ycc_3NHW[1:], lambda x: (x + 0.5).floor().clamp(max=127))
    luma_1NHW, chroma_2NHW = _rounded(ycc_3NHW[:1]), _halved(chroma_2NHW)
    # Levels are coded around 0; chroma is there already.
    blocks = [_blocks(luma_1NHW - 128), _blocks(chroma_2NHW)]
    count = [part.shape[3] for part in blocks]
    tables_88N1 = [_table(base, quality_N)[..., None] for base in (_luma(), _chroma())]
    table_88NB = torch.cat([table.expand(-1, -1, -1, n) for table, n in zip(tables_88N1, count, strict=True)], 3)
    # Encoders know coefficients to an eighth; without that step a tie would fall to either side by the last bit.
    eighths_88NB = _rounded(_transformed(torch.cat(blocks, 3), _waves()))
    coded_88NB = _through(eighths_88NB / (8 * table_88NB), lambda x: x.sign() * (x.abs() + 0.5).floor())
    decoded_88NB = _rounded(_transformed(coded_88NB * table_88NB, _waves().T) / 8)
    luma_88NB, chroma_88NB = decoded_88NB.split(count, 3)
    luma_1NHW = (_joined(luma_88NB, luma_1NHW.shape) + 128).clamp(0, 255)
    chroma_2NHW = _joined(chroma_88NB, chroma_2NHW.shape).clamp(-128, 127)
    rgb_3NHW = _mixed(torch.cat([luma_1NHW, _doubled(chroma_2NHW)]), _TO_RGB)
    return _rounded(rgb_3NHW).clamp(0, 255).transpose(0, 1)[:, :, :height, :width] / 255


def _through(x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """What `act` makes of it; gradients pass as if nothing was done."""
    return act(x.detach()) + (x - x.detach()) if x.requires_grad else act(x)


def _rounded(x: Tensor) -> Tensor:
    """Halves upwards, as decoders do."""
    return _through(x, lambda x: (x + 0.5).floor())


def _mixed(x_CNHW: Tensor, matrix: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Three planes to three others."""
    red, green, blue = x_CNHW
    return torch.stack([a * red + b * green + c * blue for a, b, c in matrix])


def _transformed(x_88NB: Tensor, matrix_88: Tensor) -> Tensor:
    """matrix @ block @ matrix.T, block by block."""
    once = _along(x_88NB, matrix_88)
    return _along(once.transpose(0, 1), matrix_88).transpose(0, 1)


def _along(x_88NB: Tensor, matrix_88: Tensor) -> Tensor:
    """The matrix on the first axis. Not as one matrix product: its bits depend on how many blocks there are, these sums' do not."""
    total = matrix_88[:, 0, None, None, None] * x_88NB[0]
    for k in range(1, SIDE):
        total += matrix_88[:, k, None, None, None] * x_88NB[k]
    return total


def _waves() -> Tensor:
    """The cosine transform, row u the u-th wave, sqrt(8) times too large: flat blocks then stay whole numbers."""
    u_81, place_8 = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    waves_88 = torch.cos((2 * place_8 + 1) * u_81 * math.pi / (2 * SIDE)) * math.sqrt(2)
    waves_88[0] = 1.0
    return waves_88


def _blocks(x_CNHW: Tensor) -> Tensor:
    """Planes as blocks: 8, 8, N, and the planes' blocks one after the other."""
    planes, count, height, width = x_CNHW.shape
    parted = x_CNHW.reshape(planes, count, height // SIDE, SIDE, width // SIDE, SIDE)
    return parted.permute(3, 5, 1, 0, 2, 4).reshape(SIDE, SIDE, count, -1)


def _joined(x_88NB: Tensor, shape: torch.Size) -> Tensor:
    planes, count, height, width = shape
    parted = x_88NB.reshape(SIDE, SIDE, count, planes, height // SIDE, width // SIDE)
    return parted.permute(3, 2, 4, 0, 5, 1).reshape(shape)


def _halved(x_CNHW: Tensor) -> Tensor:
    """The mean of each two by two, halves rounded down in even columns and up in odd ones."""
    rows = x_CNHW[:, :, ::2] + x_CNHW[:, :, 1::2]
    bias_W = 1 + torch.arange(rows.shape[3] // 2) % 2
    return _through((rows[..., ::2] + rows[..., 1::2] + bias_W) / 4, torch.floor)


def _doubled(x_CNHW: Tensor) -> Tensor:
    """Twice as wide and high: a new pixel has three quarters of its own old one and a quarter of the next, along either axis."""
    tall = torch.stack([3 * x_CNHW + _neighbour(x_CNHW, 2, -1), 3 * x_CNHW + _neighbour(x_CNHW, 2, 1)], 3).flatten(2, 3)
    left, right = 3 * tall + _neighbour(tall, 3, -1) + 8, 3 * tall + _neighbour(tall, 3, 1) + 7
    return _through(torch.stack([left, right], 4).flatten(3, 4) / 16, torch.floor)


def _neighbour(x_CNHW: Tensor, axis: int, step: int) -> Tensor:
    """The pixel before (-1) or after (1) each one along an axis; at the border the pixel itself."""
    length = x_CNHW.shape[axis]
    if step < 0:
        return torch.cat([x_CNHW.narrow(axis, 0, 1), x_CNHW.narrow(axis, 0, length - 1)], axis)
    return torch.cat([x_CNHW.narrow(axis, 1, length - 1), x_CNHW.narrow(axis, length - 1, 1)], axis)


def _table(base_88: Tensor, quality_N: Tensor) -> Tensor:
    """Steps of quantisation for each image, scaled with its quality as the reference encoder does."""
    quality_N = quality_N.clamp(1, 100)
    percent_N = torch.where(quality_N < 50, (5000 / quality_N).floor(), 200 - 2 * quality_N)
    return ((base_88[..., None] * percent_N + 50) / 100).floor().clamp(1, 255)


def _luma() -> Tensor:
    return torch.tensor(_LUMA, dtype=torch.float32)


def _chroma() -> Tensor:
    table_88 = torch.full((SIDE, SIDE), 99.0)
    table_88[:4, :4] = torch.tensor(_CHROMA_CORNER, dtype=torch.float32)
    return table_88
