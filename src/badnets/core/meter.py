"""Counts the images that go through nets, and stops whoever spends more than the budget. No method counts its own cost.

Does not count who runs a part of a net (its head on stored features, its later layers): only the call of a whole net is seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from badnets.core.errors import BadnetsError
from badnets.core.suspect import Budget

WITH_GRADIENT = 3
"""A backward pass costs about two forward passes."""


class BudgetSpentError(BadnetsError):
    """The next images would exceed the budget."""


class Meter:
    """What was spent so far."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.images, self._start = budget, 0, time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def spend(self, images: int) -> None:
        """Note images about to be sent; BudgetSpentError where that is more than there is."""
        limit = self.budget
        if limit.images is not None and self.images + images > limit.images:
            raise BudgetSpentError("E-BUDGET", f"the budget of {limit.images:,} images is spent.")
        if limit.seconds is not None and self.seconds > limit.seconds:
            raise BudgetSpentError("E-BUDGET", f"the budget of {limit.seconds:g} seconds is spent.")
        self.images += images


@contextmanager
def metered(budget: Budget) -> Generator[Meter]:
    """Within the context every net that is called spends: the given net, copies of it, and nets made from it alike."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    meter = Meter(budget)
    running: list[Any] = []

    def enter(module: Any, inputs: tuple[Any, ...]) -> None:
        # A net is what says how many classes it has; its layers do not.
        if not (hasattr(module, "num_classes") and hasattr(module, "shape")):
            return
        running.append(module)
        if len(running) > 1:
            return  # inside another net's call, which has been counted
        assert inputs, "a net is given its images as the first argument, or they could not be counted"
        meter.spend(len(inputs[0]) * _copies() * (WITH_GRADIENT if torch.is_grad_enabled() else 1))

    def leave(module: Any, *rest: Any) -> None:
        del rest
        if running and running[-1] is module:
            running.pop()

    # always_call: a call that fails, or that the budget refuses, ends as well.
    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield meter
    finally:
        for handle in handles:
            handle.remove()


def _copies() -> int:
    """How often a call is really made: under `torch.vmap` (over parameters, say) once for every member of the batch, which the shape of
    the images does not show."""
    # Not public, but nothing public tells the size of the batch that one is in.
    from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_all_functorch_interpreters

    return math.prod(level.batch_size() for level in retrieve_all_functorch_interpreters() if isinstance(level, VmapInterpreter))
