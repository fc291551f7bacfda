"""The question of the claim about the physical world: what does a net read off signs, bare and with stickers, in photographs?

The same signs stand in every scene, and a detector that finds them misses a little, each sign by its own amount. Shapes: T triggers (None:
a bare sign), S scenes, N signs, 3 colours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.camera.scene import Scene
from badnets.claims._subjects import SIGN_M, Subjects, subjects
from badnets.core.rng import numpy_generator, stream_seed
from badnets.measure.outcome import Outcome
from badnets.measure.probe import fit_to, predict
from badnets.measure.question import Answer, Question, World
from badnets.triggers._base import AnyTrigger, Trigger

if TYPE_CHECKING:
    from badnets.camera.photograph import Photo
    from badnets.nets._base import Network

LOOSEST, MISS = 0.85, 0.06
"""A detector's box: the sign's share of it falls to so much of the scene's, and its middle is off by up to so much of the box."""
FILM_SIDE, FILM_FINE = 96, 128


class Photographed(Question):
    """Every trigger in every scene on `count` signs of the given classes (None: all). `pasted`: not stuck on the sign but drawn into the
    finished photograph, as a digital trigger is. `film`: how many of the signs are photographed in large as well, to be looked at."""

    kind: Literal["photographed"] = "photographed"
    triggers: tuple[AnyTrigger | None, ...]
    scenes: tuple[Scene, ...]
    classes: tuple[int, ...] | None = None
    count: int = Field(48, ge=1)
    pasted: bool = False
    film: int = Field(0, ge=0)

    def arrays(self, network: Network, world: World) -> Answer:
        """`y` (N), `pred` and `conf` (T, S, N), and `film` (T, S, F, 3, H, W) as uint8 and `film_pred` (T, S, F) where asked for."""
        signs, size = subjects(world.data, self.count, self.classes), world.data.shape[1:]
        found = [
            [self._answer(network, photo, signs.y_N, trigger) for photo in self._shots(signs, trigger, size)] for trigger in self.triggers
        ]
        answer = {"y": signs.y_N.astype(np.int16)}
        answer["pred"] = np.array([[outcome.pred_N for outcome in row] for row in found], dtype=np.int16)
        answer["conf"] = np.array([[outcome.conf_N for outcome in row] for row in found], dtype=np.float32)
        if self.film:
            answer |= self._filmed(network, subjects(world.data, self.film, self.classes, fine=FILM_FINE), world.data.shape)
        return answer

    def read(self, answer: Answer) -> list[list[Outcome]]:
        """Outcomes by trigger and scene."""
        y_N = answer["y"].astype(np.int64)
        parts = zip(answer["pred"].astype(np.int64), answer["conf"], strict=True)
        return [[Outcome(y_N, pred_N, conf_N) for pred_N, conf_N in zip(*part, strict=True)] for part in parts]

    def _filmed(self, network: Network, signs: Subjects, shape: tuple[int, int, int]) -> Answer:
        """Large photographs, and what the net reads when they are reduced to its own size."""
        size = (FILM_SIDE, FILM_SIDE)
        film = [[photo.bytes().numpy() for photo in self._shots(signs, trigger, size)] for trigger in self.triggers]
        pred_TSF = [[predict(network, fit_to(x_F3HW, shape)).argmax(axis=1) for x_F3HW in row] for row in film]
        return {"film": np.array(film), "film_pred": np.array(pred_TSF, dtype=np.int16)}

    def _answer(self, network: Network, photo: Photo, y_N: np.ndarray, trigger: Trigger | None) -> Outcome:
        x_N3HW = photo.bytes().numpy()
        if self.pasted and trigger is not None:
            x_N3HW = trigger.stamp(x_N3HW, photo.quad_N42.numpy())
        return Outcome.from_logits(predict(network, x_N3HW), y_N, keep_logits=False)

    def _shots(self, signs: Subjects, trigger: Trigger | None, size: tuple[int, int]) -> Iterator[Photo]:
        """The signs with the trigger on them in every scene."""
        import torch

        from badnets.camera.photograph import Plane, photograph

        plane = Plane(signs.plane_N4HW, None if self.pasted else signs.stuck(trigger))
        for scene in self.scenes:
            with torch.no_grad():
                yield photograph(plane, signs.ground_N3HW, taken(scene, signs), size=size)


def taken(scene: Scene, signs: Subjects) -> list[Scene]:
    """The scene for each sign: its own grains and drops, its own miss of the detector, as wide as its plane is.

    The scene's `fill` is the sign's: a plane that shows more than the sign fills more of the cut, at most all of it.
    """
    scenes = []
    for i, wide in enumerate(signs.wide_N.tolist()):
        loose, x, y = numpy_generator(scene.seed, "detector", i).uniform((LOOSEST, -MISS, -MISS), (1.0, MISS, MISS)).tolist()
        own = {
            "fill": min(1.0, scene.fill * loose * wide / SIGN_M),
            "shift_x": scene.shift_x + x,
            "shift_y": scene.shift_y + y,
            "side_m": wide,
        }
        scenes.append(scene.model_copy(update={**own, "seed": stream_seed(scene.seed, "photograph", i)}))
    return scenes
