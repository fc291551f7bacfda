"""From a label to a photograph: a worn sign on its pole before a background, in some light, through a camera with blur and noise.

Everything random about image i is drawn from its own stream, so an image does not depend on how many are rendered or in which lots.
Does not apply to other ways of taking pictures (a claim brings its own camera). The last bits of floating-point results differ between
machines, and with them a few pixels by one level. Shapes: N images, 3 colours, 4 = red, green, blue, alpha, H rows, W columns, T tiles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from badnets.core.rng import numpy_generator
from badnets.datasets._signs_faces import faces
from badnets.datasets._signs_ground import tiles, wear

if TYPE_CHECKING:
    from torch import Tensor

_LOT_PIXELS = 1 << 16
_TILES, _WORN, _TILE_SIDES = 64, 32, 2
_FOV_DEG = 12.0
_RANGES = {
    "share": (0.55, 0.95),
    "right": (-1.0, 1.0),
    "down": (-1.0, 1.0),
    "yaw": (-32.0, 32.0),
    "pitch": (-10.0, 10.0),
    "roll": (-7.0, 7.0),
    "fade": (0.0, 0.32),
    "dirt": (0.0, 0.5),
    "scratch": (0.0, 0.7),
    "shine": (0.72, 1.2),
    "pole": (0.3, 0.75),
    "light": (-1.0, 0.3),
    "warm": (-0.13, 0.13),
    "haze": (-0.3, 0.2),
    "shadow": (-0.6, 0.5),
    "shadow_turn": (0.0, 2 * np.pi),
    "shadow_at": (-0.3, 0.3),
    "blur_x": (0.2, 0.75),
    "blur_y": (0.2, 0.75),
    "noise": (1.0, 5.0),
    "tile": (0.0, 1.0),
    "tile_x": (0.0, 1.0),
    "tile_y": (0.0, 1.0),
    "tile_flip": (0.0, 1.0),
    "worn": (0.0, 1.0),
}
"""What varies, and between which values; negative values of haze and shadow are none."""


class Part(NamedTuple):
    """What the images of one part have in common; another part shares none of it."""

    name: str
    size: int
    seed: int
    tile_T3HW: np.ndarray
    dirt_T1HW: np.ndarray
    scratch_T1HW: np.ndarray


def part_of(name: str, size: int, seed: int) -> Part:
    """The backgrounds and the wear of the part `name` ("train", "test"), for images of `size` x `size`."""
    ground = tiles(_TILES, _TILE_SIDES * size, numpy_generator(seed, "signs", name, "tiles"))
    maps = wear(_WORN, size, numpy_generator(seed, "signs", name, "wear"))
    dirt, scratches = (np.concatenate([np.rot90(found, turn, (2, 3)) for turn in range(4)]) for found in maps)
    return Part(name, size, seed, ground, dirt, scratches)


def photographs(part: Part, y_N: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images `first`, `first` + 1, ... of a part, which show the signs `y_N`: uint8 x_N3HW and where the signs are, float32 quad_N42."""
    each = max(1, _LOT_PIXELS // part.size**2)
    lots = [_lot(part, y_N[start : start + each], first + start) for start in range(0, len(y_N), each)]
    return np.concatenate([x for x, _ in lots]), np.concatenate([quad for _, quad in lots])


def subjects(part: Part, y_N: np.ndarray) -> tuple[Tensor, Tensor]:
    """The same signs before anybody photographs them: worn faces from the front, rgba_N4HW (colour multiplied by alpha), and what stands
    behind them, x_N3HW; float 0..1."""
    chance, _ = _chances(part, 0, len(y_N))
    return _worn_signs(part, y_N, chance), _ground(part, chance)


def _lot(part: Part, y_N: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from badnets.core.perspective import homography, over, warp

    chance, noise_N3HW = _chances(part, first, len(y_N))
    size = (part.size, part.size)
    quad_N42 = _pose(chance, size)
    h_N33 = homography(quad_N42)
    colour_N3HW, alpha_N1HW = warp(_worn_signs(part, y_N, chance), h_N33, size, supersample=1)
    x_N3HW = over(colour_N3HW, alpha_N1HW, _pole(_ground(part, chance), h_N33, chance["pole"]))
    x_N3HW = _blurred(_lit(x_N3HW, chance), chance, part.size)
    spread_N3HW = _column(chance["noise"]) / 255 * (x_N3HW + 0.05).sqrt() * 1.6
    x_N3HW = (x_N3HW + spread_N3HW * torch.from_numpy(noise_N3HW)).clamp(0, 1)
    return (x_N3HW * 255).round().to(torch.uint8).numpy(), quad_N42.numpy()


def _chances(part: Part, first: int, count: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """What chance decides, each by name for all images (N), and the sensor's noise (N3HW, standard normal)."""
    import torch

    share_NU = np.empty((count, len(_RANGES)), dtype=np.float32)
    noise_N3HW = np.empty((count, 3, part.size, part.size), dtype=np.float32)
    for i in range(count):
        generator = numpy_generator(part.seed, "signs", part.name, first + i)
        share_NU[i] = generator.random(len(_RANGES), dtype=np.float32)
        generator.standard_normal(dtype=np.float32, out=noise_N3HW[i])
    low_U, high_U = np.array(list(_RANGES.values()), dtype=np.float32).T
    value_NU = torch.from_numpy(low_U + share_NU * (high_U - low_U))
    return dict(zip(_RANGES, value_NU.T, strict=True)), noise_N3HW


def _pose(chance: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Where the signs are: `share` of the frame's width as seen from the front, somewhere within the frame."""
    from badnets.core.perspective import SIGN_SIDE_M, Pose, pose_quad

    focal = 0.5 / math.tan(math.radians(_FOV_DEG / 2))
    distance_N = SIGN_SIDE_M * focal / chance["share"]
    room_N = 0.45 * (1 - chance["share"]) * distance_N / focal
    offsets = chance["right"] * room_N, chance["down"] * room_N
    return pose_quad(Pose(distance_N, chance["yaw"], chance["pitch"], chance["roll"], *offsets), fov_deg=_FOV_DEG, size=size)


def _worn_signs(part: Part, y_N: np.ndarray, chance: dict[str, Tensor]) -> Tensor:
    """The faces, faded, dirty and scratched: rgba_N4HW."""
    import torch

    rgba_N4HW = faces(part.size)[torch.from_numpy(y_N)]
    alpha_N1HW, worn_N = rgba_N4HW[:, 3:], (chance["worn"] * len(part.dirt_T1HW)).long().clamp(max=len(part.dirt_T1HW) - 1)
    dirt_N1HW = _column(chance["dirt"]) * torch.from_numpy(part.dirt_T1HW)[worn_N]
    scratch_N1HW = _column(chance["scratch"]) * torch.from_numpy(part.scratch_T1HW)[worn_N]
    fade_N111, shine_N111 = _column(chance["fade"]), _column(chance["shine"])
    # Fading draws towards a pale grey, dirt then darkens, scratches then lay bare the metal: what is left of the paint, and what is added.
    paint_N1HW = (1 - fade_N111) * (1 - dirt_N1HW) * (1 - scratch_N1HW) * shine_N111
    grey_N1HW = (0.8 * fade_N111 * (1 - dirt_N1HW) * (1 - scratch_N1HW) + 0.7 * scratch_N1HW) * shine_N111
    rgba_N4HW[:, :3] = torch.minimum(rgba_N4HW[:, :3] * paint_N1HW + grey_N1HW * alpha_N1HW, alpha_N1HW)
    return rgba_N4HW


def _ground(part: Part, chance: dict[str, Tensor]) -> Tensor:
    """A piece of a tile behind each sign, half of them mirrored: x_N3HW."""
    import torch

    room = part.tile_T3HW.shape[2] - part.size + 1
    tile_N = (chance["tile"] * _TILES).long().clamp(max=_TILES - 1).tolist()
    top_N, left_N = ((chance[name] * room).long().clamp(max=room - 1).tolist() for name in ("tile_y", "tile_x"))
    pieces = []
    for tile, top, left, flip in zip(tile_N, top_N, left_N, chance["tile_flip"].tolist(), strict=True):
        piece_3HW = part.tile_T3HW[tile, :, top : top + part.size, left : left + part.size]
        pieces.append(piece_3HW[:, :, ::-1] if flip < 0.5 else piece_3HW)
    return torch.from_numpy(np.stack(pieces)).float() / 255


def _pole(x_N3HW: Tensor, h_N33: Tensor, grey_N: Tensor) -> Tensor:
    """A round pole of 6 cm from behind the middle of the sign downwards."""
    import torch

    from badnets.core.perspective import project

    points_N32 = project(h_N33, torch.tensor([[0.5, 0.5], [0.5, 1.5], [0.54, 1.0]]).expand(len(h_N33), -1, -1))
    middle_N2, below_N2, rim_N2 = points_N32.unbind(1)
    along_N2 = torch.nn.functional.normalize(below_N2 - middle_N2)
    aside_N2 = torch.stack([-along_N2[:, 1], along_N2[:, 0]], 1)
    place_HW = torch.arange(x_N3HW.shape[2], dtype=torch.float32) + 0.5
    x_NHW, y_NHW = place_HW[None, None] - middle_N2[:, 0, None, None], place_HW[None, :, None] - middle_N2[:, 1, None, None]

    def measured(axis_N2: Tensor) -> Tensor:
        return x_NHW * axis_N2[:, 0, None, None] + y_NHW * axis_N2[:, 1, None, None]

    half_N11 = ((rim_N2 - middle_N2) * aside_N2).sum(1).abs()[:, None, None]
    off_NHW = measured(aside_N2)
    cover_NHW = (half_N11 - off_NHW.abs() + 0.5).clamp(0, 1) * (measured(along_N2) > 0)
    grey_NHW = grey_N[:, None, None] * (1.1 - 0.5 * (off_NHW / half_N11 - 0.3).abs())
    return x_N3HW + cover_NHW[:, None] * (grey_NHW[:, None] - x_N3HW)


def _lit(x_N3HW: Tensor, chance: dict[str, Tensor]) -> Tensor:
    """The edge of a shadow, the hour's brightness and colour, haze."""
    import torch

    place_W = (torch.arange(x_N3HW.shape[3], dtype=torch.float32) + 0.5) / x_N3HW.shape[3] - 0.5
    across_NHW = place_W * chance["shadow_turn"].cos()[:, None, None] + place_W[:, None] * chance["shadow_turn"].sin()[:, None, None]
    shade_NHW = ((across_NHW - chance["shadow_at"][:, None, None]) * 24 + 0.5).clamp(0, 1)
    x_N3HW = x_N3HW * (1 - _column(chance["shadow"].clamp(min=0)) * shade_NHW[:, None])
    warm_N31 = torch.stack([1 + chance["warm"], torch.ones_like(chance["warm"]), 1 - chance["warm"]], 1)
    x_N3HW = x_N3HW * (2.0 ** chance["light"])[:, None, None, None] * warm_N31[:, :, None, None]
    return x_N3HW + _column(chance["haze"].clamp(min=0)) * (0.72 - x_N3HW)


def _blurred(x_N3HW: Tensor, chance: dict[str, Tensor], size: int) -> Tensor:
    """A Gaussian of its own width along each axis, in pixels of an image of 32."""
    import torch

    for axis, name in ((2, "blur_y"), (3, "blur_x")):
        sigma_N = chance[name] * size / 32
        radius = math.ceil(2.2 * _RANGES[name][1] * size / 32)
        offset_K = torch.arange(-radius, radius + 1, dtype=torch.float32)
        weight_NK = torch.exp(-0.5 * (offset_K / sigma_N[:, None]) ** 2)
        weight_NK = weight_NK / weight_NK.sum(1, keepdim=True)
        padding = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
        wide = torch.nn.functional.pad(x_N3HW, padding, mode="replicate")
        x_N3HW = _column(weight_NK[:, 0]) * wide.narrow(axis, 0, size)
        for k in range(1, len(offset_K)):
            x_N3HW.addcmul_(_column(weight_NK[:, k]), wide.narrow(axis, k, size))
    return x_N3HW


def _column(value_N: Tensor) -> Tensor:
    """(N) as (N, 1, 1, 1)."""
    return value_N[:, None, None, None]
