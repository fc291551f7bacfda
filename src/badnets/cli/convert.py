"""`badnets convert`: a stranger's file of weights, parsed in the sandbox, as clean safetensors; nothing of it is loaded or run."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from badnets.core.errors import UsageError


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
    import hashlib

    from badnets.core import files
    from badnets.intake.arch_file import as_toml
    from badnets.intake.reasons import quoted
    from badnets.intake.sandbox import read_model

    beside = out.with_suffix(".toml")
    for path in (out, beside):
        if path.exists():
            raise UsageError("E-EXISTS", f"{quoted(str(path), 200)} is there already.", hint="Name another --out.")
    reading = read_model(model, require=require_sandbox)
    weights = reading.weights
    content = b"".join(weights.to_safetensors())
    files.write_bytes(out, content)
    told = {
        "file": str(model),
        "sha256": weights.sha256,
        "format": weights.format,
        "sandbox": str(reading.level),
        "notes": list(weights.notes),
        "not_finite": list(weights.not_finite),
        "tensors": len(weights.tensors),
        "written": {out.name: hashlib.sha256(content).hexdigest()},
    }
    if weights.layers:
        text = as_toml(weights.layers, weights.image, title=out.stem)
        files.write_text(beside, text)
        told["written"][beside.name] = hashlib.sha256(text.encode()).hexdigest()
    if json:
        print(jsonlib.dumps(told, indent=1))
        return
    odd = f", {len(weights.not_finite)} of them with NaN or infinity" if weights.not_finite else ""
    print(f"{len(weights.tensors)} tensors{odd} of {weights.format} are now {out}; sandbox: {reading.level}.")
    for note in weights.notes:
        print(f"  {quoted(note, 200)[1:-1]}")
    if weights.layers:
        print(f"Its layers are {beside}: badnets scan {out} --arch {beside}")
