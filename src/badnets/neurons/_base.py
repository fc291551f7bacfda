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


@dataclass(frozen=True, eq=False)
class View:
    """Images as uint8 tensors: `clean_NCHW` with labels `y_N`, the same images with the trigger, `attacked_N` those that count towards
    ASR, `goal_N` the label the attack wants for each."""

    clean_NCHW: Tensor
    triggered_NCHW: Tensor
    y_N: Tensor
    attacked_N: Tensor
    goal_N: Tensor


class Analysis(Question):
    """Authors write `_arrays`. `limit`: so many images of each split."""

    attack: AnyAttack
    limit: int = Field(500, ge=2)

    @final
    def arrays(self, network: Network, world: World) -> Answer:
        """The answer as named arrays; the net is left as it was."""
        return self._arrays(network, self._view(world, "validation"), self._view(world, "test"), world)

    @abc.abstractmethod
    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        """Choose on `look`, report on `judge`."""

    def _view(self, world: World, split: Literal["validation", "test"]) -> View:
        import torch

        clean = Probe(images=split, limit=self.limit)
        shown = clean.but(trigger=self.attack.trigger, num_patterns=self.attack.num_patterns)
        (x_NCHW, y_N), (t_NCHW, _) = (p.split(world.data, world.other, seed=world.seed) for p in (clean, shown))
        goal_K = self.attack.goals(world.data.num_classes)
        arrays = (x_NCHW, t_NCHW, y_N, attacked_N(y_N, goal_K), goal_N(y_N, goal_K))
        return View(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
