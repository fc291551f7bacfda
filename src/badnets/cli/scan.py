"""`badnets scan`: are these nets, or this training set, backdoored? Blind, with p-values, a cost for each answer, and an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from badnets.cli._scans import Outputs
    from badnets.core.store import Store
    from badnets.datasets._base import Dataset
    from badnets.intake.found import Found
    from badnets.intake.unlabelled import Unlabelled
    from badnets.plans._jobs import Site
    from badnets.plans._scan_many import Asked
    from badnets.plans._scan_work import Opening


def scan(
    *models: Path,
    dataset: str | None = None,
    data: Path | None = None,
    images: Path | None = None,
    net: str | None = None,
    normalize: str | None = None,
    channels: Literal["rgb", "bgr"] = "rgb",
    arch: Path | None = None,
    require_sandbox: bool = False,
    effort: Literal["quick", "standard", "thorough"] = "quick",
    sarif: Path | None = None,
    html: Path | None = None,
    store: Path | None = None,
    json: bool = False,
) -> None:
    """Look for a backdoor in nets, or (with --dataset and no net) in training data.

    Parameters
    ----------
    models
        Files of weights (parsed in a sandbox, never unpickled), model folders, folders of them. Exit status: 0 nothing found,
        1 backdoored, else 6 something failed, else 3 refused or not analysable. The same command goes on where it was stopped.
    dataset
        The nets' data set by name (else what --data holds, else fashion_mini); without a net: the training data, a name or a folder.
    data
        A folder to find the data in.
    images
        A flat folder of images without labels, for the detectors to look at in place of clean ones of the data set.
    net
        The nets' architecture with fields, as fast_resnet:width=8, or timm's as timm:NAME, where it cannot be told from the file.
    normalize
        Where the file does not say: MEAN/STD of pixels in 0..1 (0.1307/0.3081), 0..1, 0..255, -1..1 or imagenet; else all are tried.
    channels
        The order in which the net reads colours: rgb, or bgr as OpenCV has them.
    arch
        A TOML file that describes the net's layers, where they cannot be told from the file: see docs/model-files.md.
    require_sandbox
        Refuse to read a file where the system cannot give the whole sandbox.
    effort
        How many clean nets the verdict is a rank among: quick 39, standard 99, thorough 199. They are trained once and kept.
    sarif
        A file for findings and refusals as SARIF 2.1.0, for code scanning.
    html
        Write the page of the scan to this file; by default it goes into the store.
    store
        Folder of results; $BADNETS_HOME or the user's data folder by default.
    json
        Print the verdict as one JSON document on stdout and nothing else there; for folders and several files one of all.
    """
    from badnets.cli import _output, _scans, _unlabelled
    from badnets.plans._scan_many import Asked

    (outputs := _scans.Outputs(sarif, html, json)).check()
    paths, found, chosen, folder = _scans.look_for(models, dataset, data, images)
    site = _output.open_site(store, folder)
    if not paths:
        _scan_rows(chosen, site, outputs)
    opening = _opening((loaded := chosen.load(folder)).shape[0], net, normalize, arch, channels=channels, require_sandbox=require_sandbox)
    _scan_files(found, Asked(chosen, loaded, opening, effort, _unlabelled.read(images, loaded)), site, outputs, named=found.inputs == paths)


def _opening(
    num_channels: int, net: str | None, normalize: str | None, arch: Path | None, *, channels: str, require_sandbox: bool
) -> Opening:
    from badnets.cli._choose import choose_normalization, choose_theirs
    from badnets.intake.arch_file import read_architecture
    from badnets.plans._scan_work import Opening

    return Opening(
        net=choose_theirs(net) if net else None,
        normalization=choose_normalization(normalize, num_channels) if normalize else None,
        arch=read_architecture(arch)._asdict() if arch else None,
        channels=channels,
        require_sandbox=require_sandbox,
    )


def _scan_files(found: Found, asked: Asked, site: Site, outputs: Outputs, *, named: bool) -> None:
    from badnets.cli._output import print_json
    from badnets.cli._progress import Progress
    from badnets.cli._scans import Watched, print_scans
    from badnets.cli._verdicts import print_verdict, write_pictures
    from badnets.plans._scan_many import scan_files
    from badnets.plans._scan_record import Clock, record_of

    clock = Clock()
    with Progress("files") as progress:
        scanned = scan_files(found.inputs, asked, site, Watched(progress))
    folders = {one.item.path: _folder(site.store, one.item.sha256, asked.images) for one in scanned}
    written = {one.item.path: write_pictures(folders[one.item.path], one.scan.pictures) for one in scanned if one.scan}
    record = record_of(scanned, found.passed_over, asked, clock)
    only = scanned[0] if named and len(scanned) == 1 else None
    if only is None:
        print_json(record.without_pictures()) if outputs.json else print_scans(record)
    elif only.scan is not None and outputs.json:
        print_json(only.scan.verdict)
    elif only.scan is not None:
        print_verdict(only.scan.verdict, only.scan.pictures, written[only.item.path])
    of_one = folders[only.item.path] if only and only.item.sha256 else None
    outputs.write(record, of_one or _folder(site.store, record.key), quiet=bool(only and only.error))
    if only is not None and only.error is not None:
        raise only.error
    sys.exit(record.exit_status)


def _scan_rows(chosen: Dataset, site: Site, outputs: Outputs) -> None:
    from badnets.cli._output import print_json
    from badnets.cli._verdicts import print_rows
    from badnets.plans._scan_record import Clock, record_of_rows
    from badnets.plans._scan_rows import kept_rows, write_rows

    clock = Clock()
    loaded = chosen.load(site.data)
    found = kept_rows(loaded, site.store)
    folder = _folder(site.store, loaded.sha256)
    written = write_rows(folder, found)
    if outputs.json:
        print_json(found.verdict)
    else:
        print_rows(found.verdict, written)
    record = record_of_rows(found, clock)
    outputs.write(record, folder, quiet=False)
    sys.exit(record.exit_status)


def _folder(store: Store, key: str, images: Unlabelled | None = None) -> Path:
    """One for each file, and another for each set of images that it was shown."""
    return store.root / "scans" / (key[:12] + (f"-{images.sha256[:12]}" if images else ""))
