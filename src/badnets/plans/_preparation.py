"""How a net's input was prepared where it was trained: measured on clean labelled images, since no file of weights says it.

A net that is given its pixels in another range answers nonsense, and so does every detector that looks at it. The usual preparations are
tried, and one is taken only if it is clearly better than what was given. Not for nets whose owners did something unusual, nor where
several preparations serve as well: then the scan says which. Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from badnets.core import stats
from badnets.core.errors import RefusedError
from badnets.core.types import Estimate
from badnets.datasets._base import ImageSet, Split

if TYPE_CHECKING:
    from badnets.nets._base import Network

FEW, MANY, KEPT = 100, 400, 6
"""Images of the first round, of the second, and how many ways of the first reach the second."""
ALPHA = 0.05
_KNOWN = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "GTSRB's": ((0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)),
    "MNIST's": ((0.1307,), (0.3081,)),
    "Fashion-MNIST's": ((0.2860,), (0.3530,)),
}
RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 1 / 255), "-1..1": (0.5, 0.5)}
"""Name -> mean and deviation of pixels in 0..1 that lead there."""


@dataclass(frozen=True)
class Preparation:
    """`mean`, `std`: of pixels in 0..1, one a channel. `bgr`: the channels come in reverse order."""

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    def __str__(self) -> str:
        return self.words + (", BGR" if self.bgr else "")


class Fitted(NamedTuple):
    """Which of the nets, prepared how; its accuracy on clean images that took no part in the choice; sentences about it."""

    number: int
    preparation: Preparation
    accuracy: Estimate
    notes: list[str]


class _Way(NamedTuple):
    number: int
    preparation: Preparation


def in_range(words: str, channels: int) -> Preparation:
    """Pixels brought to one of RANGES."""
    mean, std = RANGES[words]
    return Preparation(words, (mean,) * channels, (std,) * channels)


def by_name(words: str, channels: int) -> Preparation | None:
    """One of RANGES, or imagenet for three channels; None where there is none of that name."""
    if words in RANGES:
        return in_range(words, channels)
    return Preparation(words, *_KNOWN[words]) if words == "imagenet" and channels == 3 else None


def usual(data: ImageSet, *, bgr: bool) -> list[Preparation]:
    """The usual ones, without and (for colour) with reversed channels; those asked for first."""
    from badnets.plans._work import normalisation

    channels = data.shape[0]
    mean, std = normalisation(data.budget.x_NCHW)
    found = [in_range(words, channels) for words in RANGES]
    found.append(Preparation(f"mean and deviation of {data.name}", tuple(mean), tuple(std)))
    found += [Preparation(f"{words} mean and deviation", *known) for words, known in _KNOWN.items() if len(known[0]) == channels]
    orders = [bgr, not bgr] if channels == 3 else [False]
    return [replace(one, bgr=order) for order in orders for one in found]


def fit_preparation(nets: Sequence[tuple[str, Network]], given: Preparation, data: ImageSet, *, sure: bool) -> Fitted:
    """The net, of several that fit the file, and the preparation that clean images speak for.

    `given`: the preparation to keep unless another is clearly better; `sure`: somebody said so, and others are tried only if the net then
    guesses. Raises RefusedError (E-PREPARATION): whatever is tried, the net does not know the data set.
    """
    few, many, others = _part(data.budget, FEW), _part(data.budget, MANY), _part(data.validation, MANY)
    base = _Way(0, given)
    ways = [_Way(number, given) for number in range(len(nets))]
    right = {way: _right(nets[way.number][1], way.preparation, few) for way in ways}
    guesses = _guesses(max((hit_N for hit_N in right.values()), key=lambda hit_N: hit_N.sum()), few)
    if not sure or guesses:
        more = [_Way(number, one) for number in range(len(nets)) for one in usual(data, bgr=given.bgr) if one != given]
        right |= {way: _right(nets[way.number][1], way.preparation, few) for way in more if way not in right}
    order = list(right)
    best = sorted(order, key=lambda way: (-int(right[way].sum()), order.index(way)))[:KEPT]
    right = {way: _right(nets[way.number][1], way.preparation, many) for way in dict.fromkeys((base, *best))}
    first = max(right, key=lambda way: int(right[way].sum()))
    chosen = first if first != base and _clearly_better(right[first], right[base], len(order)) else base
    if _guesses(right[chosen], many):
        raise _nothing_works(right[chosen], len(order))
    hit_N = _right(nets[chosen.number][1], chosen.preparation, others)
    accuracy = stats.wilson(int(hit_N.sum()), len(hit_N))
    return Fitted(chosen.number, chosen.preparation, accuracy, list(_notes(nets, chosen, base, right, accuracy)))


def _notes(
    nets: Sequence[tuple[str, Network]], chosen: _Way, base: _Way, right: dict[_Way, np.ndarray], accuracy: Estimate
) -> Iterator[str]:
    title = nets[chosen.number][0]
    yield f"prepared as {chosen.preparation}; accuracy {_percent(accuracy)} on {accuracy.n} clean images"
    if chosen != base:
        before = stats.wilson(int(right[base].sum()), len(right[base]))
        what = f"{base.preparation}" + (f" and {nets[base.number][0]}" if base.number != chosen.number else "")
        yield f"accuracy {_percent(before)} with {what}: is the preparation right? This one was taken since it is clearly better"
    first = max(right, key=lambda way: int(right[way].sum()))
    if right[first].sum() > right[chosen].sum():
        best = _percent(stats.wilson(int(right[first].sum()), len(right[first])))
        which = f" and {nets[first.number][0]}" if first.number != chosen.number else ""
        yield f"the best was {first.preparation}{which}, {best}, not clearly better"
    equal = [way for way in right if way != chosen and not _clearly_better(right[chosen], right[way], 1)]
    if alike := [str(way.preparation) for way in equal if way.number == chosen.number]:
        yield f"which serves no better than {', '.join(alike)}"
    if len(nets) > 1:
        alike = [nets[way.number][0] for way in equal if way.preparation == chosen.preparation]
        yield f"of {len(nets)} nets that have such tensors taken as {title}" + (f", no better than {'; '.join(alike)}" if alike else "")


def _right(network: Network, preparation: Preparation, images: Split) -> np.ndarray:
    """hit_N of a net so prepared; the net is left prepared."""
    import torch

    prepare(network, preparation)
    x_NCHW = torch.from_numpy(np.ascontiguousarray(images.x_NCHW[:, ::-1] if preparation.bgr else images.x_NCHW))
    return (network.predict_logits(x_NCHW, batch_size=100).argmax(dim=1).cpu().numpy() == images.y_N).astype(bool)


def prepare(network: Network, preparation: Preparation) -> None:
    """Set what the net normalises its input by; the order of its channels is not touched."""
    import torch

    with torch.no_grad():
        network.mean.copy_(torch.tensor(preparation.mean))
        network.std.copy_(torch.tensor(preparation.std))


def read_reversed(network: Network) -> None:
    """Let the first layer read the channels the other way round, for good. Raises RefusedError where that is no swap of weights."""
    import torch
    from torch import nn

    channels = network.shape[0]
    # Whatever stands before it, a pooling or a padding, treats channels alike; a norm would not.
    first = next((m for m in network.body.modules() if any(True for _ in m.parameters(recurse=False))), None)
    with torch.no_grad():
        if isinstance(first, nn.Conv2d) and first.groups == 1 and first.in_channels == channels:
            first.weight.copy_(first.weight.flip(1))
        elif isinstance(first, nn.Linear) and first.in_features == int(np.prod(network.shape)):
            first.weight.copy_(first.weight.view(len(first.weight), channels, -1).flip(1).flatten(1))
        else:
            hint = "Have its author save it for RGB images."
            raise RefusedError("E-PREPARATION", "the order of channels cannot be turned in this net's first layer.", hint=hint)


def _part(images: Split, most: int) -> Split:
    """At most so many, spread evenly."""
    return images.take(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))


def _guesses(hit_N: np.ndarray, images: Split) -> bool:
    """Whether the interval reaches down to what the answer "always the most common class" gets."""
    low = stats.wilson(int(hit_N.sum()), len(hit_N)).low
    return low is None or low <= np.bincount(images.y_N).max() / len(images)


def _clearly_better(one_N: np.ndarray, other_N: np.ndarray, tries: int) -> bool:
    """By McNemar's test on the same images, for as many tries as there were."""
    return bool(one_N.sum() > other_N.sum()) and stats.mcnemar_exact(one_N, other_N) * tries <= ALPHA


def _nothing_works(hit_N: np.ndarray, tries: int) -> RefusedError:
    told = _percent(stats.wilson(int(hit_N.sum()), len(hit_N)))
    return RefusedError(
        "E-PREPARATION",
        f"not analysable: accuracy {told} on {len(hit_N)} clean images, no better than guessing, also with the {tries} usual "
        "preparations and arrangements: is this its data set, and is the preparation right?",
        hint="Name the data set, --normalize, --channels or --arch. This does not mean clean.",
    )


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
