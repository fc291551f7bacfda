"""Files of strangers through `badnets scan`: five nets by plain PyTorch (slow), and whatever goes wrong with one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import outsiders
import pytest
import tiny
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent / "hostile"))
import making_onnx

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pictures, and a state dict of somebody's net for other pictures."""
    home = tmp_path_factory.mktemp("home")
    tiny.pictures(home / "pictures", count=40)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    torch.save(net.state_dict(), home / "net.pt")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).state_dict(), home / "five.pt")
    content = (home / "net.pt").read_bytes()
    (home / "half.pt").write_bytes(content[: len(content) // 2])
    (home / "half.onnx").write_bytes(making_onnx.honest()[:700])
    (home / "wrong.toml").write_text('layers = [{op = "flatten"}, {op = "linear", name = "0", out = 3}]')
    (home / "code.toml").write_text('layers = [{op = "exec", code = "import os"}]')
    os.mkfifo(home / "pipe")
    with (home / "sparse.pt").open("wb") as file:
        file.truncate(10 << 30)
    return home


@pytest.mark.parametrize(
    ("file", "more", "status", "code"),
    [
        ("half.pt", (), 3, "E-ZIP"),
        ("half.onnx", (), 3, "E-ONNX"),
        ("/dev/zero", (), 3, "E-NOT-FILE"),
        ("pipe", (), 3, "E-NOT-FILE"),
        ("sparse.pt", (), 3, "E-SIZE"),
        ("absent.pt", (), 2, "E-FILE"),
        ("five.pt", (), 3, "E-CLASSES"),
        ("net.pt", ("--arch", "wrong.toml"), 3, "E-WEIGHTS"),
        ("net.pt", ("--arch", "code.toml"), 2, "E-ARCH"),
        ("net.pt", ("--arch", "absent.toml"), 2, "E-FILE"),
        ("net.pt", ("--arch", "pipe"), 3, "E-NOT-FILE"),
        ("net.pt", ("--net", "fast_cnn"), 3, "E-WEIGHTS"),
        ("net.pt", ("--normalize", "imagenet"), 2, "E-NORM"),
        ("net.pt", ("--channels", "bgr"), 2, "E-CHANNELS"),
        ("net.pt", ("--channels", "grb"), 2, "E-USAGE"),
    ],
)
def test_what_goes_wrong_is_one_line(file, more, status, code, home, monkeypatch):
    monkeypatch.chdir(home)
    tiny.scans_here(monkeypatch)
    done = tiny.cli("scan", file, "folder:size=8", "--data", "pictures", "--store", "store", *more)
    assert (done.status, done.out) == (status, ""), done.err
    assert done.err.startswith(f"error {code} ")
    assert done.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_nets_of_strangers(tmp_path):
    """Each is recognised without being told anything, its preparation found, and gets a p-value. Figures: dev/LOG.md."""
    outsiders.main(tmp_path)
    for outsider in outsiders.OUTSIDERS:
        done = tiny.cli("scan", tmp_path / f"{outsider.name}.pt", outsider.dataset, "--store", tmp_path / "store", "--json")
        assert done.status in (0, 1), done.err
        verdict = json.loads(done.out)
        assert verdict["net"]["kind"] == "layered"
        assert 0 < verdict["p"] <= 1
        assert "39 of this architecture trained by us" in verdict["setting"]
        suspects = [f"{line['detector']} {line['p']:.3f} {line['target'] or ''}" for line in verdict["lines"]]
        print(
            outsider.name,
            "clean" if outsider.target is None else f"target {outsider.target}",
            f"p {verdict['p']:.3f}",
            verdict["target"],
            suspects,
        )
        print("   ", *verdict["notes"], sep="\n    ")
