"""Files of torch before 1.6, written byte by byte and by torch itself: read by the machine that calls nothing; and `badnets convert`."""

from __future__ import annotations

import io
import json
import random
import tomllib

import making_onnx
import numpy as np
import pytest
import safetensors.numpy
import tiny
import torch
from making import NUMBERS, call, group, name, number, pickled, table, tensor, text
from mutants import mutated, rounds

from badnets.core.errors import RefusedError
from badnets.intake.formats import read_weights
from badnets.intake.torch_legacy import MAGIC

SYSTEM = pickled(table([("protocol_version", b"M\xe9\x03"), ("little_endian", b"\x88"), ("type_sizes", b"}")]))
STORAGE = group(text("storage"), name("torch", "FloatStorage"), text("7"), text("cpu"), number(6), b"N") + b"Q"


def legacy(value=None, *, version=b"M\xe9\x03", system=SYSTEM, keys=("7",), counts=(6,), data=NUMBERS, end=b""):
    value = pickled(table([("w", tensor(of=STORAGE))])) if value is None else value
    listed = pickled(b"](" + b"".join(map(text, keys)) + b"e")
    return MAGIC + pickled(version) + system + value + listed + b"".join(count.to_bytes(8, "little") + data for count in counts) + end


@pytest.mark.parametrize("kind", ["state dict", "checkpoint", "half", "views"])
def test_what_torch_wrote_is_read_as_torch_reads_it(kind):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    flat = torch.arange(12.0)
    value = {
        "state dict": net.state_dict,
        "checkpoint": lambda: {"epoch": 3, "state_dict": net.state_dict()},
        "half": net.half().state_dict,
        "views": lambda: {"a": flat[:4], "b": flat[4:10].view(2, 3).t()},
    }[kind]()
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=False)
    found = read_weights(out.getvalue())
    assert found.format == "torch before 1.6"
    theirs = value.get("state_dict", value)
    assert list(found.tensors) == list(theirs)
    assert all(np.array_equal(found.tensors[key].data, theirs[key].numpy()) for key in theirs)


REFUSED = {
    "a payload as its object": (legacy(pickled(call("os", "system", text("true")))), "E-GLOBAL"),
    "a payload as its system": (legacy(system=pickled(call("os", "system", text("true")))), "E-GLOBAL"),
    "another version": (legacy(version=number(5)), "E-LEGACY"),
    "a big-endian machine": (legacy(system=pickled(table([("little_endian", b"\x89")]))), "E-LEGACY"),
    "a storage that is not there": (legacy(keys=(), counts=()), "E-STORAGE"),
    "a storage twice": (legacy(keys=("7", "7"), counts=(6, 6)), "E-STORAGE"),
    "a storage of another size": (legacy(counts=(7,)), "E-STORAGE"),
    "a storage cut off": (legacy(data=NUMBERS[:-1]), "E-STORAGE"),
    "something after it": (legacy(end=b"x"), "E-LEGACY"),
    "half of it": (legacy()[: len(legacy()) // 2], "E-PICKLE"),
    "an expanded tensor": (legacy(pickled(table([("w", tensor((1 << 20, 1 << 20), (0, 0), of=STORAGE))]))), "E-STRIDE"),
    "a tensor that leaves its storage": (legacy(pickled(table([("w", tensor((2, 3), offset=3, of=STORAGE))]))), "E-BOUNDS"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused(case):
    data, code = REFUSED[case]
    with pytest.raises(RefusedError) as caught:
        read_weights(data)
    assert caught.value.code == code, str(caught.value)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count", "draw"), rounds("torch before 1.6", 4))
def test_only_our_errors(kind, count, draw):
    rng, seed, accepted = random.Random(draw), legacy(), 0
    for _ in range(count):
        try:
            found = read_weights(mutated(seed, rng))
        except RefusedError:
            continue
        accepted += 1
        assert sum(one.data.nbytes for one in found.tensors.values()) <= len(seed) + 64
    assert accepted > 0


class TestConvert:
    def test_writes_the_tensors_and_nothing_else(self, tmp_path):
        (tmp_path / "old.pth").write_bytes(legacy())
        done = tiny.cli("convert", tmp_path / "old.pth", "--out", tmp_path / "new.safetensors", "--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert (told["format"], told["tensors"], list(told["written"])) == ("torch before 1.6", 1, ["new.safetensors"])
        found = safetensors.numpy.load_file(tmp_path / "new.safetensors")
        assert np.array_equal(found["w"], np.arange(6, dtype=np.float32).reshape(2, 3))

    def test_a_graph_is_written_as_an_architecture(self, tmp_path):
        (tmp_path / "net.onnx").write_bytes(making_onnx.honest())
        done = tiny.cli("convert", tmp_path / "net.onnx", "--out", tmp_path / "net.safetensors")
        assert done.status == 0, done.err
        assert "--arch" in done.out
        told = tomllib.loads((tmp_path / "net.toml").read_text())
        assert told["input"] == [1, 8, 8]
        assert [layer["op"] for layer in told["layers"]] == ["conv", "relu", "flatten", "linear"]

    @pytest.mark.parametrize(
        ("content", "status", "code"), [(b"", 3, "E-EMPTY"), (b"\x80\x04N.", 3, "E-PICKLE-RAW"), (legacy(end=b"x"), 3, "E-LEGACY")]
    )
    def test_refusals_write_nothing(self, content, status, code, tmp_path):
        (tmp_path / "x").write_bytes(content)
        done = tiny.cli("convert", tmp_path / "x", "--out", tmp_path / "y")
        assert (done.status, done.err.count("\n")) == (status, 1)
        assert code in done.err
        assert not (tmp_path / "y").exists()

    def test_nothing_is_written_over(self, tmp_path):
        (tmp_path / "x").write_bytes(legacy())
        done = tiny.cli("convert", tmp_path / "x", "--out", tmp_path / "x")
        assert (done.status, "E-EXISTS" in done.err) == (2, True)
