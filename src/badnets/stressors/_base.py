"""The sealed base of every stressor: a net and some images in, a new net out; the given net stays as it was, to the bit.

Authors write `_apply`. A stressor may use images that an owner has; whether some of them carry a trigger it cannot know.
Not for the removal of backdoors on purpose: those are repairs. Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, final

import pydantic

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network


@dataclass(frozen=True, eq=False)
class Supply:
    """What the owner has: uint8 images `x_NCHW`, their int64 labels `y_N` (None: unlabelled), and a maker of untrained nets of the same
    architecture, `fresh(seed, smaller)`."""

    x_NCHW: Tensor
    y_N: Tensor | None
    fresh: Callable[[int, bool], Network]

    def labelled(self, who: str) -> tuple[Tensor, Tensor]:
        """Images and labels. Raises UsageError when there are no labels or fewer than two images."""
        if self.y_N is None or len(self.x_NCHW) < 2:
            raise UsageError("E-SUPPLY", f"{who} expected at least two labelled images, got {len(self.x_NCHW)} of them.")
        return self.x_NCHW, self.y_N


class Stressor(Config, abc.ABC):
    """Something an innocent owner does to a net."""

    kind: str

    @final
    def apply(self, network: Network, supply: Supply, *, seed: int) -> Network:
        """A new net in evaluation mode on the same device; the same bits for the same net, supply and seed."""
        stressed = self._apply(copy.deepcopy(network), supply, seed)
        assert stressed is not network, f"{self.kind} gave back the net it was given"
        return stressed.eval()

    @abc.abstractmethod
    def _apply(self, network: Network, supply: Supply, seed: int) -> Network:
        """Change `network` (a copy of the caller's) in place and return it, or return another one."""


AnyStressor = Annotated[pydantic.SerializeAsAny[Stressor], pydantic.BeforeValidator(lambda value: registry.parse("stressors", value))]
"""Field type: a Stressor, its name, `name:field=value`, or its JSON."""
