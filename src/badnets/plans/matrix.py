"""Attacks against detectors and repairs: who finds what, what repairs leave, how visible a backdoor is by trigger size and poison rate."""

from __future__ import annotations

from badnets.plans._plan import Plan
from badnets.plans.quick import quick


def matrix() -> Plan:
    """The two claims about defenders with all their arms; resumable, a few hours on two cores."""
    return quick().but(
        name="matrix",
        effort="thorough",
        claims=("undetectable", "hard_to_remove_blind:grid=attacks,share=0.05"),
        seeds=5,
        arms_seeds=5,
        population=40,
    )
