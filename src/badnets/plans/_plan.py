"""A complete Plan: which data, net, attack, claims, how many seeds. Plans are functions that return one."""

from __future__ import annotations

from typing import Any

from badnets.attacks._base import AnyAttack
from badnets.attacks.badnets import BadNets
from badnets.claims._base import Effort
from badnets.core.config import Config
from badnets.plans._trial import AnyDataset
from badnets.train.recipe import Recipe

CLAIMS = (
    "clean_accuracy_kept",
    "trigger_reaches_target",
    "validation_cannot_tell",
    "trigger_must_be_consistent",
    "correlation_must_be_strong",
    "trigger_overrides_content",
    "small_trigger_spares_learning",
    "has_trigger_neurons",
    "survives_compression",
    "survives_fine_tuning",
    "regardless_of_content",
    "persists_under_training",
    "transfers_by_distillation",
    "hard_to_remove_blind",
    "supply_chain",
    "outsourced_training",
    "undetectable",
)


class Plan(Config):
    """Everything one run does. `net` None: the net and recipe that suit the data; `recipe` None: the net's own for this data set.

    `seeds` nets a side for the run's attack, `arms_seeds` for arms that one claim varies, `population` for telling nets apart.
    """

    name: str
    dataset: AnyDataset
    effort: Effort
    attack: AnyAttack = BadNets()
    claims: tuple[str, ...] = CLAIMS
    net: dict[str, Any] | None = None
    recipe: Recipe | None = None
    seeds: int
    arms_seeds: int
    population: int
    only_attack: bool = False
