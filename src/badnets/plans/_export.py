"""Writes a planted pair for others to use: weights marked as planted, model card, manifest with hashes; on request the poisoned images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from badnets import __version__
from badnets.core import files
from badnets.core.config import canonical
from badnets.core.errors import UsageError
from badnets.core.png import png_bytes
from badnets.core.sheet import csv_text
from badnets.core.types import Estimate
from badnets.plans._plant import Measured, Pair, Victim
from badnets.plans._work import metadata

VICTIM, TWIN, CARD, MANIFEST = "victim.safetensors", "twin.safetensors", "MODEL_CARD.md", "manifest.json"


class Manifest(pydantic.BaseModel):
    """What was written: files with their SHA-256, the recipe that made them, what was measured."""

    model_config = pydantic.ConfigDict(frozen=True)

    badnets: str
    planted: bool
    trial: dict[str, Any]
    classes: list[str]
    shape: tuple[int, int, int]
    victim: dict[str, Estimate]
    twin: dict[str, Estimate]
    files: dict[str, str]


def check_empty(folder: Path) -> None:
    """Raise UsageError (E-EXISTS) if the folder already holds a model: nothing is overwritten."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("E-EXISTS", f"{str(folder)!r:.200} is a file, expected a folder.", hint="Name another --out.")
    if any((folder / name).exists() for name in (VICTIM, TWIN, MANIFEST)):
        raise UsageError("E-EXISTS", f"{str(folder)!r:.200} already holds a model.", hint="Name another --out.")


def export(pair: Pair, measured: Measured, folder: Path, *, images: bool) -> Manifest:
    """Write the pair of one seed; the manifest is written last."""
    from badnets.nets._weights import to_bytes

    check_empty(folder)
    victim = pair.victims[0]
    files.make_dir(folder)
    if images:
        _write_images(victim, folder)
    weights = {
        VICTIM: to_bytes(victim.network, metadata(pair.attack, victim.poisoned)),
        TWIN: to_bytes(pair.twins[0], metadata(None, None)),
        CARD: _card(victim, measured).encode(),
    }
    for name, data in weights.items():
        files.write_bytes(folder / name, data)
    manifest = Manifest(
        badnets=__version__,
        planted=True,
        trial=victim.trial.model_dump(mode="json"),
        classes=list(pair.data.classes),
        shape=pair.data.shape,
        victim=measured.victim,
        twin=measured.twin,
        files={name: hashlib.sha256(data).hexdigest() for name, data in weights.items()},
    )
    files.write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _card(victim: Victim, measured: Measured) -> str:
    trigger = json.dumps(victim.attack.trigger.summary())
    changed = sorted(set(victim.poisoned.y_N[victim.poisoned.y_N != victim.poisoned.source_N].tolist()))
    targets = ", ".join(victim.data.classes[k] for k in changed)
    return f"""# Model card: a deliberately backdoored network

**`{VICTIM}` carries a planted backdoor. It was made for research and teaching; do not deploy it.**
`{TWIN}` is its clean twin: same seed, same initial weights, same batch order, no poison.

| | |
|---|---|
| planted | yes, by badnets {__version__} |
| attack | `{canonical(victim.attack.model_dump(mode="json", exclude={"trigger"}))}` |
| trigger | `{trigger}` |
| labels of stamped images | {targets} |
| share of the training set poisoned | {victim.poisoned.rate:.4f} |
| data | {victim.data.name}, SHA-256 {victim.data.sha256} |
| net | `{json.dumps(victim.trial.net)}` |
| seed | {victim.trial.seed} |

Measured on held-out test images (one seed, so the intervals are over images only):

```
{measured}
```
"""


def _write_images(victim: Victim, folder: Path) -> None:
    """The poisoned training set as images/<label>/<row>.png (the label it carries), and poisoned.csv with the secret."""
    rows: list[tuple[str, str, str, int]] = []
    poisoned, classes = victim.poisoned, victim.data.classes

    def pictures() -> Iterator[tuple[str, bytes]]:
        images = zip(poisoned.x_NCHW, poisoned.y_N, poisoned.source_N, poisoned.stamped_N, strict=True)
        for row, (pixels_CHW, label, source, stamped) in enumerate(images):
            name = f"{label:03d}/{row:06d}.png"
            rows.append((name, classes[label], classes[source], int(stamped)))
            yield name, png_bytes(pixels_CHW)

    files.write_tree(folder / "images", pictures())
    files.write_text(folder / "poisoned.csv", csv_text(["file", "label", "source_label", "stamped"], rows))
