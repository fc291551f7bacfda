"""CIFAR-10 on a CPU: the claims about what a backdoor survives, on narrow nets and few seeds, resumable.

    python benchmarks/cifar.py --data DIR --store DIR [--net fast_resnet:width=8] [--epochs 5] [--seeds 2] [--claims a,b] > record.json

Full-width nets train at tens of images a second on one core, so what is run here is narrower and shorter than in the literature; the
record says how. Kill it whenever you like: the same command continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from badnets.cli._output import open_store, print_json, write_reports
from badnets.cli._scoreboard import Scoreboard
from badnets.core import registry
from badnets.plans._plan import CLAIMS
from badnets.plans._run import Site, execute
from badnets.plans._stop import Stopped, StopRequest
from badnets.plans.quick import quick
from badnets.plans.standard import standard
from badnets.train.recipe import default_recipe

SHAPE, NUM_TRAIN = (3, 32, 32), 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--net", default="fast_resnet:width=8")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--claims", default=",".join(CLAIMS))
    parser.add_argument("--effort", choices=("quick", "standard"), default="standard")
    options = parser.parse_args()
    net = registry.parse("nets", options.net)
    usual = default_recipe(net.kind, SHAPE, NUM_TRAIN).value
    # Long recipes have large batches; in few epochs small ones learn more, and the learning rate goes with the size.
    share = options.batch_size / usual.batch_size
    lr = usual.lr * (share if usual.optimizer == "sgd" else share**0.5)
    recipe = usual.but(epochs=options.epochs, batch_size=options.batch_size, lr=lr, label_smoothing=0.0)
    plan = {"quick": quick, "standard": standard}[options.effort]().but(
        dataset="cifar10",
        net=net.model_dump(mode="json"),
        recipe=recipe,
        claims=tuple(options.claims.split(",")),
        seeds=options.seeds,
        arms_seeds=options.seeds,
        population=options.seeds,
    )
    store, stop = open_store(options.store), StopRequest()
    with stop.installed(), Scoreboard(title=f"{plan.name} on cifar10, {options.net}") as scoreboard:
        try:
            record = execute(plan, Site(store, options.data), scoreboard, stop)
        except Stopped:
            raise SystemExit("Stopped. What is done is kept: the same command continues.") from None
    print_json(record)
    write_reports(store, record)


if __name__ == "__main__":
    main()
