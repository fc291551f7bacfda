"""The way of a backdoored net from its publisher to a new owner: published, verified, accepted, used, built upon."""

from __future__ import annotations

from badnets.plans._plan import Plan
from badnets.plans.quick import quick


def supply_chain() -> Plan:
    """Quick's setting with the one claim, its story and the amplified trunk."""
    return quick().but(name="supply_chain", claims=("supply_chain",))
