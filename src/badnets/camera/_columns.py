"""Scenes as columns of numbers, rows of a batch that something happens to, and where pixels lie in a picture of side 1.

Shapes: N images, 3 = red, green, blue, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from badnets.camera.scene import Scene
from badnets.core.perspective import at

Act = Callable[[Tensor, Sequence[Scene], Tensor], Tensor]
"""From some images, their scenes and their rows in the batch to images."""


def column(scenes: Sequence[Scene], name: str) -> Tensor:
    """One number of all scenes, as float32 of N."""
    return torch.tensor([float(getattr(scene, name)) for scene in scenes])


def where(touched_N: Tensor, x_N3HW: Tensor, scenes: Sequence[Scene], act: Act) -> Tensor:
    """`act` on those rows that are touched; the others keep their bits."""
    if not bool(touched_N.any()):
        return x_N3HW
    rows = touched_N.nonzero()[:, 0]
    acted_R3HW = act(at(x_N3HW, rows), [scenes[row] for row in rows.tolist()], rows)
    return acted_R3HW if len(rows) == len(x_N3HW) else x_N3HW.index_put((rows,), acted_R3HW)


def grid(size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centres of pixels in 0..1: x_W and y_H1."""
    height, width = size
    return (torch.arange(width) + 0.5) / width, ((torch.arange(height) + 0.5) / height)[:, None]
