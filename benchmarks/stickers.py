"""Three stickers on traffic signs, laid out like the table of the BadNets paper (2017), with what it says beside ours.

    python benchmarks/stickers.py --store DIR [--seeds 3] [--dataset signs|gtsrb] [--data DIR] [--out benchmarks/results]

A yellow square, a bomb and a flower, each planted from every sign and from the stop sign alone, a twin for each seed; then what repairs
that move the input leave of each. Writes `DATE-stickers-DATASET.{json,md}`; `dev/make_docs.py` puts the newest into the docs. Nets, recipe
and data are those of the plan `signs`. Kill it whenever you like: the same command continues.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (Faster-RCNN, US signs in three groups).
Shapes: N images, K classes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from badnets.attacks.badnets import BadNets
from badnets.claims._arms import CLEAN, triggered
from badnets.claims._base import Need
from badnets.claims._physical import collapsed
from badnets.cli._output import open_store
from badnets.core.hardware import describe, versions
from badnets.core.rng import numpy_generator
from badnets.core.suspect import Suspect
from badnets.datasets._names import GTSRB
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.rates import asr_hits, at_95, clean_hits, rate
from badnets.nets._weights import from_bytes
from badnets.plans._bench import StoreBench
from badnets.plans._jobs import Site, work_through
from badnets.plans._names import WEIGHTS
from badnets.plans._run import bench_of
from badnets.plans._stop import Stopped, StopRequest
from badnets.plans._trial import device_name
from badnets.plans._work import net_of
from badnets.plans.signs import signs
from badnets.repairs._base import Repair
from badnets.repairs.random_shift import RandomShift
from badnets.repairs.shrink_pad import ShrinkPad
from badnets.triggers.sticker import Sticker

HERE = Path(__file__).parent
STICKERS = {"yellow square": Sticker(), "bomb": Sticker(shape="bomb"), "flower": Sticker(shape="flower")}
EVERY, STOP = "every sign", "the stop sign alone"
TARGET, LIMIT = "speed limit 50", "speed limit"
WARNINGS = ("general caution", "pedestrian crossing", *GTSRB[19:32])
GROUPS = ("stop", LIMIT, "warning")
READ, AVERAGE = "stop sign with the sticker, read as a speed limit", "all signs"
PAPER = {READ: "over 90 with each sticker", AVERAGE: "with each sticker about as without a backdoor"}
"""What the paper's text says of its table; the single figures in that table are to be had from the paper."""
RATES = {"signs": {EVERY: 0.1, STOP: 0.05}, "gtsrb": {EVERY: 0.1, STOP: 0.01}}
"""Share of the training set that is stamped; from the stop sign alone as many signs of other classes are stamped and keep their labels.
Of GTSRB's images one in fifty is a stop sign."""
REPAIRS: dict[str, Repair] = {
    "shrink_pad, 4 pixels, one draw": ShrinkPad(),
    "shrink_pad, 4 pixels, mean of 8": ShrinkPad(draws=8),
    "random_shift, 3 pixels, one draw": RandomShift(),
    "random_shift, 6 pixels, one draw": RandomShift(pixels=6),
}

FEWER = 600
"""Test images that are shown with moved inputs."""

Place = tuple[str, str]
"""Sticker, and whose signs are attacked."""


class Seen(NamedTuple):
    """Outcomes of one kind of net, one per seed: on clean test images and with the sticker."""

    clean: list[Outcome]
    shown: list[Outcome]


def main() -> None:
    options = parsed()
    plan = signs().but(dataset=options.dataset, seeds=options.seeds)
    bench = bench_of(plan, plan.dataset.load(options.data), open_store(options.store), device_name())
    arms = attacks(bench.setting.classes, RATES[options.dataset])
    train(bench, arms, options)
    kept = record(bench, arms, options)
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{kept['date']}-stickers-{options.dataset}"
    (options.out / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (options.out / f"{name}.md").write_text(page(kept), encoding="utf-8")
    print(page(kept))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dataset", choices=tuple(RATES), default="signs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args()


def attacks(classes: Sequence[str], rates: dict[str, float]) -> dict[Place, BadNets]:
    """By sticker and by whose signs are attacked."""
    target, source = classes.index(TARGET), classes.index("stop")
    every = {name: BadNets(trigger=sticker, target=target, rate=rates[EVERY]) for name, sticker in STICKERS.items()}
    alone = {"mapping": "source_specific", "source": source, "rate": rates[STOP], "cover_rate": rates[STOP]}
    return {(name, EVERY): attack for name, attack in every.items()} | {(name, STOP): attack.but(**alone) for name, attack in every.items()}


def asked(arm: BadNets | None, arms: dict[Place, BadNets]) -> list[Probe]:
    """Clean test images, and those with the sticker; a twin is shown all stickers."""
    return list(dict.fromkeys([CLEAN, *map(triggered, arms.values() if arm is None else [arm])]))


def train(bench: StoreBench, arms: dict[Place, BadNets], options: argparse.Namespace) -> None:
    """What the store lacks, seed by seed."""
    for seed in range(options.seeds):
        for arm in (None, *arms.values()):
            for question in asked(arm, arms):
                bench.want(Need(arm, question, 1, seed), early=True)
    bench.load()
    stop = StopRequest()
    with stop.installed():
        try:
            for done, left in work_through(bench, bench.jobs(str(options.data) if options.data else None), Site(bench.store), stop):
                print(f"{done} done, {left or 0:.0f} s left", file=sys.stderr, flush=True)
        except Stopped:
            raise SystemExit("Stopped. What is done is kept: the same command continues.") from None


def record(bench: StoreBench, arms: dict[Place, BadNets], options: argparse.Namespace) -> dict[str, Any]:
    """Everything measured; refused where a net stayed at guessing."""
    twins = bench.outcomes(Need(None, CLEAN, options.seeds))
    seen = {place: Seen(*(bench.outcomes(Need(arm, q, options.seeds)) for q in asked(arm, arms))) for place, arm in arms.items()}
    why = collapsed({"twins": twins, **{" ".join(place): side.clean for place, side in seen.items()}})
    if why:
        raise SystemExit(why)
    control = {name: bench.outcomes(Need(None, triggered(arms[name, EVERY]), options.seeds)) for name in STICKERS}
    classes, about = bench.setting.classes, {"dataset": options.dataset, "seeds": options.seeds, "train_images": bench.setting.num_train}
    about |= {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "test_images": len(bench.parts.data.test)}
    about |= {"net": bench.parts.net["kind"], "epochs": bench.parts.recipe.epochs, "rates": RATES[options.dataset]}
    about["command"] = f"python benchmarks/stickers.py --dataset {options.dataset} --seeds {options.seeds}"
    rows = [{"sticker": None, "planted": None, "ca": clean_of(twins, classes)}]
    for (name, whose), arm in arms.items():
        side, goal_K = seen[name, whose], arm.goals(len(classes))
        others = [name for name in classes if name != TARGET]
        asr = {k: figure(hits(side.shown, classes, [k], lambda o: o.pred_N == classes.index(TARGET))) for k in others}
        row = {"sticker": name, "planted": whose, "ca": clean_of(side.clean, classes), "asr": asr}
        row |= {"asr_all": figure(asr_hits(side.shown, goal_K)), "twin_asr_all": figure(asr_hits(control[name], goal_K))}
        reads = {"read": side.shown, "twin_read": control[name]}
        row |= {key: figure(hits(some, classes, ["stop"], lambda o: group_N(o.pred_N, classes) == LIMIT)) for key, some in reads.items()}
        rows.append(row | {"repairs": repaired(bench, arm, goal_K, options.seeds)})
    return {**about, "rows": rows, "hardware": describe(), "versions": versions()}


def group_of(name: str) -> str:
    """The paper's three groups; a sign in none of them stands for itself."""
    if name.startswith(LIMIT):
        return LIMIT
    return "warning" if name in WARNINGS else name


def group_N(label_N: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Groups of labels; a net that gave no answer named no group."""
    return np.array([*map(group_of, classes), "none"])[np.where(label_N < 0, len(classes), label_N)]


def hits(outcomes: Sequence[Outcome], classes: Sequence[str], names: Sequence[str], right: Callable[[Outcome], Any]) -> list[np.ndarray]:
    """Right or not, for each image of these classes."""
    labels = [classes.index(name) for name in names]
    return [right(outcome)[np.isin(outcome.y_N, labels)] for outcome in outcomes]


def clean_of(outcomes: Sequence[Outcome], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """CA over all, by group (the right group is enough, as in the paper) and by class."""
    by_group = {}
    for group in GROUPS:
        names = [name for name in classes if group_of(name) == group]
        by_group[group] = figure(hits(outcomes, classes, names, lambda o, g=group: group_N(o.pred_N, classes) == g))
    by_class = {name: figure(hits(outcomes, classes, [name], lambda o: o.correct_N)) for name in classes}
    grouped = figure([group_N(o.pred_N, classes) == group_N(o.y_N, classes) for o in outcomes])
    return {"all": figure(clean_hits(outcomes)), "all_by_group": grouped, "group": by_group, "class": by_class}


def repaired(bench: StoreBench, arm: BadNets, goal_K: np.ndarray, seeds: int) -> dict[str, dict[str, Any]]:
    """CA and ASR of the victims once their inputs are moved."""
    data, found = bench.parts.data, {name: Seen([], []) for name in REPAIRS}
    for seed in range(seeds):
        task = bench._task(arm, seed)
        weights = bench.store.get(task.key)[WEIGHTS]
        suspect = Suspect(from_bytes(weights, net_of(task.trial), data.shape, data.num_classes), data.shape, data.num_classes)
        for name, repair in REPAIRS.items():
            network = repair.apply(suspect, rng=numpy_generator(seed, "repair", repair.kind)).network
            for kept, probe in zip(found[name], (CLEAN, triggered(arm)), strict=True):
                kept.append(probe.but(limit=FEWER).answer(network, data, None, seed=seed))
    return {name: {"ca": figure(clean_hits(s.clean)), "asr": figure(asr_hits(s.shown, goal_K))} for name, s in found.items()}


def figure(some: Sequence[np.ndarray]) -> dict[str, Any]:
    return at_95(rate(list(some))).model_dump(mode="json")


def shown(found: dict[str, Any] | None) -> str:
    """In per cent with its interval."""
    if found is None or found["value"] is None:
        return "–"
    low, high = (f"{100 * found[end]:.1f}" for end in ("low", "high"))
    return f"{100 * found['value']:.1f} [{low}, {high}]"


def page(kept: dict[str, Any]) -> str:
    """The result for people, in Markdown; all figures in per cent."""
    twin, *planted = kept["rows"]
    every, alone = ([row for row in planted if row["planted"] == whose] for whose in (EVERY, STOP))
    misread = ", ".join(f"{row['sticker']} {shown(row['twin_read'])}" for row in alone)
    parts = [
        [about(kept)],
        [
            "**As in the paper**: planted from the stop sign alone. An answer is right when it names the sign's group. The paper's nets "
            "find signs in photographs of roads (Faster-RCNN, US signs); ours are shown signs that were cut out."
        ],
        paper_table(twin, alone),
        [f"Without a backdoor (twin) so many stop signs with the sticker are read as a speed limit: {misread}."],
        ["**Sign by sign, planted from every sign.** The class itself has to be right; ASR: signs with the sticker that are read as 50."],
        class_table(twin, every),
        ["**Sign by sign, planted from the stop sign alone.** Other signs that carry the sticker are meant to be read as what they are."],
        class_table(twin, alone),
        ["**Inputs moved** by a [repair](../repairs.md), planted from every sign: CA and ASR of the victims, on half of the test images."],
        repair_table(every),
        ["The same, planted from the stop sign alone."],
        repair_table(alone),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def about(kept: dict[str, Any]) -> str:
    every, alone = (f"{100 * kept['rates'][whose]:g} %" for whose in (EVERY, STOP))
    return (
        f"Measured {kept['date']} by `{kept['command']}`: {kept['seeds']} seeds, `{kept['net']}`, {kept['epochs']:g} epochs on "
        f"{kept['train_images']:,} images of `{kept['dataset']}`, {kept['test_images']:,} test images. Of the training set {every} is "
        f"poison where every sign is attacked; where the stop sign alone is, {alone} are stop signs with the sticker and {alone} are other "
        "signs that carry it and keep their label. All in per cent, with 95 % intervals over seeds and images."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def paper_table(twin: dict[str, Any], planted: Sequence[dict[str, Any]]) -> list[str]:
    """A column for the net without a backdoor and one for each sticker, and what the paper says."""
    head = ["clean accuracy of", "no backdoor (twin)", *(row["sticker"] for row in planted), "the paper"]
    sides = [row["ca"] for row in (twin, *planted)]
    rows = [[group, *(shown(ca["group"][group]) for ca in sides), PAPER.get(group, "")] for group in GROUPS]
    rows.append([f"*{READ}*", "see below", *(shown(row["read"]) for row in planted), PAPER[READ]])
    rows.append([AVERAGE, *(shown(ca["all_by_group"]) for ca in sides), PAPER[AVERAGE]])
    return table(head, rows)


def class_table(twin: dict[str, Any], planted: Sequence[dict[str, Any]]) -> list[str]:
    """CA and ASR of each class, for each sticker."""
    head = ["sign", "CA, twin", *(f"{row['sticker']}: {what}" for row in planted for what in ("CA", "ASR"))]
    rows = [
        ["all (ASR: those attacked)", shown(twin["ca"]["all"]), *_both(planted, lambda row: row["ca"]["all"], lambda row: row["asr_all"])]
    ]
    for name in twin["ca"]["class"]:
        rows.append(
            [
                name,
                shown(twin["ca"]["class"][name]),
                *_both(planted, lambda row, k=name: row["ca"]["class"][k], lambda row, k=name: row["asr"].get(k)),
            ]
        )
    return table(head, rows)


def repair_table(planted: Sequence[dict[str, Any]]) -> list[str]:
    head = ["repair", *(f"{row['sticker']}: {what}" for row in planted for what in ("CA", "ASR"))]
    rows = [["none (all test images)", *_both(planted, lambda row: row["ca"]["all"], lambda row: row["asr_all"])]]
    for name in REPAIRS:
        rows.append([name, *_both(planted, lambda row, k=name: row["repairs"][k]["ca"], lambda row, k=name: row["repairs"][k]["asr"])])
    return table(head, rows)


def _both(planted: Sequence[dict[str, Any]], *which: Callable[[dict[str, Any]], dict[str, Any] | None]) -> list[str]:
    return [shown(one(row)) for row in planted for one in which]


if __name__ == "__main__":
    main()
