"""`--images` of a scan: whether images without labels can be handed over here, and what to do where they came as --data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from badnets.core.errors import UsageError

if TYPE_CHECKING:
    from badnets.datasets._base import ImageSet
    from badnets.intake.unlabelled import Unlabelled


def check(images: Path | None, models: Sequence[Path], dataset: str | None, data: Path | None) -> None:
    """Refuse what cannot be meant, before anything is read.

    Raises UsageError: images without a net, or without the data set that clean nets are trained on; a flat folder of images as --data.
    """
    if images is not None and not models:
        hint = "As `badnets scan MODEL --dataset NAME --images DIR`; training data are looked through by their labels."
        raise UsageError("E-USAGE", "expected a net that is to be shown --images, got none.", hint=hint)
    if images is not None and dataset is None and data is None:
        message = "expected beside --images the data set that the net is for: clean nets are trained on its labels."
        raise UsageError("E-USAGE", message, hint="Name it with --dataset NAME, or its folder with --data DIR.")
    if models and data is not None:
        _check_labels(data)


def _check_labels(data: Path) -> None:
    from badnets.datasets._open import show
    from badnets.intake.unlabelled import looks_flat

    if looks_flat(data):
        message = f"--data: {show(data)} holds images and no class folders, and clean nets cannot be trained without labels."
        hint = "Name the labelled data set that the net is for: `badnets scan MODEL --dataset NAME --images DIR`."
        raise UsageError("E-LABELS", message, hint=hint)


def read(images: Path | None, data: ImageSet) -> Unlabelled | None:
    """The images, as the nets of this data set read them. Raises UsageError and RefusedError as `read_unlabelled` does."""
    if images is None:
        return None
    from badnets.intake.unlabelled import read_unlabelled

    return read_unlabelled(images, data.shape)
