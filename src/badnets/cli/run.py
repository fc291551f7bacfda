"""`badnets run`: plant, measure, decide; a live scoreboard on the terminal, a Record in the store, an HTML report on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from badnets.core.errors import UsageError


def run(
    dataset: str | None = None,
    *,
    data: Path | None = None,
    effort: Literal["quick", "standard", "thorough"] | None = None,
    plan: str | None = None,
    claims: str | None = None,
    attack: str | None = None,
    net: str | None = None,
    store: Path | None = None,
    json: bool = False,
) -> None:
    """Plant the backdoor, measure the claims against clean twins, and write a report.

    Parameters
    ----------
    dataset
        A data set of `badnets list datasets`; by default what --data holds, else that of the plan, mostly the embedded fashion_mini.
    data
        A folder to find the data in: original files, or one sub-folder of images per class.
    effort
        The one dial: quick (some minutes; the default), standard (all cells; an hour), thorough (figures to publish; hours).
    plan
        A plan of `badnets list plans`; --effort names one of them, so give one or the other.
    claims
        Only these claims, separated by commas.
    attack
        An attack or a label map with fields, as badnets:rate=0.05 or all_to_all or badnets:trigger=blend.
    net
        A net of `badnets list nets`, as preact_resnet18 or small_vit:depth=4.
    store
        Folder of results; $BADNETS_HOME or the user's data folder by default.
    json
        Print the Record as one JSON document on stdout and nothing else there.
    """
    from badnets.cli._choose import choose_dataset, choose_plan
    from badnets.cli._output import open_store, print_json, print_scorecard, write_reports
    from badnets.cli._scoreboard import Scoreboard
    from badnets.plans._run import Site, execute
    from badnets.plans._stop import Stopped, StopRequest

    if plan is not None and effort is not None:
        raise UsageError("E-USAGE", "expected --plan or --effort, got both.", hint="Leave one out: --effort quick is --plan quick.")
    chosen, folder = choose_dataset(dataset, data) if dataset or data else (None, None)
    wanted = choose_plan(plan or effort or "quick", {"dataset": chosen, "claims": claims, "attack": attack, "net": net})
    results = open_store(store)
    stop = StopRequest()
    with stop.installed(), Scoreboard(title=f"{wanted.name} on {wanted.dataset.kind}") as scoreboard:
        try:
            record = execute(wanted, Site(results, folder), scoreboard, stop)
        except Stopped as stopped:
            scoreboard.close()
            print("Stopped. What is done is kept: the same command continues.", file=sys.stderr)
            sys.exit(128 + stopped.signum)
    (print_json if json else print_scorecard)(record)
    # The figures first: they are there also when the disk refuses the report.
    page, _ = write_reports(results, record)
    print(f"Report: {page}", file=sys.stderr if json else sys.stdout)
