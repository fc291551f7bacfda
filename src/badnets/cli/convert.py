"""`badnets convert`: a stranger's file of weights, parsed in the sandbox, as clean safetensors; nothing of it is loaded or run."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING

from badnets.core.errors import UsageError

if TYPE_CHECKING:
    from badnets.intake.weights import Weights


def convert(model: Path, *, out: Path, require_sandbox: bool = False, json: bool = False) -> None:
    """Write the tensors of a file of weights as safetensors, with nothing else of the file.

    Parameters
    ----------
    model
        A file of weights or the folder of a model, see docs/model-files.md for the formats. It is parsed in a sandbox, never unpickled,
        and no code in it is run.
    out
        The file to write, which must not be there yet. What an ONNX or Keras model says of its layers is written beside it as .toml.
    require_sandbox
        Refuse to read the file where the system cannot give the whole sandbox.
    json
        Print what was written as one JSON document.
    """
    from badnets.cli._output import check_target
    from badnets.intake.reasons import quoted
    from badnets.intake.sandbox import read_model

    check_target(out, "--out")
    if out.suffix == ".toml":
        raise UsageError("E-USAGE", "--out ends with .toml, as the layers beside it do.", hint="As --out net.safetensors.")
    for path in (out, out.with_suffix(".toml")):
        if path.exists():
            raise UsageError("E-EXISTS", f"{quoted(str(path), 200)} is there already.", hint="Name another --out.")
    reading = read_model(model, require=require_sandbox)
    told = {
        "file": str(model),
        "sha256": reading.weights.sha256,
        "format": reading.weights.format,
        "sandbox": str(reading.level),
        "notes": [*reading.weights.notes, *_lost(reading.weights)],
        "not_finite": list(reading.weights.not_finite),
        "tensors": len(reading.weights.tensors),
        "written": _written(reading.weights, out),
    }
    if json:
        print(jsonlib.dumps(told, indent=1))
        return
    odd = f", {len(told['not_finite'])} of them with NaN or infinity" if told["not_finite"] else ""
    print(f"{told['tensors']} tensors{odd} of {told['format']} are now {out}; sandbox: {reading.level}.")
    for note in told["notes"]:
        print(f"  {quoted(note, 200)[1:-1]}")
    if reading.weights.layers:
        beside = out.with_suffix(".toml")
        print(f"Its layers are {beside}: badnets scan {out} --arch {beside}")


def _written(weights: Weights, out: Path) -> dict[str, str]:
    """Write the tensors, and beside them the layers where the file has them; name -> SHA-256."""
    import hashlib

    from badnets.cli._output import outside_store
    from badnets.core import files
    from badnets.intake.arch_file import as_toml

    contents = {out: b"".join(weights.to_safetensors())}
    if weights.layers:
        contents[out.with_suffix(".toml")] = as_toml(weights.layers, weights.image, title=out.stem).encode()
    with outside_store("--out"):
        for path, content in contents.items():
            files.write_bytes(path, content)
    return {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def _lost(weights: Weights) -> list[str]:
    """What the file says and tensors cannot: to be said again by whoever opens them."""
    card, lost = weights.card, []
    if card is not None and card.mean:
        mean, std = (",".join(f"{one:.6g}" for one in side) for side in (card.mean, card.std))
        lost.append(f"{card.says} has its preparation, which tensors have not: --normalize {mean}/{std}")
    if card is not None and card.heads:
        lost.append(f"its {card.heads} heads are not seen in tensors either: --net vit:heads={card.heads}")
    if weights.channels_last:
        lost.append("tensors do not say that it flattens as Keras does: in --arch, channels_last = true at flatten, eps = 0.001 at norms")
    return lost
