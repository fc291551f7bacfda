"""Photographs of planes: the plane is seen from where the camera stands, lit, blurred, sensed, cut out and stored.

Differentiable in plane, sticker and background. One image never depends on its neighbours in a batch: the same scene and seed give the
same bits. Does not apply to bent signs, to lens distortion, or to what stands between camera and sign.

Shapes: N images, C channels, H rows, W columns, 4 = red, green, blue, alpha or corners, 2 = (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from badnets.camera import _light, _sensor
from badnets.camera._columns import column, where
from badnets.camera.scene import Scene
from badnets.core.errors import UsageError
from badnets.core.perspective import SIGN_SIDE_M, Pose, at, homography, over, pose_quad, project, warp

CHUNK = 128
SMALLEST = 4
_WHERE = (
    *("distance_m", "side_m", "yaw_deg", "pitch_deg", "roll_deg", "right_m", "down_m"),
    *("fov_deg", "pixels", "fill", "shift_x", "shift_y"),
)
_CENTRE = torch.tensor([[[0.5, 0.5]]])


class Photo(NamedTuple):
    """Float pixels 0..1, and where the plane's square lies in them."""

    x_N3HW: Tensor
    quad_N42: Tensor

    def bytes(self) -> Tensor:
        """uint8 pixels, as a camera stores them."""
        return (255 * self.x_N3HW).round().clamp(0, 255).to(torch.uint8)


class Plane(NamedTuple):
    """What is photographed: RGBA float 0..1 with the colour multiplied by alpha, N or 1; a sticker lies on the plane, printed on paper.

    A plane fills its unit square. `sticker_N4HW` has the plane's size.
    """

    plane_N4HW: Tensor
    sticker_N4HW: Tensor | None = None


def photograph(plane: Plane, background_N3HW: Tensor, scenes: Sequence[Scene], *, size: tuple[int, int], supersample: int = 2) -> Photo:
    """N pictures of `size` = (H, W): plane i (or the only one) before background i (or the only one; float 0..1) in scene i.

    The cut is square in the sensor's pixels. Where the sensor saw fewer of them than the picture has, the picture is drawn with as few
    and enlarged: far signs lose detail as they do on the road. Raises UsageError: E-SCENE (no scenes, or other counts than planes),
    E-POSE (a sign that the frame does not show, seen from behind, or that touches the camera).
    """
    count = len(scenes)
    given = {len(part) for part in (*plane, background_N3HW) if part is not None}
    if not count or not given <= {1, count}:
        message = f"expected scenes, and planes and backgrounds one each or one for all; got {count} scenes and {sorted(given)} of those."
        raise UsageError("E-SCENE", message, hint="Give one scene for each picture.")
    taken = []
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        sticker_N4HW = None if plane.sticker_N4HW is None else _slice(plane.sticker_N4HW, rows)
        parts = Plane(_slice(plane.plane_N4HW, rows), sticker_N4HW)
        taken.append(_chunk(parts, _slice(background_N3HW, rows), scenes[rows], size, supersample))
    return Photo(*(torch.cat(parts) for parts in zip(*taken, strict=True)))


def seen_quad(scenes: Sequence[Scene], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where the square lies in each cut (quad_N42, in pixels of `size`), and how many sensor pixels wide each cut is (wide_N)."""
    columns = {name: column(scenes, name) for name in _WHERE}
    quads_N42, focals_N = _on_sensor(columns)
    wide_N = focals_N * columns["side_m"] / columns["distance_m"] / columns["fill"]
    centre_N12 = project(homography(quads_N42), _CENTRE)
    size_2 = torch.tensor([size[1], size[0]], dtype=torch.float32)
    shift_N12 = torch.stack([columns["shift_x"], columns["shift_y"]], -1)[:, None] + 0.5
    return ((quads_N42 - centre_N12) / wide_N[:, None, None] + shift_N12) * size_2, wide_N


def _on_sensor(columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The quads on square sensors, and the focal lengths in pixels."""
    # One call for each sensor: the frame that a sign may miss differs.
    pixels_N, fov_N = columns["pixels"], columns["fov_deg"]
    quads_N42 = torch.empty(len(pixels_N), 4, 2)
    for side in pixels_N.unique().tolist():
        rows = pixels_N == side
        # A square twice as large looks the same from twice as far.
        metres_N = columns["side_m"][rows] / SIGN_SIDE_M
        distance_N, right_N, down_N = (columns[name][rows] / metres_N for name in ("distance_m", "right_m", "down_m"))
        pose = Pose(distance_N, *(columns[name][rows] for name in ("yaw_deg", "pitch_deg", "roll_deg")), right_N, down_N)
        quads_N42[rows] = pose_quad(pose, fov_deg=fov_N[rows], size=(int(side), int(side)))
    return quads_N42, pixels_N / 2 / torch.tan(torch.deg2rad(fov_N) / 2)


def _chunk(plane: Plane, background_N3HW: Tensor, scenes: Sequence[Scene], size: tuple[int, int], supersample: int) -> Photo:
    quad_N42, wide_N = seen_quad(scenes, size)
    source_N4HW = _light.stuck(plane.plane_N4HW, plane.sticker_N4HW, column(scenes, "gamut"), column(scenes, "fading"))
    small = min(size)
    # The sensor's own pixels, where they are fewer than the picture's.
    side_N = wide_N.round().clamp(SMALLEST, small).long()
    picture_N3HW = torch.empty(len(scenes), 3, *size)
    for side in side_N.unique().tolist():
        rows = (side_N == side).nonzero()[:, 0]
        some = [scenes[row] for row in rows.tolist()]
        sensed = size if side == small else (side * size[0] // small, side * size[1] // small)
        scale = torch.tensor([sensed[1] / size[1], sensed[0] / size[0]])
        colour_R3HW, alpha_R1HW = warp(at(source_N4HW, rows), homography(quad_N42[rows] * scale), sensed, supersample=supersample)
        ground_R3HW = _resized(at(background_N3HW, rows), sensed)
        pixel_R = sensed[1] / wide_N[rows]
        x_R3HW = _sensed(over(colour_R3HW, alpha_R1HW, ground_R3HW), some, pixel_R)
        picture_N3HW = picture_N3HW.index_put((rows,), _resized(x_R3HW, size))
    return Photo(_sensor.stored(picture_N3HW, scenes), quad_N42)


def _sensed(x_R3HW: Tensor, scenes: Sequence[Scene], pixel_R: Tensor) -> Tensor:
    """Light, rain and blur act on light; noise on what is read out. `pixel_R`: how large a pixel of the sensor is in the picture."""
    names = ("exposure_ev", "white_balance_mired", "shadow", "glare", "rain", "motion_px", "defocus_px")
    touched = torch.stack([column(scenes, name) != 0 for name in names]).any(0)

    def shone(some_R3HW: Tensor, some: Sequence[Scene], rows: Tensor) -> Tensor:
        light_R3HW = _light.lit(_light.linear(some_R3HW), some)
        light_R3HW = _sensor.blurred(_sensor.rained(light_R3HW, some), some, pixel_R[rows])
        return _light.encoded(light_R3HW.clamp(0, 1))

    x_R3HW = where(touched, x_R3HW, scenes, shone)
    return _sensor.noisy(x_R3HW, scenes, pixel_R)


def _slice(tensor: Tensor, rows: slice) -> Tensor:
    return tensor if len(tensor) == 1 else tensor[rows]


def _resized(x_N3HW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x_N3HW.shape[2:]) == tuple(size):
        return x_N3HW
    return functional.interpolate(x_N3HW, size=size, mode="bilinear", align_corners=False, antialias=True)
