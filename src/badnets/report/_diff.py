"""Two Records side by side: the settings that differ, and each claim's verdict and headline figure in both."""

from __future__ import annotations

from typing import Any

from badnets.core.types import Evidence, Record
from badnets.report._escape import plain
from badnets.report._format import figure
from badnets.report._view import flat


def compare(a: Record, b: Record) -> dict[str, Any]:
    """A JSON-ready comparison. A claim that one record lacks has None there."""
    settings_a, settings_b = (dict(flat({**r.config, "versions": r.versions, "hardware": r.hardware})) for r in (a, b))
    keys = [k for k in dict.fromkeys([*settings_a, *settings_b]) if settings_a.get(k) != settings_b.get(k)]
    claims_a, claims_b = ({c.name: c for c in r.claims} for r in (a, b))
    return {
        "a": a.key,
        "b": b.key,
        "settings": [{"name": k, "a": settings_a.get(k), "b": settings_b.get(k)} for k in keys],
        "claims": [{"name": n, "a": _side(claims_a.get(n)), "b": _side(claims_b.get(n))} for n in dict.fromkeys([*claims_a, *claims_b])],
    }


def _side(claim: Evidence | None) -> dict[str, Any] | None:
    if claim is None:
        return None
    cell = claim.cells[claim.headline] if claim.headline is not None else None
    return {"verdict": str(claim.verdict), "figure": figure(cell.estimate, cell.unit) if cell else None}


def diff_text(compared: dict[str, Any]) -> str:
    """The comparison as plain text."""
    lines = [f"a  {compared['a'][:12]}", f"b  {compared['b'][:12]}", ""]
    for row in compared["settings"]:
        lines += [plain(row["name"]), f"  a  {plain(row['a'])}", f"  b  {plain(row['b'])}"]
    lines.append("")
    for row in compared["claims"]:
        same = row["a"] is not None and row["b"] is not None and row["a"]["verdict"] == row["b"]["verdict"]
        lines.append(("  " if same else "* ") + row["name"])
        lines += [f"    {side}  {_words(row[side])}" for side in ("a", "b")]
    return "\n".join(lines) + "\n"


def _words(side: dict[str, Any] | None) -> str:
    return "not in this run" if side is None else f"{side['verdict']:<11} {side['figure'] or ''}".rstrip()
