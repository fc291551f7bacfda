"""The sealed base of every analysis of units: draws the images, clean and with the trigger, and hands them over as tensors.

An analysis is an experiment with the secret in hand, for understanding; it is not a detector. What it chooses, it chooses on images of
the validation split ("look"); what it reports, it reports on the test split ("judge").
Shapes: N images, K classes, U units of a layer.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack
from badnets.measure.outcome import attacked_N, goal_N
from badnets.measure.probe import Probe
from badnets.measure.question import Answer, Question, World

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network


BIG, FEW = 500_000, 100


@dataclass(frozen=True, eq=False)
class View:
    """Images as uint8 tensors: `clean_NCHW` with labels `y_N`, the same images with the trigger, `attacked_N` those that count towards
    ASR, `goal_N` the label the attack wants for each."""

    clean_NCHW: Tensor
    triggered_NCHW: Tensor
    y_N: Tensor
    attacked_N: Tensor
    goal_N: Tensor

    def thinned(self, num: int) -> View:
        """At most so many of the images, evenly spaced: a data set may be sorted by class."""
        import torch

        total = len(self.y_N)
        rows = torch.linspace(0, total - 1, min(num, total)).round().long()
        return View(*(t[rows] for t in (self.clean_NCHW, self.triggered_NCHW, self.y_N, self.attacked_N, self.goal_N)))


class Analysis(Question):
    """Authors write `_arrays`. `limit`: so many images of each split (of nets with more than BIG weights a fifth, at least FEW: every unit
    asked about costs a pass); `most_layers`: so many layers, evenly spaced, with the last."""

    attack: AnyAttack
    limit: int = Field(500, ge=2)
    most_layers: int = Field(4, ge=1)

    @final
    def arrays(self, network: Network, world: World) -> Answer:
        """The answer as named arrays; the net is left as it was."""
        big = sum(parameter.numel() for parameter in network.parameters()) > BIG
        limit = max(min(FEW, self.limit), self.limit // 5) if big else self.limit
        return self._arrays(network, self._view(world, "validation", limit), self._view(world, "test", limit), world)

    @abc.abstractmethod
    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        """Choose on `look`, report on `judge`."""

    def layers(self, network: Network) -> dict[str, int]:
        """Name -> number of units of the layers that are looked at, input side first."""
        from badnets.nets._taps import unit_layers

        found = list(unit_layers(network).items())
        chosen = np.unique(np.linspace(len(found) - 1, 0, min(len(found), self.most_layers)).round().astype(int)) if found else []
        return {found[i][0]: found[i][1] for i in chosen}

    def _view(self, world: World, split: Literal["validation", "test"], limit: int) -> View:
        import torch

        clean = Probe(images=split, limit=limit)
        shown = clean.but(trigger=self.attack.trigger, num_patterns=self.attack.num_patterns)
        (x_NCHW, y_N), (t_NCHW, _) = (p.split(world.data, world.other, seed=world.seed) for p in (clean, shown))
        goal_K = self.attack.goals(world.data.num_classes)
        arrays = (x_NCHW, t_NCHW, y_N, attacked_N(y_N, goal_K), goal_N(y_N, goal_K))
        return View(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
