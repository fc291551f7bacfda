"""Makes the Record of a scan: of files, or of training data."""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from badnets.core.config import key_of
from badnets.core.hardware import describe, versions
from badnets.core.png import png
from badnets.core.scanned import Item, Passed, ScanRecord, Summary, exit_status, path_text, summed
from badnets.core.types import Picture
from badnets.plans._scan import shown
from badnets.plans._scan_many import Asked, Scanned
from badnets.plans._scan_rows import RowScan, sheet_png

SHOWN = 200
"""Pictures a side at most: larger triggers are drawn at every so many pixels."""
_TOLD = ("python", "badnets", "torch", "numpy", "safetensors")


class Clock:
    """When a scan began."""

    def __init__(self) -> None:
        self._began, self._start = datetime.datetime.now(datetime.UTC), time.perf_counter()

    def times(self) -> dict[str, Any]:
        """Begin, end and seconds, as a Record has them."""
        now = datetime.datetime.now(datetime.UTC)
        return {
            "started": self._began.isoformat(timespec="seconds"),
            "ended": now.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._start, 3),
        }


def record_of(scanned: Sequence[Scanned], passed_over: Sequence[tuple[Path, str]], asked: Asked, clock: Clock) -> ScanRecord:
    """The Record of a scan of files. One file that could not be looked at decides the exit status as its error says."""
    items = [_with_pictures(one) for one in scanned]
    summary = summed(items, len(passed_over))
    status = exit_status(summary)
    if len(scanned) == 1 and scanned[0].error is not None:
        status = scanned[0].error.exit_status
    identity = {"files": [(item.path, item.sha256) for item in items], "opening": asked.opening, **asked.looked_at}
    return ScanRecord(
        key=key_of({**identity, "effort": asked.effort}),
        folder=path_text(Path.cwd()),
        dataset=asked.data.name,
        dataset_sha256=asked.data.sha256,
        images=shown(asked.images, asked.data),
        effort=asked.effort,
        items=items,
        passed_over=[Passed(path=path_text(path), why=why) for path, why in passed_over],
        summary=summary,
        exit_status=status,
        hardware=describe(),
        versions={name: found for name, found in versions().items() if name in _TOLD},
        **clock.times(),
    )


def record_of_rows(found: RowScan, clock: Clock) -> ScanRecord:
    """The Record of a scan of training data, with a sheet of the suspects."""
    verdict = found.verdict
    sheet = []
    if found.suspect_N.any():
        caption = f"some of the {verdict.num_suspect:,} suspects"
        sheet = [Picture(caption=caption, png_base64=base64.b64encode(sheet_png(found)).decode())]
    return ScanRecord(
        key=key_of({"rows": verdict.sha256}),
        folder=path_text(Path.cwd()),
        dataset=verdict.dataset,
        dataset_sha256=verdict.sha256,
        effort="",
        rows=verdict,
        sheet=sheet,
        summary=Summary(inputs=1, analysed=1, refused=0, failed=0, flagged=int(verdict.flagged), passed_over=0),
        exit_status=int(verdict.flagged),
        hardware=describe(),
        versions={name: found for name, found in versions().items() if name in _TOLD},
        **clock.times(),
    )


def _with_pictures(one: Scanned) -> Item:
    if one.scan is None or one.item.verdict is None or not one.item.verdict.flagged:
        return one.item
    return one.item.model_copy(update={"pictures": _pictures(one.scan.pictures)})


def _pictures(pictures: Mapping[str, np.ndarray]) -> list[Picture]:
    return [Picture(caption=name, png_base64=png(_small(image_CHW))) for name, image_CHW in pictures.items()]


def _small(image_CHW: np.ndarray) -> np.ndarray:
    step = -(-max(image_CHW.shape[1:]) // SHOWN)
    return (image_CHW[:, ::step, ::step].clip(0, 1) * 255).round().astype("uint8")
