"""From scores to verdicts: how rare a score is among clean nets, for one detector or several at once.

Valid where the suspect, if it is clean, could have been one of the clean nets (same architecture, same kind of data and training, detectors
with the same settings and budget); nets of another kind need clean nets of their own. A missing score is neither clean nor suspicious:
it is left out, which is right where it is missing for a reason that has nothing to do with the net (no access, no budget).
V. Vovk, A. Gammerman, G. Shafer (2005), Algorithmic Learning in a Random World, https://doi.org/10.1007/b106715 (conformal p-values).
Departure: the suspect takes part in the ranking of all nets, which makes the p-value exact for any number of clean nets.
Shapes: P nets known to be clean, D detectors, R repeats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.registry import nearest
from badnets.core.types import Estimate

if TYPE_CHECKING:
    import numpy as np

    Scores = Mapping[str, float | None]


class Calibration(Config):
    """Scores of P clean nets by D detectors (None: no score). `detectors`: labels that tell settings apart; `setting`: which nets."""

    detectors: tuple[str, ...] = Field(min_length=1)
    null_PD: tuple[tuple[float | None, ...], ...]
    setting: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if len(set(self.detectors)) != len(self.detectors) or any(len(row) != len(self.detectors) for row in self.null_PD):
            raise ValueError(f"expected different detectors and {len(self.detectors)} scores a net")
        return self

    @classmethod
    def of(cls, nets: Sequence[Scores], *, setting: str = "") -> Self:
        """From the scores of each clean net by name; a name that a net does not have is a missing score."""
        names = tuple(dict.fromkeys(name for scores in nets for name in scores))
        return cls(detectors=names, null_PD=tuple(tuple(scores.get(name) for name in names) for scores in nets), setting=setting)

    def column(self, name: str) -> np.ndarray:
        """The scores of one detector that are there."""
        import numpy as np

        place = self._place(name)
        return np.array([row[place] for row in self.null_PD if row[place] is not None], dtype=np.float64)

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """The clean nets that have all of these scores, in this order."""
        import numpy as np

        places = [self._place(name) for name in names]
        kept = [[row[place] for place in places] for row in self.null_PD if all(row[place] is not None for place in places)]
        return np.array(kept, dtype=np.float64).reshape(len(kept), len(places))

    def p_value(self, name: str, score: float | None) -> float | None:
        """The conformal p-value of one detector's score; None where there is no score or no clean net has one."""
        null_P = self.column(name)
        if score is not None and not math.isfinite(score):
            raise UsageError("E-SCORE", f"expected a finite score of {name:.80}, or None where there is none, got {score!r}.")
        return None if score is None or not len(null_P) else conformal_p(null_P, score)

    def _place(self, name: str) -> int:
        if name not in self.detectors:
            raise UsageError("E-NAME", f"no clean net was scored by {name!r:.80}.", hint=nearest(name, self.detectors))
        return self.detectors.index(name)


class Judgement(Config):
    """What the scores say together. `flagged` is None where nothing can be said; `why_not` says why.

    `p`: of all detectors together.
    """

    flagged: bool | None
    p: float | None
    p_values: dict[str, float | None]
    num_null: int
    why_not: str = ""


class Spread(Config):
    """How far the same net's score goes when a detector is run again with another seed.

    `within`: standard deviation over repeats; `between`: over nets, the repeats' share taken off; `reliability`: the share of the variance
    that is owed to nets; `unsteady`: share of nets whose verdict is not the same in all repeats.
    """

    within: float | None
    between: float | None
    reliability: float | None
    unsteady: Estimate


def conformal_p(null_P: np.ndarray, score: float) -> float:
    """(1 + clean nets that score at least as high) / (1 + clean nets): at most alpha with probability at most alpha for a clean net."""
    return (1 + int((null_P >= score).sum())) / (1 + len(null_P))


def judge(calibration: Calibration, scores: Scores, *, alpha: float = 0.05) -> Judgement:
    """The verdict of all scores together: a clean net is flagged with probability at most `alpha`, whatever the detectors share."""
    _check(alpha)
    return _judgement(calibration, scores, calibration.rows(list(scores)), alpha)


def settled(calibration: Calibration, scores: Scores, waiting: Sequence[str], *, alpha: float = 0.05) -> Judgement | None:
    """The verdict before the detectors in `waiting` were asked, if no answer of theirs could change it; None where one could.

    Only "flagged" is ever certain early, since a single score far outside flags a net whatever the others said. `p` is the largest that
    could still come out, so the rate of false alarms stays that of all detectors.
    """
    from badnets.detectors._min_p import NOT_ASKED

    _check(alpha)
    asked = [score for name, score in scores.items() if name not in waiting]
    rows_PD = calibration.rows([*(name for name in scores if name not in waiting), *waiting])
    p = _together(rows_PD, [*asked, *(NOT_ASKED for _ in waiting)])
    if p is None or p > alpha or _unresolved(len(rows_PD), alpha):
        return None
    p_values = {name: None if name in waiting else calibration.p_value(name, score) for name, score in scores.items()}
    return Judgement(flagged=True, p=p, p_values=p_values, num_null=len(rows_PD))


def flagged_rate(calibration: Calibration, nets: Sequence[Scores], *, alpha: float = 0.05) -> Estimate:
    """Share of nets that are flagged: the false-positive rate where they are clean, the true-positive rate where they are planted.

    The nets must not be among those of the calibration; those without a verdict are left out. The interval is over nets, for this one
    calibration, whose own rate scatters about `alpha`: by 0.03 (standard deviation) at 0.1 with 99 clean nets.
    """
    from badnets.core.stats import wilson

    verdicts = [judge(calibration, scores, alpha=alpha).flagged for scores in nets]
    known = [verdict for verdict in verdicts if verdict is not None]
    return wilson(sum(known), len(known), num_seeds=len(known))


def repeat_spread(calibration: Calibration, name: str, scores_PR: Sequence[Sequence[float]], *, alpha: float = 0.05) -> Spread:
    """The spread of one detector over repeats: P nets, each scored with the same R >= 2 seeds."""
    import numpy as np

    from badnets.core.stats import wilson

    found_PR = np.asarray(scores_PR, dtype=np.float64)
    if found_PR.ndim != 2 or found_PR.shape[1] < 2 or not np.isfinite(found_PR).all():
        raise UsageError("E-REPEATS", f"expected finite scores of nets x at least two repeats, got shape {found_PR.shape}.")
    null_P = calibration.column(name)
    flagged_PR = np.array([[conformal_p(null_P, score) <= alpha for score in row] for row in found_PR])
    unsteady = wilson(int((flagged_PR.any(axis=1) & ~flagged_PR.all(axis=1)).sum()), len(found_PR), num_seeds=found_PR.shape[1])
    within = float(found_PR.var(axis=1, ddof=1).mean())
    if len(found_PR) < 2:
        return Spread(within=within**0.5, between=None, reliability=None, unsteady=unsteady)
    between = max(0.0, float(found_PR.mean(axis=1).var(ddof=1)) - within / found_PR.shape[1])
    reliability = between / (between + within) if between + within > 0 else None
    return Spread(within=within**0.5, between=between**0.5, reliability=reliability, unsteady=unsteady)


def _judgement(calibration: Calibration, scores: Scores, rows_PD: np.ndarray, alpha: float) -> Judgement:
    p_values = {name: calibration.p_value(name, score) for name, score in scores.items()}
    p = _together(rows_PD, list(scores.values()))
    why_not = _unresolved(len(rows_PD), alpha) or ("" if p is not None else "no detector gave a score")
    flagged = None if why_not or p is None else p <= alpha
    return Judgement(flagged=flagged, p=p, p_values=p_values, num_null=len(rows_PD), why_not=why_not)


def _together(rows_PD: np.ndarray, scores: Sequence[float | None]) -> float | None:
    from badnets.detectors._min_p import combined_p

    return combined_p(rows_PD, scores) if len(rows_PD) and scores else None


def _unresolved(num_null: int, alpha: float) -> str:
    return "" if 1 / (1 + num_null) <= alpha else f"{num_null} clean nets cannot show anything at a level of {alpha:g}"


def _check(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError("E-ALPHA", f"expected a level between 0 and 1, got {alpha!r}.")
