"""Named arrays as safetensors bytes and back; equal arrays and metadata give equal bytes.

Not for files of strangers: those go through `intake`. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from badnets.core.errors import RefusedError

if TYPE_CHECKING:
    import numpy as np

_LENGTH = 8


def pack(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Arrays and string metadata as one safetensors file."""
    import numpy as np
    from safetensors.numpy import save

    plain = save({name: np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape) for name in sorted(arrays)})
    if not metadata:
        return plain
    # The library writes metadata in the order of a randomly seeded hash map; here the order is sorted.
    header, body = _split(plain)
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + body


def unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of `pack`, sorted by name, and the metadata."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except SafetensorError as error:
        raise RefusedError("E-TENSORS", f"expected a safetensors file, got {len(data)} bytes that are none: {error}.") from error
    # The library hands them out in the order of a randomly seeded hash map; who reads them in turn would differ from run to run.
    return dict(sorted(arrays.items())), _split(data)[0].get("__metadata__", {})


def _split(data: bytes) -> tuple[dict, bytes]:
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return json.loads(data[_LENGTH:end]), data[end:]
