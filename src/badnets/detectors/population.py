"""Population: learns from nets known to be clean and nets known to be planted which traits of a net give a backdoor away.

Says nothing before it was given a population (`fitted`), nor of a net of another architecture. It knows the backdoors it was shown: how
well it does on a trigger that it was not shown has to be measured by leaving that trigger out.
X. Xu, Q. Wang, H. Li, N. Borisov, C. A. Gunter, B. Li (2021), Detecting AI Trojans Using Meta Neural Analysis,
https://arxiv.org/abs/1910.03137; S. Kolouri, A. Saha, H. Pirsiavash, H. Hoffmann (2020), Universal Litmus Patterns: Revealing Backdoor
Attacks in CNNs, https://arxiv.org/abs/1906.10842
Departures: traits of the weights and of the answers to clean images, in no order of units or classes, in the place of answers to learned
queries, since tens of nets, not thousands, have to do; a ridge logistic regression in the place of a meta-net.
Shapes: P nets, T traits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from badnets.core.config import Config
from badnets.core.errors import UsageError
from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access, Suspect
from badnets.core.view import View, view_of
from badnets.detectors._base import Detector
from badnets.detectors._traits import architecture, traits

FARTHEST = 6.0
"""Standard deviations of clean nets beyond which a trait counts no more: one wild trait must not outvote all others."""


class _Fitted(Config):
    """What was learned: enough to judge a net of the same architecture from as many clean images; a few kilobytes of JSON."""

    architecture: str
    images: int = Field(ge=2)
    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        lengths = {len(part) for part in (self.names, self.centre, self.scale, self.weight)}
        if len(lengths) != 1 or min(self.scale, default=0) <= 0:
            raise ValueError(f"expected a centre, a positive scale and a weight for each trait, got lengths {sorted(lengths)}")
        return self

    def parts(self, found: dict[str, float]) -> np.ndarray:
        """What each trait adds to the score."""
        value_T = np.array([found[name] for name in self.names])
        return _standard(value_T, np.array(self.centre), np.array(self.scale)) * np.array(self.weight)


class Population(Detector):
    """Score: the log-odds of the regression. `ridge`: strength of its penalty; `images`: clean images that are looked at."""

    kind: Literal["population"] = "population"
    judges = Level.MODEL
    access = Access.CLEAN
    fitted: _Fitted | None = None
    images: int = Field(default=400, ge=2, le=100_000)
    ridge: float = Field(default=10.0, gt=0)

    def learned(self, suspects: Sequence[Suspect], planted_P: Sequence[bool]) -> Self:
        """This detector with what a population teaches: nets of one architecture with clean images, and which of them are planted."""
        views = [view_of(suspect) for suspect in suspects]
        kinds = {architecture(view.network) for view in views}
        if len(kinds) != 1:
            raise UsageError("E-POPULATION", f"expected nets of one architecture, got {len(kinds)} kinds.")
        images = min([self.images, *(len(view.need_clean()[0]) for view in views)])
        found = [traits(view.network, view.need_clean()[0][:images]) for view in views]
        names = tuple(found[0])
        values_PT = np.array([[one[name] for name in names] for one in found])
        centre_T, scale_T, weight_T, bias = fit(values_PT, np.asarray(planted_P, dtype=bool), ridge=self.ridge)
        parts = {"centre": centre_T, "scale": scale_T, "weight": weight_T}
        fitted = _Fitted(
            architecture=kinds.pop(), images=images, names=names, bias=bias, **{name: tuple(part.tolist()) for name, part in parts.items()}
        )
        return self.but(fitted=fitted)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        if self.fitted is None:
            return Answer(why_not="needs a population of clean and planted nets to learn from")
        if architecture(view.network) != self.fitted.architecture:
            return Answer(why_not="learned from nets of another architecture")
        x_NCHW = view.need_clean()[0]
        if len(x_NCHW) < self.fitted.images:
            return Answer(why_not=f"needs {self.fitted.images} clean images, as it learned with, got {len(x_NCHW)}")
        part_T = self.fitted.parts(traits(view.network, x_NCHW[: self.fitted.images]))
        loudest = sorted(zip(part_T.tolist(), self.fitted.names, strict=True), reverse=True)[:3]
        return Answer(score=self.fitted.bias + float(part_T.sum()), note=", ".join(f"{name} {part:+.2f}" for part, name in loudest))


def fit(values_PT: np.ndarray, planted_P: np.ndarray, *, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Centre, scale, weights and intercept. Traits are measured by the spread of the clean nets; both kinds of nets count the same."""
    from sklearn.linear_model import LogisticRegression

    clean_PT = values_PT[~planted_P]
    if len(clean_PT) < 3 or not planted_P.any():
        raise UsageError("E-POPULATION", f"expected three clean nets and a planted one, got {len(clean_PT)} and {int(planted_P.sum())}.")
    centre_T, spread_T = clean_PT.mean(axis=0), clean_PT.std(axis=0, ddof=1)
    scale_T = np.maximum(spread_T, 1e-9 * np.maximum(np.abs(centre_T), 1.0))
    regression = LogisticRegression(C=1 / ridge, class_weight="balanced", max_iter=2000)
    regression.fit(_standard(values_PT, centre_T, scale_T), planted_P)
    return centre_T, scale_T, regression.coef_[0], float(regression.intercept_[0])


def log_odds(values_PT: np.ndarray, learned: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> np.ndarray:
    """What `fit` learned says of nets with these traits."""
    centre_T, scale_T, weight_T, bias = learned
    return _standard(values_PT, centre_T, scale_T) @ weight_T + bias


def _standard(values: np.ndarray, centre_T: np.ndarray, scale_T: np.ndarray) -> np.ndarray:
    return np.clip((values - centre_T) / scale_T, -FARTHEST, FARTHEST)
