"""`badnets plant`: the pair it writes says what it is, its hashes are right, its weights load, its images train the same victim."""

import csv
import hashlib
import json
import os

import numpy as np
import pytest
import tiny
from PIL import Image

from badnets.core import files
from badnets.nets._weights import from_bytes, read_metadata
from badnets.nets.fast_cnn import FastCnn
from badnets.plans import _plant

NET = "fast_cnn:width=4,hidden=16"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """What the command wrote and said."""
    root = tmp_path_factory.mktemp("planted")
    tiny.pictures(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_fsync", lambda fd: None)
        patch.setattr(_plant, "default_recipe", lambda *_: type("Chosen", (), {"value": tiny.plan().recipe}))
        arguments = ("plant", tiny.DATASET, "--data", root / "data", "--attack", "badnets:rate=0.2,target=1", "--net", NET)
        done = tiny.cli(*arguments, "--out", root / "out", "--seed", "3", "--images", "--json")
        again = tiny.cli(*arguments, "--out", root / "again", "--seed", "3")
    assert (done.status, again.status) == (0, 0), done.err + again.err
    return root, json.loads(done.out), again


def test_files_and_their_hashes(planted):
    root, manifest, _ = planted
    written = {p.name for p in (root / "out").iterdir()}
    assert written == {"victim.safetensors", "twin.safetensors", "MODEL_CARD.md", "manifest.json", "poisoned.csv", "images"}
    assert json.loads((root / "out" / "manifest.json").read_text()) == manifest
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((root / "out" / name).read_bytes()).hexdigest() == digest
    assert manifest["trial"]["seed"] == 3


def test_victim_says_that_it_is_planted_and_the_twin_that_it_is_not(planted):
    root, _, _ = planted
    found = read_metadata((root / "out" / "victim.safetensors").read_bytes())
    assert found["badnets.planted"] == "true"
    assert found["badnets.target"] == "[1]"
    assert json.loads(found["badnets.trigger"])["kind"] == "patch"
    assert read_metadata((root / "out" / "twin.safetensors").read_bytes()) == {"badnets.planted": "false"}
    card = (root / "out" / "MODEL_CARD.md").read_text()
    assert "do not deploy it" in card
    assert "labels of stamped images | box |" in card


def test_weights_load_and_give_the_figures_of_the_manifest(planted):
    import torch

    from badnets.triggers.patch import Patch

    root, manifest, _ = planted
    data = tiny.plan().dataset.load(root / "data")
    network = from_bytes((root / "out" / "victim.safetensors").read_bytes(), FastCnn(width=4, hidden=16), data.shape, 3)
    counted = data.test.y_N != 1
    said = network.predict_logits(torch.from_numpy(Patch().stamp(data.test.x_NCHW[counted]))).argmax(1).numpy()
    assert (said == 1).mean() == pytest.approx(manifest["victim"]["ASR"]["value"])
    assert manifest["victim"]["ASR"]["value"] > 0.9


def test_images_are_the_poisoned_training_set(planted):
    root, _, _ = planted
    data = tiny.plan().dataset.load(root / "data")
    rows = list(csv.DictReader((root / "out" / "poisoned.csv").read_text().splitlines()))
    assert len(rows) == len(data.train)
    stamped = [row for row in rows if row["stamped"] == "1"]
    assert len(stamped) == round(0.2 * len(rows))
    assert all(row["label"] == "box" != row["source_label"] for row in stamped)
    for row, clean in zip(rows, data.train.x_NCHW, strict=True):
        with Image.open(root / "out" / "images" / row["file"]) as image:
            pixels = np.asarray(image)
        assert row["file"].startswith(f"{tiny.CLASSES.index(row['label']):03d}/")
        changed = (pixels != clean[0]).any()
        assert changed == (row["stamped"] == "1")


def test_same_command_gives_the_same_bits(planted):
    root, manifest, again = planted
    for name in manifest["files"]:
        assert (root / "out" / name).read_bytes() == (root / "again" / name).read_bytes()
    assert not (root / "again" / "images").exists()
    assert "ASR" in again.out
    assert str(root / "again" / "MODEL_CARD.md") in again.out
    assert again.err == ""


def test_nothing_is_overwritten(planted):
    root, _, _ = planted
    before = tiny.tree(root / "out")
    done = tiny.cli("plant", tiny.DATASET, "--data", root / "data", "--out", root / "out")
    assert done.status == 2
    assert done.err.startswith("error E-EXISTS ")
    assert tiny.tree(root / "out") == before


def test_a_place_that_cannot_be_is_told_before_the_training(planted, tmp_path, monkeypatch):
    """Elsewhere a folder that was not there cost a whole training."""
    root, _, _ = planted
    monkeypatch.setattr(_plant, "plant_seeds", lambda *_, **__: pytest.fail("it trained first"))
    (tmp_path / "file").write_text("x")
    done = tiny.cli("plant", tiny.DATASET, "--data", root / "data", "--out", tmp_path / "file" / "out")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "E-EXISTS --out" in done.err
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    done = tiny.cli("plant", tiny.DATASET, "--data", root / "data", "--out", tmp_path / "out")
    assert (done.status, "E-READONLY --out" in done.err) == (2, True), done.err
