"""ONNX models, written byte by byte: translated operator by operator, or refused by name; 20,000 mutations; numbers in other files."""

from __future__ import annotations

import os
import random
import time

import numpy as np
import pytest
from corpus_onnx import HONEST, REFUSED
from making_onnx import CONV, REST, TENSORS, WEIGHTS, honest, model, numbers, outside
from mutants import mutated, rounds

from badnets.core.errors import RefusedError
from badnets.intake.formats import read_together, read_weights
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.reasons import STEPS
from badnets.intake.sandbox import Sandbox


def ops(found):
    return [layer["op"] for layer in found.layers]


def test_an_honest_model_is_its_layers_and_weights():
    found = read_weights(honest())
    assert (found.format, found.image, ops(found)) == ("ONNX", (1, 8, 8), ["conv", "relu", "flatten", "linear"])
    assert np.array_equal(found.tensors["n0.weight"].data, WEIGHTS["w"])
    assert np.array_equal(found.tensors["n3.weight"].data, WEIGHTS["v"])
    assert np.array_equal(found.tensors["n3.bias"].data, WEIGHTS["d"])


@pytest.mark.parametrize("case", HONEST)
def test_operators_are_translated(case):
    data, op = HONEST[case]
    found = read_weights(data)
    assert op in ops(found)
    if case == "channels last":
        assert found.image == (1, 8, 8)
        assert next(layer for layer in found.layers if layer["op"] == "flatten")["channels_last"]
    if case == "average pool, then its mean":
        assert np.array_equal(found.tensors["n4.bias"].data, WEIGHTS["d"])
        assert np.array_equal(found.tensors["n4.weight"].data, numbers(2, 3).T)
    if case == "its own normalisation":
        assert [layer for layer in found.layers if layer["op"] == "affine"][1]["scale"] == (4.0,)
    if case == "softmax at the end":
        assert "the last Softmax left out" in "; ".join(found.notes)


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused(case):
    data, code = REFUSED[case]
    with pytest.raises(RefusedError) as caught:
        read_weights(data)
    assert caught.value.code == code, str(caught.value)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert caught.value.hint == STEPS[code]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count", "draw"), rounds("onnx", 5))
def test_only_our_errors(kind, count, draw):
    """Whatever is changed: our error, quickly, or layers and tensors that are no larger than the file."""
    seeds = [honest(), *(data for data, _ in HONEST.values())]
    rng, slowest, accepted = random.Random(draw), 0.0, 0
    for number in range(count):
        data = mutated(seeds[number % len(seeds)], rng)
        start = time.process_time()
        try:
            found = read_weights(data)
        except (RefusedError, NeedsFilesError):
            continue
        finally:
            slowest = max(slowest, time.process_time() - start)
        accepted += 1
        assert sum(one.data.size for one in found.tensors.values()) <= len(data)
    assert slowest < 1
    assert accepted > count / 50


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        yield found


class TestOtherFiles:
    """Large models keep their numbers beside them, and so does torch.onnx by default."""

    def model(self, location, **place):
        place = {"location": location, "offset": 8, "length": WEIGHTS["v"].nbytes} | place
        return model([CONV, *REST], [*TENSORS[:2], TENSORS[3], outside("v", (3, 128), **place)])

    def test_are_read_when_they_lie_beneath_the_folder(self, sandbox, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "numbers").write_bytes(b"\0" * 8 + WEIGHTS["v"].tobytes())
        (tmp_path / "net.onnx").write_bytes(self.model("sub/numbers"))
        found = sandbox.read(tmp_path / "net.onnx").weights
        assert np.array_equal(found.tensors["n3.weight"].data, WEIGHTS["v"])
        assert ops(found)[0] == "conv"
        assert any(note.startswith("numbers from 'sub/numbers', SHA-256 ") for note in found.notes)

    @pytest.mark.parametrize(
        ("location", "code"),
        [
            ("../secret", "E-EXTERNAL"), ("/etc/passwd", "E-EXTERNAL"), ("sub/../../secret", "E-EXTERNAL"), ("", "E-EXTERNAL"),
            ("C:\\secret", "E-EXTERNAL"), ("absent", "E-EXTERNAL"), ("a\nb", "E-EXTERNAL"), ("link", "E-LINK"),
            ("away/numbers", "E-EXTERNAL"),
            ("pipe", "E-NOT-FILE"), ("short", "E-BOUNDS"), ("folder", "E-DIRECTORY"),
        ],
    )  # fmt: skip
    def test_elsewhere_are_not(self, sandbox, location, code, tmp_path):
        home = tmp_path / "home"
        (home / "folder").mkdir(parents=True)
        (tmp_path / "secret").write_bytes(b"\0" * 8 + WEIGHTS["v"].tobytes())
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "numbers").write_bytes(b"\0" * 8 + WEIGHTS["v"].tobytes())
        (home / "link").symlink_to("../secret")
        (home / "away").symlink_to("../out")
        (home / "short").write_bytes(b"\0" * 99)
        os.mkfifo(home / "pipe")
        (home / "net.onnx").write_bytes(self.model(location))
        with pytest.raises(RefusedError) as caught:
            sandbox.read(home / "net.onnx")
        assert (caught.value.code, caught.value.exit_status) == (code, 3), str(caught.value)

    def test_strange_places_are_refused(self):
        for place, code in (({"offset": -1}, "E-ONNX"), ({"length": 3}, "E-BOUNDS"), ({"offset": 10**14}, "E-BOUNDS")):
            with pytest.raises(RefusedError, match=code):
                read_together(self.model("n", **place), [b"\0" * 5000])
        with pytest.raises(NeedsFilesError, match="n"):
            read_together(self.model("n"), [])
