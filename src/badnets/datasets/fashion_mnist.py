"""Fashion-MNIST: 60,000 training and 10,000 test pictures of clothing (28x28, grey, 10 classes); harder than MNIST, same shape.

Does not apply as evidence about colour images or natural scenes.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017, https://arxiv.org/abs/1708.07747
"""

from __future__ import annotations

from typing import ClassVar, Literal

from badnets.datasets._fetch import Origin, Remote
from badnets.datasets._idx_set import IdxDataset
from badnets.datasets._names import FASHION


class FashionMnist(IdxDataset):
    """Clothing as four idx files, in the layout of MNIST; Debian packages them as `dataset-fashion-mnist`."""

    kind: Literal["fashion_mnist"] = "fashion_mnist"
    content: ClassVar[str | None] = "fba13b63f8f34d06090a6e89d9b3733ab5c058f6ae2e77bfbec30f1e1233ebd5"
    licence: ClassVar[str] = "MIT, Zalando SE 2017"
    classes: ClassVar[tuple[str, ...]] = FASHION
    subfolders: ClassVar[tuple[str, ...]] = ("fashion-mnist", "FashionMNIST/raw")
    origin: ClassVar[Origin | None] = Origin(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        (
            Remote("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            Remote("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            Remote("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            Remote("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
    )
