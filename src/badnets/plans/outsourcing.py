"""A training given to someone else: ordered, delivered, accepted, and audited by executing the recipe again."""

from __future__ import annotations

from badnets.plans._plan import Plan
from badnets.plans.quick import quick


def outsourcing() -> Plan:
    """Quick's setting with the one claim and its story."""
    return quick().but(name="outsourcing", claims=("outsourced_training",))
