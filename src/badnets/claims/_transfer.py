"""The question of transfer learning: a new owner keeps the trunk and trains a new head for other data; what does the trigger cost?

The publisher may have amplified the units that the trigger fires before the trunk was published (BadNets, section 5.3).
Shapes: N images, C channels, H rows, W columns, U units of a layer, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack
from badnets.core.errors import RefusedError
from badnets.core.rng import numpy_generator
from badnets.datasets._base import AnyDataset, ImageSet, Split
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe, fit_quads, fit_to
from badnets.measure.question import Answer, Question, World
from badnets.stressors._head import cut_of, train_heads, trunk_of
from badnets.stressors.transfer import Transfer

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

LOOK = 500
QUIET, FIRES = 0.99, 0.9
"""A unit fires at an image when it is above the `QUIET` quantile of what it says of clean images, and for the trigger when it does so at
this share of the triggered ones."""


@dataclass(frozen=True, eq=False)
class Moved:
    """What came out at one amplification: the new owner's net on clean and on triggered test images of the destination."""

    amplification: float
    clean: Outcome
    triggered: Outcome


class Transferred(Question):
    """`destination`: the new owner's data set (None: the run's other one), `limit`: so many of its training images. `amplifications`:
    factors k on the trigger's units of the trunk's last layer; the head is trained on the amplified trunk, as its user would."""

    kind: Literal["transferred"] = "transferred"
    attack: AnyAttack
    destination: AnyDataset | None = None
    transfer: Transfer = Transfer()
    amplifications: tuple[float, ...] = (1.0,)
    limit: int = Field(10_000, ge=2)

    @property
    def wants_other(self) -> bool:
        return self.destination is None

    def arrays(self, network: Network, world: World) -> Answer:
        """Outcome fields as `i.clean.field` and `i.triggered.field` for the i-th factor; `units` that were amplified, of `all_units`."""
        import torch

        from badnets.nets._taps import masked

        place = self._place(world)
        shape = world.data.shape
        train = self._some(place.train)
        shown_NCHW = fit_to(place.test.x_NCHW, shape)
        quad_N42 = fit_quads(place.test, world.data.test)
        stamped_NCHW = self.attack.trigger.stamp_varied(shown_NCHW, self.attack.num_patterns, quad_N42, seed=world.seed, purpose="test")
        groups = [torch.from_numpy(np.ascontiguousarray(x)) for x in (fit_to(train.x_NCHW, shape), shown_NCHW, stamped_NCHW)]
        cut = cut_of(network, self.transfer.layers)
        trunk, hidden = trunk_of(network, cut), self.transfer.widths(network, cut)
        layer, guilty_U = self._guilty(trunk, world)
        answer: Answer = {"units": np.array(int(guilty_U.sum())), "all_units": np.array(len(guilty_U))}
        said: list[list[Tensor]] = []
        for k in self.amplifications:
            with masked(trunk, {} if layer is None else {layer: torch.where(guilty_U, k, 1.0)}):
                said.append([trunk.predict_logits(x) for x in groups])
        y_N = torch.from_numpy(np.ascontiguousarray(train.y_N))
        train_MNF = torch.stack([features[0] for features in said])
        heads = train_heads(train_MNF, y_N, hidden, place.num_classes, self.transfer, seed=world.seed)
        for i, (head, (_, *shown)) in enumerate(zip(heads, said, strict=True)):
            for name, features_NF in zip(("clean", "triggered"), shown, strict=True):
                with torch.inference_mode():
                    logits_NK = head(features_NF).cpu().numpy()
                fields = Outcome.from_logits(logits_NK, place.test.y_N, keep_logits=False).arrays()
                answer |= {f"{i}.{name}.{field}": values for field, values in fields.items()}
        return answer

    def read(self, answer: Answer) -> list[Moved]:
        """The amplifications of an answer."""

        def outcome(start: str) -> Outcome:
            return Outcome.from_arrays({k.removeprefix(start): v for k, v in answer.items() if k.startswith(start)})

        return [Moved(k, outcome(f"{i}.clean."), outcome(f"{i}.triggered.")) for i, k in enumerate(self.amplifications)]

    def _place(self, world: World) -> ImageSet:
        """The destination, found in the user's folder or where data sets are kept; its content must be known beforehand, since the answer
        is stored under its name."""
        if self.destination is None:
            assert world.other is not None, "a transfer to the other data set needs that data set"
            return world.other
        folder = world.folder if self.destination.where(world.folder) is not None else None
        found = self.destination.load(folder, download=False)
        if found.sha256 != self.destination.identity:
            expected = "a data set with a published hash"
            hint = "Name another destination."
            raise RefusedError("E-HASH", f"destination {self.destination.kind}: expected {expected}, got {found.source:.80}.", hint=hint)
        return found

    def _some(self, split: Split) -> Split:
        rows = np.sort(numpy_generator(0, "transfer").permutation(len(split))[: self.limit])
        return split.take(rows)

    def _guilty(self, trunk: Network, world: World) -> tuple[str | None, Tensor]:
        """The trunk's last layer with units, and which of them the publisher amplifies: those that fire at the trigger and are quiet
        without, on validation images of the net's own data; where none is such, the one that comes nearest."""
        import torch

        from badnets.nets._taps import record, unit_layers

        layers = unit_layers(trunk)
        if not layers:
            return None, torch.zeros(0, dtype=torch.bool)
        layer = list(layers)[-1]
        clean = Probe(images="validation", limit=LOOK)
        shown = clean.but(trigger=self.attack.trigger, num_patterns=self.attack.num_patterns)
        means = []
        for probe in (clean, shown):
            x_NCHW, _ = probe.split(world.data, None, seed=world.seed)
            said = record(trunk, [layer], torch.from_numpy(np.ascontiguousarray(x_NCHW)).to(trunk.device))[layer]
            means.append(said.flatten(2).mean(2) if said.ndim > 2 else said)
        share_U = (means[1] > means[0].quantile(QUIET, dim=0)).float().mean(dim=0)
        guilty_U = share_U >= FIRES
        guilty_U[share_U.argmax()] = True
        return layer, guilty_U
