"""Scans one suspect net: every detector that its access allows, each score as a rank among clean nets, one verdict of all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from badnets.core.rng import numpy_generator
from badnets.core.suspect import Suspect
from badnets.core.types import Estimate
from badnets.datasets._base import ImageSet
from badnets.plans._model_file import ModelFile
from badnets.plans._null import Null

if TYPE_CHECKING:
    from badnets.core.finding import Finding

DETECTORS = ("channel_lipschitz", "mm_bd", "universal_inversion", "neural_cleanse")
"""Detectors of nets, cheapest first. Which ones is decided by what they do on nets planted for the purpose, not on any suspect."""
NAMES_TARGET = ("neural_cleanse", "universal_inversion")
"""Whose word counts for the suspected target class, the first first."""
ALPHA = 0.05


class Line(pydantic.BaseModel):
    """What one detector says. `p`: its rank among clean nets (None: not analysable, `why_not` says why); `target`: the class it suspects;
    `unsteady`: the share of clean nets whose verdict by it changes with its random numbers."""

    model_config = pydantic.ConfigDict(frozen=True)

    detector: str
    p: float | None
    score: float | None
    target: str | None
    note: str
    why_not: str
    images: int
    seconds: float
    unsteady: Estimate | None


class Verdict(pydantic.BaseModel):
    """The answer of a scan. `flagged` None: not analysable, which is never "clean". `sandbox`: what kept the reader of the file in;
    `notes`: what was seen and assumed in opening it."""

    model_config = pydantic.ConfigDict(frozen=True)

    file: str
    sha256: str
    format: str
    sandbox: str
    notes: tuple[str, ...]
    net: dict[str, Any]
    dataset: str
    setting: str
    flagged: bool | None
    p: float | None
    alpha: float
    num_null: int
    false_alarms: Estimate
    target: str | None
    lines: list[Line]
    why_not: str


@dataclass(frozen=True, eq=False)
class Scan:
    """A verdict and the pictures that go with it: name -> image in 0..1, CHW."""

    verdict: Verdict
    pictures: Mapping[str, np.ndarray]


def scan_model(model: ModelFile, data: ImageSet, null: Null) -> Scan:
    """The verdict on a model; the same for the same file, data and null population."""
    import torch

    from badnets.detectors._calibration import judge

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        findings = {name: _finding(name, model, data) for name in null.seconds}
    finally:
        torch.set_num_threads(threads)
    scores = {name: finding.score for name, finding in findings.items()}
    judged = judge(null.calibration, scores, alpha=ALPHA)
    named = [findings[name].target for name in NAMES_TARGET if name in findings and findings[name].target is not None]
    target = data.classes[named[0]] if judged.flagged and named and named[0] is not None else None
    verdict = Verdict(
        file=str(model.path),
        sha256=model.sha256,
        format=model.format,
        sandbox=model.sandbox,
        notes=model.notes,
        net=model.net,
        dataset=data.name,
        setting=null.setting,
        flagged=judged.flagged,
        p=judged.p,
        alpha=ALPHA,
        num_null=judged.num_null,
        false_alarms=null.false_alarms(alpha=ALPHA),
        target=target,
        lines=[_line(finding, judged.p_values.get(name), data, null) for name, finding in findings.items()],
        why_not=judged.why_not,
    )
    pictures = {f"{name} {what}": image for name, finding in findings.items() for what, image in finding.pictures.items()}
    return Scan(verdict, pictures)


def _finding(name: str, model: ModelFile, data: ImageSet) -> Finding:
    from badnets.core import registry
    from badnets.detectors._base import Detector

    detector = registry.parse("detectors", {"kind": name})
    assert isinstance(detector, Detector)
    suspect = Suspect(model.network, data.shape, data.num_classes, clean=(data.budget.x_NCHW, data.budget.y_N))
    # Random numbers follow from the file, so that a second scan says the same.
    return detector.scan(suspect, rng=numpy_generator(int(model.sha256[:15], 16), "scan", name))


def _line(finding: Finding, p: float | None, data: ImageSet, null: Null) -> Line:
    return Line(
        detector=finding.detector,
        p=p,
        score=finding.score,
        target=None if finding.target is None else data.classes[finding.target],
        note=finding.note,
        why_not=finding.why_not,
        images=finding.images,
        seconds=finding.seconds,
        unsteady=null.spread(finding.detector, alpha=ALPHA).unsteady if finding.score is not None else None,
    )
