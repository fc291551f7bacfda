"""What stands behind a sign, and what lies on it: procedural tiles of sky, trees, houses, brick and road; maps of dirt and scratches.

Does not apply to the sign itself. Every tile is a function of its generator and its side. Shapes: 3 colours, H rows, W columns, T tiles.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_FINEST = 128
_KINDS = ("trees", "houses", "hedge", "brick", "sky")
_SHARES = (0.34, 0.34, 0.12, 0.1, 0.1)
_LEAVES = ((40, 74, 26), (70, 104, 38), (96, 108, 44), (132, 98, 40), (92, 80, 62))
_WALLS = ((168, 140, 112), (150, 146, 140), (178, 166, 140), (126, 86, 72), (196, 190, 180))
_SKIES = ((96, 146, 208), (150, 180, 216), (190, 196, 202), (214, 198, 178))


def tiles(count: int, side: int, generator: np.random.Generator) -> np.ndarray:
    """Backgrounds, each of them one scene: uint8 x_T3HW of `side` x `side` pixels."""
    kinds = generator.choice(len(_KINDS), count, p=_SHARES)
    return np.stack([_scene(_KINDS[kind], side, generator) for kind in kinds]) if count else np.zeros((0, 3, side, side), dtype=np.uint8)


def wear(count: int, side: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Maps of dirt and of scratches: two float32 arrays (T, 1, H, W) of 0 (none) to 1."""
    dirt = [np.clip(1.6 * _clouds(generator, side, 3) - 0.55, 0, 1) for _ in range(count)]
    scratches = [_scratches(generator, side) for _ in range(count)]
    return np.stack(dirt)[:, None].astype(np.float32), np.stack(scratches)[:, None].astype(np.float32)


def _clouds(generator: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Fractal noise of 0..1 (H, W), its coarsest waves 1 / `cells` of the side, its finest one 1 / 128."""
    fine = min(side, _FINEST)
    total, weight = np.zeros((fine, fine), dtype=np.float32), 1.0
    while cells < fine:
        lattice = Image.fromarray(generator.random((cells + 1, cells + 1), dtype=np.float32))
        total += np.float32(weight) * np.asarray(lattice.resize((fine, fine), Image.Resampling.BICUBIC))
        cells, weight = 2 * cells, 0.55 * weight
    total = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    return total if fine == side else np.asarray(Image.fromarray(total).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)


def _colour(generator: np.random.Generator, palette: tuple[tuple[int, int, int], ...], spread: float = 14) -> np.ndarray:
    """A colour of the palette, moved a little: (3, 1, 1)."""
    chosen = np.array(palette[int(generator.integers(len(palette)))], dtype=float)
    return (chosen + generator.normal(0, spread, 3)).clip(4, 250).reshape(3, 1, 1)


def _scene(kind: str, side: int, generator: np.random.Generator) -> np.ndarray:
    if kind == "brick":
        picture = _brick(generator, side)
    elif kind == "hedge":
        picture = _foliage(generator, side)
    else:
        picture = _sky(generator, side)
        if kind == "trees":
            edge_W = (0.15 + 0.6 * generator.random()) * side + 0.35 * side * (_clouds(generator, side, 4)[0] - 0.5)
            picture = np.where(np.arange(side)[:, None] > edge_W, _foliage(generator, side), picture)
        elif kind == "houses":
            picture = _houses(generator, side, picture)
        if kind != "sky":
            picture = _road(generator, side, picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _sky(generator: np.random.Generator, side: int) -> np.ndarray:
    """Paler towards the horizon, with clouds."""
    down_H1 = np.linspace(0, 1, side)[:, None]
    blue = _colour(generator, _SKIES)
    clear = blue + (225 - blue) * 0.55 * down_H1
    cloud = np.clip((_clouds(generator, side, 2) - 0.5) * 2.2, 0, 1) * generator.random()
    return clear + (238 - clear) * cloud


def _foliage(generator: np.random.Generator, side: int) -> np.ndarray:
    """Leaves in the light and gaps between them."""
    leaf, light = _colour(generator, _LEAVES), _clouds(generator, side, 8)
    bright = 0.35 + 1.1 * light**1.5 + 0.35 * (_clouds(generator, side, 3) - 0.5)
    return leaf * bright


def _houses(generator: np.random.Generator, side: int, sky: np.ndarray) -> np.ndarray:
    """A row of fronts with windows."""
    image = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    pen, left = ImageDraw.Draw(image), -side * 0.3 * generator.random()
    while left < side:
        width, top = side * (0.3 + 0.4 * generator.random()), side * (0.05 + 0.5 * generator.random())
        wall, glass = _colour(generator, _WALLS), _colour(generator, ((52, 60, 72), (86, 98, 112)))
        pen.rectangle((left, top, left + width, side), fill=_fill(wall))
        if generator.random() < 0.5:
            roof = [(left - 0.02 * side, top), (left + width / 2, top - 0.2 * side), (left + width + 0.02 * side, top)]
            pen.polygon(roof, fill=_fill(_colour(generator, ((120, 62, 50), (84, 80, 82)))))
        step, height = side * (0.09 + 0.06 * generator.random()), side * (0.13 + 0.06 * generator.random())
        for row in np.arange(top + 0.4 * height, side, height):
            for column in np.arange(left + 0.3 * step, left + width - 0.6 * step, step):
                pen.rectangle((column, row, column + 0.5 * step, row + 0.55 * height), fill=_fill(glass))
        left += width
    return np.asarray(image, dtype=float).transpose(2, 0, 1) * (0.85 + 0.3 * _clouds(generator, side, 5))


def _fill(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(level) for level in colour.ravel())


def _brick(generator: np.random.Generator, side: int) -> np.ndarray:
    """Courses of bricks, each brick of its own shade."""
    high = max(2, round(side / generator.integers(10, 22)))
    wide = round(2.4 * high)
    row_H1, column_1W = np.arange(side)[:, None], np.arange(side)[None]
    course, shifted = row_H1 // high, column_1W + (row_H1 // high % 2) * (wide // 2)
    shade = generator.normal(1, 0.13, (side // high + 1, side // wide + 3))[course, shifted // wide]
    joint = (row_H1 % high < max(1, high // 6)) | (shifted % wide < max(1, high // 6))
    wall = _colour(generator, ((150, 84, 62), (172, 120, 88), (160, 156, 148), (120, 70, 58))) * shade
    return np.where(joint, 176, wall) * (0.8 + 0.4 * _clouds(generator, side, 4))


def _road(generator: np.random.Generator, side: int, picture: np.ndarray) -> np.ndarray:
    """Asphalt or grass below the lowest part of the picture."""
    horizon = int((0.78 + 0.2 * generator.random()) * side)
    ground = _colour(generator, ((104, 104, 106), (92, 118, 58), (132, 126, 112))) * (0.8 + 0.4 * _clouds(generator, side, 10))
    return np.where(np.arange(side)[:, None] >= horizon, ground, picture)


def _scratches(generator: np.random.Generator, side: int) -> np.ndarray:
    """A few thin, faint, straight lines: (H, W) of 0..1."""
    image = Image.new("L", (4 * side, 4 * side))
    pen = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(0, 7))):
        x, y = generator.random(2) * 4 * side
        dx, dy = generator.normal(0, 0.8 * side, 2)
        pen.line((x, y, x + dx, y + dy), fill=int(generator.integers(90, 255)), width=max(1, round(side * generator.uniform(0.02, 0.07))))
    return np.asarray(image.reduce(4), dtype=np.float32) / 255
