"""The main job: seventeen claims on embedded real images in three or four minutes on two cores; few seeds, the grids' ends."""

from __future__ import annotations

from badnets.datasets.fashion_mini import FashionMini
from badnets.plans._plan import Plan


def quick() -> Plan:
    """Every claim on fashion_mini."""
    return Plan(name="quick", dataset=FashionMini(), effort="quick", seeds=4, arms_seeds=3, population=4)
