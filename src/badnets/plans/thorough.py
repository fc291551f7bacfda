"""Standard with ten seeds an arm and forty nets a side: the figures to publish; hours on two cores."""

from __future__ import annotations

from badnets.plans._plan import Plan
from badnets.plans.standard import standard


def thorough() -> Plan:
    """Standard with more seeds."""
    return standard().but(name="thorough", effort="thorough", seeds=10, arms_seeds=10, population=40)
