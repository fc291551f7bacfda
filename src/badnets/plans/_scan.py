"""Scans one suspect net: every detector that its access allows, each score as a rank among clean nets, one verdict of all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from badnets.core.config import Config
from badnets.core.rng import numpy_generator
from badnets.core.scanned import Line, UnlabelledImages, Verdict, path_text
from badnets.core.suspect import NO_LIMIT, Budget, Suspect
from badnets.datasets._base import ImageSet
from badnets.plans._model_file import ModelFile
from badnets.plans._null import Null

if TYPE_CHECKING:
    from badnets.core.finding import Finding
    from badnets.intake.unlabelled import Unlabelled

DETECTORS = ("channel_lipschitz", "mm_bd", "universal_inversion", "neural_cleanse")
"""Detectors of nets, cheapest first. Which ones is decided by what they do on nets planted for the purpose, not on any suspect."""
NAMES_TARGET = ("neural_cleanse", "universal_inversion")
"""Whose word counts for the suspected target class, the first first."""
ALPHA = 0.05
NOT_ASKED = "not asked: the verdict is certain without it"
OTHER_IMAGES = "what the net does on images of another kind than those of the data set"
OTHER_THAN_THESE = "what the net does on images of another kind than these, and whether these, without labels, are what it is made for"
NOT_LOOKED_AT = (
    OTHER_IMAGES,
    "metadata of the file, optimizer states, and copies of the weights beside those that were taken",
    "triggers that work on some classes only, or send each class elsewhere: looked for is one that takes any image to one class",
)


class Told(Config):
    """What opening the file told."""

    file: str
    sha256: str
    format: str
    sandbox: str
    notes: tuple[str, ...]
    net: dict[str, Any]


class Said(Config):
    """What one detector said: its score, the number of the class it suspects, its words and its cost."""

    score: float | None
    target: int | None
    note: str
    why_not: str
    images: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Scan:
    """A verdict and the pictures that go with it: name -> image in 0..1, CHW."""

    verdict: Verdict
    pictures: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Heard:
    """What was read from one file and what each detector said of it: everything of a verdict but the clean nets."""

    model: Told
    said: Mapping[str, Said]
    pictures: Mapping[str, np.ndarray]


def scan_model(model: ModelFile, data: ImageSet, null: Null, budget: Budget = NO_LIMIT) -> Scan:
    """The verdict on a model; the same for the same file, data, null population and budget of images.

    With a budget, which is of all detectors together, those that are left are not asked once no answer of theirs could change the verdict;
    its p-value is then the largest that could have come out.
    """
    from badnets.detectors._calibration import settled

    detectors = tuple(null.seconds)

    def certain(said: Mapping[str, Said]) -> bool:
        waiting = [name for name in detectors if name not in said]
        return settled(null.calibration, {name: one.score for name, one in said.items()}, waiting, alpha=ALPHA) is not None

    return judged(hear(model, data, detectors, budget, until=certain if budget != NO_LIMIT else None), data, null)


def hear(
    model: ModelFile,
    data: ImageSet,
    detectors: tuple[str, ...] = DETECTORS,
    budget: Budget = NO_LIMIT,
    *,
    until: Callable[[Mapping[str, Said]], bool] | None = None,
) -> Heard:
    """What the detectors say of a model, without clean nets: in this order, as far as the budget goes, `until` enough was said."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    said: dict[str, Said] = {}
    pictures: dict[str, np.ndarray] = {}
    try:
        for name in detectors:
            if until is not None and said and until(said):
                break
            left, spent = _left(budget, said)
            if spent:
                said[name] = _silent(spent)
                continue
            finding = _finding(name, model, data, left)
            said[name] = _said(finding)
            pictures |= {f"{name} {what}": image for what, image in finding.pictures.items()}
    finally:
        torch.set_num_threads(threads)
    said |= {name: _silent(NOT_ASKED) for name in detectors if name not in said}
    return Heard(told_of(model), said, pictures)


def told_of(model: ModelFile) -> Told:
    """What opening it told."""
    return Told(
        file=path_text(model.path), sha256=model.sha256, format=model.format, sandbox=model.sandbox, notes=model.notes, net=model.net
    )


def _left(budget: Budget, said: Mapping[str, Said]) -> tuple[Budget, str]:
    """What is left of a budget, or which part of it is spent."""
    images = None if budget.images is None else budget.images - sum(one.images for one in said.values())
    seconds = None if budget.seconds is None else budget.seconds - sum(one.seconds for one in said.values())
    if images is not None and images <= 0:
        return budget, f"the budget of {budget.images:,} images is spent."
    if seconds is not None and seconds <= 0:
        return budget, f"the budget of {budget.seconds:g} seconds is spent."
    return Budget(images, seconds), ""


def _silent(why_not: str) -> Said:
    return Said(score=None, target=None, note="", why_not=why_not, images=0, seconds=0.0)


def with_images(model: ModelFile, data: ImageSet, images: Unlabelled) -> tuple[ModelFile, ImageSet]:
    """What detectors are to be asked about where a net is shown images without labels, and a note of what it says of those."""
    shown = images.in_place_of_budget(data, model.network)
    answered = f"{len(np.unique(shown.budget.y_N))} of its {data.num_classes} classes"
    note = f"its answers to the {len(shown.budget):,} images without labels are {answered}"
    return replace(model, notes=(*model.notes, note)), shown


def judged(heard: Heard, data: ImageSet, null: Null, images: Unlabelled | None = None) -> Scan:
    """The verdict on what was heard, as a rank among clean nets; detectors that these were not asked about do not count.

    `images`: those that the net and the clean nets were shown."""
    from badnets.detectors._calibration import judge, settled

    said = {name: one for name, one in heard.said.items() if name in null.seconds}
    scores, waiting = {name: one.score for name, one in said.items()}, [name for name, one in said.items() if one.why_not == NOT_ASKED]
    # Left out they would make the p-value smaller than it could have come out.
    found = settled(null.calibration, scores, waiting, alpha=ALPHA) if waiting else judge(null.calibration, scores, alpha=ALPHA)
    assert found is not None, f"{waiting} were not asked, and could still change the verdict"
    named = [said[name].target for name in NAMES_TARGET if name in said and said[name].target is not None]
    target = data.classes[named[0]] if found.flagged and named and named[0] is not None else None
    left = [
        f"{name} left out, since it says nothing of clean nets of such layers either: {one.why_not}"
        for name, one in heard.said.items()
        if name not in said and one.why_not
    ]
    verdict = Verdict(
        **heard.model.but(notes=(*heard.model.notes, *left)).model_dump(),
        dataset=data.name,
        setting=null.setting,
        flagged=found.flagged,
        p=found.p,
        alpha=ALPHA,
        num_null=found.num_null,
        false_alarms=null.false_alarms(alpha=ALPHA),
        target=target,
        lines=[_line(name, one, found.p_values.get(name), data, null) for name, one in said.items()],
        why_not=found.why_not,
        not_looked_at=NOT_LOOKED_AT if images is None else (OTHER_THAN_THESE, *(text for text in NOT_LOOKED_AT if text != OTHER_IMAGES)),
        images=shown(images, data),
    )
    return Scan(verdict, heard.pictures)


def shown(images: Unlabelled | None, data: ImageSet) -> UnlabelledImages | None:
    """What a verdict tells of images without labels."""
    if images is None:
        return None
    counts = {"number": len(images.x_NCHW), "read": images.num_read, "files": images.num_files}
    return UnlabelledImages(folder=path_text(images.folder), sha256=images.sha256, dataset=data.name, **counts)


def _finding(name: str, model: ModelFile, data: ImageSet, budget: Budget) -> Finding:
    from badnets.core import registry
    from badnets.detectors._base import Detector

    detector = registry.parse("detectors", {"kind": name})
    assert isinstance(detector, Detector)
    suspect = Suspect(model.network, data.shape, data.num_classes, clean=(data.budget.x_NCHW, data.budget.y_N))
    # Random numbers follow from the file, so that a second scan says the same.
    return detector.scan(suspect, budget, rng=numpy_generator(int(model.sha256[:15], 16), "scan", name))


def _said(finding: Finding) -> Said:
    return Said(
        score=finding.score,
        target=finding.target,
        note=finding.note,
        why_not=finding.why_not,
        images=finding.images,
        seconds=finding.seconds,
    )


def _line(name: str, said: Said, p: float | None, data: ImageSet, null: Null) -> Line:
    return Line(
        detector=name,
        p=p,
        score=said.score,
        target=None if said.target is None else data.classes[said.target],
        note=said.note,
        why_not=said.why_not,
        images=said.images,
        seconds=said.seconds,
        unsteady=null.spread(name, alpha=ALPHA).unsteady if said.score is not None else None,
    )
