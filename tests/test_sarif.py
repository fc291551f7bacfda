"""A scan as SARIF: valid, complete, and no text of a stranger's is more than text."""

from __future__ import annotations

import json
from urllib.parse import unquote

import jsonschema
import pytest
import scan_samples as samples
from sarif_schema import SCHEMA

from badnets.core.scanned import Item, State
from badnets.report.sarif import BACKDOOR, OPINION, POISON, render_sarif


def run_of(record):
    document = json.loads(render_sarif(record))
    jsonschema.validate(document, SCHEMA)
    return document["runs"][0]


RECORDS = {
    "everything": samples.record,
    "text of a stranger": lambda: samples.record(samples.EVIL),
    "nothing": lambda: samples.record(chosen=[]),
    "poisoned rows": lambda: samples.rows(flagged=True, text=samples.EVIL),
    "clean rows": lambda: samples.rows(flagged=False),
}


@pytest.mark.parametrize("name", RECORDS)
def test_is_valid_and_the_same_twice(name):
    record = RECORDS[name]()
    run_of(record)
    assert render_sarif(record) == render_sarif(record)
    assert render_sarif(record).isascii()


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["results"][0].pop("message"),
        lambda run: run["results"][0].update(severity="high"),
        lambda run: run["artifacts"][0]["location"].update(uri="a b"),
        lambda run: run["invocations"][0].update(startTimeUtc="yesterday"),
        lambda run: run["tool"]["driver"].pop("name"),
    ],
)
def test_the_schema_refuses_what_is_wrong(change):
    document = json.loads(render_sarif(samples.record()))
    change(document["runs"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_findings_and_refusals_are_results_and_failures_are_notifications():
    run = run_of(samples.record())
    results = [(result["ruleId"], result["level"]) for result in run["results"]]
    refused = [(code, "warning") for code in ("E-GLOBAL", OPINION, "E-LINK", "E-NO-VERDICT")]
    assert results == [(BACKDOOR, "error"), *refused]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    assert all(rule["help"]["text"] for rule in rules)
    (invocation,) = run["invocations"]
    assert (invocation["exitCode"], invocation["executionSuccessful"]) == (1, False)
    assert [n["descriptor"]["id"] for n in invocation["toolExecutionNotifications"]] == ["E-KILLED"]


def test_every_file_is_an_artifact_with_its_hash():
    record = samples.record()
    run = run_of(record)
    assert len(run["artifacts"]) == len(record.items) == record.summary.inputs
    assert [a.get("hashes", {}).get("sha-256", "") for a in run["artifacts"]] == [item.sha256 for item in record.items]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    assert run["artifacts"][0]["properties"]["falsePositives"]["n"] == 39
    assert run["properties"]["summary"] == {
        "inputs": 6, "analysed": 2, "refused": 3, "failed": 1, "flagged": 1, "passed_over": 1,
    }  # fmt: skip


def test_a_clean_scan_has_no_result():
    clean = [item for item in samples.items() if item.state is State.NOTHING]
    run = run_of(samples.record(chosen=clean))
    assert run["results"] == []
    assert run["invocations"][0]["exitCode"] == 0
    assert run["invocations"][0]["executionSuccessful"] is True


def test_poisoned_rows():
    run = run_of(samples.rows(flagged=True))
    assert [result["ruleId"] for result in run["results"]] == [POISON]
    assert run["properties"]["rows"]["falsePositives"]["n"] == 20


def test_text_of_strangers_is_text():
    run = run_of(samples.record(samples.EVIL))
    messages = [result["message"]["text"] for result in run["results"]]
    messages += [n["message"]["text"] for n in run["invocations"][0]["toolExecutionNotifications"]]
    for text in messages:
        assert text.isprintable()
        assert not set("{}") & set(text), "a placeholder"
        assert "](" not in text, "a link"
        assert "\u202e" not in text


@pytest.mark.parametrize(
    ("path", "uri", "base"),
    [
        ("m/a b.pt", "m/a%20b.pt", "%SRCROOT%"),
        ("./m/../x.pt", "x.pt", "%SRCROOT%"),
        ("/home/somebody/models/x.pt", "x.pt", "%SRCROOT%"),
        ("../secret.pt", "file:///home/somebody/secret.pt", None),
        ("/etc/x#?.pt", "file:///etc/x%23%3F.pt", None),
        ("a:b.pt", "a%3Ab.pt", "%SRCROOT%"),
    ],
)
def test_addresses(path, uri, base):
    item = Item(path=path, sha256="", state=State.NOTHING)
    place = run_of(samples.record(chosen=[item]))["artifacts"][0]["location"]
    assert (place["uri"], place.get("uriBaseId")) == (uri, base)
    assert unquote(place["uri"]).endswith(path.rpartition("/")[2])
