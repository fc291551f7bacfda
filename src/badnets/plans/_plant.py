"""The library's front door: plant a backdoor in nets and train their twins, in this process; measure both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from badnets.attacks._base import Attack, Poisoned
from badnets.claims._arms import CLEAN, triggered
from badnets.core import registry
from badnets.core.device import Choice
from badnets.core.errors import UsageError
from badnets.core.suspect import Access, Suspect
from badnets.core.types import Estimate
from badnets.datasets._base import Dataset, ImageSet
from badnets.measure.outcome import Outcome
from badnets.measure.rates import asr_hits, at_95, clean_hits, constant_seeds, difference, ra_hits, rate
from badnets.plans._trial import NUM_THREADS, Trial, device_name
from badnets.train.recipe import Recipe, default_recipe


@dataclass(frozen=True, eq=False)
class Victim:
    """A net planted with a backdoor, together with its secret."""

    network: Any
    trial: Trial
    attack: Attack
    poisoned: Poisoned
    data: ImageSet

    def suspect(self, access: Access = Access.MODEL) -> Suspect:
        """What a defender is handed: the net, and the data that `access` grants; the secret stays behind."""
        clean = (self.data.budget.x_NCHW, self.data.budget.y_N) if access is Access.CLEAN else None
        training = (self.poisoned.x_NCHW, self.poisoned.y_N) if access is Access.TRAINING else None
        return Suspect(self.network, self.data.shape, self.data.num_classes, clean=clean, training=training)


@dataclass(frozen=True, eq=False)
class Pair:
    """Victims and their twins, one of each per seed."""

    data: ImageSet
    attack: Attack
    victims: list[Victim]
    twins: list[Any]


@dataclass(frozen=True)
class Measured:
    """CA, ASR and RA of victims and twins, and the paired change of CA; prints as a table."""

    victim: dict[str, Estimate]
    twin: dict[str, Estimate]
    ca_change: Estimate
    diverged: list[int]

    def __str__(self) -> str:
        rows = [f"{'':10}{'victim':>28}{'twin':>28}"]
        rows += [f"{name:10}{_percent(self.victim[name]):>28}{_percent(self.twin[name]):>28}" for name in self.victim]
        rows.append(f"{'CA change':10}{_percent(self.ca_change):>28}")
        if self.diverged:
            rows.append(f"seeds {self.diverged} give one class to nearly everything: their ASR means nothing")
        seeds = "1 seed" if self.ca_change.num_seeds == 1 else f"{self.ca_change.num_seeds} seeds"
        rows.append(f"{self.ca_change.method}, {seeds}, {self.ca_change.n} images")
        return "\n".join(rows)


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{100 * estimate.value:.2f} % [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"


def load(name: str | Dataset, *, data: str | Path | None = None) -> ImageSet:
    """A data set by name, from `data`, this machine or the network; verified by its hash and split.

    Raises UsageError (unknown name) or RefusedError (wrong hash, not to be had).
    """
    dataset = registry.parse("datasets", name)
    assert isinstance(dataset, Dataset)
    return dataset.load(Path(data) if data is not None else None)


def plant(data: ImageSet, attack: Attack, *, seeds: int = 3, net: str | dict[str, Any] | None = None, recipe: Recipe | None = None) -> Pair:
    """Train `seeds` victims and their twins in this process, on one thread each (torch's thread count is put back).

    `net` is an entry of the catalogue, the one that suits the data by default. Raises UsageError.
    """
    if seeds < 1:
        raise UsageError("E-SEEDS", f"expected at least one seed, got {seeds}.", hint="Use seeds=3 for intervals over seeds.")
    return plant_seeds(data, attack, range(seeds), net=net, recipe=recipe)


def plant_seeds(
    data: ImageSet, attack: Attack, seeds: Iterable[int], *, net: str | dict[str, Any] | None = None, recipe: Recipe | None = None
) -> Pair:
    """Like `plant`, for the given seeds."""
    import torch

    from badnets.plans._work import train

    chosen = {"kind": net} if isinstance(net, str) else (net or {"kind": default_net(data.shape, device_name()).value})
    registry.check("nets", str(chosen["kind"]))
    how = recipe or default_recipe(str(chosen["kind"]), data.shape, len(data.train)).value
    victims, twins, threads = [], [], torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        for seed in seeds:
            trial = Trial(
                dataset=data.name, data_sha256=data.sha256, net=chosen, recipe=how, attack=attack, seed=seed, device=device_name()
            )
            network, poisoned, _ = train(trial, data)
            assert poisoned is not None
            victims.append(Victim(network, trial, attack, poisoned, data))
            twins.append(train(trial.but(attack=None), data)[0])
    finally:
        torch.set_num_threads(threads)
    return Pair(data, attack, victims, twins)


def default_net(shape: tuple[int, int, int], device: str) -> Choice[str]:
    """The net for a data set when none is named, with the reason."""
    if shape[0] > 1 and device != "cpu":
        return Choice("net", "fast_resnet", "colour images, and a GPU to train a residual net on")
    return Choice("net", "fast_cnn", "answers in seconds on a CPU; for colour images fast_resnet is the better and slower net")


def measure(pair: Pair) -> Measured:
    """CA, ASR and RA on the judge's test images, with 95 % intervals over seeds and images."""
    goal_K = pair.attack.goals(pair.data.num_classes)
    shown = triggered(pair.attack)

    def outcomes(networks: list[Any], probe: Any) -> list[Outcome]:
        seeds = [victim.trial.seed for victim in pair.victims]
        return [probe.answer(network, pair.data, None, seed=seed) for seed, network in zip(seeds, networks, strict=True)]

    sides, clean = [], []
    for networks in ([v.network for v in pair.victims], pair.twins):
        plain, stamped = outcomes(networks, CLEAN), outcomes(networks, shown)
        clean.append(plain)
        hits = {"CA": clean_hits(plain), "ASR": asr_hits(stamped, goal_K), "RA": ra_hits(stamped, goal_K)}
        sides.append({name: at_95(rate(h)) for name, h in hits.items()})
    change = at_95(difference(clean_hits(clean[0]), clean_hits(clean[1])))
    return Measured(sides[0], sides[1], change, [pair.victims[i].trial.seed for i in constant_seeds(clean[0])])
