"""Nets that are a chain, from names and shapes alone: VGG with or without batch norms, `nn.Sequential`, and plain modules of others.

A file shows which layers have weights and in which order; what lies between them it does not show. Gaps between the numbers of a
`Sequential` say how many layers are missing there. Padding, strides and pooling are tried in their usual combinations, and those stay of
which the first linear layer's width is what comes out of the convolutions. Rectifiers are assumed. Not for branches.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from badnets.core.layers import Shape

Layers = list[dict[str, Any]]
MOST_CANDIDATES, _MOST_PARTS, _MOST_POOLS, _WIDEST = 24, 200, 6, 1 << 20


class Part(NamedTuple):
    """A layer with weights. `kind`: conv, linear or batch_norm; `gap`: how many layers lie before it in its Sequential, None: unknown."""

    name: str
    kind: str
    shape: Shape
    bias: bool
    gap: int | None


class _Usual(NamedTuple):
    """One usual way to fill in what a file does not show. `pools`: after which convolutions, by number."""

    padded: bool
    stride: int
    pools: tuple[bool, ...]
    pool: str
    end: str


def parts_of(shapes: Mapping[str, Shape]) -> list[Part] | None:
    """The layers with weights, in order; None where a tensor belongs to none of the three kinds."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    sizes = [size for shape in shapes.values() for size in shape]
    if len(names) > _MOST_PARTS or not all("." in name for name in shapes) or not all(0 < size <= _WIDEST for size in sizes):
        return None
    found, before = [], ("", -1)
    for name in names:
        shape = shapes.get(f"{name}.weight", ())
        norm = f"{name}.running_mean" in shapes
        kind = "batch_norm" if norm else {4: "conv", 2: "linear"}.get(len(shape), "")
        if not kind:
            return None
        box, _, last = name.rpartition(".")
        number = int(last) if last.isdecimal() and len(last) < 4 else None
        gap = number - before[1] - 1 if number is not None and box == before[0] else None
        before = (box, -1 if number is None else number)
        found.append(Part(name, kind, shapes[f"{name}.running_mean"] if norm else shape, f"{name}.bias" in shapes, gap))
    return found if _connects(found) else _sorted(found)


def _connects(parts: Sequence[Part]) -> bool:
    """Whether each layer reads what the one before it gives; between convolutions and linear layers any width can come about."""
    width, kind = None, ""
    for part in parts:
        read = part.shape[0] if part.kind == "batch_norm" else part.shape[1]
        if kind == "linear" and part.kind == "conv":
            return False
        if width is not None and read != width and not (part.kind == "linear" and kind != "linear"):
            return False
        width, kind = part.shape[0], part.kind if part.kind != "batch_norm" else kind
    return bool(parts) and parts[-1].kind == "linear"


def _sorted(parts: Sequence[Part]) -> list[Part] | None:
    """In the order of their names, norms behind what has their width: for files that sort their tensors."""
    named = sorted(parts, key=lambda part: [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"(\d+)", part.name)])
    if _connects(named):
        return named
    makers = [part for kind in ("conv", "linear") for part in named if part.kind == kind]
    norms = [part for part in named if part.kind == "batch_norm"]
    found: list[Part] = []
    for part in makers:
        found.append(part)
        if norms and norms[0].shape[0] == part.shape[0] and part is not makers[-1]:
            found.append(norms.pop(0))
    return found if not norms and _connects(found) else None


def chains(shapes: Mapping[str, Shape], image: Shape) -> Iterator[tuple[str, Layers]]:
    """(title, layers) of each chain that fits the image, the most usual first."""
    parts = parts_of(shapes)
    if parts is None:
        return
    convs = [part for part in parts if part.kind == "conv"]
    first = next(part for part in parts if part.kind == "linear")
    if not convs:
        if first.shape[1] == math.prod(image):
            yield f"a perceptron of {len(parts)} layers", [{"op": "flatten"}, *_tail(parts)]
        return
    seen: list[Layers] = []
    vgg = all(part.name.startswith(("features.", "classifier.")) for part in parts)
    title = f"{'VGG-style net' if vgg else 'chain'} of {_count(convs, 'convolution')} and {_count(_linears(parts), 'linear layer')}"
    for patterns in _patterns(parts, len(convs)):
        for usual in _usual(patterns):
            layers = _filled(parts, usual, image, first.shape[1])
            if layers is not None and layers not in seen:
                seen.append(layers)
                yield f"{title} ({_words(usual)})", layers
            if len(seen) >= MOST_CANDIDATES:
                return
        if seen:
            return


def _linears(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.kind == "linear"]


def _count(parts: Sequence[Part], what: str) -> str:
    return f"{len(parts)} {what}{'s' if len(parts) > 1 else ''}"


def _usual(patterns: Sequence[tuple[bool, ...]]) -> Iterator[_Usual]:
    for end, pool, stride, padded in itertools.product(("flat", "mean"), ("max_pool", "avg_pool"), (1, 2), (True, False)):
        for pools in patterns:
            if any(pools) or pool == "max_pool":
                yield _Usual(padded, stride, pools, pool, end)


def _patterns(parts: Sequence[Part], count: int) -> Iterator[list[tuple[bool, ...]]]:
    """After which convolutions there may be a pooling: first what the names say, then what is usual, then anything."""
    told = _pools_by_gap(parts)
    if told is not None:
        yield [told, (*told[:-1], not told[-1])]
    every = [tuple((i + 1) % step == 0 for i in range(count)) for step in (1, 2, 3)]
    last = tuple(i == count - 1 for i in range(count))
    yield list(dict.fromkeys([*every, last, (False,) * count]))
    if count <= _MOST_POOLS:
        yield list(itertools.product((False, True), repeat=count))


def _pools_by_gap(parts: Sequence[Part]) -> tuple[bool, ...] | None:
    """Where there is room for a rectifier and a pooling; None where the names do not say."""
    pools: list[bool] = []
    for part, after in itertools.pairwise(parts):
        if part.kind == "linear":
            break
        if part.kind == "conv":
            pools.append(False)
        if after.kind == "batch_norm" or not pools:
            continue
        if after.gap is None and after.kind != "linear":
            return None
        # What ends `features`, before a `classifier` that counts anew, is not told either: a pooling, most often.
        pools[-1] = after.gap is None or after.gap >= (3 if after.kind == "linear" else 2)
    return tuple(pools)


def _filled(parts: Sequence[Part], usual: _Usual, image: Shape, wanted: int) -> Layers | None:
    """All layers, or None where the first linear layer then does not read what comes out of the convolutions."""
    size, layers, number = list(image[1:]), [], -1
    channels = image[0]
    for part, after in itertools.pairwise(parts):
        if part.kind == "linear":
            break
        if part.kind == "conv":
            number += 1
            kernel = part.shape[2:]
            padding = [k // 2 if usual.padded else 0 for k in kernel]
            size = [(s + 2 * p - k) // usual.stride + 1 for s, p, k in zip(size, padding, kernel, strict=True)]
            own: dict[str, Any] = {"op": "conv", "name": part.name, "out": part.shape[0], "kernel": kernel, "stride": usual.stride}
            layers.append({**own, "padding": tuple(padding), "bias": part.bias, "groups": channels // part.shape[1] or 1})
            channels = part.shape[0]
        else:
            layers.append({"op": "batch_norm", "name": part.name, "affine": part.bias})
        if after.kind != "batch_norm":
            layers.append({"op": "relu"})
            if usual.pools[number]:
                layers.append({"op": usual.pool, "kernel": 2})
                size = [s // 2 for s in size]
        if min(size) < 1:
            return None
    if usual.end == "mean":
        side = math.isqrt(wanted // channels) if channels else 0
        if not side or side * side * channels != wanted or side > 7 or (side,) * 2 == tuple(size):
            return None
        layers.append({"op": "adaptive_avg_pool", "size": side})
        size = [side, side]
    if channels * size[0] * size[1] != wanted:
        return None
    return [*layers, {"op": "flatten"}, *_tail([part for i, part in enumerate(parts) if i >= _first_linear(parts)])]


def _first_linear(parts: Sequence[Part]) -> int:
    return next(i for i, part in enumerate(parts) if part.kind == "linear")


def _tail(parts: Sequence[Part]) -> Layers:
    """Linear layers with rectifiers between them, and norms behind them where they are."""
    layers: Layers = []
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        if part.kind == "linear":
            layers.append({"op": "linear", "name": part.name, "out": part.shape[0], "bias": part.bias})
        else:
            layers.append({"op": "batch_norm", "name": part.name, "affine": part.bias})
        if after is not None and after.kind != "batch_norm":
            layers.append({"op": "relu"})
    return layers


def _words(usual: _Usual) -> str:
    told = [f"stride {usual.stride}", "padded" if usual.padded else "not padded"]
    count = sum(usual.pools)
    told.append(f"{usual.pool.replace('_', ' ')} after {count} of {len(usual.pools)}" if count else "no pooling")
    return ", ".join([*told, *(["mean over the rest"] if usual.end == "mean" else [])])
