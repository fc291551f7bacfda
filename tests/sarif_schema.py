"""What SARIF 2.1.0 demands of the parts that we write, as a JSON schema of our own, written after the text of the specification.

The official schema (some 3,000 lines, OASIS) allows far more and is not carried here; a document of ours was validated against it on
2026-11-28, with no error. Here every object is closed, so that a property we misspell, or one that SARIF does not have, is found.
Sections: 3.13 log, 3.14 run, 3.19 component, 3.20 invocation, 3.24 artifact, 3.27 result, 3.49 rule, 3.58 notification.
"""

TEXT = {"type": "string", "minLength": 1}
URI = {"type": "string", "pattern": "^(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+$"}
UTC = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
INDEX = {"type": "integer", "minimum": 0}
BAG = {"type": "object", "properties": {"tags": {"type": "array", "items": TEXT, "uniqueItems": True}}}


def closed(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": {**properties, "properties": BAG}}


def several(of, **rest):
    return {"type": "array", "items": of, **rest}


MESSAGE = closed(["text"], text=TEXT)
PLACE = closed(["uri"], uri=URI, uriBaseId=TEXT, index=INDEX)
LOGICAL = closed(["name"], name=TEXT, kind=TEXT)
LOCATION = closed(physicalLocation=closed(["artifactLocation"], artifactLocation=PLACE), logicalLocations=several(LOGICAL))
RULE = closed(
    ["id"],
    id=TEXT,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed(["level"], level=LEVEL),
)
DRIVER = closed(["name"], name=TEXT, version=TEXT, shortDescription=MESSAGE, rules=several(RULE, uniqueItems=True))
NOTIFICATION = closed(["message"], level=LEVEL, descriptor=closed(["id"], id=TEXT), message=MESSAGE, locations=several(LOCATION))
INVOCATION = closed(
    ["executionSuccessful"],
    executionSuccessful={"type": "boolean"},
    exitCode={"type": "integer"},
    exitCodeDescription=TEXT,
    startTimeUtc=UTC,
    endTimeUtc=UTC,
    toolExecutionNotifications=several(NOTIFICATION),
)
HASHES = {"type": "object", "additionalProperties": False, "properties": {"sha-256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}}
ARTIFACT = closed(["location"], location=PLACE, roles=several({"enum": ["analysisTarget"]}, minItems=1), hashes=HASHES)
RESULT = closed(
    ["message", "ruleId"],
    ruleId=TEXT,
    ruleIndex=INDEX,
    level=LEVEL,
    message=MESSAGE,
    locations=several(LOCATION, minItems=1),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
)
RUN = closed(
    ["tool", "results"],
    tool=closed(["driver"], driver=DRIVER),
    automationDetails=closed(["id"], id=TEXT),
    invocations=several(INVOCATION, minItems=1),
    artifacts=several(ARTIFACT, uniqueItems=True),
    results=several(RESULT),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "runs"],
    "properties": {"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": several(RUN, minItems=1)},
}
