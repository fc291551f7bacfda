"""`badnets repair`: try blind repairs on a net, keep the best by clean criteria, write it with a report of before and after."""

from __future__ import annotations

import sys
from pathlib import Path

from badnets.core.errors import UsageError


def repair(
    model: Path,
    dataset: str | None = None,
    *,
    out: Path,
    data: Path | None = None,
    net: str | None = None,
    normalize: str | None = None,
    require_sandbox: bool = False,
    json: bool = False,
) -> None:
    """Repair a net with clean images and no knowledge of a trigger.

    Parameters
    ----------
    model
        A safetensors file, or one of torch.save with a state dict, of a net of `badnets list nets`.
    dataset
        The data set that the net is for; by default what --data holds, else fashion_mini.
    out
        Folder to write the repaired net and the report to; it must not hold one yet.
    data
        A folder to find clean images in.
    net
        The net's architecture with fields, as fast_resnet:width=8, where it cannot be told from the file.
    normalize
        MEAN/STD of pixels in 0..1, where the file has no normalisation: 0.1307/0.3081, or a number for each channel after commas.
    require_sandbox
        Refuse to read the file where the system cannot give the whole sandbox.
    json
        Print the report as one JSON document on stdout and nothing else there.
    """
    from badnets.cli._choose import choose_dataset, choose_net, choose_normalization
    from badnets.cli._output import check_place, outside_store, print_json
    from badnets.cli._verdicts import print_tried
    from badnets.plans._model_file import open_model
    from badnets.plans._repair import REPORT, Report, repair_model

    if out.exists() and (not out.is_dir() or (out / REPORT).exists()):
        what = "holds a report already" if out.is_dir() else "is a file, expected a folder"
        raise UsageError("E-EXISTS", f"{str(out)!r:.200} {what}.", hint="Name another --out.")
    check_place(out.absolute(), f"--out {str(out)!r:.200}")
    chosen, folder = choose_dataset(dataset, data)
    loaded = chosen.load(folder)
    normalization = choose_normalization(normalize, loaded.shape[0]) if normalize else None
    opened = open_model(model, loaded, choose_net(net) if net else None, normalization=normalization, require_sandbox=require_sandbox)
    try:
        with outside_store("--out"):
            for step in repair_model(opened, loaded, out):
                if not isinstance(step, Report):
                    print_tried(step, file=sys.stderr if json else sys.stdout)
                elif json:
                    print_json(step)
                else:
                    kept = f"Kept {step.chosen}" if step.chosen else "Nothing was kept: no repair was better by clean criteria"
                    print(f"{kept}. Report: {out / REPORT}")
    except KeyboardInterrupt:
        print("Stopped. No report was written: the same command starts anew.", file=sys.stderr)
        sys.exit(130)
