"""Tells which data set a folder holds, by file names and, where two sets share them, by hash.

Does not apply to telling a good copy from a damaged one: loading does that.
"""

from __future__ import annotations

from pathlib import Path

from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.datasets._idx_set import present, which
from badnets.datasets._located import LocatedDataset
from badnets.datasets._open import is_dir, show
from badnets.datasets._places import one_folder


def located() -> list[LocatedDataset]:
    """Every data set that lies in files, by name."""
    entries = [registry.entry("datasets", name) for name in registry.names("datasets")]
    return [entry() for entry in entries if issubclass(entry, LocatedDataset)]


def detect(path: Path) -> str:
    """Name of the data set in `path`: a known one, else `folder` for class sub-folders of images."""
    root = one_folder(path)
    if present(root) and which(root) is None:
        raise RefusedError(
            "E-HASH",
            f"{show(root)} holds idx files that are neither mnist nor fashion_mnist (their test labels are unknown or missing).",
            hint="Save its images as a folder of class sub-folders instead.",
        )
    found = [dataset.kind for dataset in located() if dataset.where(root) is not None]
    if len(found) > 1:
        raise UsageError("E-DATA", f"{show(root)} holds {' and '.join(found)}.", hint="Name the data set as well.")
    if found:
        return found[0]
    refusal = next(filter(None, (dataset.passed_over(root) for dataset in located())), None)
    if isinstance(refusal, RefusedError):
        raise refusal
    if any(is_dir(child) and not child.name.startswith(".") for child in root.iterdir()):
        return "folder"
    raise UsageError(
        "E-DATA",
        f"{show(root)} holds no data set that badnets knows and no class sub-folders.",
        hint="Expected idx files, CIFAR-10 batches, gtsrb32.npz, or a folder for each class with its images.",
    )
