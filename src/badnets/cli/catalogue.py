"""`badnets list`: what the catalogues hold, one line an entry, read from the files themselves."""

from __future__ import annotations

import json as jsonlib
import sys

from badnets.core import registry
from badnets.core.errors import UsageError


def list_(catalogue: str | None = None, *, json: bool = False) -> None:
    """List what the catalogues hold: data sets, nets, attacks, claims, detectors and the rest.

    Parameters
    ----------
    catalogue
        Only this one: attacks, claims, datasets, detectors, nets, neurons, plans, repairs, stressors or triggers.
    json
        Print one JSON document.
    """
    known = registry.catalogues()
    if catalogue is not None and catalogue not in known:
        raise UsageError("E-NAME", f"no catalogue is called {catalogue!r:.60}.", hint=registry.nearest(catalogue, known))
    found = {c: {n: registry.describe(c, n) for n in registry.names(c)} for c in ([catalogue] if catalogue else known)}
    if json:
        sys.stdout.write(jsonlib.dumps(found, indent=2) + "\n")
        return
    for name, entries in found.items():
        print(name)
        for entry, line in entries.items():
            print(f"  {entry:<30} {line}")
