"""Fine-tuning: the whole net is trained further on the clean images, the baseline of every table of repairs.

Does not apply where clean images never wake the backdoor's neurons: what is silent gets no gradient and stays.
K. Liu, B. Dolan-Gavitt, S. Garg (2018), Fine-Pruning, https://arxiv.org/abs/1805.12185 (which says that of it);
Z. Sha, X. He, P. Berrang, M. Humbert, Y. Zhang (2022), Fine-Tuning Is All You Need to Mitigate Backdoor Attacks,
https://arxiv.org/abs/2212.09067 (that a high learning rate makes it a strong one).
Departs from the latter, which raises and lowers the rate in cycles: one rate that falls to zero, in as many epochs as Y. Li et al. (2021,
https://arxiv.org/abs/2101.05930) take, from half of theirs: at 0.1 a small net without batch norm collapses at times (and is then tuned at
half the rate). Nothing else is chosen, so no image is held out; no augmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.repairs._base import Repair
from badnets.repairs._tuning import recipe, tune

if TYPE_CHECKING:
    from badnets.nets._base import Network


class FineTuning(Repair):
    """SGD from `lr` down to zero for `epochs` passes over the clean images."""

    kind: Literal["fine_tuning"] = "fine_tuning"
    lr: float = Field(0.05, gt=0)
    epochs: float = Field(10, gt=0, le=10_000)
    batch_size: int = Field(32, ge=2)

    def _repair(self, view: View, seed: int) -> tuple[Network, str]:
        how = recipe(self.epochs, self.lr, self.batch_size)
        note = tune(view.network, view.need_clean(), how, seed=stream_seed(seed, self.kind))
        return view.network, note
