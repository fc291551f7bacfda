"""Seconds per claim and where they go: one whole run into an empty store, with every worker's own clock.

`python benchmarks/claims.py [--plan quick] [--dataset fashion_mini] [--data DIR] [--claims a,b]`. A claim owns the questions that
only it asks and the trainings of nets that only it looks at; what several claims use is listed as shared. Prints a table and writes
`results/DATE-claims-PLAN-DATASET.{json,md}`.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import tempfile
import time
from pathlib import Path

from badnets.core import registry
from badnets.core.engine import Engine, ProcessEngine
from badnets.core.hardware import describe, versions
from badnets.core.store import Store
from badnets.plans import _run
from badnets.plans._names import question_name
from badnets.plans._stop import StopRequest

HERE = Path(__file__).parent


class Clocked(Engine):
    """The process engine, keeping what each job said of its time."""

    def __init__(self) -> None:
        self.trained, self.asked = {}, collections.Counter()

    def run(self, jobs):
        for result in ProcessEngine().run(jobs):
            if result.failure is None:
                if "losses" in result.info:
                    self.trained[result.key] = result.info["train_seconds"]
                for name, seconds in result.info["question_seconds"].items():
                    self.asked[result.key, name] += seconds
            yield result


class Clock:
    """When each verdict came."""

    def __init__(self) -> None:
        self.start, self.decided_at = time.perf_counter(), {}

    def started(self, claims, jobs, stored) -> None:
        self.jobs = jobs

    def progress(self, done, jobs, seconds_left) -> None:
        print(f"\r{done}/{jobs}", end="", flush=True)

    def decided(self, evidence) -> None:
        self.decided_at[evidence.name] = time.perf_counter() - self.start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", default="quick")
    parser.add_argument("--dataset", default="fashion_mini")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--claims")
    options = parser.parse_args()
    plan = registry.entry("plans", options.plan)().but(dataset=registry.parse("datasets", options.dataset))
    if options.claims:
        plan = plan.but(claims=tuple(options.claims.split(",")))
    engine, clock = Clocked(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        site = _run.Site(Store(Path(folder)), options.data, engine)
        record = _run.execute(plan, site, clock, StopRequest())
        wall = time.perf_counter() - clock.start
        rows = per_claim(plan, site, engine, clock)
    verdicts = {evidence.name: str(evidence.verdict) for evidence in record.claims}
    kept = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "plan": plan.name, "dataset": plan.dataset.kind}
    kept |= {"hardware": describe(), "versions": versions(), "wall_seconds": wall, "jobs": clock.jobs, "claims": rows, "verdicts": verdicts}
    text = table(kept)
    name = f"{kept['date']}-claims-{plan.name}-{plan.dataset.kind}"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (HERE / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)


def per_claim(plan, site, engine, clock) -> dict[str, dict[str, float]]:
    """Core-seconds of each claim's own trainings and own questions by kind; `shared` for what several claims use."""
    bench = _run._bench(plan, plan.dataset.load(site.data), site, _run.device_name())
    users, nets = collections.defaultdict(set), collections.defaultdict(set)
    for name in plan.claims:
        claim = _run._claim(name)
        for need in [] if claim.obstacle(bench.setting) else claim.needs(bench.setting):
            for key, _ in bench.want(need):
                users[key, question_name(need.question)].add(name)
                nets[key].add(name)
    rows = {name: collections.Counter() for name in (*plan.claims, "shared")}
    for key, seconds in engine.trained.items():
        rows[_owner(nets[key])]["training"] += seconds
    for (key, name), seconds in engine.asked.items():
        rows[_owner(users[key, name])][json.loads(name.partition(" ")[2])["kind"]] += seconds
    return {name: {**row, "total": sum(row.values()), "decided_at": clock.decided_at.get(name)} for name, row in rows.items()}


def _owner(claims: set[str]) -> str:
    return next(iter(claims)) if len(claims) == 1 else "shared"


def table(kept) -> str:
    kinds = sorted({k for row in kept["claims"].values() for k in row} - {"total", "decided_at"})
    lines = [
        f"# Seconds per claim, plan {kept['plan']} on {kept['dataset']}, {kept['date']}",
        "",
        "Hardware: " + ", ".join(f"{k} {v}" for k, v in kept["hardware"].items()) + f"; torch {kept['versions']['torch']}.",
        "",
        f"Whole run into an empty store: {kept['wall_seconds']:.1f} s of wall clock, {kept['jobs']} jobs, n = 1.",
        "Core-seconds in the workers; a claim owns what only it uses.",
        "",
        "| claim | verdict | " + " | ".join(kinds) + " | total | decided after (s) |",
        "|---|---|" + "---|" * (len(kinds) + 2),
    ]
    for name, row in kept["claims"].items():
        cells = [f"{row[k]:.1f}" if k in row else "" for k in kinds]
        after = "" if row["decided_at"] is None else f"{row['decided_at']:.0f}"
        lines.append(f"| {name} | {kept['verdicts'].get(name, '')} | " + " | ".join(cells) + f" | {row['total']:.1f} | {after} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
