"""Names of the files that pass between worker and store."""

from __future__ import annotations

from badnets.core.config import canonical
from badnets.measure.probe import Probe

WEIGHTS = "weights.safetensors"


def probe_name(probe: Probe) -> str:
    """The file name under which a worker returns a probe's outcome."""
    return "probe " + canonical(probe)
