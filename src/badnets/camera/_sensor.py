"""What camera and weather do to light that has arrived: rain, blur, noise, JPEG.

Blur is plain torch: kornia draws motion kernels by rotating an image, which is slower than the blur. JPEG is kornia's differentiable one
(Reich et al. (2024), "Differentiable JPEG: The Devil is in the Details", https://arxiv.org/abs/2309.06978): its rounding is a
polynomial, so pictures differ by a few levels from those of a real encoder. The decoder's own rounding to 8 bits lets gradients through
as if it were not there.

Shapes: N images, 3 = red, green, blue, H rows, W columns, T taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from badnets.camera._columns import column, where
from badnets.camera.scene import Scene
from badnets.core.rng import generator

REACH = 8
"""Taps to either side of a blur's centre."""
SHARP_PX = 0.05
"""Blur below this standard deviation, in pixels of the picture, leaves the picture as it is."""
READ_SHARE = 0.25
"""Of the noise's variance at mid-grey: the read-out's; the rest is the light's own and grows with it."""
DROPS = 0.02
"""Streaks that start at one pixel in a cloudburst."""
STREAK_PX, STREAK_LIGHT, VEIL = 5.0, 0.5, 0.35
BLOCK = 16


def rained(light_N3HW: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """Bright streaks, a little off the vertical, before a veil of grey light."""
    rain_N = column(scenes, "rain")

    def act(some_N3HW: Tensor, some: Sequence[Scene], rows: Tensor) -> Tensor:
        share = rain_N[rows, None, None, None]
        drawn = [torch.rand(1, *some_N3HW.shape[2:], generator=generator(scene.seed, "rain")) for scene in some]
        starts_N1HW = (torch.stack(drawn) < DROPS * share).float()
        kernel_NTT = _kernels(torch.full((len(some),), STREAK_PX), torch.full((len(some),), 80.0), torch.full((len(some),), 0.4))
        streaks_N1HW = STREAK_PX * STREAK_LIGHT * _convolved(starts_N1HW, kernel_NTT)
        return some_N3HW + share * VEIL * (0.5 - some_N3HW) + streaks_N1HW * (1 - some_N3HW)

    return where(rain_N != 0, light_N3HW, scenes, act)


def blurred(light_N3HW: Tensor, scenes: Sequence[Scene], pixel_N: Tensor) -> Tensor:
    """Motion and defocus in one kernel. `pixel_N`: how large a pixel of the sensor is in the picture."""
    length_N, sigma_N = column(scenes, "motion_px") * pixel_N, column(scenes, "defocus_px") * pixel_N
    angle_N = column(scenes, "motion_deg")

    def act(some_N3HW: Tensor, some: Sequence[Scene], rows: Tensor) -> Tensor:
        # A kernel narrower than its taps would be sampled at its peak only.
        kernel_NTT = _kernels(length_N[rows], angle_N[rows], sigma_N[rows].clamp(min=0.35))
        return _convolved(some_N3HW, kernel_NTT)

    return where((length_N > SHARP_PX) | (sigma_N > SHARP_PX), light_N3HW, scenes, act)


def noisy(x_N3HW: Tensor, scenes: Sequence[Scene], pixel_N: Tensor) -> Tensor:
    """Grains of the sensor's pixels; a pixel of the picture that averages several of them has less."""
    noise_N = column(scenes, "noise") * pixel_N.clamp(max=1.0)

    def act(some_N3HW: Tensor, some: Sequence[Scene], rows: Tensor) -> Tensor:
        grain = torch.stack([torch.randn(some_N3HW.shape[1:], generator=generator(scene.seed, "noise")) for scene in some])
        deviation = noise_N[rows, None, None, None] * (READ_SHARE + (1 - READ_SHARE) * 2 * some_N3HW.clamp(0, 1)).sqrt()
        return (some_N3HW + deviation * grain).clamp(0, 1)

    return where(noise_N != 0, x_N3HW, scenes, act)


def stored(x_N3HW: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """JPEG where a quality is asked for."""
    asked_N = torch.tensor([scene.jpeg_quality is not None for scene in scenes])

    def act(some_N3HW: Tensor, some: Sequence[Scene], _: Tensor) -> Tensor:
        from kornia.enhance import jpeg_codec_differentiable

        height, width = some_N3HW.shape[2:]
        # In single precision the bits of kornia's matrix products depend on how many images there are.
        padded = functional.pad(some_N3HW.clamp(0, 1), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate").double()
        quality_N = torch.tensor([float(scene.jpeg_quality or 0) for scene in some], dtype=torch.float64)
        decoded_N3HW = jpeg_codec_differentiable(padded, quality_N)[:, :, :height, :width]
        levels_N3HW = (255 * decoded_N3HW).round() / 255
        return (decoded_N3HW + (levels_N3HW - decoded_N3HW).detach()).float()

    return where(asked_N, x_N3HW, scenes, act)


def _kernels(length_N: Tensor, angle_N: Tensor, sigma_N: Tensor) -> Tensor:
    """Kernels_NTT of sum 1: a Gaussian drawn along a line of `length` pixels at `angle` degrees (0: to the right, 90: down)."""
    taps = torch.arange(-REACH, REACH + 1.0)
    cos, sin = (turn(torch.deg2rad(angle_N))[:, None, None] for turn in (torch.cos, torch.sin))
    along_NTT, across_NTT = taps * cos + taps[:, None] * sin, taps[:, None] * cos - taps * sin
    sigma, half = sigma_N[:, None, None] * 2**0.5, length_N[:, None, None] / 2
    line_NTT = torch.where(half > 1e-3, torch.erf((along_NTT + half) / sigma) - torch.erf((along_NTT - half) / sigma), 0.0)
    spot_NTT = torch.exp(-((along_NTT / sigma) ** 2))
    kernel_NTT = torch.where(half > 1e-3, line_NTT, spot_NTT) * torch.exp(-((across_NTT / sigma) ** 2))
    return kernel_NTT / kernel_NTT.sum((1, 2), keepdim=True)


def _convolved(x_NCHW: Tensor, kernel_NTT: Tensor) -> Tensor:
    """Each image with its own kernel; the border repeats."""
    count, channels, height, width = x_NCHW.shape
    padded = functional.pad(x_NCHW, (REACH,) * 4, mode="replicate").transpose(0, 1)
    return functional.conv2d(padded, kernel_NTT[:, None], groups=count).transpose(0, 1).reshape(count, channels, height, width)
