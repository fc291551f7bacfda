"""The Record of a scan: every file or training set that was asked about, its verdict or why there is none, and what nobody looked at.

Not the Record of a run: a scan decides about something of a stranger's, a run about claims. All text that comes from a file is kept as it
is here; whoever shows it escapes it for the place where it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import Field

from badnets.core.types import Estimate, Picture, Scalar

SCHEMA = 1
EXIT_MEANINGS = {
    0: "nothing found",
    1: "a backdoor or poison was found",
    3: "something was refused or is not analysable, and nothing was found in the rest",
    6: "something failed, and nothing was found in the rest: the same command tries it again",
}


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def net_name(net: Mapping[str, Any]) -> str:
    """What people call an architecture."""
    return str(net.get("title") or net["kind"])


def net_text(net: Mapping[str, Any]) -> str:
    """The same with those of its fields that are short."""
    fields = ", ".join(f"{field}={value}" for field, value in net.items() if field not in ("kind", "layers", "title"))
    return f"{net_name(net)} ({fields})" if fields else net_name(net)


class Line(_Frozen):
    """What one detector says. `p`: its rank among clean nets (None: not analysable, `why_not` says why); `target`: the class it suspects;
    `unsteady`: the share of clean nets whose verdict by it changes with its random numbers."""

    detector: str
    p: float | None
    score: float | None
    target: str | None
    note: str
    why_not: str
    images: int
    seconds: float
    unsteady: Estimate | None


def steadiness(lines: Sequence[Line]) -> str:
    """Of how many clean nets the verdict by each detector alone changed when it was run again, in words; empty where nobody was."""
    known = {line.detector: line.unsteady for line in lines if line.unsteady is not None and line.unsteady.value is not None}
    changed = [f"{name} on {round((u.value or 0) * u.n)} of {u.n}" for name, u in known.items()]
    return f"Run again on clean nets with other random numbers, the verdict changed by {', '.join(changed)}" if changed else ""


class Opinion(_Frozen):
    """What another scanner says of the file as a program, beside ours and never instead of it. `says`: "dangerous", "suspicious",
    "nothing found" or "failed"; `names`: what it found named in the pickle."""

    tool: str
    version: str
    says: str
    names: tuple[str, ...] = ()


class UnlabelledImages(_Frozen):
    """Images without labels that detectors were shown in place of those of `dataset`: so many different ones, of SHA-256 `sha256`, out of
    `read` of the folder's `files`."""

    folder: str
    sha256: str
    number: int
    read: int
    files: int
    dataset: str

    @property
    def told(self) -> str:
        """What they are, and what nobody can know without labels."""
        less = f", {self.read:,} of {self.files:,} files, evenly taken" if self.read < self.files else ""
        less += f", {self.read - self.number:,} copies left out" if self.number < self.read else ""
        return (
            f"{self.number:,} without labels from {self.folder}{less}, shown to this net and to the clean nets in place of those of "
            f"{self.dataset}. Labels are each net's own answers, so the accuracy on these images is unknown; accuracy and preparation were "
            f"checked on labelled images of {self.dataset}."
        )


class Verdict(_Frozen):
    """The answer of a scan. `flagged` None: not analysable, which is never "clean". `sandbox`: what kept the reader of the file in;
    `notes`: what was seen and assumed in opening it; `false_alarms`: of clean nets by a calibration without them; `not_looked_at`: what no
    detector here can see; `images`: None where detectors were shown clean labelled images of the data set."""

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
    not_looked_at: tuple[str, ...] = ()
    opinion: Opinion | None = None
    images: UnlabelledImages | None = None


class Group(_Frozen):
    """Suspects of one class. `agreement`: the share that a net trained without them calls by their label; `others`: what it calls the
    rest of them most often."""

    label: str
    size: int
    agreement: Estimate
    others: str
    poisoned: bool


class RowVerdict(_Frozen):
    """What was found in training data. `false_alarms`: of clean training sets, `measured` says which and when."""

    dataset: str
    sha256: str
    flagged: bool
    num_rows: int
    num_suspect: int
    groups: list[Group]
    false_alarms: Estimate
    measured: str
    not_looked_at: tuple[str, ...] = ()


class State(StrEnum):
    """What became of one file. Every file has exactly one of these, so that they add up."""

    FLAGGED = "flagged"
    NOTHING = "nothing found"
    REFUSED = "refused"
    FAILED = "failed"


class Item(_Frozen):
    """One file. `verdict` where it was analysed (also where that gave no answer); `code`, `message`, `hint`: why not, as the error said it;
    `kept`: the detectors' answers were in the store."""

    path: str
    sha256: str
    state: State
    verdict: Verdict | None = None
    code: str = ""
    message: str = ""
    hint: str = ""
    opinion: Opinion | None = None
    kept: bool = False
    pictures: list[Picture] = Field(default_factory=list)


class Passed(_Frozen):
    """A file in a folder that is not taken for a model, and why."""

    path: str
    why: str


class Summary(_Frozen):
    """How many: `analysed` + `refused` + `failed` = `inputs`, and `flagged` of `analysed`."""

    inputs: int
    analysed: int
    refused: int
    failed: int
    flagged: int
    passed_over: int


class ScanRecord(_Frozen):
    """All of one scan. `folder`: where it was started, which relative paths are relative to; `images`: as in a Verdict; `exit_status` as
    the command ends."""

    schema_version: int = Field(SCHEMA, alias="schema")
    key: str
    folder: str
    dataset: str
    dataset_sha256: str
    images: UnlabelledImages | None = None
    effort: str
    items: list[Item] = Field(default_factory=list)
    passed_over: list[Passed] = Field(default_factory=list)
    rows: RowVerdict | None = None
    sheet: list[Picture] = Field(default_factory=list)
    summary: Summary
    exit_status: int
    hardware: dict[str, Scalar]
    versions: dict[str, str]
    started: str
    ended: str
    seconds: float

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True)

    def without_pictures(self) -> Self:
        """The same for a terminal or a pipe."""
        return self.model_copy(update={"items": [item.model_copy(update={"pictures": []}) for item in self.items], "sheet": []})


def path_text(path: Path) -> str:
    """A path as text that is valid Unicode, whatever bytes the file system holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def summed(items: list[Item], passed_over: int) -> Summary:
    """The summary of some files; an analysed one has a verdict that says yes or no."""
    count = {state: sum(item.state is state for item in items) for state in State}
    return Summary(
        inputs=len(items),
        analysed=count[State.FLAGGED] + count[State.NOTHING],
        refused=count[State.REFUSED],
        failed=count[State.FAILED],
        flagged=count[State.FLAGGED],
        passed_over=passed_over,
    )


def exit_status(summary: Summary) -> int:
    """A finding is never hidden by a refusal, nor work that is still to be done by one."""
    return 1 if summary.flagged else 6 if summary.failed else 3 if summary.refused else 0
