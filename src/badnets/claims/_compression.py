"""The ways to compress a net that `survives_compression` tries, and what nets answered after each.

Shapes: K classes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from badnets.claims._base import Setting
from badnets.claims._cells import Condition
from badnets.claims._stress import After, Dose
from badnets.measure.outcome import Outcome
from badnets.measure.rates import Hits, asr_hits
from badnets.stressors._base import Stressor
from badnets.stressors.channel_pruning import ChannelPruning
from badnets.stressors.identity import Identity
from badnets.stressors.int4_weights import Int4Weights
from badnets.stressors.int8 import Int8
from badnets.stressors.low_precision import LowPrecision
from badnets.stressors.low_rank import LowRank
from badnets.stressors.magnitude_pruning import MagnitudePruning

WEIGHTS, CHANNELS, RANK = "pruned weight share", "pruned channel share", "kept rank share"
NULL: Condition = {"format": "float32, as it came"}
INT8: Condition = {"format": "int8"}
ONNX = ("onnx", "onnxscript", "onnxruntime")


class Way(NamedTuple):
    """One condition: how it is called, what is done, and whether it decides."""

    condition: Condition
    doses: tuple[Dose, ...]
    decides: bool = True
    note: str = ""


class Seen(NamedTuple):
    """What nets of all seeds answered after one way; the probes were clean images first, then triggered ones."""

    victims: list[After]
    twins: list[After]

    def clean(self) -> tuple[list[Outcome], list[Outcome]]:
        """On clean images: victims, twins."""
        return [a.outcomes[0] for a in self.victims], [a.outcomes[0] for a in self.twins]

    def hits(self, goal_K: np.ndarray) -> tuple[Hits, Hits]:
        """Triggered images sent to the goal or not: by victims, by twins."""
        return asr_hits([a.outcomes[1] for a in self.victims], goal_K), asr_hits([a.outcomes[1] for a in self.twins], goal_K)


def families(setting: Setting, tuning: Stressor) -> list[list[Way]]:
    """The ways in groups, each one question; the null is the very first. Tuning takes longest: at quick effort only the strongest of a
    family is tuned."""
    weights = setting.by_effort((0.5, 0.8, 0.9), (0.3, 0.5, 0.7, 0.8, 0.9, 0.95))
    channels = setting.by_effort((0.25, 0.5), (0.25, 0.5, 0.75, 0.9))
    ranks = setting.by_effort((0.25,), (0.5, 0.25, 0.1))
    pruned: list[list[tuple[Condition, Stressor]]] = [
        [({WEIGHTS: amount}, MagnitudePruning(amount=amount)) for amount in weights],
        [({CHANNELS: amount, "by": "norm"}, ChannelPruning(amount=amount, by="norm")) for amount in channels],
        [({CHANNELS: amount, "by": "activation"}, ChannelPruning(amount=amount, by="activation")) for amount in channels],
        [({RANK: rank}, LowRank(rank=rank)) for rank in ranks],
    ]
    num_tuned = 1 if setting.effort == "quick" else None
    return [_formats(setting, tuning), *(_both(ways, tuning, num_tuned) for ways in pruned)]


def _formats(setting: Setting, tuning: Stressor) -> list[Way]:
    """Number formats. They are not tuned: there is nothing left to train, and who deploys a net in one has finished training."""
    halves = setting.by_effort(("bfloat16",), ("bfloat16", "float16"))
    slow = setting.effort != "quick"
    runs = slow and all(find_spec(name) for name in ONNX)
    note = "torch's integer kernels, on the CPU." + (" Not tried in onnxruntime, which is not installed." if slow and not runs else "")
    return [
        Way(NULL, (Dose(stressor=Identity()),), decides=False, note="Nothing was done: the null."),
        Way({**NULL, "afterwards": "tuning"}, (Dose(stressor=tuning),), decides=False, note="The tuning alone, without compression."),
        Way(INT8, (Dose(stressor=Int8()),), note=note),
        *([Way({"format": "int8, onnxruntime"}, (Dose(stressor=Int8(runtime="onnxruntime")),))] if runs else []),
        Way({"format": "int4 weights"}, (Dose(stressor=Int4Weights()),)),
        *(Way({"format": dtype}, (Dose(stressor=LowPrecision(dtype=dtype)),)) for dtype in halves),
    ]


def _both(ways: list[tuple[Condition, Stressor]], tuning: Stressor, num_tuned: int | None) -> list[Way]:
    """Each way by itself, then the last so many (None: all) followed by tuning."""
    plain = [Way({**condition, "afterwards": "nothing"}, (Dose(stressor=stressor),)) for condition, stressor in ways]
    return plain + [
        Way({**way.condition, "afterwards": "tuning"}, (*way.doses, Dose(stressor=tuning))) for way in plain[-(num_tuned or len(plain)) :]
    ]
