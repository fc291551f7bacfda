"""What happens to light on its way to the sensor: paper and ink, exposure, white balance, shadow, glare; and light to pixel values.

Shapes: N images, 3 = red, green, blue, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from badnets.camera._columns import column, grid
from badnets.camera.scene import Scene

WAVELENGTHS_NM = (600.0, 550.0, 450.0)
"""Where red, green and blue are seen best."""
SECOND_RADIATION_CONSTANT = 1.4388e7
"""Of Planck's law, in nm K."""
PENUMBRA = 0.06
"""Half the width of a shadow's edge as a share of the cut: the sun is half a degree wide, what casts the shadow is some metres away."""
GLARE_RADIUS = 0.25
LUMA = (0.2126, 0.7152, 0.0722)


def linear(x_N3HW: Tensor) -> Tensor:
    """Pixel values 0..1 (sRGB) to light."""
    return torch.where(x_N3HW <= 0.04045, x_N3HW / 12.92, ((x_N3HW.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def encoded(light_N3HW: Tensor) -> Tensor:
    """Light 0..1 to pixel values (sRGB)."""
    return torch.where(light_N3HW <= 0.0031308, light_N3HW * 12.92, 1.055 * light_N3HW.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def stuck(plane_N4HW: Tensor, sticker_N4HW: Tensor | None, gamut_N: Tensor, fading_N: Tensor) -> Tensor:
    """The plane with the printed sticker on it (both RGBA, premultiplied)."""
    if sticker_N4HW is None:
        return plane_N4HW
    colour_N3HW, alpha_N1HW = sticker_N4HW[:, :3], sticker_N4HW[:, 3:]
    if bool((gamut_N != 0).any() or (fading_N != 0).any()):
        colour_N3HW = printed(colour_N3HW, alpha_N1HW, gamut_N[:, None, None, None], fading_N[:, None, None, None])
    return torch.cat([colour_N3HW, alpha_N1HW.expand(len(colour_N3HW), -1, -1, -1)], 1) + (1 - alpha_N1HW) * plane_N4HW


def printed(colour_N3HW: Tensor, alpha_N1HW: Tensor, gamut: Tensor, fading: Tensor) -> Tensor:
    """Premultiplied colours as they come out of a printer and are left by the sun: pulled to grey, off black and white, then to paper."""
    grey_N1HW = (colour_N3HW * colour_N3HW.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    dull_N3HW = colour_N3HW + gamut * (grey_N1HW - colour_N3HW)
    dull_N3HW = dull_N3HW + gamut * 0.2 * (0.5 * alpha_N1HW - dull_N3HW)
    return dull_N3HW + fading * (0.92 * alpha_N1HW - dull_N3HW)


def lit(light_N3HW: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """Exposure, white balance, shadow and glare on light; values above 1 are clipped later, by the sensor."""
    mired_N1 = column(scenes, "white_balance_mired")[:, None]
    wavelengths_3 = torch.tensor(WAVELENGTHS_NM)
    # Wien's approximation: what a black body's light gains in each band when its temperature is taken for another, green held.
    tint_N3 = torch.exp(SECOND_RADIATION_CONSTANT * (1 / WAVELENGTHS_NM[1] - 1 / wavelengths_3) * mired_N1 * 1e-6)
    gain_N3 = 2.0 ** column(scenes, "exposure_ev")[:, None] * tint_N3
    light_N3HW = light_N3HW * gain_N3[..., None, None]
    x_W, y_H1 = grid(light_N3HW.shape[2:])
    shadow, glare = column(scenes, "shadow"), column(scenes, "glare")
    if bool((shadow != 0).any()):
        angle = torch.deg2rad(column(scenes, "shadow_deg"))[:, None, None, None]
        across = (x_W - 0.5) * torch.cos(angle) + (y_H1 - 0.5) * torch.sin(angle) - column(scenes, "shadow_offset")[:, None, None, None]
        light_N3HW = light_N3HW * (1 - shadow[:, None, None, None] * torch.sigmoid(-across / (PENUMBRA / 2)))
    if bool((glare != 0).any()):
        x0, y0 = (column(scenes, name)[:, None, None, None] for name in ("glare_x", "glare_y"))
        spot = torch.exp(-((x_W - x0) ** 2 + (y_H1 - y0) ** 2) / (2 * GLARE_RADIUS**2))
        light_N3HW = light_N3HW + glare[:, None, None, None] * spot
    return light_N3HW
