"""The report of a repair for people, as Markdown: what was opened, what was tried, and how to open what came of it."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from badnets.core.scanned import net_text
from badnets.plans._repair import BUDGET_SECONDS
from badnets.report._escape import markdown as escaped

if TYPE_CHECKING:
    from badnets.core.types import Estimate
    from badnets.plans._repair import Report, Tried

HEAD = "| repair | accuracy | inverted trigger works | images | seconds | what it did |"


def render_repair(report: Report) -> str:
    """The whole report. Text that comes from the file is escaped."""
    kept = f"Kept: `{report.chosen}`." if report.chosen else "Nothing was kept: no repair was better by clean criteria."
    opened = "; ".join([f"Read as {report.format}, {net_text(report.net)}", f"sandbox: {report.sandbox}", *report.notes])
    rows = [_row(one, kept=one.repair == report.chosen) for one in (report.before, *report.tried)]
    table = "\n".join([HEAD, "|---|---|---|---|---|---|", *rows])
    written = ", ".join(f"`{name}` (SHA-256 `{sha256}`)" for name, sha256 in report.files.items())
    again = f"\nWritten: {written}. To open it again: `badnets scan {next(iter(report.files))} {report.options}`.\n" if written else ""
    return f"""# Repair of {escaped(PurePath(report.file).name)}

{kept} {_change(report)}

SHA-256 of the net as it came: `{report.sha256}`.
{again}
{escaped(opened)}.

{table}

All of it took {report.seconds:.0f} seconds; once {BUDGET_SECONDS:g} are spent no further repair is begun. *Images* are those that were sent
through the net, gradients counted three times.

Accuracy is on {report.held_images} clean images of {escaped(report.dataset)} that no repair saw; repairs had {report.clean_images} others.
The inverted trigger is the smallest that was found on the net as it came. The true trigger, if there is one, is not known here: that an
inverted one no longer works does not prove that the true one does not, and a repaired net may relearn its backdoor from a few poisoned
images. Verify with data of your own.
"""


def _change(report: Report) -> str:
    """Before and, where a repair was kept, after."""
    told = f"Before: {_state(report.before)}."
    after = next((one for one in report.tried if one.repair == report.chosen), None)
    return told if after is None else f"{told} After: {_state(after)}."


def _state(one: Tried) -> str:
    return f"accuracy {_percent(one.accuracy)}, the inverted trigger works on {_percent(one.inverted)}"


def _row(one: Tried, *, kept: bool) -> str:
    name = f"{escaped(one.repair)}{' (kept)' if kept else ''}"
    told = escaped(one.why_not or one.note)
    return f"| {name} | {_percent(one.accuracy)} | {_percent(one.inverted)} | {one.images:,} | {one.seconds:.1f} | {told} |"


def _percent(estimate: Estimate | None) -> str:
    """A rate with its interval, or "unknown"."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
