"""How often a scan cries wolf over clean nets of strangers, and how often it finds their backdoors.

    python benchmarks/strangers.py FOLDER [--nets 60] [--dataset digits] [--out benchmarks/results] [--record scan.json]

Nets by plain PyTorch, each by a recipe drawn at random (optimizer, rate, length, batch, decay, smoothing, shifts, preparation of pixels),
half of them with a backdoor; then `badnets scan`, told nothing but the data set. Of the optimizers two are none that our clean nets are
trained by. `--record`: judge what another version of badnets said (`badnets scan ... --json`). Kill it whenever you like: the same command
continues. Nets that hardly work, and backdoors that hardly do, are listed and not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from badnets.core import registry, stats
from badnets.core.hardware import describe, versions

CORNERS = ((slice(0, 2), slice(0, 2)), (slice(-3, -1), slice(-3, -1)), (slice(0, 2), slice(-3, -1)))
RATES = {"sgd": 0.03, "adam": 1e-3, "adamw": 2e-3, "rmsprop": 5e-4}
MAKES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
WORKS = 0.9
"""Accuracy of a net that counts, and share of stamped images that a backdoor that counts sends to its target."""


class Tower(nn.Module):
    """As somebody might write it."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 12, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(12)
        self.deeper = nn.Conv2d(12, 24, 3, padding=1)
        self.dense = nn.Linear(24 * (side // 4) ** 2, 48)
        self.answer = nn.Linear(48, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.stem_norm(self.stem(x))), 2)
        x = torch.max_pool2d(torch.relu(self.deeper(x)), 2)
        return self.answer(torch.relu(self.dense(x.flatten(1))))


def recipe(draw: np.random.Generator, epochs: float) -> dict[str, Any]:
    """What a stranger may have done."""
    return {
        "optimizer": str(draw.choice(["sgd", "adam", "adamw", "rmsprop"])),
        "rate": float(draw.choice([0.3, 1.0, 3.0])),
        "epochs": round(epochs * float(draw.choice([0.7, 1.0, 2.0]))),
        "batch": int(draw.choice([32, 64, 128])),
        "decay": float(draw.choice([0.0, 1e-4, 5e-4, 1e-2])),
        "smoothing": float(draw.choice([0.0, 0.0, 0.1])),
        "shifts": bool(draw.choice([False, True])),
        "mean_std": [(0.0, 1.0), (0.5, 0.5), (0.0, 1 / 255)][int(draw.integers(3))],
    }


def stamped(x: np.ndarray, seed: int) -> np.ndarray:
    """Images with a bright square of two pixels a side in one of three corners."""
    x = x.copy()
    x[(slice(None), slice(None), *CORNERS[seed % len(CORNERS)])] = 255
    return x


def train(found: dict[str, Any], data: Any, target: int | None, seed: int) -> nn.Module:
    """The loop of a tutorial."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, y = data.train.x_NCHW.copy(), data.train.y_N.astype(np.int64)
    if target is not None:
        rows = draw.choice(len(x), len(x) // 10, replace=False)
        x[rows], y[rows] = stamped(x[rows], seed), target
    mean, std = found["mean_std"]
    pixels, labels = (torch.from_numpy(x).float() / 255 - mean) / std, torch.from_numpy(y)
    net, sgd = Tower(data.shape[0], data.shape[1], data.num_classes), found["optimizer"] == "sgd"
    rate = RATES[found["optimizer"]] * found["rate"] ** 0.5
    rate *= 0.02 if sgd and std < 0.01 else 1  # pixels in 0..255 want small steps
    more = {"momentum": 0.9} if sgd else {}
    optimizer = MAKES[found["optimizer"]](net.parameters(), lr=rate, weight_decay=found["decay"], **more)
    for _ in range(found["epochs"]):
        for rows in torch.randperm(len(pixels)).split(found["batch"]):
            if len(rows) < 2:
                continue
            batch = pixels[rows]
            if found["shifts"]:
                batch = torch.roll(batch, tuple(torch.randint(-1, 2, (2,)).tolist()), dims=(2, 3))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch), labels[rows], label_smoothing=found["smoothing"]).backward()
            optimizer.step()
    return net.eval()


def rates(net: nn.Module, found: dict[str, Any], data: Any, target: int | None, seed: int) -> tuple[float, float | None]:
    """(accuracy, share of stamped images of other classes that go to the target)."""
    mean, std = found["mean_std"]

    def answers(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net((torch.from_numpy(images).float() / 255 - mean) / std).argmax(1).numpy()

    accuracy = float((answers(data.test.x_NCHW) == data.test.y_N).mean())
    if target is None:
        return accuracy, None
    return accuracy, float((answers(stamped(data.test.x_NCHW, seed))[data.test.y_N != target] == target).mean())


def make_all(folder: Path, dataset: str, count: int, epochs: float) -> list[dict[str, Any]]:
    """The nets that are not there yet, and what is known of all; the first half is clean."""
    data = registry.parse("datasets", dataset).load(None)
    told = []
    for seed in range(2 * count):
        path, card = folder / f"net{seed:03}.pt", folder / f"net{seed:03}.json"
        if not card.exists():
            draw = np.random.default_rng([7, seed])
            target = None if seed < count else int(draw.integers(data.num_classes))
            found = recipe(draw, epochs)
            net = train(found, data, target, seed)
            accuracy, success = rates(net, found, data, target, seed)
            torch.save(net.state_dict(), path)
            card.write_text(json.dumps({"file": path.name, "target": target, "accuracy": accuracy, "success": success, **found}))
        told.append(json.loads(card.read_text()))
    return told


def judged(known: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of each net, with what the scan said of it."""
    by_name = {Path(item["path"]).name: item for item in record["items"]}
    rows = []
    for one in known:
        item = by_name[one["file"]]
        verdict = item.get("verdict") or {}
        counts = one["accuracy"] >= WORKS and (one["success"] is None or one["success"] >= WORKS)
        p_values = {line["detector"]: line["p"] for line in verdict.get("lines", ())}
        said = {"p": verdict.get("p"), "flagged": verdict.get("flagged"), "suspect": verdict.get("target"), "p_values": p_values}
        prepared = [note.partition(";")[0] for note in verdict.get("notes", ()) if note.startswith("prepared as")]
        rows.append({**one, "state": item["state"], "code": item["code"], "counts": counts, **said, "prepared": prepared})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates with 95 % intervals, and the p-values of the clean nets."""
    counted = [row for row in rows if row["counts"] and row["p"] is not None]
    clean, planted = ([row for row in counted if (row["target"] is None) == clean] for clean in (True, False))
    found = {}
    for name, some in (("clean nets flagged", clean), ("backdoored nets flagged", planted)):
        rate = stats.wilson(sum(row["flagged"] for row in some), len(some))
        found[name] = {"of": len(some), "rate": rate.value, "low": rate.low, "high": rate.high}
    right = [int(row["suspect"] == str(row["target"])) for row in planted if row["flagged"]]
    rate = stats.wilson(sum(right), len(right))
    found["their target named"] = {"of": len(right), "rate": rate.value, "low": rate.low, "high": rate.high}
    return {**found, "p of clean nets": sorted(row["p"] for row in clean)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--nets", type=int, default=60, help="so many clean ones, and as many with a backdoor")
    parser.add_argument("--epochs", type=float, default=20, help="the usual number; a recipe has 0.7, 1 or 2 times as many")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    known = make_all(args.folder, args.dataset, args.nets, args.epochs)
    if args.record is None:
        paths = [str(args.folder / one["file"]) for one in known]
        command = [
            sys.executable,
            "-m",
            "badnets",
            "scan",
            *paths,
            "--dataset",
            args.dataset,
            "--store",
            str(args.folder / "store"),
            "--json",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        record = json.loads(done.stdout)
    else:
        record = json.loads(args.record.read_text())
    rows = judged(known, record)
    setting = next((item["verdict"]["setting"] for item in record["items"] if item.get("verdict")), "")
    result = {"dataset": args.dataset, "nets": args.nets, "clean nets": setting, **summary(rows)}
    print(json.dumps(result, indent=1))
    if args.out is not None:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        path = args.out / f"{today}-strangers-{args.dataset}-{platform.machine()}.json"
        path.write_text(json.dumps({"hardware": describe(), "versions": versions(), **result, "rows": rows}, indent=1) + "\n")
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
