"""Repairs nothing: the net as it was, the null of every table of repairs.

Not a repair: it says what stays when nothing is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.repairs._base import Repair

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Identity(Repair):
    """A copy of the net."""

    kind: Literal["identity"] = "identity"
    access = Access.MODEL

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        del seed
        return view.network, "nothing was done"
