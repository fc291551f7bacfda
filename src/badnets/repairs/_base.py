"""The sealed base of every repair: a suspect and a budget in, a new net out; blindfolded, timed, counted; the suspect stays as it was.

Authors write `_repair`. A repair stops by clean data alone. One that is told the trigger says so (`told`) and gets it as an argument: it is
the upper bound in a table of repairs, never one of them. Not for what an innocent owner does anyway: those are stressors.
Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

import numpy as np
import pydantic

from badnets.core import registry
from badnets.core.blind import blindfolded
from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.meter import BudgetSpentError, metered
from badnets.core.suspect import NO_LIMIT, Access, Budget, Suspect
from badnets.core.view import View, view_of

if TYPE_CHECKING:
    from badnets.nets._base import Network

Stamp = Callable[[np.ndarray], np.ndarray]
"""uint8 x_NCHW to the same images with the trigger."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired net in evaluation mode and what it cost; `network` is None where `why_not` says why there is none.

    `images`: sent through nets, gradients counted (see Budget). `note`: what was chosen on the way, for people.
    """

    network: Any
    images: int = 0
    seconds: float = 0.0
    note: str = ""
    why_not: str = ""


class Repair(Config, abc.ABC):
    """Something meant to remove a backdoor. `access`: the least that it needs; `told`: it is given the trigger."""

    kind: str
    access: ClassVar[Access] = Access.CLEAN
    told: ClassVar[bool] = False

    @final
    def apply(self, suspect: Suspect, budget: Budget = NO_LIMIT, *, rng: np.random.Generator, stamp: Stamp | None = None) -> Repaired:
        """The same bits for the same suspect (in any row order), budget of images and state of `rng`.

        Raises UsageError when a blind repair is told the trigger, or one that must be told is not.
        """
        seed = int(rng.integers(2**62))
        if (stamp is not None) != self.told:
            wanted, got = ("the trigger", "none") if self.told else ("no trigger", "one")
            raise UsageError("E-TOLD", f"{self.kind} expected {wanted}, got {got}.")
        view = view_of(suspect)
        if not view.granted(self.access):
            return Repaired(None, why_not=f"needs {'clean images' if self.access is Access.CLEAN else 'the training data'}")
        with blindfolded(), metered(budget) as meter:
            try:
                network, note = self._told(view, seed, stamp) if stamp is not None else self._repair(view, seed)
            except BudgetSpentError as spent:
                return Repaired(None, meter.images, meter.seconds, why_not=spent.message)
            assert network is not suspect.network, f"{self.kind} gave back the net it was given"
            return Repaired(network.eval(), meter.images, meter.seconds, note)

    @abc.abstractmethod
    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        """Change `view.network` (a copy of the suspect's) in place, or make another; with what was chosen, in a few words."""

    def _told(self, view: View, seed: int, stamp: Stamp) -> tuple[Network, str]:
        """The same for a repair with `told`."""
        raise NotImplementedError(f"{self.kind} says that it is told the trigger")


AnyRepair = Annotated[pydantic.SerializeAsAny[Repair], pydantic.BeforeValidator(lambda value: registry.parse("repairs", value))]
"""Field type: a Repair, its name, `name:field=value`, or its JSON."""
