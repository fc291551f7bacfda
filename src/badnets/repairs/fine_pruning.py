"""Fine-pruning: units that clean images hardly use are removed while clean accuracy lasts, then the net is tuned.

Does not apply to a backdoor in units that clean images use too (the paper's own pruning-aware attack), nor to one in earlier layers.
K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks,
https://arxiv.org/abs/1805.12185
Departs from it: the last layer of units, be it of a convolution or hidden; at most `portions` portions are tried instead of one unit after
the other; activations by their absolute mean, since not every net rectifies. Accuracy is judged on images that did not rank the units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.nets._taps import masked, record, unit_layers
from badnets.repairs._base import Repair
from badnets.repairs._channels import NO_UNITS, expendable, keep_masks, ranked, remove
from badnets.repairs._tuning import parts, recipe, tune

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

BATCH = 250


class FinePruning(Repair):
    """Prunes until clean accuracy on held-out images has fallen by more than `max_loss`, steps back, and tunes on all clean images with
    what was pruned staying pruned."""

    kind: Literal["fine_pruning"] = "fine_pruning"
    max_loss: float = Field(0.04, ge=0, lt=1)
    portions: int = Field(48, ge=1)
    lr: float = Field(0.05, gt=0)
    epochs: float = Field(10, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        network, layers = view.network, list(unit_layers(view.network))
        if not layers:
            return network, NO_UNITS
        (x_NCHW, _), held = parts(view)
        order, _ = ranked({layers[-1]: _activity(network, layers[-1], x_NCHW)})
        # One unit stays whatever happens, so that the net never becomes a constant.
        most = len(order) - 1
        counts = sorted({round(most * part / self.portions) for part in range(1, self.portions + 1)} - {0})
        pruned = expendable(network, order, counts, held, self.max_loss)
        remove(network, pruned)
        # Masked as well while it learns: a mask lets no gradient through, so that zero stays zero, a norm's offset too.
        with masked(network, keep_masks(network, pruned)):
            how = recipe(self.epochs, self.lr, self.batch_size)
            note = tune(network, view.need_clean(), how, seed=stream_seed(seed, self.kind))
        return network, f"pruned {len(pruned)} of {len(order)} units of {layers[-1]}, {note}"


def _activity(network: Network, layer: str, x_NCHW: Tensor) -> Tensor:
    """score_C: mean absolute activation over images and positions."""
    total_C = None
    for part_NCHW in x_NCHW.split(BATCH):
        seen = record(network, [layer], part_NCHW.to(network.device))[layer]
        score_C = seen.abs().reshape(*seen.shape[:2], -1).mean(dim=2).sum(dim=0)
        total_C = score_C if total_C is None else total_C + score_C
    assert total_C is not None
    return total_C
