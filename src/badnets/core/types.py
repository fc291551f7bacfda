"""The vocabulary as types: estimates, verdicts, cells, evidence. No number travels without its interval."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self

import pydantic
from pydantic import Field, model_validator

from badnets.core.errors import RefusedError

SCHEMA, READABLE = 3, (1, 2, 3)
"""The layout of a Record written now, and those that can be read: 2 added what is optional (stories, pictures, sizes, maps), and so did 3
(memory, tables, scatter charts, the line in a map)."""

Scalar = str | int | float | bool | None


class Verdict(StrEnum):
    """What the evidence says of a sentence (or of one cell of it)."""

    HOLDS = "HOLDS"
    FAILS = "FAILS"
    CONDITIONAL = "CONDITIONAL"
    UNDECIDED = "UNDECIDED"


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(_Frozen):
    """A value with its 95 % interval: `n` images (or models) behind it, over `num_seeds` seeds, by `method`.

    `value`, `low` and `high` are None when unknown. Rates are 0..1.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    num_seeds: int
    method: str

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        if self.low is None or self.high is None:
            return f"{self.value:.4g} [no interval]"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


Estimator = Callable[[float], Estimate]
"""An estimate as a function of its confidence level (0.95 -> the 95 % interval): what a p-value is read from."""


class Cell(_Frozen):
    """One condition of a claim: what was varied, what came out, what the control gave, what follows.

    `quantity` is the field's term ("ASR", "CA loss"); `unit` is "rate" (0..1, shown as %), "points" (a difference of
    rates, shown x100), or "" for a plain number; `control_unit` and `control_name`
    are the control's where they differ from the cell's and the claim's.
    `verdict` is None for a descriptive cell, which decides nothing.
    `p` is the smallest level at which the interval would still lie on one side of the margin.
    `size_bytes` and `seconds`: the net's file and its time for one image, where the condition changes them. In a claim without file sizes
    `seconds` and `memory_bytes` are what a detector or a repair took for one net: time in the mean, memory at the most.
    """

    condition: dict[str, Scalar]
    quantity: str
    unit: str
    estimate: Estimate
    control: Estimate | None = None
    control_unit: str | None = None
    control_name: str | None = None
    verdict: Verdict | None = None
    p: float | None = None
    per_seed: list[float] = Field(default_factory=list)
    note: str = ""
    size_bytes: int | None = None
    seconds: float | None = None
    memory_bytes: int | None = None


class Chart(_Frozen):
    """How the report should draw some cells: those whose `quantity` is listed, whose condition has the key `x` and agrees with `where`.

    `kind`: "band" (line with interval band over numeric x, one line per value of `series`), "dots" (categorical x, point and
    interval), "heat" (x, y numeric, colour = value), "map" (x and y in steps of their own, colour and text = value, the cells on
    the other side of `margin` framed: where a property ends; `x_line` draws a line behind the last column up to that value, and
    `x_line_text` says why). "table": a row for each value of x, a column for each quantity, beside them the cells' time, memory and n; one
    table for each combination of what else varies. "scatter": `quantities` are two, across and up; a point, named by x and coloured by
    `series`, for each condition that has both, and the front of those that no other is below in both. `log_x` for poison rates.
    `margin`: the decision line, if any; `x_margin`: that of a scatter chart's quantity across.
    """

    title: str
    kind: str
    quantities: list[str]
    x: str
    y: str | None = None
    series: str | None = None
    log_x: bool = False
    margin: float | None = None
    x_margin: float | None = None
    x_line: float | None = None
    x_line_text: str = ""
    x_title: str = ""
    y_title: str = ""
    where: dict[str, Scalar] = Field(default_factory=dict)
    note: str = ""


FRAME, BY_MAJORITY = "frame", " by majority"


class Picture(_Frozen):
    """A small image for the report: PNG bytes in base64, with what each net said of it.

    A row of pictures that all have the fact FRAME is a film; facts whose names end with BY_MAJORITY are of the film as a whole.
    """

    caption: str
    png_base64: str
    facts: dict[str, Scalar] = Field(default_factory=dict)


class Event(_Frozen):
    """One step of a story: who did what, what came out, and whether the step went through (None: nothing to pass)."""

    actor: str
    action: str
    outcome: str
    passed: bool | None = None


class Evidence(_Frozen):
    """The outcome of one claim."""

    name: str
    sentence: str
    verdict: Verdict
    reason: str
    headline: int | None = None
    cells: list[Cell] = Field(default_factory=list)
    charts: list[Chart] = Field(default_factory=list)
    story: list[Event] = Field(default_factory=list)
    pictures: list[list[Picture]] = Field(default_factory=list)
    control_name: str = "twin"
    rule: str = ""
    p: float | None = None
    seconds: float = 0.0


class Record(_Frozen):
    """All of one run. `schema` counts layout versions; readers take older ones for the present one and refuse what they do not know."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    key: str
    plan: str
    config: dict[str, Any]
    claims: list[Evidence]
    gallery: list[list[Picture]] = Field(default_factory=list)
    undecided: list[str] = Field(default_factory=list)
    hardware: dict[str, Scalar] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    choices: list[str] = Field(default_factory=list)
    created: str = ""
    seconds: float = 0.0

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        found = data.get("schema", data.get("schema_version", SCHEMA))
        if isinstance(found, bool) or found not in READABLE:
            expected = f"{', '.join(map(str, READABLE[:-1]))} or {READABLE[-1]}"
            message = f"expected a record of schema {expected}, got {found!r:.20}."
            raise RefusedError("E-SCHEMA", message, hint="Read it with the badnets that wrote it, or make a new one with `badnets run`.")
        rest = {key: value for key, value in data.items() if key not in ("schema", "schema_version")}
        return {"schema": SCHEMA, **rest}

    @classmethod
    def read(cls, data: bytes | str) -> Self:
        """A Record from its JSON; E-SCHEMA or E-RECORD where that is none."""
        try:
            return cls.model_validate_json(data)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the document"
            message = f"expected a record of schema {SCHEMA}, got a document that does not read as one ({place:.80}: {first['msg']:.120})."
            raise RefusedError("E-RECORD", message, hint="See what there is with `badnets show --all`.") from error
