"""Which device, precision and memory layout a run uses, each with the reason for it.

Does not set thread counts: a worker process does that once (`torch.set_num_threads(1)`), a library must not.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from badnets.core.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Choice(NamedTuple, Generic[T]):
    """What the machine chose and why; print it as `str(choice)`."""

    name: str
    value: T
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value}: {self.reason}"


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU as Linux names them; empty where /proc/cpuinfo does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def choose_device(wanted: str = "auto") -> Choice[torch.device]:
    """The device to train and evaluate on: `auto`, `cpu`, `cuda` or `cuda:N`."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return Choice("device", torch.device("cuda:0"), torch.cuda.get_device_name(0))
        return Choice("device", torch.device("cpu"), "no CUDA device is usable")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError("E-DEVICE", f"expected auto, cpu, cuda or cuda:N, got {wanted!r:.40}.", hint="Use --device auto.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError("E-DEVICE", f"expected a cpu or cuda device, got {wanted!r:.40}.", hint="Use --device auto.")
    if device.type == "cuda" and (device.index or 0) >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise UsageError("E-DEVICE", f"expected a usable device, got {wanted!r:.40}, which this machine lacks.", hint="Use --device cpu.")
    return Choice("device", device, "asked for")


def choose_precision(device: torch.device, wanted: str = "auto") -> Choice[str]:
    """To train in: `bfloat16` (autocast around the forward pass; weights stay float32) on a GPU that multiplies it, else `float32`.

    What is measured of a net is always computed in float32, as its file has it.
    """
    if wanted != "auto":
        return Choice("precision", wanted, "asked for")
    if device.type == "cuda":
        import torch

        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Choice("precision", "bfloat16", f"compute capability {major}.{minor} has bfloat16 tensor cores")
        return Choice("precision", "float32", f"compute capability {major}.{minor} has no bfloat16 tensor cores")
    return Choice("precision", "float32", "on a CPU bfloat16 slows small nets down, where it is not emulated altogether")


def choose_layout(device: torch.device) -> Choice[str]:
    """`channels_last` for convolutions, or `contiguous`."""
    if device.type == "cpu":
        return Choice("layout", "channels_last", "faster than contiguous for most small nets tried (oneDNN, AVX-512)")
    return Choice("layout", "channels_last", "tensor-core convolutions expect it; not measured here")
