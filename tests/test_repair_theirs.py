"""`badnets repair` and `convert` on folders, ONNX and Keras; what is written opens again as the net that was kept; text stays text."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hub_makers import PREPARED, TO_TIMM, Vit, folder, renamed, shaken
from injection_payloads import PAYLOADS
from test_outside import taught
from torch import nn

sys.path.append(str(Path(__file__).parent / "hostile"))

import making_hdf5
import making_onnx

from badnets.cli._choose import choose_theirs
from badnets.core.confine import Level
from badnets.core.types import Estimate
from badnets.datasets.folder import Folder
from badnets.intake.arch_file import read_architecture
from badnets.intake.sandbox import read_model
from badnets.plans import _repair
from badnets.plans._model_file import Hints, open_model
from badnets.plans._repair import Report, Tried, _Judge
from badnets.report.repaired import render_repair

torch.set_num_threads(1)
KERAS = [
    ("Conv2D", {"name": "conv2d", "filters": 2, "kernel_size": [3, 3], "padding": "same", "activation": "relu"}),
    ("Flatten", {"name": "flatten"}),
    ("Dense", {"name": "dense", "units": 3, "activation": "softmax"}),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"), count=80)


@pytest.fixture(scope="module")
def data(pictures):
    return Folder(size=8).load(pictures)


@pytest.fixture(scope="module")
def arrays(data):
    """Weights of a convolution and a linear layer that tell the pictures apart."""
    torch.manual_seed(0)
    net = taught(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)), data)
    return dict(zip("wbvd", (value.detach().numpy() for value in net.parameters()), strict=True))


def onnx(path, data, arrays):
    path.write_bytes(making_onnx.model([making_onnx.CONV, *making_onnx.REST], [making_onnx.tensor(*one) for one in arrays.items()]))


def keras(path, data, arrays, *, config=True):
    kernel = np.ascontiguousarray(arrays["v"].reshape(3, 2, 8, 8).transpose(2, 3, 1, 0).reshape(128, 3))
    held = {
        "conv2d": {"kernel": arrays["w"].transpose(2, 3, 1, 0), "bias": arrays["b"]},
        "dense": {"kernel": kernel, "bias": arrays["d"]},
    }
    stored = making_hdf5.stored(held)
    path.write_bytes(making_hdf5.archive(making_hdf5.newer(KERAS, [None, 8, 8, 1]), stored) if config else stored)


def keras_weights(path, data, arrays):
    keras(path, data, arrays, config=False)


def vit_folder(path, data, arrays):
    """A mean instead of a token, heads that no shape shows, larger images: all of it is said by the folder alone."""
    torch.manual_seed(0)
    net = shaken(Vit(side=16, mean=True))
    taught(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), net), data, mean=0.25, std=0.1, steps=120, rate=0.02)
    config = {"architecture": "vit", "num_classes": 3, "global_pool": "avg", "model_args": {"num_heads": 2}}
    state = renamed(net.state_dict(), {**TO_TIMM, "encoder.ln.": "fc_norm."})
    folder(path, state, config, {**PREPARED, "image_mean": [0.25], "image_std": [0.1], "size": {"height": 16, "width": 16}})


def opened_again(out, options, data):
    """The net that was written, opened as the report says."""
    words = shlex.split(options)
    if words[0] == "--net":
        return open_model(out / "repaired.safetensors", data, choose_theirs(words[1]))
    return open_model(out / "repaired.safetensors", data, hints=Hints(read_architecture(out / words[1])))


@pytest.mark.parametrize("make", [onnx, keras, keras_weights, vit_folder])
def test_what_is_written_opens_again_as_the_net_that_was_kept(make, pictures, data, arrays, tmp_path, monkeypatch):
    if make in (keras, keras_weights) and importlib.util.find_spec("h5py") is None:
        pytest.skip("the extra hdf5 is not installed")
    make(tmp_path / "theirs", data, arrays)
    level = read_model(tmp_path / "theirs").level
    kept = []
    clean = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in (data.budget.x_NCHW, data.budget.y_N))
    monkeypatch.setattr(_repair, "_judge", lambda *_: _Judge(clean, None, []))
    monkeypatch.setattr(_repair, "REPAIRS", ("fine_tuning",))
    monkeypatch.setattr(_repair, "choose", lambda before, others: "fine_tuning")
    content = _repair._content
    monkeypatch.setattr(_repair, "_content", lambda *parts: kept.append(parts[0]) or content(*parts))
    # Unconfined, so that the net that was kept can be seen here.
    monkeypatch.setattr(_repair, "run_confined", lambda work, *_, **__: work(level))
    done = tiny.cli("repair", tmp_path / "theirs", "folder:size=8", "--data", pictures, "--out", tmp_path / "o")
    assert (done.status, done.err) == (0, "")
    report = json.loads((tmp_path / "o" / "repair.json").read_text())
    assert report["sandbox"] == f"{level}, for reading and for running it"
    assert "Read as " in done.out
    assert f"sandbox: {level}" in " ".join(done.out.split())
    assert report["options"].partition(" ")[2] in (tmp_path / "o" / "REPORT.md").read_text()
    assert ("repaired.toml" in report["files"]) == (make is not vit_folder)
    x_NCHW = clean[0]
    again = opened_again(tmp_path / "o", report["options"], data).network
    torch.testing.assert_close(again.predict_logits(x_NCHW), kept[0].predict_logits(x_NCHW))


LEVEL = str(Level(process=True))
SURE = Estimate(value=0.5, low=0.4, high=0.6, n=10, num_seeds=1, method="wilson")


def report_of(text):
    """A report with that text in every place for a stranger's."""
    one = Tried(repair="clp", accuracy=SURE, inverted=None, seconds=1.0, images=1, note="", why_not=text)
    return Report(
        file=f"some/{text.replace('/', '')}", sha256="0", format="ONNX", net={"kind": "layered", "title": text, "layers": []},
        sandbox=LEVEL, notes=(text, text), options="--arch repaired.toml", dataset=text, clean_images=1, held_images=1, before=one,
        tried=[one], chosen=None, seconds=1.0, files={},
    )  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(15))
def test_hostile_text_stays_text_in_the_report(payload):
    found, harmless = render_repair(report_of(payload)), render_repair(report_of("harmless"))
    assert len(found.splitlines()) == len(harmless.splitlines())
    for mark in (r"(?<!\\)\|", r"(?<!\\)`", r"(?<!\\)\*"):
        assert len(re.findall(mark, found)) == len(re.findall(mark, harmless))
    assert not re.search(r"<|(?<!\\)\]\(|(?<![\\:])://", found)


class TestConvert:
    """What only the file says is said when its tensors are all that is left."""

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (keras_weights, ["channels_last = true at flatten, eps = 0.001 at norms"]),
            (keras, ["--arch"]),
            (onnx, ["--arch"]),
            (vit_folder, ["preprocessor_config.json has its preparation", "--normalize 0.25/0.1", "--net vit:heads=2"]),
        ],
    )
    def test_is_told(self, make, said, data, arrays, tmp_path):
        if make in (keras, keras_weights) and importlib.util.find_spec("h5py") is None:
            pytest.skip("the extra hdf5 is not installed")
        make(tmp_path / "theirs", data, arrays)
        done = tiny.cli("convert", tmp_path / "theirs", "--out", tmp_path / "net.safetensors")
        assert (done.status, done.err) == (0, "")
        assert all(words in done.out for words in said), done.out
        theirs = read_model(tmp_path / "theirs").weights
        ours = read_model(tmp_path / "net.safetensors").weights
        assert theirs.tensors.keys() == ours.tensors.keys()
        assert all(np.array_equal(one.data, ours.tensors[name].data) for name, one in theirs.tensors.items())
        if theirs.layers:
            assert len(read_architecture(tmp_path / "net.toml").layers) == len(theirs.layers)

    @pytest.mark.parametrize(("out", "code"), [("net.toml", "E-USAGE"), ("folder", "E-EXISTS"), ("file/net.safetensors", "E-EXISTS")])
    def test_places_that_cannot_be_are_told_before_the_work(self, out, code, data, arrays, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("x")
        onnx(tmp_path / "net.onnx", data, arrays)
        done = tiny.cli("convert", tmp_path / "net.onnx", "--out", tmp_path / out)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
        assert code in done.err
