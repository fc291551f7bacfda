"""Attacks to examine defenders on: other poison rates, triggers, label maps and sizes than the run's own, each with what tells it apart."""

from __future__ import annotations

from typing import Literal, NamedTuple

from badnets.attacks._base import Attack
from badnets.attacks.badnets import BadNets
from badnets.claims._arms import feasible
from badnets.claims._base import Setting
from badnets.core.config import canonical
from badnets.core.types import Scalar
from badnets.triggers.blend import Blend
from badnets.triggers.painted import Painted
from badnets.triggers.patch import Patch
from badnets.triggers.sinusoid import Sinusoid

Grid = Literal["own", "rates", "attacks", "map"]
RATES, ENDS, MAP_RATES, SIZES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2), (0.01, 0.1), (0.005, 0.01, 0.05, 0.1, 0.2), (1, 2, 3, 5)
CROSS = (
    "base64:iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAIklEQVR42mP4////fwYI+M/AwMAA58MYSAoY0AVwqMRmJgAmsyfZZbqdcwAAAABJRU5ErkJggg=="
)
"""A white cross of five pixels a side with four black ones between its arms."""
OTHERS = (Blend(), Sinusoid(), Painted(png=CROSS, top=-6, left=-6))


class Arm(NamedTuple):
    """An attack, what tells it from others, and how many victims it has."""

    attack: Attack
    condition: dict[str, Scalar]
    seeds: int


def arms(setting: Setting, grids: tuple[Grid, ...]) -> list[Arm]:
    """The run's own attack first, then those of the grids, each once; only that one where it is not BadNets or the user named it."""
    own = setting.attack
    found = {canonical(own): Arm(own, told(own), setting.seeds)}
    if isinstance(own, BadNets) and not setting.only_attack:
        for attack in [a for grid in grids for a in _GRIDS[grid](own) if feasible(setting, a)]:
            found.setdefault(canonical(attack), Arm(attack, told(attack), setting.arms_seeds))
    return list(found.values())


def told(attack: Attack) -> dict[str, Scalar]:
    """Trigger, size, label map and poison rate, where the attack has them."""
    condition: dict[str, Scalar] = {"trigger": attack.trigger.kind}
    if isinstance(attack.trigger, Patch):
        condition["size"] = attack.trigger.size
    if isinstance(attack, BadNets):
        condition["mapping"] = attack.mapping if isinstance(attack.mapping, str) else "a map of labels"
        condition["rate"] = attack.rate
    return condition


def _rates(own: BadNets) -> list[BadNets]:
    return [own.but(rate=rate) for rate in RATES]


def _attacks(own: BadNets) -> list[BadNets]:
    triggers = dict.fromkeys((own.trigger, *OTHERS))
    mappings = dict.fromkeys((own.mapping, "all_to_all")) if isinstance(own.mapping, str) else (own.mapping,)
    return [own.but(trigger=trigger, mapping=mapping, rate=rate) for trigger in triggers for mapping in mappings for rate in ENDS]


def _map(own: BadNets) -> list[BadNets]:
    if not isinstance(own.trigger, Patch):
        return []
    return [own.but(trigger=own.trigger.but(size=size), rate=rate) for size in SIZES for rate in MAP_RATES]


_GRIDS = {"own": lambda own: [], "rates": _rates, "attacks": _attacks, "map": _map}
