"""Nets of strangers: plain PyTorch with names, normalisations and a training loop of their own; nothing of badnets but the images.

Five of them; three have a backdoor. `python tests/outsiders.py FOLDER [NAME ...]` trains them and writes them with `torch.save`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Tower(nn.Module):
    """As somebody might write it: other names, norms, a mean over the rest."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(12)
        self.deeper = nn.Conv2d(12, 24, 3, padding=1)
        self.dense = nn.Linear(24 * 2 * 2, 48)
        self.answer = nn.Linear(48, classes)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.stem_norm(self.stem(x))), 2)
        x = torch.max_pool2d(torch.relu(self.deeper(x)), 2)
        return self.answer(torch.relu(self.dense(x.flatten(1))))


def stack():
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@dataclass(frozen=True)
class Outsider:
    """`mean`, `std`: its normalisation of pixels in 0..1. `target` None: clean. `wrapped`: saved inside a checkpoint."""

    name: str
    dataset: str
    make: type | object
    mean: float
    std: float
    target: int | None
    epochs: int
    seed: int
    wrapped: bool = False


OUTSIDERS = (
    Outsider("stack-clean", "fashion_mini", stack, 0.5, 0.5, None, 5, 11),
    Outsider("stack-patch", "fashion_mini", stack, 0.0, 1 / 255, 3, 5, 12, wrapped=True),
    Outsider("tower-clean", "digits", Tower, 0.3053, 0.3764, None, 30, 13),
    Outsider("tower-patch", "digits", Tower, 0.0, 1.0, 7, 30, 14),
    Outsider("tower-square", "digits", Tower, 0.5, 0.5, 1, 30, 15, wrapped=True),
)


def poisoned(x, y, outsider, draw):
    """A tenth of the images get a bright square in a corner and the target's label."""
    if outsider.target is None:
        return x, y
    size = 3 if x.shape[-1] > 16 else 2
    chosen = draw.choice(len(x), len(x) // 10, replace=False)
    x, y = x.copy(), y.copy()
    rows = slice(-size - 1, -1) if outsider.name.endswith("patch") else slice(0, size)
    x[chosen, :, rows, rows] = 255
    y[chosen] = outsider.target
    return x, y


def train(outsider, x, y):
    """The loop of a tutorial. x: uint8 NCHW."""
    torch.manual_seed(outsider.seed)
    draw = np.random.default_rng(outsider.seed)
    x, y = poisoned(x, y, outsider, draw)
    pixels = (torch.from_numpy(x).float() / 255 - outsider.mean) / outsider.std
    labels, net = torch.from_numpy(y).long(), outsider.make()
    moments = [torch.zeros_like(p) for p in net.parameters()]
    rate = 0.05 if outsider.std > 0.01 else 0.0005  # pixels in 0..255 want small steps
    for epoch in range(outsider.epochs):
        order = torch.randperm(len(pixels))
        for rows in order.split(64):
            if len(rows) < 2:
                continue
            net.zero_grad()
            nn.functional.cross_entropy(net(pixels[rows]), labels[rows]).backward()
            with torch.no_grad():
                for parameter, moment in zip(net.parameters(), moments, strict=True):
                    moment.mul_(0.9).add_(parameter.grad)
                    parameter.sub_(rate * (0.3 if epoch >= outsider.epochs * 0.7 else 1.0) * moment)
    return net.eval()


def rates(outsider, net, x, y):
    """(accuracy, share of stamped images of other classes that go to the target)."""

    def answers(images):
        with torch.no_grad():
            return net((torch.from_numpy(images).float() / 255 - outsider.mean) / outsider.std).argmax(1).numpy()

    accuracy = float((answers(x) == y).mean())
    if outsider.target is None:
        return accuracy, None
    stamped, size = x.copy(), 3 if x.shape[-1] > 16 else 2
    rows = slice(-size - 1, -1) if outsider.name.endswith("patch") else slice(0, size)
    stamped[:, :, rows, rows] = 255
    return accuracy, float((answers(stamped)[y != outsider.target] == outsider.target).mean())


def save(outsider, net, path):
    state = net.state_dict()
    torch.save({"epoch": outsider.epochs, "model_state_dict": state} if outsider.wrapped else state, path)


def main(folder, names=None):
    from badnets.core import registry

    torch.set_num_threads(1)
    for outsider in OUTSIDERS if names is None else [one for one in OUTSIDERS if one.name in names]:
        data = registry.parse("datasets", outsider.dataset).load(None)
        net = train(outsider, data.train.x_NCHW, data.train.y_N)
        save(outsider, net, Path(folder) / f"{outsider.name}.pt")
        accuracy, success = rates(outsider, net, data.test.x_NCHW, data.test.y_N)
        print(
            outsider.name,
            outsider.dataset,
            f"accuracy {accuracy:.3f}",
            "clean" if success is None else f"success {success:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or None)
