"""All cells of every claim, five seeds an arm and twenty nets a side to be told apart; minutes to an hour on two cores."""

from __future__ import annotations

from badnets.plans._plan import Plan
from badnets.plans.quick import quick


def standard() -> Plan:
    """Quick with full grids and more seeds."""
    return quick().but(name="standard", effort="standard", seeds=5, arms_seeds=5, population=20)
