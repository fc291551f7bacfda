"""The question of further training: the recipe that made the net is executed once more, on clean images, and then as in `Stressed`.

Only the worker knows the recipe of a run, so this cannot be said as a `Stressed` with a fixed stressor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from badnets.claims._stress import After, Dose, Images, Stressed
from badnets.measure.probe import Probe
from badnets.measure.question import Answer, Question, World
from badnets.stressors.further_training import FurtherTraining
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network

USUAL_DECAY = 5e-4


class Further(Question):
    """As many epochs on `images` as the recipe has, its schedule starting anew; from there the `branches` are as in `Stressed`.

    `decay`: the recipe's weight decay (at least 5e-4) times so much; `shift`: images are moved by up to so many pixels, or as many as the
    recipe does; `same_steps`: where there are fewer images than at first, so many more epochs.
    """

    kind: Literal["further"] = "further"
    images: Images = Images(source="train")
    decay: float | None = Field(None, gt=0)
    shift: int = Field(0, ge=0)
    same_steps: bool = False
    branches: tuple[tuple[Dose, ...], ...] = ((),)
    probes: tuple[Probe, ...]

    @property
    def wants_other(self) -> bool:
        return self.images.source == "other" or self._after(()).wants_other

    def arrays(self, network: Network, world: World) -> Answer:
        """As `Stressed` gives them."""
        dose = Dose(stressor=FurtherTraining(recipe=self.recipe(world)), images=self.images)
        return self._after((dose,)).arrays(network, world)

    def recipe(self, world: World) -> Recipe:
        """What is executed again."""
        again = Recipe.model_validate(dict(world.recipe))
        again = again.but(shift=max(self.shift, again.shift))
        if self.decay is not None:
            again = again.but(weight_decay=self.decay * max(again.weight_decay, USUAL_DECAY))
        if self.same_steps:
            again = again.but(epochs=again.epochs * len(world.data.train) / len(self.images.draw(world)[0]))
        return again

    def read(self, answer: Answer) -> list[After]:
        """The branches of an answer."""
        return self._after(()).read(answer)

    def _after(self, steps: tuple[Dose, ...]) -> Stressed:
        return Stressed(steps=steps, branches=self.branches, probes=self.probes)
