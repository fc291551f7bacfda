"""A net in a model file, as a defender gets it: which architecture of the catalogue it is, its weights, its hash.

The file is read in a sandbox, strictly (see `intake`). What it says of itself (metadata) is not read: it may lie, and of our own planted
nets it tells the secret. Not for architectures beyond the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from badnets.core.errors import RefusedError
from badnets.intake.reasons import quoted
from badnets.intake.sandbox import read_model
from badnets.plans._recognise import Normalization, recognise

if TYPE_CHECKING:
    from badnets.datasets._base import ImageSet
    from badnets.nets._base import Network


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A net that was read: `net` is its catalogue entry with fields, as plain values; `sandbox` says what kept the reader in."""

    path: Path
    sha256: str
    net: dict[str, Any]
    network: Network
    format: str = "safetensors"
    sandbox: str = ""
    notes: tuple[str, ...] = ()


def open_model(
    path: Path,
    data: ImageSet,
    net: dict[str, Any] | None = None,
    *,
    normalization: Normalization | None = None,
    require_sandbox: bool = False,
) -> ModelFile:
    """The net in `path` for images and classes of `data`: of the architecture `net`, or of the one of the catalogue that fits.

    `normalization` is used where the file has none. Raises UsageError (no such file), RefusedError (every code of `intake.reasons`;
    E-NAN: NaN or infinite weights; E-WEIGHTS: fits no architecture; E-NORM: no normalisation).
    """
    reading = read_model(path, require=require_sandbox)
    weights, shown = reading.weights, quoted(path.name, 100)[1:-1]
    if bad := weights.not_finite:
        what = f"{len(bad)} of {len(weights.tensors)} tensors hold NaN or infinity, the first {quoted(bad[0])}"
        raise RefusedError("E-NAN", f"{shown}: not analysable: {what}.", hint="Such a net answers nothing of use; fetch it again.")
    try:
        network, fields, notes = recognise(weights, data, net, normalization)
    except RefusedError as error:
        raise RefusedError(error.code, f"{shown}: {error.message}", hint=error.hint) from error
    found = ModelFile(path, weights.sha256, fields, network, weights.format)
    return replace(found, sandbox=str(reading.level), notes=(*weights.notes, *notes))
