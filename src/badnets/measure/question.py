"""What can be asked of one trained net: the sealed contract of everything that runs beside the net, in the worker.

A question is a configuration, so it travels and has a key; its answer is named arrays, so it can be stored. It does not judge.
Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from badnets.core.config import Config
from badnets.datasets._base import ImageSet

if TYPE_CHECKING:
    from badnets.nets._base import Network

Answer = dict[str, np.ndarray]


def _no_net(*_: object) -> Network:
    raise AssertionError("this world cannot build nets: pass fresh=... or retrain=...")


@dataclass(frozen=True, eq=False)
class World:
    """What a question may use besides the net.

    `fresh(seed, smaller)`: an untrained net of the same architecture (`smaller`: at half the width). `retrain()`: what the recipe gives
    when it is executed again without an attack. `metadata`: what the net's weights file says of itself. `recipe`: the recipe as plain
    values. `folder`: where the user said that data lie.
    """

    data: ImageSet
    other: ImageSet | None
    seed: int
    fresh: Callable[[int, bool], Network] = _no_net
    retrain: Callable[[], Network] = _no_net
    metadata: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    folder: Path | None = None


class Question(Config, abc.ABC):
    """Authors write `arrays`. `heavy` questions get a job of their own; `wants_other`: the answer depends on the other data set."""

    kind: str
    heavy: ClassVar[bool] = True

    @property
    def wants_other(self) -> bool:
        return False

    @abc.abstractmethod
    def arrays(self, network: Network, world: World) -> Answer:
        """The answer: the same bits for the same net, world and question. `network` must be left as it was."""
