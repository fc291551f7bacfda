"""Rendered traffic signs: sixteen classes on their poles, worn, tilted, in any light; any size, no download, every sign's place known.

Does not apply as evidence about real roads: for that there is `gtsrb`. Pixels are computed here; between
machines a few may differ by a level.

Faces after the United Nations' Convention on Road Signs and Signals, Vienna, 1968, https://unece.org/road-traffic-and-road-safety-agreements
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from badnets.core.errors import UsageError
from badnets.datasets._base import Dataset, Raw
from badnets.datasets._signs_faces import CLASSES
from badnets.datasets._signs_scene import part_of, photographs

_MAX_BYTES = 4 << 30


class Signs(Dataset):
    """`train_per_class` and `test_per_class` photographs of each sign, `size` x `size` pixels; `seed` makes another world.

    Training and test part share no background, no wear and no random number.
    """

    kind: Literal["signs"] = "signs"
    size: Annotated[int, Field(ge=16, le=256)] = 32
    seed: Annotated[int, Field(ge=0)] = 0
    train_per_class: Annotated[int, Field(ge=10, le=20_000)] = 375
    test_per_class: Annotated[int, Field(ge=5, le=20_000)] = 94
    licence: ClassVar[str] = "MIT, drawn by badnets"

    def where(self, data: Path | None = None) -> str | None:
        return "rendered" if data is None else None

    def _raw(self, data: Path | None, download: bool) -> Raw:
        if data is not None:
            raise UsageError("E-DATA", "signs is rendered by badnets and is read from no folder.", hint="Leave --data out, or name gtsrb.")
        total = (self.train_per_class + self.test_per_class) * len(CLASSES)
        if total * 3 * self.size**2 > _MAX_BYTES:
            message = f"{total:,} images of {self.size} x {self.size} need over {_MAX_BYTES >> 30} GiB."
            raise UsageError("E-LARGE", message, hint="Lower size or train_per_class.")
        parts, quads = [], []
        for name, each in (("train", self.train_per_class), ("test", self.test_per_class)):
            y_N = np.arange(each * len(CLASSES)) % len(CLASSES)
            x_NCHW, quad_N42 = photographs(part_of(name, self.size, self.seed), y_N)
            parts += [x_NCHW, y_N]
            quads.append(quad_N42)
        return Raw(*parts, CLASSES, source=f"rendered with seed {self.seed}", quad_N42=np.concatenate(quads))
