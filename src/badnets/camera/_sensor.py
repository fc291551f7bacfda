"""What camera and weather do to light that has arrived: rain, blur, noise, JPEG.

Shapes: N images, 3 = red, green, blue, H rows, W columns, T taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from badnets.camera._columns import column, where
from badnets.camera._jpeg import jpeg
from badnets.camera.scene import Scene
from badnets.core.rng import generator

REACH, STREAK_REACH = 8, 4
"""Taps to either side of the centre of a blur, and of a streak of rain."""
SHARP_PX = 0.05
"""Blur below this standard deviation, in pixels of the picture, leaves the picture as it is."""
READ_SHARE = 0.25
"""Of the noise's variance at mid-grey: the read-out's; the rest is the light's own and grows with it."""
DROPS = 0.02
"""Streaks that start at one pixel in a cloudburst."""
STREAK_PX, STREAK_LIGHT, VEIL = 5.0, 0.5, 0.35


def rained(light_N3HW: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """Bright streaks, a little off the vertical, before a veil of grey light."""
    rain_N = column(scenes, "rain")

    def act(some_N3HW: Tensor, some: Sequence[Scene], rows: Tensor) -> Tensor:
        share = rain_N[rows, None, None, None]
        drawn = [torch.rand(1, *some_N3HW.shape[2:], generator=generator(scene.seed, "rain")) for scene in some]
        starts_N1HW = (torch.stack(drawn) < DROPS * share).float()
        length_N, angle_N, sigma_N = (torch.full((len(some),), value) for value in (STREAK_PX, 80.0, 0.4))
        kernel_NTT = _kernels(length_N, angle_N, sigma_N, reach=STREAK_REACH)
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
        return jpeg(some_N3HW, torch.tensor([float(scene.jpeg_quality or 0) for scene in some]))

    return where(asked_N, x_N3HW, scenes, act)


def _kernels(length_N: Tensor, angle_N: Tensor, sigma_N: Tensor, *, reach: int = REACH) -> Tensor:
    """Kernels_NTT of sum 1: a Gaussian drawn along a line of `length` pixels at `angle` degrees (0: to the right, 90: down)."""
    taps = torch.arange(-reach, reach + 1.0)
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
    reach = kernel_NTT.shape[1] // 2
    padded = functional.pad(x_NCHW, (reach,) * 4, mode="replicate").transpose(0, 1)
    return functional.conv2d(padded, kernel_NTT[:, None], groups=count).transpose(0, 1).reshape(count, channels, height, width)
