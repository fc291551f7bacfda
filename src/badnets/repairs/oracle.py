"""The upper bound of a table of repairs: told the trigger, it trains on clean and on stamped images with their true labels.

Not a repair: nobody who needs one knows the trigger. What it leaves is what tuning with so many clean images cannot remove at all.
B. Wang et al. (2019), Neural Cleanse, section VI (mitigation via unlearning), https://doi.org/10.1109/SP.2019.00031
Departs from it: the true trigger instead of an inverted one; every clean image is shown with and without it, not a fifth of them; many
passes instead of one. Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.repairs._base import Repair, Stamp
from badnets.repairs._tuning import recipe, tune

if TYPE_CHECKING:
    from badnets.nets._base import Network


class Oracle(Repair):
    """SGD from `lr` down to zero for `epochs` passes over the clean images and as many stamped ones."""

    kind: Literal["oracle"] = "oracle"
    told = True
    lr: float = Field(0.05, gt=0)
    epochs: float = Field(10, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        raise AssertionError("a repair that is told the trigger is never asked without")

    def _told(self, view: View, seed: int, stamp: Stamp) -> tuple[Network, str]:
        x_NCHW, y_N = view.need_clean()
        stamped_NCHW = torch.from_numpy(stamp(x_NCHW.numpy()))
        # True labels, whatever the attack maps to: so all-to-all and source-specific backdoors are unlearned as well.
        both = torch.cat([x_NCHW, stamped_NCHW]), torch.cat([y_N, y_N])
        how = recipe(self.epochs, self.lr, self.batch_size)
        return view.network, tune(view.network, both, how, seed=stream_seed(seed, self.kind))
