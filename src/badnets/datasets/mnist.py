"""MNIST: 60,000 training and 10,000 test handwritten digits (28x28, grey, 10 classes); the data of the BadNets paper.

Does not apply as evidence about colour images or natural scenes.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, https://doi.org/10.1109/5.726791
"""

from __future__ import annotations

from typing import ClassVar, Literal

from badnets.datasets._fetch import Origin, Remote
from badnets.datasets._idx_set import IdxDataset
from badnets.datasets._names import DIGITS


class Mnist(IdxDataset):
    """Handwritten digits as four idx files."""

    kind: Literal["mnist"] = "mnist"
    content: ClassVar[str | None] = "d007143b430b5d785068238defa96e5799a9128eb3b0dfbaa186e75ab02d0677"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    classes: ClassVar[tuple[str, ...]] = DIGITS
    subfolders: ClassVar[tuple[str, ...]] = ("MNIST/raw",)
    origin: ClassVar[Origin | None] = Origin(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            Remote("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            Remote("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            Remote("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            Remote("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    )
