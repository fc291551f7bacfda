"""Training on the clean budget: which images teach and which judge, the training itself, clean accuracy. Shared by repairs.

Does not augment: whether a flip or a shift changes the class, nobody here knows. Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.core.view import View
from badnets.train.fit import Objective, fit
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from badnets.nets._base import Network

Labelled = tuple[Tensor, Tensor]
EVERY, TRIES = 5, 5


class Parts(NamedTuple):
    """The clean images in two: those that teach (or rank), and those that judge when to stop."""

    learn: Labelled
    held: Labelled


def parts(view: View) -> Parts:
    """Every fifth clean image, in the order of the view, is held out; fewer than five images are both parts."""
    x_NCHW, y_N = view.need_clean()
    if len(y_N) < EVERY:
        return Parts((x_NCHW, y_N), (x_NCHW, y_N))
    held_N = torch.arange(len(y_N)) % EVERY == EVERY - 1
    return Parts((x_NCHW[~held_N], y_N[~held_N]), (x_NCHW[held_N], y_N[held_N]))


def hits(network: Network, labelled: Labelled) -> int:
    """How many of the images are classified as labelled."""
    x_NCHW, y_N = labelled
    return int((network.predict_logits(x_NCHW).argmax(dim=1).cpu() == y_N).sum())


def recipe(epochs: float, lr: float, batch_size: int) -> Recipe:
    """From `lr` at once, linearly down to nothing: no warm-up, so that `lr` is what the first step takes."""
    return Recipe(epochs=epochs, lr=lr, batch_size=batch_size, warmup=0.0)


def tune(network: Network, labelled: Labelled, how: Recipe, *, seed: int, objective: Objective | None = None) -> str:
    """Trains `network` in place and says how. A training that diverges, or ends with fewer than half of the right answers that there were
    before on the very images it learns, is undone and tried again at half the rate.

    Raises UsageError where nothing can be trained (a quantised net).
    """
    if not any(p.requires_grad for p in network.parameters()):
        raise UsageError("E-FROZEN", "expected a net with weights that can be trained, got one without.", hint="Repair it before that.")
    # A deep copy: what state_dict() gives is the net's own memory, and would be trained with it.
    before, right = copy.deepcopy(network.state_dict()), hits(network, labelled)
    for _ in range(TRIES):
        # A net from elsewhere may have a dropout, which draws from the default generator.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, "dropout"))
            report = fit(network, *labelled, how, seed=seed, objective=objective)
        for p in network.parameters():
            p.grad = None
        if not report.diverged and 2 * hits(network, labelled) >= right:
            return f"trained {report.steps} steps from rate {how.lr:g}"
        network.load_state_dict(before, strict=True)
        how = how.but(lr=how.lr / 2)
    return "the training collapsed at every rate and was undone"
