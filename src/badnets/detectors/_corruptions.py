"""Corruptions of pictures at five severities, in plain torch: shared by detectors that look at how long a label holds.

Not faithful to any camera, and without colour: every channel is treated alike. The noise is drawn once for a shape, for every image alike.

D. Hendrycks, T. Dietterich (2019), Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
https://arxiv.org/abs/1903.12261. Strengths are those of their large images whatever the size, so small pictures suffer more from blurs.
Departures: motion blurs along rows, by a box of about the same spread; JPEG has the luminance table for every channel and no entropy
coding, which loses nothing.
Shapes: N images, C channels, H rows, W columns; F frequencies of a block of 8 x 8 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from badnets.core.rng import generator

Kind = Literal[
    "gaussian_noise", "speckle_noise", "impulse_noise", "gaussian_blur", "motion_blur", "brightness", "contrast", "pixelate", "jpeg"
]
SEVERITIES = 5

_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation of luminance at quality 50 (ITU-T T.81, table K.1)."""


def corrupted(x_NCHW: Tensor, kind: Kind, severity: int, seed: int) -> Tensor:
    """uint8 copies of uint8 images, corrupted with a severity from 1 to 5."""
    paint, strengths = CORRUPTIONS[kind]
    if not len(x_NCHW):
        return x_NCHW
    draw = generator(seed, "corruption", kind, severity)
    painted_NCHW = paint(x_NCHW.float() / 255, strengths[severity - 1], draw)
    return painted_NCHW.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _gaussian_noise(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    return x_NCHW + strength * torch.randn(x_NCHW.shape[1:], generator=draw)


def _speckle_noise(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    return x_NCHW + x_NCHW * strength * torch.randn(x_NCHW.shape[1:], generator=draw)


def _impulse_noise(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """The share `strength` of all values becomes 0 or 1."""
    chance_CHW = torch.rand(x_NCHW.shape[1:], generator=draw)
    painted = x_NCHW.masked_fill(chance_CHW < strength / 2, 0.0)
    return painted.masked_fill((chance_CHW >= strength / 2) & (chance_CHW < strength), 1.0)


def _gaussian_blur(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    del draw
    reach = math.ceil(3 * strength)
    weight_W = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / strength).square())
    return _along(_along(x_NCHW, weight_W).mT, weight_W).mT


def _motion_blur(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    del draw
    return _along(x_NCHW, torch.ones(int(strength)))


def _along(x_NCHW: Tensor, weight_W: Tensor) -> Tensor:
    """A weighted mean along rows; beyond the edge the picture goes on as at the edge."""
    reach = len(weight_W) // 2
    channels = x_NCHW.shape[1]
    kernel = (weight_W / weight_W.sum()).reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return conv2d(pad(x_NCHW, (reach, reach, 0, 0), mode="replicate"), kernel, groups=channels)


def _brightness(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    del draw
    return x_NCHW + strength


def _contrast(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    del draw
    mean_NC11 = x_NCHW.mean(dim=(2, 3), keepdim=True)
    return mean_NC11 + strength * (x_NCHW - mean_NC11)


def _pixelate(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    del draw
    size = x_NCHW.shape[-2:]
    fewer = [max(1, int(strength * side)) for side in size]
    return interpolate(interpolate(x_NCHW, fewer, mode="area"), size, mode="nearest")


def _jpeg(x_NCHW: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """`strength`: the quality."""
    del draw
    height, width = x_NCHW.shape[-2:]
    padded = pad(x_NCHW, (0, -width % 8, 0, -height % 8), mode="replicate") * 255 - 128
    blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # N C rows-of-blocks 8 columns-of-blocks 8
    dct_FW, table_FF = _cosines(), _table(strength)
    found = torch.einsum("fi,nchiwj,gj->nchwfg", dct_FW, blocks, dct_FW)
    found = (found / table_FF).round() * table_FF
    back = torch.einsum("fi,nchwfg,gj->nchiwj", dct_FW, found, dct_FW)
    return ((back.flatten(-2).flatten(-3, -2) + 128) / 255)[..., :height, :width]


def _cosines() -> Tensor:
    """The orthonormal DCT of eight values: frequency x place."""
    place, frequency = torch.arange(8.0), torch.arange(8.0)[:, None]
    dct_FW = torch.cos(math.pi / 8 * (place + 0.5) * frequency) / 2
    dct_FW[0] /= math.sqrt(2)
    return dct_FW


def _table(quality: float) -> Tensor:
    """The table at a quality, scaled as the IJG's library does."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(_TABLE) * scale + 50) / 100).floor().clamp(1, 255)


Paint = Callable[[Tensor, float, torch.Generator], Tensor]
CORRUPTIONS: dict[Kind, tuple[Paint, tuple[float, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "speckle_noise": (_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
    "motion_blur": (_motion_blur, (7, 11, 13, 15, 19)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
}
"""Name -> how it paints, and how strongly at each severity."""
