"""Vision transformers as outside libraries name them, from names and shapes: timm's, torchvision's, transformers', and our own.

What shapes do not show (heads, the activation, the norm's epsilon) comes from the folder's card, or is what is usual and told. Not for nets
with scaled layers, distillation tokens, relative positions or windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from badnets.core.layers import Shape
from badnets.intake.hub_card import Card
from badnets.intake.reasons import quoted
from badnets.intake.weights import Tensor

MOST_BLOCKS = 64
_HEAD_WIDTH = 64
_HUGE_HEADS = {1280: 16, 1408: 16, 1664: 16}
"""Widths of the published nets whose heads are not 64 wide."""
_ACTIVATIONS = {
    **{one: one for one in ("gelu", "gelu_tanh", "relu", "silu")},
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}
_PLAIN = ("patches.token", "patches.place")
_OURS = ("patches.token", "patches.place", "patches.project.{p}", "pool.norm.{p}", "head.{p}")
_BLOCK = ("norm1", "qkv", "out", "norm2", "grow", "shrink")


class Layout(NamedTuple):
    """How a library calls the parts. `stem`: in the order of `_OURS`; `block`: in that of `_BLOCK`, where {n} is its number; {p} is weight
    or bias. Several names for `qkv`: three tensors that are one of ours."""

    title: str
    stem: tuple[str, str, str, str, str]
    block: tuple[str | tuple[str, ...], ...]
    eps: float = 1e-6
    pool: str = "token"


_TIMM_BLOCK = tuple(f"blocks.{{n}}.{part}.{{p}}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"))
_TORCHVISION = "encoder.layers.encoder_layer_{n}."
_HF, _HF_NEW = "vit.encoder.layer.{n}.", "vit.layers.{n}."
_HF_STEM = (
    "vit.embeddings.cls_token",
    "vit.embeddings.position_embeddings",
    "vit.embeddings.patch_embeddings.projection.{p}",
    "vit.layernorm.{p}",
    "classifier.{p}",
)


def _torchvision(first: str, second: str) -> Layout:
    attention = ("self_attention.in_proj_{p}", "self_attention.out_proj.{p}")
    parts = ("ln_1.{p}", *attention, "ln_2.{p}", f"mlp.{first}.{{p}}", f"mlp.{second}.{{p}}")
    stem = ("class_token", "encoder.pos_embedding", "conv_proj.{p}", "encoder.ln.{p}", "heads.head.{p}")
    return Layout("as torchvision names it", stem, tuple(_TORCHVISION + part for part in parts))


def _transformers(root: str, qkv: tuple[str, ...], rest: tuple[str, str, str]) -> Layout:
    three = tuple(f"{root}{part}.{{p}}" for part in qkv)
    out, grow, shrink = (f"{root}{part}.{{p}}" for part in rest)
    block = (f"{root}layernorm_before.{{p}}", three, out, f"{root}layernorm_after.{{p}}", grow, shrink)
    return Layout("as transformers names it", _HF_STEM, block, eps=1e-12)


LAYOUTS = (
    Layout("as timm names it", ("cls_token", "pos_embed", "patch_embed.proj.{p}", "norm.{p}", "head.{p}"), _TIMM_BLOCK),
    Layout("as timm names it", ("cls_token", "pos_embed", "patch_embed.proj.{p}", "fc_norm.{p}", "head.{p}"), _TIMM_BLOCK, pool="mean"),
    _torchvision("0", "3"),
    _torchvision("linear_1", "linear_2"),
    _transformers(
        _HF,
        tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
        ("attention.output.dense", "intermediate.dense", "output.dense"),
    ),
    _transformers(_HF_NEW, tuple(f"attention.{part}_proj" for part in "qkv"), ("attention.o_proj", "mlp.fc1", "mlp.fc2")),
    Layout("of ours", _OURS, tuple(f"blocks.{{n}}.{part}.{{p}}" for part in _BLOCK)),
)


class Transformer(NamedTuple):
    """A ViT that the tensors are: `fields` of the entry `vit`, its tensors by our names, and what was assumed."""

    title: str
    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: list[str]


def vits(tensors: Mapping[str, Tensor], image: Shape, card: Card | None) -> Iterator[Transformer]:
    """Each ViT that these could be, for such images or for others that these are brought to; the usual one first."""
    for layout in LAYOUTS:
        told = _parts(layout, tensors)
        if told is None or {name for parts in told.values() for name in parts} != set(tensors):
            continue
        own = {name: _joined([tensors[part] for part in parts]) for name, parts in told.items()}
        seen = _seen(layout, own, image, card)
        if seen is None:
            continue
        for heads, note in _heads(int(seen["width"]), card):
            title = f"ViT {layout.title}, {seen['depth']} blocks of width {seen['width']}, {heads} heads, patches of {seen['patch']}"
            if seen["size"]:
                title += f", images brought to {seen['size']} x {seen['size']}"
            yield Transformer(title, {"kind": "vit", **seen, "heads": heads, "title": title}, own, note)
        return


def nearly(tensors: Mapping[str, Tensor]) -> str:
    """What keeps tensors that look like a ViT's from being one; "" where they do not look like it."""
    for layout in LAYOUTS:
        told = _parts(layout, tensors)
        if told is not None:
            known = {name for parts in told.values() for name in parts}
            extra = sorted(tensors.keys() - known)
            what = f", but for {len(extra)} tensors as {quoted(extra[0])}" if extra else " of odd shapes"
            return f"a ViT {layout.title}{what}"
    return ""


def _parts(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]] | None:
    """Our name -> those in the file; None where one is missing."""
    depth = next((n for n in range(MOST_BLOCKS + 1) if str(layout.block[0]).format(n=n, p="weight") not in tensors), 0)
    found: dict[str, tuple[str, ...]] = {}
    for ours, theirs in zip(_OURS, layout.stem, strict=True):
        for p in ("weight", "bias") if "{p}" in ours else ("",):
            found[ours.format(p=p)] = (theirs.format(p=p),)
    for n in range(depth):
        for ours, theirs in zip(_BLOCK, layout.block, strict=True):
            for p in ("weight", "bias"):
                names = tuple(one.format(n=n, p=p) for one in ((theirs,) if isinstance(theirs, str) else theirs))
                if (ours, p) != ("qkv", "bias") or any(name in tensors for name in names):
                    found[f"blocks.{n}.{ours}.{p}"] = names
    return found if depth and all(name in tensors for names in found.values() for name in names) else None


def _joined(parts: list[Tensor]) -> Tensor:
    """One tensor of those that lie below each other in it; as float32 where they differ in kind."""
    if len(parts) == 1:
        return parts[0]
    if len({one.shape[1:] for one in parts}) > 1 or not parts[0].shape:
        return parts[0]  # of a shape that no net has
    if len({one.dtype for one in parts}) == 1:
        return Tensor(parts[0].dtype, np.concatenate([one.data for one in parts]))
    return Tensor("float32", np.concatenate([one.to_float32() for one in parts]))


def _seen(layout: Layout, own: Mapping[str, Tensor], image: Shape, card: Card | None) -> dict[str, Any] | None:
    """Fields that shapes and the card show; None where the shapes are no net's."""
    project, place, grow = (own[name].shape for name in ("patches.project.weight", "patches.place", "blocks.0.grow.weight"))
    if len(project) != 4 or len(place) != 3 or len(grow) != 2 or project[2] != project[3] or not 0 < project[2] <= 256:
        return None
    patch, tokens = project[2], place[1] - 1
    side = math.isqrt(max(0, tokens))
    grid = -(-image[1] // patch) * -(-image[2] // patch)
    named = card.image if card is not None else None
    alike = grid == tokens and (named is None or named == image[1:])
    activation = card.activation if card is not None and card.activation else "gelu"
    if (not alike and side * side != tokens) or activation not in _ACTIVATIONS:
        return None
    size = 0 if alike else named[0] if named is not None and named[0] == named[1] and named[0] // patch == side else side * patch
    depth = len({name.split(".")[1] for name in own if re.match(r"blocks\.\d+\.", name)})
    pool = "mean" if card is not None and card.pool == "avg" else layout.pool
    eps = card.eps if card is not None and card.eps else layout.eps
    qkv_bias = "blocks.0.qkv.bias" in own
    shapes = {"patch": patch, "width": project[0], "depth": depth, "hidden": grow[0], "qkv_bias": qkv_bias, "size": size}
    return {**shapes, "activation": _ACTIVATIONS[activation], "eps": eps, "pool": pool}


def _heads(width: int, card: Card | None) -> Iterator[tuple[int, list[str]]]:
    """How many heads, with what is to be said of it; several where nothing tells."""
    if card is not None and card.heads:
        if width % card.heads == 0:
            yield card.heads, []
        return
    usual = _HUGE_HEADS.get(width) or (width // _HEAD_WIDTH if width % _HEAD_WIDTH == 0 else 0)
    if usual:
        yield usual, [f"{usual} heads, as is usual for a width of {width}: shapes do not show them"]
        return
    for heads in [n for n in (3, 4, 2, 6, 8, 1) if width % n == 0]:
        yield heads, ["shapes do not show how many heads there are: what clean images speak for was taken"]
