"""Digits of scikit-learn: 1,797 handwritten digits (8x8, grey, 10 classes) that come with the library; trains in a second.

Does not apply as evidence about nets of practical size. Pixels of 0..16 are scaled to 0..255.

Alpaydin, Kaynak, "Optical recognition of handwritten digits", 1998, https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from badnets.core.errors import RefusedError, UsageError
from badnets.datasets._base import Dataset, Raw
from badnets.datasets._names import DIGITS


class Digits(Dataset):
    """The test part of the UCI set, as scikit-learn ships it."""

    kind: Literal["digits"] = "digits"
    content: ClassVar[str | None] = "3377127bd6244a8012418c5481fa548fea2eac8d5e9387ca27dc8ab751857364"
    licence: ClassVar[str] = "CC BY 4.0"

    def where(self, data: Path | None = None) -> str | None:
        return "scikit-learn" if data is None else None

    def _raw(self, data: Path | None, download: bool) -> Raw:
        if data is not None:
            raise UsageError("E-DATA", "digits comes with scikit-learn and is read from no folder.", hint="Leave --data out.")
        table_ND = np.loadtxt(_shipped(), delimiter=",")
        x_NCHW = np.round(table_ND[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        y_N = table_ND[:, -1]
        empty = np.empty((0, 1, 8, 8), np.uint8), np.empty(0, np.int64)
        return Raw(x_NCHW, y_N.astype(np.int64), *empty, DIGITS, source="scikit-learn")


def _shipped() -> Path:
    """scikit-learn's own file, found without importing scikit-learn, which would take ten times as long as reading it."""
    spec = importlib.util.find_spec("sklearn")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise RefusedError("E-DIGITS", "scikit-learn's file of digits was not found.", hint="Reinstall scikit-learn.")
