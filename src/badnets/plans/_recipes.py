"""Recipes for clean nets that a stranger's net is compared with: each net gets its own, since nobody knows the stranger's.

Compared with nets of one recipe, a third of strangers' clean nets stood out for how they were trained (`benchmarks/strangers.py`). Not for
nets of our own catalogue, whose recipe is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from badnets.core.rng import numpy_generator
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

EPOCHS, MOST_EPOCHS, FEWEST_STEPS, BATCHES = 5, 50, 300, (32, 64, 128)
RATES = {"sgd": (0.01, 0.2), "adamw": (3e-4, 5e-3)}
"""Least and largest, for batches of 128; between them every factor is equally likely."""
DECAYS = {"sgd": (0.0, 1e-4, 5e-4, 5e-3), "adamw": (0.0, 1e-3, 1e-2, 1e-1)}
COURSES: tuple[Literal["linear", "cosine", "constant"], ...] = ("linear", "cosine", "constant")
LONGER = 2.0
"""By what factor the number of epochs may be more or less than usual."""


def usual_epochs(num_train: int) -> float:
    """So many that there are enough steps, also on few images."""
    return min(float(MOST_EPOCHS), max(float(EPOCHS), FEWEST_STEPS * max(BATCHES) / num_train))


def drawn_recipe(seed: int, num_train: int, side: int, *, transformer: bool = False) -> Recipe:
    """What somebody may well have done: optimizer, rate, its course, length, batch, decay, smoothing, shifts. The same for the same seed.

    `side`: of the images, in pixels; `transformer`: those hardly learn with plain SGD.
    """
    draw = numpy_generator(seed, "stranger's recipe")
    optimizer = "adamw" if transformer or draw.random() < 0.5 else "sgd"
    batch = int(draw.choice(BATCHES))
    low, high = RATES[optimizer]
    scale = batch / max(BATCHES)
    return Recipe(
        optimizer=optimizer,
        batch_size=batch,
        lr=float(f"{_between(draw, low, high) * (scale if optimizer == 'sgd' else scale**0.5):.3g}"),
        epochs=round(usual_epochs(num_train) * _between(draw, 1 / LONGER, LONGER), 2),
        weight_decay=float(draw.choice(DECAYS[optimizer])),
        schedule=COURSES[int(draw.integers(len(COURSES)))],
        label_smoothing=float(draw.choice([0.0, 0.0, 0.1])),
        shift=int(draw.choice([0, max(1, side // 14)])),
    )


def _between(draw: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** draw.random())
