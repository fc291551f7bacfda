"""`badnets repair`: try blind repairs on a net, keep the best by clean criteria, write it with a report of before and after."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from badnets.core.errors import UsageError


def repair(
    model: Path,
    dataset: str | None = None,
    *,
    out: Path,
    data: Path | None = None,
    net: str | None = None,
    normalize: str | None = None,
    channels: Literal["rgb", "bgr"] = "rgb",
    arch: Path | None = None,
    require_sandbox: bool = False,
    json: bool = False,
) -> None:
    """Repair a net with clean images and no knowledge of a trigger.

    Parameters
    ----------
    model
        A file of weights, see docs/model-files.md for the formats.
    dataset
        The data set that the net is for; by default what --data holds, else fashion_mini.
    out
        Folder to write the repaired net and the report to; it must not hold one yet.
    data
        A folder to find clean images in.
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
    json
        Print the report as one JSON document on stdout and nothing else there.
    """
    from badnets.cli._choose import choose_dataset, choose_net, choose_normalization
    from badnets.cli._output import print_json
    from badnets.cli._verdicts import print_tried
    from badnets.plans._model_file import Told, open_model
    from badnets.plans._repair import REPORT, Report, repair_model

    if out.exists() and (not out.is_dir() or (out / REPORT).exists()):
        what = "holds a report already" if out.is_dir() else "is a file, expected a folder"
        raise UsageError("E-EXISTS", f"{str(out)!r:.200} {what}.", hint="Name another --out.")
    chosen, folder = choose_dataset(dataset, data)
    loaded = chosen.load(folder)
    named, normalization = choose_net(net) if net else None, choose_normalization(normalize, loaded.shape[0]) if normalize else None
    opened = open_model(model, loaded, named, normalization=normalization, require_sandbox=require_sandbox, told=Told(arch, channels))
    for step in repair_model(opened, loaded, out):
        if isinstance(step, Report):
            if json:
                print_json(step)
            else:
                kept = f"Kept {step.chosen}" if step.chosen else "Nothing was kept: no repair was better by clean criteria"
                print(f"{kept}. Report: {out / REPORT}")
        else:
            print_tried(step, file=sys.stderr if json else sys.stdout)
