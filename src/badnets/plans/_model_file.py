"""A net in a safetensors file, as a defender gets it: which architecture of the catalogue it is, its weights, its hash.

What the file says of itself (metadata) is not read: it may lie, and of our own planted nets it tells the secret. Not for other formats.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from badnets.core import files, registry
from badnets.core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from badnets.datasets._base import ImageSet
    from badnets.nets._base import Network


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A net that was read: `net` is its catalogue entry with fields, as plain values."""

    path: Path
    sha256: str
    net: dict[str, Any]
    network: Network


def open_model(path: Path, data: ImageSet, net: dict[str, Any] | None = None) -> ModelFile:
    """The net in `path` for images and classes of `data`: of the architecture `net`, or of the one of the catalogue that fits.

    Raises UsageError (no such file), RefusedError (E-WEIGHTS: not safetensors, or weights that fit no architecture).
    """
    try:
        content = files.read_bytes(path)
    except FileNotFoundError as error:
        raise UsageError("E-FILE", f"there is no file {str(path)!r:.200}.", hint="Give the path of a .safetensors file.") from error
    candidates = [net] if net is not None else [{"kind": name} for name in registry.names("nets")]
    refusals = []
    for candidate in candidates:
        try:
            network, fields = _read(content, candidate, data)
        except RefusedError as error:
            refusals.append(error)
            continue
        return ModelFile(path, hashlib.sha256(content).hexdigest(), fields, network)
    if len(refusals) == 1 or "not safetensors" in refusals[0].message:
        raise refusals[0]
    shape = "x".join(map(str, data.shape))
    raise RefusedError(
        "E-WEIGHTS",
        f"{path.name!r:.100} holds the weights of no architecture of the catalogue for {shape} images and {data.num_classes} classes.",
        hint="Name its data set, and its net with widths, as in --net fast_resnet:width=8. See `badnets list nets`.",
    )


def _read(content: bytes, candidate: dict[str, Any], data: ImageSet) -> tuple[Network, dict[str, Any]]:
    from badnets.nets._base import Net
    from badnets.nets._weights import from_bytes

    entry = registry.parse("nets", candidate)
    assert isinstance(entry, Net)
    return from_bytes(content, entry, data.shape, data.num_classes), candidate
