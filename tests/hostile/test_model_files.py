"""Hostile model files through the reader: each refused for its own reason in one line, nothing run, little memory, nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import corpus_keras
import corpus_safetensors
import corpus_script
import corpus_torch
import payloads
import pytest

from badnets.core import memory
from badnets.core.errors import RefusedError
from badnets.intake.formats import read_weights
from badnets.intake.reasons import STEPS
from badnets.intake.sandbox import Sandbox

CANARY = Path(__file__).parent / "canary"
MEMORY = 48 << 20
FOLLOWED = 64 << 10
FEWEST = {
    "raw": 50,
    "within": 50,
    "functions": 80,
    "inert": 50,
    "containers": 60,
    "geometry": 34,
    "bombs": 10,
    "semantics": 24,
    "kinds": 34,
}
FEWEST_SCRIPT = {"within": 50, "functions": 80, "unread": 10, "modules": 60, "archives": 30, "programs": 70}


def torch_cases():
    for area in FEWEST:
        make = getattr(corpus_torch, area)
        cases = make(CANARY) if area in ("raw", "within") else make()
        assert len(cases) >= FEWEST[area], (area, len(cases))
        yield from cases.items()


def script_cases():
    named = {"archives": "TorchScript: ", "programs": ".pt2: "}
    for area in FEWEST_SCRIPT:
        make = getattr(corpus_script, area)
        cases = make(CANARY) if area in ("within", "unread") else make()
        assert len(cases) >= FEWEST_SCRIPT[area], (area, len(cases))
        yield from ((named.get(area, "") + key, case) for key, case in cases.items())


CASES = dict(torch_cases()) | dict(script_cases()) | {f"safetensors: {key}": case for key, case in corpus_safetensors.cases().items()}
CASES |= corpus_keras.cases(CANARY)


def outcome(data):
    """(weights or error, peak bytes beyond the file)."""
    if len(data) > FOLLOWED:  # following every allocation would take longer than reading
        with memory.watched() as peak:
            found = _read(data)
        return found, peak.bytes or 0
    tracemalloc.start()
    try:
        return _read(data), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _read(data):
    try:
        return read_weights(data)
    except RefusedError as error:
        return error


@pytest.mark.parametrize("case", CASES)
def test_refused_or_reported(case):
    data, code = CASES[case]
    found, peak = outcome(data)
    assert peak < MEMORY, f"{peak:,} bytes"
    assert not CANARY.exists()
    if code is None:
        assert not isinstance(found, RefusedError), str(found)
        assert sum(tensor.data.nbytes for tensor in found.tensors.values()) <= len(data)
        return
    assert isinstance(found, RefusedError), f"accepted: {found.tensors}"
    assert (found.code, found.exit_status) == (code, 3), str(found)
    assert str(found).isascii()
    assert str(found).isprintable()
    assert len(str(found)) < 500
    assert found.hint == STEPS[code]


def test_the_counts_are_reached():
    assert len(CASES) >= 480
    assert sum(name.startswith("safetensors") for name in CASES) >= 44
    assert sum(name.startswith(("ONNX",)) for name in CASES) >= 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sandbox_says_the_same(tmp_path):
    """A confined reader that would import something more, or lack something, would crash; only there is HDF5's library let at a file."""
    other = {"keras: outside of a sandbox", "keras: HDF5 outside of a sandbox"}
    with Sandbox() as sandbox:
        for case in CASES.keys() - other:
            data, code = CASES[case]
            (tmp_path / "m").write_bytes(data)
            try:
                sandbox.read(tmp_path / "m")
                found = None
            except RefusedError as error:
                found = error.code
            assert found == code or (found == "E-SANDBOX" and not sandbox.level.complete), case
    assert not CANARY.exists()


@pytest.mark.parametrize(
    "kind", ["NaN", "infinity", "one NaN with a payload", "NaN in half", "infinity in bfloat16", "double beyond float"]
)
def test_numbers_that_are_none_are_reported(kind):
    found = read_weights(CASES[f"semantics: {kind}"][0])
    assert found.not_finite == ("w",)


def test_the_payloads_are_live(tmp_path):
    """That none of them ran says something only if they do run: Python loads each, in a process of its own, and each writes the file."""
    code = (
        "import pathlib, pickle, sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import payloads\n"
        "canary = pathlib.Path(sys.argv[2])\n"
        "for name, data in payloads.live(canary).items():\n"
        "    canary.unlink(missing_ok=True)\n"
        "    try: pickle.loads(data)\n"
        "    except BaseException: pass\n"
        "    until = time.monotonic() + 3\n"
        "    while name == 'Popen' and not canary.exists() and time.monotonic() < until: time.sleep(0.01)\n"
        "    print('ran' if canary.exists() else 'asleep', name, flush=True)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), str(tmp_path / "canary")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert not [line for line in done.stdout.splitlines() if line.startswith("asleep")]
    assert done.stdout.count("ran ") == len(payloads.live("x"))


def test_every_reason_can_happen():
    """Those of the file system and of the sandbox are in their own tests."""
    elsewhere = {"E-LINK", "E-DIRECTORY", "E-NOT-FILE", "E-EMPTY", "E-SIZE", "E-SPARSE", "E-CHANGED", "E-UNREADABLE"}
    elsewhere |= {"E-MEMORY", "E-TIME", "E-CRASHED", "E-EXTRA", "E-EXTERNAL", "E-MODEL-FOLDER", "E-SHARDS"}
    assert {code for _, code in CASES.values() if code} == STEPS.keys() - elsewhere


def test_error_codes_are_words():
    assert all(re.fullmatch(r"E(-[A-Z0-9]+)+", code) for code in STEPS)


def test_the_docs_name_every_code():
    page = (Path(__file__).parents[2] / "docs" / "model-files.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(E-[A-Z0-9-]+)`", page))
    assert named == STEPS.keys() | {"E-NAN", "E-NORM", "E-WEIGHTS", "E-ARCH", "E-CLASSES", "E-PREPARATION", "E-CLEAN-NETS"}


def test_a_name_from_a_file_stays_in_its_line():
    found, _ = outcome(CASES["semantics: name with newline"][0])
    assert "\\n" in str(found)
