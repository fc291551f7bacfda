"""A scan as SARIF 2.1.0, for code scanning: results for findings and refusals, what was looked at as artifacts, failures as notifications.

Nothing found is no result, so it does not show; the artifacts say that the file was looked at. OASIS (2020, errata 2023), Static Analysis
Results Interchange Format, https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from badnets import __version__
from badnets.core.scanned import EXIT_MEANINGS, Item, Opinion, RowVerdict, ScanRecord, State, Verdict
from badnets.report import _format as show
from badnets.report._escape import plain, sarif_text

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
BACKDOOR, POISON, OPINION = "backdoored-net", "poisoned-rows", "second-opinion"
_HELP = {
    BACKDOOR: (
        "The net looks backdoored",
        "Hardly any clean net of this kind looks like this to the detectors. Do not use the net; ask where it was trained. "
        "badnets repair tries to remove a backdoor, and badnets scan --html shows what was found.",
        "error",
        "8.0",
    ),
    POISON: (
        "Training data look poisoned",
        "Images of one class carry a label that a net trained without them contradicts. Look at suspects.png and rows.csv before anybody "
        "trains on the data; remove the rows that are marked.",
        "error",
        "8.0",
    ),
    OPINION: (
        "Another scanner warns of the file",
        "The file names functions that can run when it is unpickled. badnets never unpickles it, and this does not decide its verdict; do "
        "not load the file with anything that does.",
        "warning",
        "7.0",
    ),
}
_ALARMING = "do not load it"
"""Stands in the next step of refusals that no honest file explains."""


def render_sarif(record: ScanRecord) -> str:
    """The document; the same record gives the same text."""
    rules: dict[str, dict[str, Any]] = {}
    results = [result for item in record.items for result in _results(item, record, rules)]
    if record.rows is not None and record.rows.flagged:
        results.append(_poisoned(record.rows, rules))
    order = {name: place for place, name in enumerate(rules)}
    for result in results:
        result["ruleIndex"] = order[result["ruleId"]]
    run = {
        "tool": {"driver": _driver(record, rules)},
        "automationDetails": {"id": f"badnets-scan/{quote(record.dataset, safe='')}/"},
        "invocations": [_invocation(record)],
        "artifacts": [_artifact(item, record) for item in record.items],
        "results": results,
        "columnKind": "utf16CodeUnits",
        "properties": _about(record),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _driver(record: ScanRecord, rules: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "badnets",
        "version": plain(record.versions.get("badnets", __version__)),
        "shortDescription": {"text": "Looks for backdoors in neural networks and training data."},
        "rules": list(rules.values()),
    }


def _invocation(record: ScanRecord) -> dict[str, Any]:
    failed = [item for item in record.items if item.state is State.FAILED]
    told = {
        "executionSuccessful": not failed,
        "exitCode": record.exit_status,
        "startTimeUtc": _utc(record.started),
        "endTimeUtc": _utc(record.ended),
    }
    if record.exit_status in EXIT_MEANINGS:
        told["exitCodeDescription"] = EXIT_MEANINGS[record.exit_status]
    if failed:
        told["toolExecutionNotifications"] = [
            {
                "level": "error",
                "descriptor": {"id": item.code},
                "message": {"text": sarif_text(f"{item.message} {item.hint}")},
                "locations": [_location(item, record)],
            }
            for item in failed
        ]
    return told


def _artifact(item: Item, record: ScanRecord) -> dict[str, Any]:
    properties = {"state": str(item.state), **(_figures(item.verdict) if item.verdict else {})}
    if item.opinion is not None:
        said = item.opinion.model_dump(mode="json")
        properties["secondOpinion"] = {**said, "names": [sarif_text(name) for name in item.opinion.names]}
    hashes = {"hashes": {"sha-256": item.sha256}} if item.sha256 else {}
    return {"location": _place(item.path, record.folder), "roles": ["analysisTarget"], **hashes, "properties": properties}


def _figures(verdict: Verdict) -> dict[str, Any]:
    return {
        "format": verdict.format,
        "sandbox": verdict.sandbox,
        "net": {plain(name): plain(value) for name, value in verdict.net.items() if name != "layers"},
        "notes": [plain(note) for note in verdict.notes],
        "notLookedAt": list(verdict.not_looked_at),
        "p": verdict.p,
        "level": verdict.alpha,
        "cleanNets": verdict.num_null,
        "falsePositives": verdict.false_alarms.model_dump(mode="json"),
        "detectors": {line.detector: line.p for line in verdict.lines},
    }


def _results(item: Item, record: ScanRecord, rules: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    if item.state is State.FLAGGED and item.verdict is not None:
        _known(rules, BACKDOOR)
        found.append(_result(BACKDOOR, "error", _finding(item.verdict), item, record))
    if item.state is State.REFUSED:
        _refusal_rule(rules, item)
        found.append(_result(item.code, "warning", f"{item.message} {item.hint}", item, record))
    if item.opinion is not None and item.opinion.says in ("dangerous", "suspicious"):
        _known(rules, OPINION)
        found.append(_result(OPINION, "warning", _opinion(item.opinion), item, record))
    return found


def _finding(verdict: Verdict) -> str:
    target = f" Suspected target class: {verdict.target}." if verdict.target else ""
    alarms = show.figure(verdict.false_alarms, "rate")
    return (
        f"Looks backdoored: p = {verdict.p:.3f} against {verdict.num_null} clean nets ({verdict.setting}).{target} Of clean nets that were "
        f"not calibrated on, {alarms} are flagged (n = {verdict.false_alarms.n})."
    )


def _opinion(opinion: Opinion) -> str:
    return f"Second opinion, which decides nothing here: {opinion.tool} {opinion.version} says {opinion.says}: {', '.join(opinion.names)}."


def _poisoned(verdict: RowVerdict, rules: dict[str, dict[str, Any]]) -> dict[str, Any]:
    _known(rules, POISON)
    classes = ", ".join(group.label for group in verdict.groups if group.poisoned)
    text = f"{verdict.num_suspect:,} of {verdict.num_rows:,} images of {verdict.dataset} look poisoned; their labels: {classes}."
    return {
        "ruleId": POISON,
        "level": "error",
        "message": {"text": sarif_text(text)},
        "locations": [{"logicalLocations": [{"name": plain(verdict.dataset), "kind": "resource"}]}],
        "partialFingerprints": {"dataAndRule/v1": f"{verdict.sha256}:{POISON}"},
        "properties": {"falsePositives": verdict.false_alarms.model_dump(mode="json"), "measuredOn": verdict.measured},
    }


def _result(rule: str, level: str, text: str, item: Item, record: ScanRecord) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": sarif_text(text)},
        "locations": [_location(item, record)],
        "partialFingerprints": {"fileAndRule/v1": f"{item.sha256 or quote(item.path, errors='surrogateescape')}:{rule}"},
    }


def _known(rules: dict[str, dict[str, Any]], name: str) -> None:
    short, text, level, severity = _HELP[name]
    rules.setdefault(name, _rule(name, short, text, level, severity))


def _refusal_rule(rules: dict[str, dict[str, Any]], item: Item) -> None:
    text = item.hint or "See the page on model files of strangers."
    severity = "7.0" if _ALARMING in text else "3.0"
    help_text = f"{text} A file that is refused was not analysed, which does not mean clean."
    rules.setdefault(item.code, _rule(item.code, f"Refused: {item.code}", help_text, "warning", severity))


def _rule(name: str, short: str, text: str, level: str, severity: str) -> dict[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": sarif_text(short)},
        "fullDescription": {"text": sarif_text(text)},
        "help": {"text": sarif_text(text)},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["security", "machine-learning"], "precision": "medium", "security-severity": severity},
    }


def _about(record: ScanRecord) -> dict[str, Any]:
    about: dict[str, Any] = {
        "summary": record.summary.model_dump(mode="json"),
        "dataset": plain(record.dataset),
        "datasetSha256": record.dataset_sha256,
        "effort": record.effort,
        "passedOver": [{"uri": _uri(passed.path, record.folder)[0], "why": plain(passed.why)} for passed in record.passed_over],
    }
    if record.images is not None:
        told = {"told": plain(record.images.told), "folder": plain(record.images.folder)}
        about["unlabelledImages"] = record.images.model_dump(mode="json") | told
    if record.rows is not None:
        rows = record.rows
        rate = {"falsePositives": rows.false_alarms.model_dump(mode="json"), "measuredOn": rows.measured}
        about["rows"] = {"images": rows.num_rows, "suspects": rows.num_suspect, "notLookedAt": list(rows.not_looked_at), **rate}
    return about


def _location(item: Item, record: ScanRecord) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": {**_place(item.path, record.folder), "index": record.items.index(item)}}}


def _place(path: str, folder: str) -> dict[str, Any]:
    uri, base = _uri(path, folder)
    return {"uri": uri, **({"uriBaseId": base} if base else {})}


def _uri(path: str, folder: str) -> tuple[str, str]:
    """(address, base): relative to where the scan was started, which in a pipeline is the root of the sources; else absolute."""
    whole = PurePath(os.path.normpath(PurePath(folder) / path))
    if whole.is_relative_to(folder):
        return quote(os.fsencode(whole.relative_to(folder).as_posix())), "%SRCROOT%"
    return "file://" + quote(os.fsencode(Path(whole).as_posix())), ""


def _utc(moment: str) -> str:
    return moment.replace("+00:00", "Z")
