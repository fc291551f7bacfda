"""`badnets repair`: try blind repairs on a net, keep the best by clean criteria, write it with a report of before and after."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from badnets.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from badnets.plans._repair import Report, Tried
    from badnets.plans._scan import Told


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
        A file of weights or the folder of a model, see docs/model-files.md for the formats.
    dataset
        The data set that the net is for; by default what --data holds, else fashion_mini.
    out
        Folder to write the repaired net and the report to; it must not hold one yet.
    data
        A folder to find clean images in.
    net
        The net's architecture with fields, as fast_resnet:width=8, or timm's as timm:NAME, where it cannot be told from the file.
    normalize
        How pixels in 0..1 are prepared, where the file does not say: MEAN/STD, as 0.1307/0.3081, with a number for each channel after
        commas, or one of 0..1, 0..255, -1..1 and imagenet. Without it the usual ones are tried on clean images.
    channels
        The order in which the net reads colours: rgb, or bgr as OpenCV has them.
    arch
        A TOML file that describes the net's layers, where they cannot be told from the file: see docs/model-files.md.
    require_sandbox
        Refuse to read the file where the system cannot give the whole sandbox.
    json
        Print the report as one JSON document on stdout and nothing else there.
    """
    from badnets.cli._choose import choose_dataset, choose_normalization, choose_theirs
    from badnets.cli._output import check_place
    from badnets.intake.arch_file import read_architecture
    from badnets.plans._model_file import Hints, read_net
    from badnets.plans._repair import REPORT, repair_file

    if out.exists() and (not out.is_dir() or (out / REPORT).exists()):
        what = "holds a report already" if out.is_dir() else "is a file, expected a folder"
        raise UsageError("E-EXISTS", f"{str(out)!r:.200} {what}.", hint="Name another --out.")
    check_place(out.absolute(), f"--out {str(out)!r:.200}")
    chosen, folder = choose_dataset(dataset, data)
    loaded = chosen.load(folder)
    normalization = choose_normalization(normalize, loaded.shape[0]) if normalize else None
    named, hints = choose_theirs(net) if net else None, Hints(read_architecture(arch) if arch else None, channels)
    file = read_net(model, named, require_sandbox=require_sandbox, hints=hints)
    try:
        _work(repair_file(file, loaded, normalization, out), out, json=json)
    except KeyboardInterrupt:
        print("Stopped. No report was written: the same command starts anew.", file=sys.stderr)
        sys.exit(130)


def _work(steps: Iterator[Told | Tried | Report], out: Path, *, json: bool) -> None:
    from badnets.cli._output import outside_store, print_json
    from badnets.cli._verdicts import print_opened, print_tried
    from badnets.core import files
    from badnets.plans._repair import REPORT, WEIGHTS, Report, Tried
    from badnets.report.repaired import render_repair

    told = sys.stderr if json else sys.stdout
    with outside_store("--out"):
        for step in steps:
            if isinstance(step, Tried):
                print_tried(step, file=told)
                continue
            if not isinstance(step, Report):
                print_opened(step, file=told)
                continue
            files.write_text(out / REPORT, render_repair(step))
            if json:
                print_json(step)
                return
            kept = f"Kept {step.chosen}" if step.chosen else "Nothing was kept: no repair was better by clean criteria"
            print(f"{kept}. Report: {out / REPORT}")
            if step.chosen:
                print(f"To open it again: badnets scan {out / WEIGHTS} {step.options.replace('--arch ', f'--arch {out}/')}")
