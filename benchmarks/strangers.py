"""How often a scan cries wolf over clean nets of strangers, and how often it finds their backdoors.

Nets by plain PyTorch, each by a recipe drawn at random (optimizer, rate, length, batch, decay, smoothing, shifts, preparation of pixels),
half of them with a backdoor; then `badnets scan` over the folder, told nothing but the data set. The clean nets that it compares with are of
the same architecture and by our recipes. Run: `python benchmarks/strangers.py FOLDER [--nets 20] [--dataset digits]`; a second time it goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from badnets.core import registry, stats

CORNERS = ((slice(0, 2), slice(0, 2)), (slice(-3, -1), slice(-3, -1)), (slice(0, 2), slice(-3, -1)))


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


def train(found: dict[str, Any], data: Any, target: int | None, seed: int) -> tuple[nn.Module, float, float | None]:
    """(net, accuracy, share of stamped images of other classes that go to the target)."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, y = data.train.x_NCHW.copy(), data.train.y_N.astype(np.int64)
    corner = CORNERS[seed % len(CORNERS)]
    if target is not None:
        rows = draw.choice(len(x), len(x) // 10, replace=False)
        stamped = x[rows]
        stamped[(slice(None), slice(None), *corner)] = 255
        x[rows], y[rows] = stamped, target
    mean, std = found["mean_std"]
    pixels, labels = (torch.from_numpy(x).float() / 255 - mean) / std, torch.from_numpy(y)
    net = Tower(data.shape[0], data.shape[1], data.num_classes)
    scale = 0.02 if std < 0.01 else 1.0  # pixels in 0..255 want small steps
    base = {"sgd": 0.03, "adam": 1e-3, "adamw": 2e-3, "rmsprop": 5e-4}[found["optimizer"]] * found["rate"] ** 0.5 * (scale if found["optimizer"] == "sgd" else 1)
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[found["optimizer"]]
    optimizer = make(net.parameters(), lr=base, weight_decay=found["decay"], **({"momentum": 0.9} if found["optimizer"] == "sgd" else {}))
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
    net.eval()

    def answers(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net((torch.from_numpy(images).float() / 255 - mean) / std).argmax(1).numpy()

    accuracy = float((answers(data.test.x_NCHW) == data.test.y_N).mean())
    if target is None:
        return net, accuracy, None
    stamped, others = data.test.x_NCHW.copy(), data.test.y_N != target
    stamped[(slice(None), slice(None), *corner)] = 255
    return net, accuracy, float((answers(stamped)[others] == target).mean())


def make_all(folder: Path, dataset: str, count: int, epochs: float) -> list[dict[str, Any]]:
    """The nets that are not there yet, and what is known of all."""
    data = registry.parse("datasets", dataset).load(None)
    told = []
    for seed in range(2 * count):
        path, card = folder / f"net{seed:03}.pt", folder / f"net{seed:03}.json"
        if not card.exists():
            draw = np.random.default_rng([7, seed])
            target = None if seed < count else int(draw.integers(data.num_classes))
            found = recipe(draw, epochs)
            net, accuracy, success = train(found, data, target, seed)
            torch.save(net.state_dict(), path)
            card.write_text(json.dumps({"file": path.name, "target": target, "accuracy": accuracy, "success": success, **found}))
        told.append(json.loads(card.read_text()))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--nets", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    known = make_all(args.folder, args.dataset, args.nets, args.epochs)
    paths = [str(args.folder / one["file"]) for one in known]
    store = args.folder / "store"
    done = subprocess.run(
        [sys.executable, "-m", "badnets", "scan", *paths, "--dataset", args.dataset, "--store", str(store), "--json"], capture_output=True, text=True
    )
    record = json.loads(done.stdout)
    by_name = {Path(item["path"]).name: item for item in record["items"]}
    flagged: dict[bool, list[bool]] = {False: [], True: []}
    p: dict[bool, list[float]] = {False: [], True: []}
    for one in known:
        item, planted = by_name[one["file"]], one["target"] is not None
        success = "" if one["success"] is None else f"success {one['success']:.2f} "
        how = f"{one['optimizer']} x{one['rate']:g}, {one['epochs']} epochs of {one['batch']}, decay {one['decay']:g}, smoothing {one['smoothing']:g}"
        how += f"{', shifts' if one['shifts'] else ''}, std {one['mean_std'][1]:.3g}"
        verdict = item.get("verdict")
        if verdict is None or verdict["p"] is None:
            print(f"{one['file']} accuracy {one['accuracy']:.3f} {success}{item['state']} {item['code']}; {how}")
            continue
        usable = one["accuracy"] >= 0.9 and (one["success"] is None or one["success"] >= 0.9)
        lines = " ".join(f"{line['detector']}={line['p']:.3f}" for line in verdict["lines"] if line["p"] is not None)
        prepared = next((note for note in verdict["notes"] if note.startswith("prepared as")), "")
        print(f"{one['file']} accuracy {one['accuracy']:.3f} {success}p {verdict['p']:.3f} {'' if usable else '(not counted)'} {lines}; {how}; {prepared}")
        if usable:
            flagged[planted].append(bool(verdict["flagged"]))
            p[planted].append(verdict["p"])
    for planted, title in ((False, "clean nets flagged"), (True, "backdoored nets flagged")):
        found = stats.wilson(sum(flagged[planted]), len(flagged[planted]))
        print(f"{title}: {sum(flagged[planted])} of {len(flagged[planted])} = {100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]")
    print("p of clean nets:", sorted(round(one, 3) for one in p[False]))


if __name__ == "__main__":
    main()
