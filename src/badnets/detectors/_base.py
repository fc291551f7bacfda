"""The sealed base of every detector: a suspect and a budget in, a Finding out; blindfolded, timed, counted, checked.

Authors write `_scan`. A detector gives scores (larger is more suspicious) and gives no verdict: what score is too large is known from nets
that are known to be clean. Not for methods that compare a net with a reference copy of itself: a defender has none.
Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import numpy as np
import pydantic

from badnets.core import registry
from badnets.core.blind import blindfolded
from badnets.core.config import Config
from badnets.core.finding import Answer, Finding, Level
from badnets.core.meter import BudgetSpentError, Meter, metered
from badnets.core.suspect import NO_LIMIT, Access, Budget, Suspect
from badnets.core.view import View, view_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class Detector(Config, abc.ABC):
    """Something that tells bad from good without the secret.

    `judges`: what it gives a score to. `access`: the least that it needs to be granted. `null`: an instrument that looks at nothing, or at
    what everybody has, and stands in every table for comparison.
    """

    kind: str
    judges: ClassVar[Level]
    access: ClassVar[Access] = Access.MODEL
    null: ClassVar[bool] = False

    @property
    def level(self) -> Level:
        """What this configuration judges."""
        return self.judges

    @final
    def scan(self, suspect: Suspect, budget: Budget = NO_LIMIT, *, rng: np.random.Generator) -> Finding:
        """What the detector says; the same bits for the same suspect (in any row order), budget of images and state of `rng`.

        The suspect is left as it was. A Finding without a score says why in `why_not`; that is never "clean".
        """
        seed = int(rng.integers(2**62))
        missing = self._missing(suspect)
        if missing:
            return self._finding(Answer(why_not=missing), None, None)
        view = view_of(suspect, judge={Level.INPUTS: "inputs", Level.ROWS: "training"}.get(self.level, ""))
        with blindfolded(), metered(budget) as meter:
            try:
                answer = self._scan(view, seed)
            except BudgetSpentError as spent:
                answer = Answer(why_not=spent.message)
            return self._finding(answer, view, meter)

    @abc.abstractmethod
    def _scan(self, view: View, seed: int) -> Answer:
        """Look at `view`. Randomness only from `core.rng` streams of `seed`, the same for every class."""

    def _missing(self, suspect: Suspect) -> str:
        """What the detector needs and the suspect does not have, or an empty string."""
        granted = {Access.MODEL: True, Access.CLEAN: _some(suspect.clean), Access.TRAINING: _some(suspect.training)}
        if not granted[self.access]:
            return {Access.CLEAN: "needs clean images", Access.TRAINING: "needs the training data"}[self.access]
        if self.level is Level.ROWS and not _some(suspect.training):
            return "needs the training data"
        return "needs inputs to judge" if self.level is Level.INPUTS and suspect.inputs is None else ""

    def _finding(self, answer: Answer, view: View | None, meter: Meter | None) -> Finding:
        given = {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
        if answer.why_not:
            given |= {"score": None, "score_N": None, "flag_N": None, "score_K": None, "target": None}
        elif view is not None:
            given |= _checked(self, answer, view)
        cost = {"images": meter.images, "seconds": meter.seconds} if meter else {}
        return Finding(**given, detector=self.kind, level=self.level, **cost)


def _checked(detector: Detector, answer: Answer, view: View) -> Mapping[str, object]:
    """The parts of the answer that the level asks for, as plain arrays in the given order; a score that is no number is no answer."""
    nothing = {"score": None, "score_N": None, "flag_N": None, "score_K": None, "target": None}
    found: dict[str, object] = {} if answer.score_K is None else {"score_K": _flat(answer.score_K, view.num_classes)}
    if detector.level is Level.MODEL:
        assert answer.score is not None, f"{detector.kind} judges nets and gave no score"
        if not np.isfinite(answer.score):
            return {**nothing, "why_not": "the score is not finite: the net gives no numbers"}
        return {**found, "score": float(answer.score)}
    assert answer.score_N is not None, f"{detector.kind} judges {detector.level} and gave no scores"
    assert view.order_N is not None
    score_N = _flat(answer.score_N, len(view.order_N))
    if not np.isfinite(score_N).all():
        return {**nothing, "why_not": "a score is not finite: the net gives no numbers"}
    found["score_N"] = _as_given(score_N, view.order_N)
    if answer.flag_N is not None:
        found["flag_N"] = _as_given(np.asarray(answer.flag_N, dtype=bool), view.order_N)
    return found


def _some(pair: tuple[np.ndarray, np.ndarray] | None) -> bool:
    """Whether there are images; none are as good as no access."""
    return pair is not None and len(pair[1]) > 0


def _flat(values: object, length: int) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    assert found.shape == (length,), f"expected {length} scores, got shape {found.shape}"
    return found


def _as_given(values_N: np.ndarray, order_N: np.ndarray) -> np.ndarray:
    assert values_N.shape == order_N.shape, f"expected {len(order_N)} values, got shape {values_N.shape}"
    back_N = np.empty_like(values_N)
    back_N[order_N] = values_N
    return back_N


AnyDetector = Annotated[pydantic.SerializeAsAny[Detector], pydantic.BeforeValidator(lambda value: registry.parse("detectors", value))]
"""Field type: a Detector, its name, `name:field=value`, or its JSON."""
