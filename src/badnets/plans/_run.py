"""Executes a Plan: loads, schedules what the store lacks, decides each claim as soon as its outcomes are there, writes the Record."""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from badnets.claims._base import Claim, Setting, family_wise
from badnets.core import registry
from badnets.core.config import key_of
from badnets.core.engine import Engine, JobResult, ProcessEngine
from badnets.core.errors import PartialError, StoreError, UsageError
from badnets.core.hardware import code_digest, describe, package_digest, versions
from badnets.core.store import Store
from badnets.core.types import Evidence, Record, Verdict
from badnets.datasets._base import ImageSet
from badnets.datasets.digits import Digits
from badnets.datasets.fashion_mini import FashionMini
from badnets.plans._bench import Parts, StoreBench, early_needs, later_needs
from badnets.plans._gallery import gallery
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


@dataclass(frozen=True)
class Site:
    """Where a run takes place: its store, the folder the user named for data, the engine (None: a process a core)."""

    store: Store
    data: Path | None = None
    engine: Engine | None = None


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
    bench = _bench(plan, data, site, device)  # before the lock, because it refuses what cannot be, and then nothing is written
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


def _bench(plan: Plan, data: ImageSet, site: Site, device: str) -> StoreBench:
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
    )
    plan.attack.poison(data.train.x_NCHW, data.train.y_N, num_classes=data.num_classes, seed=0)  # refuses what does not fit, here not later
    return StoreBench(plan, setting, Parts(data, other, net, recipe, device, choices), site.store)


def _decide_all(bench: StoreBench, claims: list[Claim], site: Site, audience: Audience, stop: StopRequest) -> list[Evidence]:
    jobs = bench.jobs(str(site.data) if site.data else None)
    audience.started(claims, len(jobs), len(bench.tasks) - len({job.key for job in jobs}))
    decided: dict[str, Evidence] = {}

    def decide_ready() -> None:
        for claim in claims:
            if claim.kind not in decided and (claim.obstacle(bench.setting) or bench.ready(claim)):
                decided[claim.kind] = claim.decide(bench)
                audience.decided(decided[claim.kind])

    decide_ready()
    start, failures = time.perf_counter(), []
    results = (site.engine or ProcessEngine()).run(jobs)
    for done, result in enumerate(_until_stopped(results, stop), start=1):
        if result.failure is not None:
            failures.append(result)
        else:
            bench.receive(result)
            decide_ready()
        audience.progress(done, len(jobs), (time.perf_counter() - start) / done * (len(jobs) - done))
    if failures:
        _report_failures(failures, len(jobs))
    return family_wise([decided[claim.kind] for claim in claims])


def _until_stopped(results: Generator[JobResult], stop: StopRequest) -> Iterator[JobResult]:
    """Results one by one; a stop request ends the wait for the next, never the keeping of one that came."""
    try:
        while True:
            with stop.interruptible():
                result = next(results, None)
            if result is None:
                return
            yield result
    finally:
        results.close()


def _report_failures(failures: list[JobResult], jobs: int) -> None:
    first = failures[0].failure
    assert first is not None
    if isinstance(first, UsageError) or len(failures) == jobs:
        raise first
    message = f"{len(failures)} of {jobs} trainings failed, the first with: {first}"
    raise PartialError("E-PARTIAL", message, hint="What succeeded is kept: run the same command again.")


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
