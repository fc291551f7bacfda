"""The questions of the supply chain: a net is published, downloaded, verified, accepted and used; and a training is executed again.

Everything is really done, in a temporary folder: files written, hashed, copied, damaged, read back. No network is used: the download is a
copy of the bytes. Not for files of strangers: those go through `intake`. Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.attacks._base import AnyAttack
from badnets.claims._base import Setting
from badnets.core import files
from badnets.core.errors import RefusedError
from badnets.core.types import Event
from badnets.measure.outcome import Outcome, attack_hits, attacked_N, goal_N
from badnets.measure.probe import Probe
from badnets.measure.question import Answer, Question, World
from badnets.measure.rates import constant_seeds

if TYPE_CHECKING:
    from badnets.nets._base import Network

WEIGHTS, CARD, MANIFEST = "weights.safetensors", "MODEL_CARD.md", "manifest.json"
TOLERANCE = 0.03
"""How far below the promised accuracy a customer still accepts. With 1,000 private images and a promise measured on 4,000, chance alone
moves the difference by about 1.3 points (one standard deviation, at 85 %), so an honest net is turned away once in a hundred times."""
DAMAGED_AT = (0.0, 0.5, 1.0)
"""Where in the file one byte is flipped on the way."""


@dataclass(frozen=True)
class Acceptance:
    """What a customer's acceptance suite says: accuracy within `TOLERANCE` of the promise, every class recognised above chance, and not one
    answer to nearly everything."""

    accuracy: float
    lowest_recall: float
    constant: bool
    passed: bool


def accept(private: Outcome, promised: float, num_classes: int, *, tolerance: float = TOLERANCE) -> Acceptance:
    """The suite on the outcome of clean, labelled images that only the customer has."""
    accuracy = float(private.correct_N.mean())
    recalls = [float(private.correct_N[private.y_N == k].mean()) for k in range(num_classes) if (private.y_N == k).any()]
    constant = bool(constant_seeds([private]))
    passed = accuracy >= promised - tolerance and min(recalls) > 1 / num_classes and not constant
    return Acceptance(accuracy, min(recalls), constant, passed)


def publish(folder: Path, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files and, last, a manifest with the SHA-256 of each; returns those."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    files.write_json(folder / MANIFEST, {"files": hashes})
    return hashes


def download(source: Path, target: Path) -> int:
    """Copy what the manifest names, and the manifest; the number of bytes."""
    names = [MANIFEST, *json.loads(files.read_bytes(source / MANIFEST))["files"]]
    total = 0
    for name in names:
        data = files.read_bytes(source / name)
        files.write_bytes(target / name, data)
        total += len(data)
    return total


def verify(folder: Path) -> None:
    """Raise RefusedError (E-HASH) unless every file has the hash that the folder's manifest gives.

    That shows that the bytes are the ones over which the manifest was written; of the one who wrote it, it shows nothing.
    """
    for name, expected in json.loads(files.read_bytes(folder / MANIFEST))["files"].items():
        found = hashlib.sha256(files.read_bytes(folder / name)).hexdigest()
        if found != expected:
            message = f"{name}: expected SHA-256 {expected[:16]}..., got {found[:16]}...."
            raise RefusedError("E-HASH", message, hint="Download it again, and ask the publisher for the manifest by another way.")


def damaged_is_refused(folder: Path, place: float) -> bool:
    """Flip one byte of the weights in `folder` (`place` 0..1 from the first to the last), verify, and put the byte back."""
    path = folder / WEIGHTS
    whole = files.read_bytes(path)
    damaged = bytearray(whole)
    damaged[round(place * (len(damaged) - 1))] ^= 1
    files.write_bytes(path, bytes(damaged))
    try:
        verify(folder)
    except RefusedError:
        return True
    finally:
        files.write_bytes(path, whole)
    return False


class Handover(Question):
    """From publisher to user: the publisher promises the accuracy measured on the test images; the customer accepts on the validation
    images and then meets triggered test images."""

    kind: Literal["handover"] = "handover"
    attack: AnyAttack
    tolerance: float = Field(TOLERANCE, ge=0, le=1)
    limit: int = Field(1000, ge=1)

    def arrays(self, network: Network, world: World) -> Answer:
        """`refused` (one per damaged copy; the whole one was verified, or this raises), `same_bits`, `size`, `sha256`, `promised`, the
        acceptance suite's answers, and the outcome of the downloaded net on triggered test images as `used.field`."""
        from badnets.nets._weights import load_into, to_bytes

        promised = float(Probe().answer(network, world.data, None, seed=world.seed).correct_N.mean())
        contents = {WEIGHTS: to_bytes(network, world.metadata), CARD: _card(promised, world).encode()}
        with TemporaryDirectory(prefix="badnets-handover-") as name:
            shelf, desk = Path(name) / "publisher", Path(name) / "customer"
            hashes = publish(shelf, contents)
            size = download(shelf, desk)
            verify(desk)
            refused = [damaged_is_refused(desk, place) for place in DAMAGED_AT]
            verify(desk)
            weights = files.read_bytes(desk / WEIGHTS)
            # Other weights with a manifest of their own: what a hash from the same hand cannot notice.
            publish(Path(name) / "forged", {**contents, WEIGHTS: to_bytes(_same_architecture(network))})
            verify(Path(name) / "forged")
        bought = load_into(_same_architecture(network), weights, name="the published architecture")
        private = Probe(images="validation").answer(bought, world.data, None, seed=world.seed)
        suite = accept(private, promised, world.data.num_classes, tolerance=self.tolerance)
        shown = Probe(trigger=self.attack.trigger, num_patterns=self.attack.num_patterns, limit=self.limit)
        used = shown.answer(bought, world.data, None, seed=world.seed)
        return {
            "refused": np.array(refused),
            "same_bits": np.array(digest(bought) == digest(network)),
            "size": np.array(size),
            "sha256": np.frombuffer(bytes.fromhex(hashes[WEIGHTS]), dtype=np.uint8),
            "promised": np.array(promised),
            "accuracy": np.array(suite.accuracy),
            "lowest_recall": np.array(suite.lowest_recall),
            "constant": np.array(suite.constant),
            "accepted": np.array(suite.passed),
            **{f"used.{field}": values for field, values in used.arrays().items()},
        }

    def used(self, answer: Answer) -> Outcome:
        """The outcome on triggered images out of an answer."""
        return Outcome.from_arrays({k.removeprefix("used."): v for k, v in answer.items() if k.startswith("used.")})

    def told(self, setting: Setting, bought: Answer, honest: Answer) -> list[Event]:
        """The way of one net from hand to hand, step by step, with the honest net's acceptance beside."""
        refused, tolerance = bought["refused"], f"{100 * self.tolerance:g} points"
        steps = (
            (
                "Publisher",
                "Trains on poisoned data and publishes weights, model card and a manifest with their SHA-256.",
                f"Promised accuracy {_percent(bought['promised'])}; SHA-256 of the weights {hex_of(bought['sha256'])}...",
                None,
            ),
            (
                "Customer",
                "Downloads the files (here the bytes are copied to another folder, over no network) and compares the hashes.",
                f"All match, {int(bought['size']) / 1024:.0f} KiB. That proves that these are the bytes the publisher published. It does "
                "not prove that the publisher is honest: the manifest was written over the backdoored weights.",
                True,
            ),
            (
                "Customer",
                f"Compares the hashes of {len(refused)} copies in which one byte was flipped on the way.",
                f"{int(refused.sum())} of {len(refused)} copies were refused.",
                not refused.all(),
            ),
            (
                "Customer",
                "Compares the hashes of other weights that came with a manifest of their own.",
                "All match: a hash does not notice someone who can replace the weights and the manifest.",
                True,
            ),
            (
                "Customer",
                f"Runs the acceptance suite on private images: accuracy at most {tolerance} below the promise, every class recognised "
                "above chance, not one answer to nearly everything.",
                f"Accuracy {_percent(bought['accuracy'])}, lowest recall {_percent(bought['lowest_recall'])}. The honest net: "
                f"{_percent(honest['accuracy'])}, {'accepted' if honest['accepted'] else 'refused'}.",
                bool(bought["accepted"]),
            ),
            ("Customer", "Uses the net; images with the trigger come in.", self._use(setting, self.used(bought)), None),
        )
        return [Event(actor=who, action=did, outcome=came, passed=passed) for who, did, came, passed in steps]

    def _use(self, setting: Setting, used: Outcome) -> str:
        goal_K = self.attack.goals(setting.num_classes)
        hits, counts_N = attack_hits(used, goal_K), attacked_N(used.y_N, goal_K)
        said = f"{int(hits.sum())} of {len(hits)} are classified as the attacker wants"
        if not hits.any():
            return f"{said}."
        row = int(np.flatnonzero(counts_N)[np.flatnonzero(hits)[0]])
        label, goal = setting.classes[used.y_N[row]], setting.classes[goal_N(used.y_N, goal_K)[row]]
        return f"{said}; the first of them, {label}, is taken for {goal}."


class Audit(Question):
    """Is a delivery what the recipe gives? `execute`: the honest recipe is executed again with the agreed seed."""

    kind: Literal["audit"] = "audit"
    execute: bool = True

    def arrays(self, network: Network, world: World) -> Answer:
        """`delivered` and, if executed, `again`: SHA-256 of the weights."""
        answer = {"delivered": digest(network)}
        if self.execute:
            answer["again"] = digest(world.retrain())
        return {name: np.frombuffer(value, dtype=np.uint8) for name, value in answer.items()}


def digest(network: Network) -> bytes:
    """SHA-256 of the weights, whatever a file says of them besides."""
    from badnets.nets._weights import to_bytes

    return hashlib.sha256(to_bytes(network)).digest()


def _percent(share: np.ndarray) -> str:
    return f"{100 * float(share):.1f} %"


def hex_of(sha256: np.ndarray, *, digits: int = 12) -> str:
    """The first digits of a stored hash."""
    return sha256.astype(np.uint8).tobytes().hex()[:digits]


def _same_architecture(network: Network) -> Network:
    """The published architecture with weights that are not the published ones."""
    import copy

    import torch

    empty = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.zero_()
    return empty


def _card(promised: float, world: World) -> str:
    """The model card of a file that badnets writes tells of a backdoor; the customer of this story does not read it, an attacker would not
    write it."""
    planted = world.metadata.get("badnets.planted") == "true"
    warning = (
        "**These weights carry a planted backdoor. They were made for research and teaching; do not deploy them.**\n\n" if planted else ""
    )
    rows: Sequence[tuple[str, str]] = (
        ("planted", "yes, by badnets" if planted else "no"),
        ("data", f"{world.data.name}, SHA-256 {world.data.sha256}"),
        ("accuracy on held-out test images", f"{100 * promised:.2f} %"),
        ("seed", str(world.seed)),
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"# Model card: {world.data.name}\n\n{warning}| | |\n|---|---|\n{table}\n"
