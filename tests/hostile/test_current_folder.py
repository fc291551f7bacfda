"""Run inside a stranger's folder: modules that lie there are not taken for ours, in this process and in none that it starts."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

SHADOWS = ("json", "struct", "socket", "signal", "numpy", "torch", "badnets", "picklescan", "pydantic", "h5py", "PIL", "sitecustomize")


@pytest.fixture
def folder(tmp_path):
    """A model, pictures, and modules that would leave a trace if they were imported."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'canary')!r}, 'a').write({name!r} + ' ')\nraise ImportError({name!r})\n"
        )
    draw = np.random.default_rng(0)
    for label in ("one", "two"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "pictures" / label / f"{number}.png")
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).state_dict(), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as file:
        file.writestr("config.json", "{}")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "net.pt", "folder:size=8", "--data", "pictures"),
        ("scan", "net.keras", "folder:size=8", "--data", "pictures"),
        ("convert", "net.pt", "--out", "net.safetensors"),
        ("repair", "net.pt", "folder:size=8", "--data", "pictures", "--out", "out"),
        ("run", "--claims", "clean_accuracy_kept", "--dataset", "nothing"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_nothing_there_is_imported(words, folder):
    """-P is what a console script has: its own folder first, not the current one."""
    env = {**os.environ, "BADNETS_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "badnets", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert not (folder / "canary").exists(), (folder / "canary").read_text()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2, 3), done.stderr


def test_the_shadows_would_be_seen(folder):
    """Without -P the first import is the stranger's: the test above can fail."""
    subprocess.run([sys.executable, "-c", "import json"], cwd=folder, capture_output=True, check=False)
    assert "json" in (folder / "canary").read_text()
    assert json.dumps({}) == "{}"
