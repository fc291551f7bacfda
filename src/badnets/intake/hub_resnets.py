"""Residual nets as transformers names them, from names and shapes: `ResNetForImageClassification`, with basic blocks or bottlenecks.

Where the strides lie, shapes do not show: the folder's card says it, else it is as in the published nets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from badnets.core.layers import Shape
from badnets.intake.hub_card import Card
from badnets.intake.residuals import _DEPTHS, _DEPTHS_OF_THREE, Layers, _conv, _of

_STEM, _HEAD = "resnet.embedder.embedder", "classifier.1"
_PART = re.compile(r"resnet\.encoder\.stages\.(\d)\.layers\.(\d{1,3})\.layer\.(\d)\.convolution\.weight")
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}


def hub_resnets(shapes: Mapping[str, Shape], card: Card | None) -> Iterator[tuple[str, Layers]]:
    """(title, layers) of the net that these could be."""
    found = [match for match in map(_PART.fullmatch, shapes) if match]
    activation = _ACTIVATIONS.get((card.activation if card is not None else None) or "relu")
    if not found or activation is None or len(shapes.get(f"{_STEM}.convolution.weight", ())) != 4:
        return
    blocks: dict[int, int] = {}
    for match in found:
        stage, number = int(match[1]), int(match[2])
        blocks[stage] = max(blocks.get(stage, 0), number + 1)
    count = 1 + max(int(match[3]) for match in found)
    if sorted(blocks) != list(range(len(blocks))) or max(blocks.values()) > 64 or count not in (2, 3):
        return
    counts = tuple(blocks[stage] for stage in sorted(blocks))
    depth = (_DEPTHS_OF_THREE if count == 3 else _DEPTHS).get(counts)
    title = f"ResNet{f'-{depth}' if depth else ' of ' + '-'.join(map(str, counts)) + ' blocks'} as transformers names it"
    yield title, _layers(shapes, counts, count, activation, card)


def _layers(shapes: Mapping[str, Shape], counts: tuple[int, ...], count: int, activation: str, card: Card | None) -> Layers:
    act: dict[str, Any] = {"op": activation}
    layers = [_part(shapes, _STEM, 2), _norm(_STEM), act, {"op": "max_pool", "kernel": 3, "stride": 2, "padding": 1}]
    # By name of a layer, in the order of the blocks: "" is the layer before.
    at = ""
    halver = 0 if card is not None and card.bottleneck_halves else count - 2
    for stage, blocks in enumerate(counts):
        side = shapes.get(f"resnet.encoder.stages.{stage}.layers.0.shortcut.convolution.weight", ())
        # Between as many channels a shortcut has a convolution only where it halves the picture.
        halves = stage > 0 or (card is not None and card.first_halves is True) or (len(side) == 4 and side[0] == side[1])
        for number in range(blocks):
            name = f"resnet.encoder.stages.{stage}.layers.{number}"
            stride = 2 if halves and number == 0 else 1
            start, end, out = f"{name}._in", f"{name}._sum", f"{name}._out"
            layers.append(_of(at, {"op": "identity", "name": start}))
            for part in range(count):
                layers += [_part(shapes, f"{name}.layer.{part}", stride if part == max(0, halver) else 1), _norm(f"{name}.layer.{part}")]
                layers += [act] if part < count - 1 else []
            read = start
            if f"{name}.shortcut.convolution.weight" in shapes:
                layers += [_part(shapes, f"{name}.shortcut", stride, of=(start,)), _norm(f"{name}.shortcut")]
                read = f"{name}.shortcut.normalization"
            layers += [{"op": "add", "name": end, "of": (f"{name}.layer.{count - 1}.normalization", read)}, {**act, "name": out}]
            at = out
    out_size = shapes.get(f"{_HEAD}.weight", (1,))[0]
    head = {"op": "linear", "name": _HEAD, "out": out_size, "bias": f"{_HEAD}.bias" in shapes}
    return [*layers, {"op": "adaptive_avg_pool"}, {"op": "flatten"}, head]


def _part(shapes: Mapping[str, Shape], name: str, stride: int, **more: Any) -> dict[str, Any]:
    return _conv(shapes, f"{name}.convolution", stride, **more)


def _norm(name: str) -> dict[str, Any]:
    return {"op": "batch_norm", "name": f"{name}.normalization"}
