"""Named random streams: randomness is a function of (seed, stream name, further keys), so no state needs saving."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def stream_seed(seed: int, name: str, *keys: int | str) -> int:
    """A 63-bit seed for the stream `name`; streams with different names or keys are independent."""
    text = "/".join([str(seed), name, *(str(k) for k in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str, *keys: int | str) -> torch.Generator:
    """A CPU torch generator for the stream; draw on the CPU and move, so that devices agree."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, name, *keys))


def numpy_generator(seed: int, name: str, *keys: int | str) -> np.random.Generator:
    """A NumPy generator for the stream."""
    import numpy as np

    return np.random.default_rng(stream_seed(seed, name, *keys))
