"""Hostile model folders: each refused in one line, or read without what is not of it; nothing run or written, little memory."""

from __future__ import annotations

import json
import random
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import tiny
from corpus_folders import CONFIG, FIRST, HEAD, INDEX, NORMAL, PREPARATION, REST, SECOND, cases, plain, write
from making import entry, safetensors
from mutants import mutated, rounds

from badnets.core.errors import RefusedError
from badnets.intake.hub_card import Card, read_card, read_json
from badnets.intake.hub_folder import digest, look
from badnets.intake.hub_read import read_folder
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.reasons import STEPS
from badnets.intake.sandbox import Sandbox

CASES = cases()
MEMORY = 48 << 20

if sys.platform == "win32":
    pytest.skip("links and pipes are made as on Unix", allow_module_level=True)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        yield found


def contents(folder):
    return sorted((path.relative_to(folder).as_posix(), path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*"))


@pytest.mark.parametrize("case", CASES)
def test_refused_or_told(case, sandbox, tmp_path, monkeypatch):
    make, code, said = CASES[case]
    monkeypatch.chdir(tmp_path)  # where a payload would leave its canary
    make(tmp_path / "m")
    before = contents(tmp_path)
    if code is None:
        notes = "; ".join(sandbox.read(tmp_path / "m").weights.notes)
        assert said in notes
        assert notes.isascii()
        assert notes.isprintable()
    else:
        with pytest.raises(RefusedError) as caught:
            sandbox.read(tmp_path / "m")
        found = caught.value
        assert (found.code, found.exit_status) == (code, 3), str(found)
        assert found.message.startswith("m: ")
        assert said in str(found)
        assert str(found).isascii()
        assert str(found).isprintable()
        assert len(str(found)) < 500
        assert found.hint == STEPS[code] or code == "E-LINK"
    assert contents(tmp_path) == before
    assert not Path("canary").exists()


def test_links_are_told_how_to_be_avoided(sandbox, tmp_path):
    CASES["weights are a link into a cache"][0](tmp_path / "m")
    assert look(tmp_path / "m")
    for read in (sandbox.read, lambda path: digest(look(path))):
        with pytest.raises(RefusedError, match=r"E-LINK .*`hf download NAME --local-dir FOLDER` makes no links"):
            read(tmp_path / "m")


def test_a_link_to_a_folder_is_none(sandbox, tmp_path):
    plain(tmp_path / "m")
    (tmp_path / "n").symlink_to("m")
    assert look(tmp_path / "n") is None
    with pytest.raises(RefusedError, match="E-LINK n: "):
        sandbox.read(tmp_path / "n")


@pytest.mark.parametrize("case", [name for name, (_, code, _) in CASES.items() if code == "E-JSON"])
def test_little_memory(case, tmp_path):
    CASES[case][0](tmp_path / "m")
    name = next((n for n in (PREPARATION, INDEX) if (tmp_path / "m" / n).exists()), CONFIG)
    data = (tmp_path / "m" / name).read_bytes()
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(RefusedError):
            read_json(data, name)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5


def seeds():
    """Files of honest folders, with the number of the file that is changed."""
    config, preparation = json.dumps({**HEAD, "id2label": {"0": "a", "1": "b"}, "image_size": 8}).encode(), json.dumps(NORMAL).encode()
    index = json.dumps({"metadata": {"total_size": 48}, "weight_map": {"w": FIRST, "v": SECOND}}).encode()
    weights = safetensors({"classifier.weight": entry()})
    timm = json.dumps(
        {"architecture": "x", "num_classes": 2, "pretrained_cfg": {"mean": [0.5], "std": [1], "input_size": [1, 8, 8]}}
    ).encode()
    return [
        ([config, preparation, weights], 0),
        ([config, preparation, weights], 1),
        ([timm, preparation, weights], 0),
        ([config, preparation, index, safetensors(), REST], 2),
    ]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count", "draw"), rounds("model folder", 5))
def test_only_our_errors(kind, count, draw):
    """Whatever is changed in what a folder says: our error, quickly, or a card that is in its ranges."""
    rng, whole, slowest, accepted = random.Random(draw), seeds(), 0.0, 0
    for number in range(count):
        files, which = whole[number % len(whole)]
        files = [*files[:which], mutated(files[which], rng), *files[which + 1 :]]
        start = time.process_time()
        try:
            found = read_folder(files, prepared=True)
        except (RefusedError, NeedsFilesError):
            continue
        finally:
            slowest = max(slowest, time.process_time() - start)
        accepted += 1
        assert Card.model_validate_json(found.card.model_dump_json()) == found.card
    assert slowest < 1
    assert accepted > count // 20


def test_what_a_reader_answers_is_checked_again():
    """A card comes back as JSON from a process that may have been broken into."""
    card, _ = read_card(json.dumps(HEAD).encode(), None)
    told = card.model_dump(mode="json")
    with pytest.raises(ValueError, match="std"):
        Card.model_validate_json(json.dumps({**told, "mean": [0], "std": [0]}))
    with pytest.raises(ValueError, match="code"):
        Card.model_validate_json(json.dumps({**told, "code": "x"}))


def test_in_one_line_on_the_command_line(tmp_path):
    write(tmp_path / "m", CONFIG, {**HEAD, "num_labels": 9})
    write(tmp_path / "m", "model.safetensors", safetensors({"classifier.weight": entry()}))
    done = tiny.cli("convert", tmp_path / "m", "--out", tmp_path / "x")
    assert (done.status, done.err.count("\n")) == (3, 1)
    assert "E-MODEL-FOLDER" in done.err
    assert not (tmp_path / "x").exists()


def test_names_of_classes_do_nothing_to_a_terminal(tmp_path):
    CASES["names with sequences for terminals"][0](tmp_path / "m")
    done = tiny.cli("convert", tmp_path / "m", "--out", tmp_path / "x")
    assert done.status == 0
    assert "\x1b" not in done.out
    assert "names of its 2 classes: '" in done.out
