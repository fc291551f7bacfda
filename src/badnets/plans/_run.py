"""Executes a Plan: loads, schedules what the store lacks, decides each claim as soon as its outcomes are there, writes the Record."""

from __future__ import annotations

import datetime
import time
from typing import Any, Protocol

import numpy as np

from badnets.claims._base import Claim, Setting, family_wise
from badnets.core import registry
from badnets.core.config import key_of
from badnets.core.errors import StoreError
from badnets.core.hardware import code_digest, describe, package_digest, versions
from badnets.core.store import Store
from badnets.core.types import Evidence, Record, Verdict
from badnets.datasets._base import ImageSet
from badnets.datasets.digits import Digits
from badnets.datasets.fashion_mini import FashionMini
from badnets.plans._bench import Parts, StoreBench, early_needs, later_needs
from badnets.plans._gallery import gallery
from badnets.plans._jobs import Site, work_through
from badnets.plans._plan import Plan
from badnets.plans._plant import default_net
from badnets.plans._stop import StopRequest
from badnets.plans._trial import device_name
from badnets.train.recipe import default_recipe


class Audience(Protocol):
    """Who watches a run. `progress` counts jobs; `decided` comes once per claim, in the order of decision."""

    def started(self, claims: list[Claim], jobs: int, stored: int) -> None: ...

    def progress(self, done: int, jobs: int, seconds_left: float | None) -> None: ...

    def decided(self, evidence: Evidence) -> None: ...


def execute(plan: Plan, site: Site, audience: Audience, stop: StopRequest) -> Record:
    """The Record of the plan: from the store when nothing changed, else computed from what is missing.

    Raises UsageError for a plan that cannot be, StoreError, and PartialError when some trainings failed; what was done is kept.
    """
    start = time.perf_counter()
    data = plan.dataset.load(site.data)
    claims = [_claim(name) for name in plan.claims]
    device = device_name()
    key = run_key(plan, claims, data, device)
    stored = _stored(site.store, key)
    if stored is not None:
        return stored
    bench = bench_of(plan, data, site.store, device)
    # Before the lock: this refuses what cannot be, and then nothing is written.
    plan.attack.poison(data.train.x_NCHW, data.train.y_N, num_classes=data.num_classes, seed=0, quad_N42=data.train.quad_N42)
    with site.store.lock(key):
        for need in early_needs(claims, bench.setting):
            bench.want(need, early=True)
        for need in later_needs(claims, bench.setting):
            bench.want(need)
        bench.load()
        evidence = _decide_all(bench, claims, site, audience, stop)
        site.store.put_record(_record(plan, bench, evidence, key, time.perf_counter() - start))
    return site.store.record(key)  # as every later call will give it, to the byte


def _stored(store: Store, key: str) -> Record | None:
    """The record of an earlier run; None when there is none, or when it was damaged and has been set aside."""
    if not any(row.key == key for row in store.records()):
        return None
    try:
        return store.record(key)
    except StoreError as error:
        if error.code != "E-DAMAGED":
            raise
        return None


def run_key(plan: Plan, claims: list[Claim], data: ImageSet, device: str) -> str:
    """SHA-256 of everything that decides a Record."""
    asked = [claim.model_dump(mode="json") for claim in claims]
    return key_of({"plan": plan, "claims": asked, "data": data.sha256, "device": device, "versions": versions(), "code": package_digest()})


def _claim(name: str) -> Claim:
    claim = registry.parse("claims", name)
    assert isinstance(claim, Claim)
    return claim


def bench_of(plan: Plan, data: ImageSet, store: Store, device: str) -> StoreBench:
    """An empty bench for a plan on loaded data."""
    # Only named here: its hash is pinned, and the workers that show it load it.
    other = Digits() if data.name.startswith("fashion") else FashionMini()
    choice = default_net(data.shape, device)
    net = plan.net or {"kind": choice.value}
    registry.check("nets", str(net["kind"]))
    suited = default_recipe(str(net["kind"]), data.shape, len(data.train))
    recipe = plan.recipe or suited.value
    choices = [
        f"device {device}: " + ("no GPU that torch can use" if device == "cpu" else "torch can use it"),
        f"net {net['kind']}: {choice.reason if plan.net is None else 'asked for'}",
        f"recipe: {suited.reason if plan.recipe is None else 'given by the plan'}",
        "one thread per training, parallel over trainings: results do not depend on the number of cores",
    ]
    setting = Setting(
        dataset=data.name,
        shape=data.shape,
        classes=data.classes,
        train_counts=tuple(np.bincount(data.train.y_N, minlength=data.num_classes).tolist()),
        attack=plan.attack,
        effort=plan.effort,
        seeds=plan.seeds,
        arms_seeds=plan.arms_seeds,
        population=plan.population,
        only_attack=plan.only_attack,
        object_box=_object_box(data.train.quad_N42),
    )
    return StoreBench(plan, setting, Parts(data, other, net, recipe, device, choices), store)


def _object_box(quad_N42: np.ndarray | None) -> tuple[float, float, float] | None:
    if quad_N42 is None:
        return None
    x, y = quad_N42.mean(axis=(0, 1)).tolist()
    return x, y, float((quad_N42.max(axis=1) - quad_N42.min(axis=1)).mean())


def _decide_all(bench: StoreBench, claims: list[Claim], site: Site, audience: Audience, stop: StopRequest) -> list[Evidence]:
    jobs = bench.jobs(str(site.data) if site.data else None)
    audience.started(claims, len(jobs), bench.stored(jobs))
    decided: dict[str, Evidence] = {}

    def decide_ready() -> None:
        for claim in claims:
            if claim.kind not in decided and (claim.obstacle(bench.setting) or bench.ready(claim)):
                decided[claim.kind] = claim.decide(bench)
                audience.decided(decided[claim.kind])

    decide_ready()
    for done, left in work_through(bench, jobs, site, stop):
        decide_ready()
        audience.progress(done, len(jobs), left)
    return family_wise([decided[claim.kind] for claim in claims])


def _record(plan: Plan, bench: StoreBench, evidence: list[Evidence], key: str, seconds: float) -> Record:
    data = bench.parts.data
    undecided = [f"{e.sentence} {e.reason}" for e in evidence if e.verdict is Verdict.UNDECIDED]
    splits = {"train": data.train, "budget": data.budget, "validation": data.validation, "test": data.test}
    config: dict[str, Any] = {
        **plan.model_dump(mode="json"),
        "net": bench.parts.net,
        "recipe": bench.parts.recipe.model_dump(mode="json"),
        "data": {"name": data.name, "sha256": data.sha256, "source": data.source, "licence": data.licence},
        "splits": {name: {"images": len(s), "rows_sha256": key_of(s.rows.tolist())} for name, s in splits.items()},
        "seed_list": list(range(max(plan.seeds, plan.population))),
        "code": code_digest(),
        "device": bench.parts.device,
    }
    return Record(
        key=key,
        plan=plan.name,
        config=config,
        claims=evidence,
        gallery=gallery(bench),
        undecided=undecided,
        hardware=describe(),
        versions=versions(),
        choices=sorted({*bench.parts.choices, *bench.worker_choices()}),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    )
