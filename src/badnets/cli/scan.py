"""`badnets scan`: is this net, or this training set, backdoored? Blind, with p-values, a cost for each answer, and an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from badnets.core.errors import UsageError

if TYPE_CHECKING:
    from badnets.claims._base import Effort
    from badnets.datasets._base import Dataset
    from badnets.plans._jobs import Site
    from badnets.plans._model_file import ModelFile
    from badnets.plans._null import Kind

FINDING, NOT_ANALYSABLE = 1, 3


def scan(
    model: Path | None = None,
    dataset: str | None = None,
    *,
    data: Path | None = None,
    net: str | None = None,
    normalize: str | None = None,
    channels: Literal["rgb", "bgr"] = "rgb",
    arch: Path | None = None,
    require_sandbox: bool = False,
    effort: Literal["quick", "standard", "thorough"] = "quick",
    store: Path | None = None,
    json: bool = False,
) -> None:
    """Look for a backdoor in a net, or (with --dataset and no net) in training data.

    Parameters
    ----------
    model
        A file of weights, parsed in a sandbox. Exit status: 0 nothing found, 1 backdoored, 3 refused or not analysable.
    dataset
        The data set that the net is for, by name; or, without a net, the training data to be looked through (a name or a folder).
    data
        A folder to find the data in.
    net
        The net's architecture with fields, as fast_resnet:width=8, where it cannot be told from the file.
    normalize
        Where the file does not say: MEAN/STD of pixels in 0..1, as 0.1307/0.3081, or 0..1, 0..255, -1..1, imagenet; else all are tried.
    channels
        The order in which the net reads colours: rgb, or bgr as OpenCV has them.
    arch
        A TOML file that describes the net's layers, where they cannot be told from the file: see docs/model-files.md.
    require_sandbox
        Refuse to read the file where the system cannot give the whole sandbox.
    effort
        How many clean nets the verdict is a rank among: quick 39, standard 99, thorough 199. They are trained once and kept.
    store
        Folder of results; $BADNETS_HOME or the user's data folder by default.
    json
        Print the verdict as one JSON document on stdout and nothing else there.
    """
    from badnets.cli._choose import choose_dataset, choose_net, choose_normalization
    from badnets.cli._output import open_store
    from badnets.plans._jobs import Site
    from badnets.plans._model_file import Told, open_model
    from badnets.plans._null import Kind

    if model is None and dataset is None and data is None:
        hint = "Try `badnets plant --out x` and `badnets scan x/victim.safetensors`."
        raise UsageError("E-USAGE", "expected a net or training data to scan, got neither.", hint=hint)
    is_folder = model is None and dataset is not None and Path(dataset).is_dir()
    chosen, folder = choose_dataset(None, Path(dataset or "")) if is_folder else choose_dataset(dataset, data)
    site = Site(open_store(store), folder)
    if model is None:
        _scan_rows(chosen, site, json=json)
        return
    loaded = chosen.load(folder)
    named, normalization = choose_net(net) if net else None, choose_normalization(normalize, loaded.shape[0]) if normalize else None
    opened = open_model(model, loaded, named, normalization=normalization, require_sandbox=require_sandbox, told=Told(arch, channels))
    _scan_model(opened, Kind(chosen, loaded, opened.net), site, effort, json=json)


def _scan_model(opened: ModelFile, kind: Kind, site: Site, effort: Effort, *, json: bool) -> None:
    from badnets.cli._output import print_json
    from badnets.cli._progress import Progress
    from badnets.cli._verdicts import print_verdict, write_pictures
    from badnets.plans._null import null_population, suited
    from badnets.plans._scan import DETECTORS, scan_model

    with Progress("clean nets to compare with") as progress:
        null = null_population(kind, suited(opened.network, DETECTORS), effort, site, progress)
    found = scan_model(opened, kind.data, null)
    written = write_pictures(site.store.root / "scans" / opened.sha256[:12], found.pictures)
    if json:
        print_json(found.verdict)
    else:
        print_verdict(found.verdict, found.pictures, written)
    sys.exit(NOT_ANALYSABLE if found.verdict.flagged is None else FINDING if found.verdict.flagged else 0)


def _scan_rows(chosen: Dataset, site: Site, *, json: bool) -> None:
    from badnets.cli._output import print_json
    from badnets.cli._verdicts import print_rows
    from badnets.plans._scan_rows import scan_rows, write_rows

    loaded = chosen.load(site.data)
    found = scan_rows(loaded)
    written = write_rows(site.store.root / "scans" / loaded.sha256[:12], found)
    if json:
        print_json(found.verdict)
    else:
        print_rows(found.verdict, written)
    sys.exit(FINDING if found.verdict.flagged else 0)
