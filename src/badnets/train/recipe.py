"""Recipes: complete configurations of one training, and the one that suits a net and a data set.

The learning rates are for the batch sizes beside them; change both or neither.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from badnets.core.config import Config
from badnets.core.device import Choice

FEW_IMAGES, FEWEST_STEPS = 20_000, 300


class Recipe(Config):
    """How to train: everything but the net, the data and the seed."""

    epochs: float = Field(gt=0, le=10_000)
    batch_size: int = Field(default=128, ge=2)
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    warmup: float = Field(default=0.2, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    final_lr: float = Field(default=0.0, ge=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    flip: bool = False
    shift: int = Field(default=0, ge=0, le=64)
    cutout: int = Field(default=0, ge=0, le=256)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def mnist_fast() -> Recipe:
    """MNIST, 60,000 images: CA >= 98.5 % and the trigger learned, in the fewest seconds on one CPU core."""
    return Recipe(epochs=1.5, batch_size=128, lr=0.15)


def fashion_fast() -> Recipe:
    """Fashion-MNIST and other small grey images on one CPU core."""
    return mnist_fast().but(epochs=4)


def cifar_airbench() -> Recipe:
    """CIFAR-10 with `fast_resnet` on a GPU: >= 94 % expected from the literature's like; not yet measured here."""
    return Recipe(epochs=16, batch_size=512, lr=0.4, label_smoothing=0.2, flip=True, shift=4, cutout=8)


def resnet() -> Recipe:
    """A residual net on few images, or on a CPU."""
    return Recipe(epochs=10, batch_size=128, lr=0.1, flip=False)


def small_vit() -> Recipe:
    """The small vision transformer on tens of thousands of images."""
    return Recipe(epochs=40, batch_size=256, optimizer="adamw", lr=1e-3, weight_decay=0.05, schedule="cosine", label_smoothing=0.1, shift=2)


def default_recipe(net_kind: str, shape: tuple[int, int, int], num_train: int) -> Choice[Recipe]:
    """The recipe that suits a net and a data set, with the reason.

    Never flips: in a set of digits or signs a flip changes the class, and the shape alone does not tell.
    """
    few = num_train < FEW_IMAGES
    if net_kind == "small_vit":
        return Choice("recipe", small_vit(), "a transformer needs AdamW and many epochs")
    if net_kind in ("fast_resnet", "preact_resnet18"):
        if few or shape[0] == 1:
            return Choice("recipe", resnet(), f"a residual net on {num_train} images of {shape[0]} channels")
        return Choice("recipe", cifar_airbench().but(flip=False), f"a residual net on {num_train} colour images")
    # As many steps as the trigger needs: it is learned later than the content.
    epochs = max(fashion_fast().epochs, FEWEST_STEPS * mnist_fast().batch_size / num_train)
    return Choice(
        "recipe", fashion_fast().but(epochs=min(epochs, 200)), f"a small net on {num_train} images: at least {FEWEST_STEPS} steps"
    )
