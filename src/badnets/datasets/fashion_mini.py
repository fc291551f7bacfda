"""Fashion-MNIST, 10,000 training and 5,000 test images (28x28, grey, 10 classes), embedded: works without any download.

Does not apply where figures are compared with published ones: those use all 70,000 images (`fashion_mnist`).

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017, https://arxiv.org/abs/1708.07747
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from badnets.core.errors import RefusedError, UsageError
from badnets.datasets._base import Dataset, Raw
from badnets.datasets._names import FASHION
from badnets.datasets._open import reason

_FILE = Path(__file__).parent / "_data" / "fashion_mini.xz"


class FashionMini(Dataset):
    """A stratified sample of Fashion-MNIST, made by `dev/make_fashion_mini.py` from the original files."""

    kind: Literal["fashion_mini"] = "fashion_mini"
    content: ClassVar[str | None] = "07b3adcbe2d711b36731a8527817c8a89e00c066a41bc48ce658593ec437be20"
    licence: ClassVar[str] = "MIT, Zalando SE 2017"

    def where(self, data: Path | None = None) -> str | None:
        return "embedded" if data is None else None

    def _raw(self, data: Path | None, download: bool) -> Raw:
        import lzma

        from badnets.datasets._packed import unpack

        if data is not None:
            raise UsageError(
                "E-DATA", "fashion_mini is embedded in badnets and is read from no folder.", hint="Leave --data out, or name fashion_mnist."
            )
        try:
            x_NCHW, y_N = unpack(_FILE.read_bytes())
        except (OSError, ValueError, lzma.LZMAError) as error:
            raise RefusedError(
                "E-CORRUPT", f"the embedded {_FILE.name} is damaged: {reason(error)}.", hint="Install badnets again."
            ) from error
        return Raw(x_NCHW[:10_000], y_N[:10_000], x_NCHW[10_000:], y_N[10_000:], FASHION, source="the package")
