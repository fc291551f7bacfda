"""Residual nets as outside libraries name them, from names and shapes: torchvision's, timm's, and those of CIFAR repositories.

Blocks of two convolutions or of three, after or before their norms. What shapes do not show, strides and the pooling of the stem, has more
than one usual answer; each is a candidate. Not for nets with attention, grouped stems or other shortcuts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from badnets.core.layers import Shape

Layers = list[dict[str, Any]]
_BLOCK = re.compile(r"layer([1-9])\.(\d{1,3})\.conv1\.weight")
_SHORTCUTS, _HEADS = ("downsample", "shortcut"), ("fc", "linear", "head", "classifier")
_DEPTHS = {(2, 2, 2, 2): "18", (3, 4, 6, 3): "34", (3, 3, 3): "20", (5, 5, 5): "32", (9, 9, 9): "56"}
_DEPTHS_OF_THREE = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}


class _Stem(NamedTuple):
    """`words`: how it is told to people."""

    words: str
    stride: int
    pool: bool


def residual_nets(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Layers]]:
    """(title, layers) of each net that these could be, the usual one first."""
    stem = next((name for name in shapes if re.fullmatch(r"(.*\.)?conv1\.weight", name) and not _BLOCK.search(name)), "")
    if len(shapes.get(stem, ())) != 4:
        return
    root = stem.removesuffix("conv1.weight")
    blocks: dict[int, int] = {}
    for name in shapes:
        if name.startswith(root) and (found := _BLOCK.fullmatch(name.removeprefix(root))):
            blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]) + 1)
    if not blocks or sorted(blocks) != list(range(1, len(blocks) + 1)) or max(blocks.values()) > 64:
        return
    counts = tuple(blocks[stage] for stage in sorted(blocks))
    of_three = f"{root}layer1.0.conv3.weight" in shapes
    before = f"{root}bn1.weight" not in shapes
    depth = (_DEPTHS_OF_THREE if of_three else _DEPTHS).get(counts, " of " + "-".join(map(str, counts)) + " blocks")
    kernel = shapes[stem][2]
    large, small = _Stem("with the stem of ImageNet", 2, True), _Stem("with the stem of small images", 1, False)
    for one in (large, small) if kernel >= 5 else (small, large):
        title = f"{'PreActResNet' if before else 'ResNet'}-{depth.strip()} {one.words}" if depth[0] != " " else f"ResNet{depth} {one.words}"
        yield title, _layers(shapes, root, counts, one, before=before)


def _layers(shapes: Mapping[str, Shape], root: str, counts: tuple[int, ...], stem: _Stem, *, before: bool) -> Layers:
    layers = [_conv(shapes, f"{root}conv1", stem.stride)]
    if not before:
        layers += [_norm(f"{root}bn1"), {"op": "relu"}]
    if stem.pool:
        layers.append({"op": "max_pool", "kernel": 3, "stride": 2, "padding": 1})
    at = ""
    for stage, count in enumerate(counts, start=1):
        for number in range(count):
            name = f"{root}layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            block, at = (_before if before else _after)(shapes, name, stride, at)
            layers += block
    if before and f"{root}bn.weight" in shapes:
        layers += [_norm(f"{root}bn"), {"op": "relu"}]
    head = next((f"{root}{name}" for name in _HEADS if f"{root}{name}.weight" in shapes), f"{root}fc")
    out = shapes.get(f"{head}.weight", (1,))[0]
    bias = f"{head}.bias" in shapes
    return [*layers, {"op": "adaptive_avg_pool"}, {"op": "flatten"}, {"op": "linear", "name": head, "out": out, "bias": bias}]


def _conv(shapes: Mapping[str, Shape], name: str, stride: int, **more: Any) -> dict[str, Any]:
    shape = shapes.get(f"{name}.weight", ())
    if len(shape) != 4:
        shape = (1, 1, 1, 1)
    return {
        "op": "conv",
        "name": name,
        "out": shape[0],
        "kernel": shape[2:],
        "stride": stride,
        "padding": (shape[2] // 2, shape[3] // 2),
        "bias": f"{name}.bias" in shapes,
        **more,
    }


def _norm(name: str) -> dict[str, Any]:
    return {"op": "batch_norm", "name": name}


def _of(read: str, layer: dict[str, Any]) -> dict[str, Any]:
    return {**layer, "of": (read,)} if read else layer


def _shortcut(shapes: Mapping[str, Shape], block: str) -> str:
    return next((f"{block}.{name}" for name in _SHORTCUTS if f"{block}.{name}.0.weight" in shapes), "")


def _after(shapes: Mapping[str, Shape], block: str, stride: int, at: str) -> tuple[Layers, str]:
    """Convolution, norm, rectifier; the sum is rectified. `at`: the layer that the block reads, "" for the one before."""
    count = 3 if f"{block}.conv3.weight" in shapes else 2
    start, sum_, out = f"{block}._in", f"{block}._sum", f"{block}._out"
    layers: Layers = [_of(at, {"op": "identity", "name": start})]
    for number in range(1, count + 1):
        # torchvision and timm halve in the convolution of 3 x 3.
        halve = stride if number == max(1, count - 1) else 1
        layers += [_conv(shapes, f"{block}.conv{number}", halve), _norm(f"{block}.bn{number}")]
        layers += [{"op": "relu"}] if number < count else []
    side = start
    if name := _shortcut(shapes, block):
        layers += [_conv(shapes, f"{name}.0", stride, of=(start,)), _norm(f"{name}.1")]
        side = f"{name}.1"
    layers += [{"op": "add", "name": sum_, "of": (f"{block}.bn{count}", side)}, {"op": "relu", "name": out}]
    return layers, out


def _before(shapes: Mapping[str, Shape], block: str, stride: int, at: str) -> tuple[Layers, str]:
    """Norm, rectifier, convolution; the shortcut's convolution reads what was rectified."""
    count = 3 if f"{block}.conv3.weight" in shapes else 2
    start, ready, out = f"{block}._in", f"{block}._ready", f"{block}._out"
    layers: Layers = [_of(at, {"op": "identity", "name": start})]
    for number in range(1, count + 1):
        layers += [_norm(f"{block}.bn{number}"), {"op": "relu", **({"name": ready} if number == 1 else {})}]
        layers.append(_conv(shapes, f"{block}.conv{number}", stride if number == max(1, count - 1) else 1))
    side = start
    if name := _shortcut(shapes, block):
        layers.append(_conv(shapes, f"{name}.0", stride, of=(ready,)))
        side = f"{name}.0"
    layers.append({"op": "add", "name": out, "of": (f"{block}.conv{count}", side)})
    return layers, out
