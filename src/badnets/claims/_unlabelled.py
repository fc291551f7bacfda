"""The question of a scan with images of the user's own: what does a detector say of a net when it is shown those, which have no labels?

Asked of the clean nets exactly as of the suspect, so that the suspect's rank among them means what it says. Only for detectors of nets:
what the others judge would still be the data set's. Shapes: N images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from badnets.claims._scanned import Scanned, Seen
from badnets.core import registry
from badnets.core.finding import Level
from badnets.intake.unlabelled import Handed
from badnets.measure.question import Answer, Question, World

if TYPE_CHECKING:
    from badnets.nets._base import Network


class ScannedUnlabelled(Question):
    """`asked`, with `images` in place of the defender's clean images, and the net's own answers in place of their labels."""

    kind: Literal["scanned_unlabelled"] = "scanned_unlabelled"
    asked: Scanned
    images: Handed

    def arrays(self, network: Network, world: World) -> Answer:
        """Those of `asked`. Raises RefusedError where the images are not those any more."""
        from badnets.detectors._base import Detector

        detector = registry.parse("detectors", self.asked.detector)
        assert isinstance(detector, Detector)
        assert detector.level is Level.MODEL, f"{detector.kind} judges {detector.level}"
        images = self.images.open(world.data.shape)
        return self.asked.arrays(network, replace(world, data=images.in_place_of_budget(world.data, network)))

    def read(self, answer: Answer) -> Seen:
        """The answer as Seen."""
        return self.asked.read(answer)
