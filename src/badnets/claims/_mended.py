"""The question of the claim about removal: what is left of a net, and of its backdoor, after a repair; and does the backdoor come back?

The repair is handed clean images and no secret (`oracle`, which says that it is told, gets the trigger, in this file's one visible call).
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack
from badnets.claims._stress import Dose, Images
from badnets.core import registry
from badnets.core.rng import numpy_generator
from badnets.core.suspect import Suspect
from badnets.datasets._base import Split
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.question import Answer, Question, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from badnets.nets._base import Network
    from badnets.repairs._base import Repaired
    from badnets.triggers._base import Trigger


@dataclass(frozen=True, eq=False)
class Bill:
    """One repair of one net: outcomes on `clean` images and on images `shown` with the trigger, those after `relearned` from a few poisoned
    images; images sent through nets, seconds, clean images that were given. `analysable` is false where there was no repaired net: the
    outcomes are then those of the net as it was."""

    analysable: bool
    clean: Outcome
    shown: Outcome
    relearned: Outcome
    images: int
    seconds: float
    clean_images: int


class Mended(Question):
    """`repair` as plain values, so that asking imports no torch. `attack`: whose trigger is shown, also to a twin. `share`: clean images
    for the repair, of the training set's size. `relearning`: done to the repaired net, to see whether the backdoor comes back at once."""

    kind: Literal["mended"] = "mended"
    repair: dict[str, Any]
    attack: AnyAttack
    share: float = Field(0.05, gt=0, le=1)
    relearning: Dose
    limit: int = Field(2000, ge=1)

    def arrays(self, network: Network, world: World) -> Answer:
        """Outcomes as `part.field`, and `cost`."""
        x_NCHW, y_N, quad_N42 = Images(share=self.share).placed(world)
        assert y_N is not None, "clean images of the budget have labels"
        repaired = self._repaired(network, world, Split(x_NCHW, y_N, np.arange(len(y_N)), quad_N42))
        mended = network if repaired.network is None else repaired.network
        shown = Probe(trigger=self.attack.trigger, num_patterns=self.attack.num_patterns, limit=self.limit)
        seen = {"clean": (mended, Probe(limit=self.limit)), "shown": (mended, shown)}
        seen["relearned"] = (self.relearning.apply(mended, world), shown)
        answer: Answer = {}
        for part, (net, probe) in seen.items():
            outcome = probe.answer(net, world.data, world.other, seed=world.seed)
            answer |= {f"{part}.{name}": values for name, values in outcome.arrays().items()}
        cost = [repaired.network is not None, repaired.images, repaired.seconds, len(y_N)]
        return answer | {"cost": np.array(cost, dtype=np.float64)}

    def _repaired(self, network: Network, world: World, clean: Split) -> Repaired:
        from badnets.repairs._base import Repair

        repair = registry.parse("repairs", self.repair)
        assert isinstance(repair, Repair)
        suspect = Suspect(network, world.data.shape, world.data.num_classes, clean=(clean.x_NCHW, clean.y_N))
        rng = numpy_generator(world.seed, "repair", repair.kind)
        return repair.apply(suspect, rng=rng, stamp=_stamp(self.attack.trigger, clean)) if repair.told else repair.apply(suspect, rng=rng)

    def read(self, answer: Answer) -> Bill:
        """The answer as a Bill."""
        analysable, images, seconds, clean_images = answer["cost"].tolist()
        parts = {
            part: Outcome.from_arrays({k.removeprefix(f"{part}."): v for k, v in answer.items() if k.startswith(f"{part}.")})
            for part in ("clean", "shown", "relearned")
        }
        return Bill(analysable=bool(analysable), images=int(images), seconds=seconds, clean_images=int(clean_images), **parts)


def _stamp(trigger: Trigger, clean: Split) -> Callable[[np.ndarray], np.ndarray]:
    """What a repair is told: the trigger on these images, in whatever order it looks at them."""
    if clean.quad_N42 is None:
        return trigger.stamp
    quad_of = {image.tobytes(): quad_42 for image, quad_42 in zip(clean.x_NCHW, clean.quad_N42, strict=True)}
    return lambda x_NCHW: trigger.stamp(x_NCHW, np.stack([quad_of[image.tobytes()] for image in x_NCHW]))
