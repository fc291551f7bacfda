"""A plane in space and its picture: the pinhole camera, homographies, and painting a plane into an image without aliasing.

Plain torch, differentiable in the source and in the geometry. A quad is where a square lies in a picture: its corners top left, top
right, bottom right, bottom left as seen by somebody who reads what is on it, each (x, y) in pixels, x to the right, y down; pixel i
covers [i, i + 1). Does not apply to bent surfaces or to lenses that bend straight lines.

Heckbert (1989), "Fundamentals of Texture Mapping and Image Warping", https://www2.eecs.berkeley.edu/Pubs/TechRpts/1989/5504.html
(square to quadrilateral). Williams (1983), "Pyramidal Parametrics", https://doi.org/10.1145/800059.801126 (which source level to read).

Shapes: N images, C channels (red, green, blue, alpha), H rows, W columns, K or P points, 4 corners, 2 = (x, y).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from badnets.core.errors import UsageError

SIGN_SIDE_M = 0.75
"""The side of the square that a usual traffic sign fills, in metres."""

Number = float | Tensor
"""A plain number, or one for each of N images."""


class Pose(NamedTuple):
    """Where a square stands before the camera, which looks along z: metres and degrees, each a number or a tensor of N.

    `yaw_deg` turns it about its vertical axis (positive: its right edge goes away), `pitch_deg` about its horizontal axis (positive:
    its upper edge goes away), `roll_deg` in the picture (positive: clockwise); `right_m` and `down_m` move its centre off the
    optical axis.
    """

    distance_m: Number
    yaw_deg: Number = 0.0
    pitch_deg: Number = 0.0
    roll_deg: Number = 0.0
    right_m: Number = 0.0
    down_m: Number = 0.0


def pose_quad(pose: Pose, *, fov_deg: Number, size: tuple[int, int], side_m: float = SIGN_SIDE_M) -> Tensor:
    """The quad_N42 of a square of `side_m` metres in a picture of `size` = (H, W) with a horizontal field of view of `fov_deg`.

    Raises UsageError: E-POSE where the square touches the camera's plane, is seen from behind or misses the frame; E-FOV.
    """
    distance, yaw, pitch, roll, right, down, fov = _columns(*pose, fov_deg)
    _refuse(~((fov > 0) & (fov < 180)), fov, "E-FOV", "a field of view above 0 and below 180 degrees", "Set fov to 60, say.")
    _refuse(~(distance > 0), distance, "E-POSE", "a distance above 0 m", "Set distance to 5, say.")
    corners_43 = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=distance.dtype) * (side_m / 2)
    xyz_N43 = corners_43 @ _turned(yaw, pitch, roll).mT + torch.stack([right, down, distance], -1)[:, None]
    depth_N4 = xyz_N43[..., 2]
    _refuse(
        (depth_N4 <= 1e-3).any(1), distance, "E-POSE", "a sign wholly before the camera at a distance", "Move it away, or turn it less."
    )
    height, width = size
    focal_N11 = (width / 2 / torch.tan(torch.deg2rad(fov) / 2))[:, None, None]
    quad_N42 = focal_N11 * xyz_N43[..., :2] / depth_N4[..., None] + torch.tensor([width / 2, height / 2], dtype=distance.dtype)
    facing_N = _crosses(quad_N42).amin(1) > 0
    _refuse(~facing_N, yaw, "E-POSE", "a sign that shows the camera its front at a yaw", "Turn it by less than 90 degrees.")
    low_N2, high_N2 = quad_N42.amin(1), quad_N42.amax(1)
    outside_N = (high_N2 <= 0).any(1) | (low_N2 >= torch.tensor([width, height])).any(1)
    _refuse(outside_N, right, "E-POSE", "a sign in the frame at an offset to the right", "Move it nearer to the axis or widen fov.")
    return quad_N42


def homography(quad_N42: Tensor) -> Tensor:
    """The maps h_N33 from the unit square (u to the right, v down) to pixels: (x w, y w, w) = h (u, v, 1).

    Raises UsageError (E-QUAD) where four corners are not a convex quadrilateral of some area.
    """
    crosses_N4 = _crosses(quad_N42)
    flat_N = (crosses_N4.abs().amin(1) <= 1e-6) | (crosses_N4.sign().sum(1).abs() != 4)
    if bool(flat_N.any()):
        row = int(flat_N.nonzero()[0])
        points = ", ".join(f"({x:.4g}, {y:.4g})" for x, y in quad_N42[row].tolist())
        message = f"expected the four corners of a square seen from somewhere, got {points} for image {row}."
        raise UsageError("E-QUAD", message, hint="Give them in the order top left, top right, bottom right, bottom left.")
    top_left, top_right, bottom_right, bottom_left = quad_N42.unbind(1)
    right_N2, below_N2 = top_right - bottom_right, bottom_left - bottom_right
    skew_N2 = top_left - top_right + bottom_right - bottom_left
    area_N = _cross(right_N2, below_N2)
    g_N1 = (_cross(skew_N2, below_N2) / area_N)[:, None]
    k_N1 = (_cross(right_N2, skew_N2) / area_N)[:, None]
    along_u_N2 = top_right - top_left + g_N1 * top_right
    along_v_N2 = bottom_left - top_left + k_N1 * bottom_left
    columns = [torch.cat([xy, w], 1) for xy, w in ((along_u_N2, g_N1), (along_v_N2, k_N1), (top_left, torch.ones_like(g_N1)))]
    return torch.stack(columns, 2)


def project(h_N33: Tensor, uv_NK2: Tensor) -> Tensor:
    """Where points of the unit square land: xy_NK2 in pixels."""
    xyw_NK3 = functional.pad(uv_NK2, (0, 1), value=1.0) @ h_N33.mT
    return xyw_NK3[..., :2] / xyw_NK3[..., 2:]


def warp(source_NCHW: Tensor, h_N33: Tensor, size: tuple[int, int], *, supersample: int = 2) -> tuple[Tensor, Tensor]:
    """Paint N planes, each spanning the unit square, into pictures of `size` = (H, W): (colour_N3HW, alpha_N1HW).

    `source_NCHW`: C = 4, float 0..1, colour already multiplied by alpha (filtering is right only so; see `premultiplied`); one source
    serves all N maps. The result is premultiplied as well: `over` lays it on a background. Each pixel averages `supersample` squared
    readings from a source level whose texels are about as large as a reading's share of the pixel: nothing shimmers far away, and
    a source as large as its picture comes back as it was. Raises UsageError (E-SOURCE) where the source is not RGBA.
    """
    if source_NCHW.ndim != 4 or source_NCHW.shape[1] != 4 or len(source_NCHW) not in (1, len(h_N33)):
        message = f"expected 1 or {len(h_N33)} sources of four channels (RGBA), got a tensor of {tuple(source_NCHW.shape)}."
        raise UsageError("E-SOURCE", message, hint="Give one RGBA plane, or one for each homography.")
    place_N2P = _seen_from(h_N33, size, supersample)
    step_N = _texels_per_pixel(h_N33, source_NCHW.shape[2:]) / supersample
    level_N = step_N.log2().floor().clamp(min=0).long()
    painted_N4HW = source_NCHW.new_zeros(len(h_N33), 4, *size)
    for level, texels_N4HW in _pyramid(source_NCHW, int(level_N.max()) if len(level_N) else -1):
        rows = (level_N == level).nonzero()[:, 0]
        if len(rows):
            read_R4P = _read(at(texels_N4HW, rows), at(place_N2P, rows), step_N[rows] / 2**level)
            painted_N4HW = painted_N4HW.index_put((rows,), read_R4P.unflatten(2, (supersample**2, *size)).mean(2))
    return painted_N4HW[:, :3], painted_N4HW[:, 3:]


def over(colour_N3HW: Tensor, alpha_N1HW: Tensor, background_N3HW: Tensor) -> Tensor:
    """What `warp` painted, laid on a background (float 0..1)."""
    return colour_N3HW + (1 - alpha_N1HW) * background_N3HW


def premultiplied(rgba_N4HW: Tensor) -> Tensor:
    """Straight RGBA (the colour of a pixel whatever its alpha) as `warp` wants it."""
    return torch.cat([rgba_N4HW[:, :3] * rgba_N4HW[:, 3:], rgba_N4HW[:, 3:]], 1)


def _seen_from(h_N33: Tensor, size: tuple[int, int], supersample: int) -> Tensor:
    """The points of the plane, in -1..1 over the unit square, behind all pixels at their first reading, at their second, and so on.

    What lies beyond the horizon is put far outside.
    """
    a, b, c = h_N33.unbind(2)
    # The adjugate is the inverse but for a factor, and a homography does not mind a factor (but its sign tells before from behind).
    turned_N33 = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    inverse_N33 = turned_N33 / (a * turned_N33[:, 0]).sum(1)[:, None, None]
    centred_33 = inverse_N33.new_tensor([[2.0, 0, -1], [0, 2, -1], [0, 0, 1]])
    u_N31, v_N31, one_N31 = (centred_33 @ inverse_N33).split(1, 2)
    x_P, y_P = _readings(size, supersample).to(h_N33)
    # Not as one matrix product: how many rows that has decides its bits.
    xyw_N3P = torch.addcmul(torch.addcmul(one_N31, u_N31, x_P), v_N31, y_P)
    return (xyw_N3P[:, :2] / xyw_N3P[:, 2:].clamp(min=1e-9)).clamp(-9, 9)


@cache
def _readings(size: tuple[int, int], supersample: int) -> Tensor:
    """Where a picture is read: points_2P = (x, y), the first reading of all pixels, then the second, and so on."""
    inside = (torch.arange(supersample) + 0.5) / supersample
    y, x, row, column = torch.meshgrid(inside, inside, *(torch.arange(float(side)) for side in size), indexing="ij")
    return torch.stack([column + x, row + y]).reshape(2, -1)


def _texels_per_pixel(h_N33: Tensor, texels: tuple[int, ...]) -> Tensor:
    """How many texels of the source (along one side) a pixel at the centre of the square takes in."""
    with torch.no_grad():
        w_N = (h_N33[:, 2] * h_N33.new_tensor([0.5, 0.5, 1.0])).sum(1)
        pixels_N = torch.linalg.det(h_N33).abs() / w_N.abs() ** 3
        return (texels[0] * texels[1] / pixels_N).sqrt()


def at(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some rows in their order; no copy is made of all, and the only one serves all."""
    return tensor if len(tensor) in (1, len(rows)) else tensor[rows]


def _pyramid(source_NCHW: Tensor, levels: int) -> list[tuple[int, Tensor]]:
    """The source and its halves, with their levels."""
    found = [(0, source_NCHW)]
    while len(found) <= levels:
        last = found[-1][1]
        height, width = last.shape[2:]
        even = height % 2 == 0 == width % 2
        half = functional.avg_pool2d(last, 2) if even else functional.adaptive_avg_pool2d(last, ((height + 1) // 2, (width + 1) // 2))
        found.append((len(found), half))
    return found


def _read(texels_N4HW: Tensor, place_N2P: Tensor, step_N: Tensor) -> Tensor:
    """The source between its texels. Where a reading's share is smaller than a texel, only what overlaps a texel's edge is mixed."""
    half_21 = place_N2P.new_tensor([[texels_N4HW.shape[3]], [texels_N4HW.shape[2]]]) / 2
    # 1:1 in floating point is 0.99...: a reading that covers a whole texel is an ordinary bilinear one.
    if bool((step_N < 0.999).any()):
        texel_N2P = (place_N2P + 1) * half_21 - 0.5
        whole_N2P = texel_N2P.detach().floor()
        part_N2P = ((texel_N2P - whole_N2P - 0.5) / step_N.clamp(max=1.0)[:, None, None] + 0.5).clamp(0, 1)
        place_N2P = (whole_N2P + part_N2P + 0.5) / half_21 - 1
    texels_N4HW = texels_N4HW.expand(len(place_N2P), -1, -1, -1)
    read_N41P = functional.grid_sample(texels_N4HW, place_N2P.mT[:, None], padding_mode="zeros", align_corners=False)
    return read_N41P[:, :, 0]


def _turned(yaw_N: Tensor, pitch_N: Tensor, roll_N: Tensor) -> Tensor:
    """Rotation matrices_N33: first yaw, then pitch, then roll."""
    return _rotation(0, 1, roll_N) @ _rotation(2, 1, pitch_N) @ _rotation(0, 2, yaw_N)


def _rotation(start: int, end: int, degrees_N: Tensor) -> Tensor:
    """Rotations_N33 that turn axis `start` towards axis `end`."""
    cos_N, sin_N = torch.cos(torch.deg2rad(degrees_N)), torch.sin(torch.deg2rad(degrees_N))
    rotation_N33 = torch.eye(3, dtype=degrees_N.dtype).repeat(len(degrees_N), 1, 1)
    for row, column, value_N in ((start, start, cos_N), (end, end, cos_N), (end, start, sin_N), (start, end, -sin_N)):
        rotation_N33[:, row, column] = value_N
    return rotation_N33


def _columns(*numbers: Number) -> list[Tensor]:
    """Numbers and tensors of N as tensors of N."""
    tensors = [torch.as_tensor(number, dtype=torch.float32).reshape(-1) for number in numbers]
    return list(torch.broadcast_tensors(*tensors))


def _refuse(wrong_N: Tensor, shown_N: Tensor, code: str, expected: str, hint: str) -> None:
    if bool(wrong_N.any()):
        row = int(wrong_N.nonzero()[0])
        place = f" for image {row}" if len(wrong_N) > 1 else ""
        raise UsageError(code, f"expected {expected}, got {float(shown_N[row]):.4g}{place}.", hint=hint)


def _cross(a_N2: Tensor, b_N2: Tensor) -> Tensor:
    return a_N2[..., 0] * b_N2[..., 1] - a_N2[..., 1] * b_N2[..., 0]


def _crosses(quad_N42: Tensor) -> Tensor:
    """Twice the area of the triangle at each corner; positive where the corners run clockwise on the screen."""
    return _cross(quad_N42 - quad_N42.roll(1, 1), quad_N42.roll(-1, 1) - quad_N42)
