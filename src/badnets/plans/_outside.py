"""Nets of others: which lists of layers, or which ViT, a file's tensors can be those of, from a written architecture or what is usual.

Every tensor of the file has to be one of the net's, by name and shape, and the other way round. What shapes do not show leaves several
nets; which of them it is, clean images decide (`_preparation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from badnets.core import layers as spec
from badnets.core.errors import RefusedError, UsageError
from badnets.intake.arch_file import Architecture
from badnets.intake.chains import chains
from badnets.intake.hub_card import Card
from badnets.intake.hub_resnets import hub_resnets
from badnets.intake.keras_layers import same_padding
from badnets.intake.not_built import not_built
from badnets.intake.reasons import quoted
from badnets.intake.residuals import residual_nets
from badnets.intake.vits import nearly, vits
from badnets.intake.weights import Weights

if TYPE_CHECKING:
    from badnets.datasets._base import ImageSet

BODY, INPUT = "body.", ("mean", "std")
NOT_BUILT = "Such a net cannot be judged here, which does not mean clean; badnets convert writes its tensors as one file."
COUNTER = ".num_batches_tracked"
"""Which old files and files of other libraries do not have; nothing depends on it."""


class Outside(NamedTuple):
    """A net that fits: fields of the entry `layered` or `vit`, and what each of the tensors in `weights` is called in a Network."""

    title: str
    fields: dict[str, Any]
    names: dict[str, str]
    weights: Weights
    notes: tuple[str, ...] = ()


def outside_nets(weights: Weights, data: ImageSet, arch: Architecture | None) -> list[Outside]:
    """All nets that the tensors fit for images and classes of `data`; [] where nothing usual does.

    Raises RefusedError (E-WEIGHTS: not those of the architecture given; E-CLASSES: for other classes), UsageError (E-ARCH).
    """
    whole = any(name.startswith(BODY) for name in weights.tensors) and INPUT[0] in weights.tensors
    names = {name: name if whole or name in INPUT else BODY + name for name in weights.tensors}
    shapes = {own.removeprefix(BODY): weights.tensors[name].shape for name, own in names.items() if own not in INPUT}
    if arch is not None:
        return [_written(arch, shapes, data, names, weights)]
    found, other = _transformers(weights, names, data), None
    for title, usual in () if found else _usual(shapes, data.shape, weights.card):
        try:
            layers = _as_keras(usual, data) if weights.channels_last else usual
            laid = spec.lay(layers)
            out = spec.shapes_of(laid, data.shape, data.num_classes)
            if _differences(spec.tensors_of(laid, out), shapes):
                continue
            spec.check_output(laid, out, data.num_classes)
        except UsageError as error:
            other = error if error.code == "E-CLASSES" else other
            continue
        found.append(Outside(title, _fields(title, layers), names, weights))
    if not found and other is not None:
        raise RefusedError(other.code, other.message, hint=other.hint)
    return found


def _as_keras(layers: list[dict[str, Any]], data: ImageSet) -> list[dict[str, Any]]:
    """The same as nets of Keras have it: numbers after a flatten in another order, another epsilon, odd zeros at the end of rows."""
    laid = spec.lay(layers)
    shapes = spec.shapes_of(laid, data.shape, data.num_classes)
    found = []
    for plain, (_, layer, read) in zip(layers, laid.named(), strict=True):
        own: dict[str, Any] = {"flatten": {"channels_last": True}, "batch_norm": {"eps": 1e-3}}.get(layer.op, {})
        if isinstance(layer, spec.Conv) and any(layer.padding) and layer.kernel[0] % 2 and layer.kernel[1] % 2:
            own = {"padding": same_padding(shapes[read[0]][1:], layer.kernel, layer.stride)}
        found.append(plain | own)
    return found


def _usual(shapes: Mapping[str, spec.Shape], image: spec.Shape, card: Card | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Also those that bring images to the size that a card names; first of all, where it says that this is what is done."""
    named = (image[0], *card.image) if card is not None and card.image is not None else image
    for size in dict.fromkeys((named, image) if card is not None and card.resized else (image, named)):
        first = [] if size == image else [{"op": "resize", "size": size[1:]}]
        told = f", images brought to {size[1]} x {size[2]}" if first else ""
        for title, layers in _layouts(shapes, size, card):
            yield title + told, [*first, *layers]


def _layouts(shapes: Mapping[str, spec.Shape], image: spec.Shape, card: Card | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for title, layers in residual_nets(shapes):
        yield title, layers
        # Whoever saves a card has changed a small stem, if any, not the large one.
        if card is not None and title.endswith("of ImageNet"):
            break
    yield from hub_resnets(shapes, card)
    yield from chains(shapes, image)


def _transformers(weights: Weights, names: Mapping[str, str], data: ImageSet) -> list[Outside]:
    """ViTs that the tensors are. Raises RefusedError (E-CLASSES: for other classes; E-WEIGHTS: nearly one)."""
    from badnets.nets.vit import Vit
    from badnets.plans._recognise import shapes_of

    tensors = {own.removeprefix(BODY): weights.tensors[name] for name, own in names.items() if own not in INPUT}
    found: list[Outside] = []
    told = ""
    for one in vits(tensors, data.shape, weights.card):
        own = shapes_of(Vit(**one.fields), data)
        taken = {BODY + name: tensor for name, tensor in one.tensors.items()}
        differing = [name for name, tensor in taken.items() if own.get(name) != tensor.shape]
        if differing and (head := taken[f"{BODY}head.weight"].shape)[:1] != (data.num_classes,):
            what = f"the net has {head[0] if head else 0} classes, the data set has {data.num_classes} classes."
            raise RefusedError("E-CLASSES", what, hint="Name its own data set.")
        if differing:
            told = f", but {quoted(differing[0].removeprefix(BODY))} is {taken[differing[0]].shape}, expected {own.get(differing[0])}"
            continue
        taken |= {name: weights.tensors[theirs] for theirs, name in names.items() if name in INPUT}
        found.append(Outside(one.title, one.fields, {name: name for name in taken}, replace(weights, tensors=taken), tuple(one.notes)))
    if not found and (near := nearly(tensors)):
        shape = "x".join(map(str, data.shape))
        hint = "Its layers cannot be described by --arch; badnets reads plain ViTs alone. Does the data set have images of its size?"
        if why := not_built(tensors):
            raise RefusedError("E-WEIGHTS", f"the weights look like {near}, and are not built: {why}.", hint=NOT_BUILT)
        raise RefusedError("E-WEIGHTS", f"the weights look like {near}{told} for {shape} images.", hint=hint)
    return found


def _written(arch: Architecture, shapes: Mapping[str, spec.Shape], data: ImageSet, names: dict[str, str], weights: Weights) -> Outside:
    """The net of an architecture file; whatever does not fit is told."""
    if arch.image is not None and arch.image != data.shape:
        want, have = ("x".join(map(str, shape)) for shape in (arch.image, data.shape))
        raise UsageError(
            "E-SHAPE", f"the architecture is for {want} images, those of {data.name} are {have}.", hint="Name its own data set."
        )
    if arch.classes is not None and arch.classes != data.num_classes:
        what = f"the architecture has {arch.classes} classes, {data.name} has {data.num_classes}."
        raise UsageError("E-CLASSES", what, hint="Name its own data set.")
    laid = spec.lay(arch.layers)
    out = spec.shapes_of(laid, data.shape, data.num_classes)
    if told := _differences(spec.tensors_of(laid, out), shapes):
        hint = "Name the layers as the file's tensors are named, without .weight and .bias."
        raise RefusedError("E-WEIGHTS", f"the weights are not those of the architecture {quoted(arch.title)}: {told}.", hint=hint)
    spec.check_output(laid, out, data.num_classes)
    return Outside(arch.title, _fields(arch.title, arch.layers), names, weights)


def _fields(title: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    plain = [layer.model_dump(mode="json", exclude_defaults=True, exclude={"op"}) | {"op": layer.op} for layer in spec.lay(layers).layers]
    return {"kind": "layered", "layers": plain, "title": title}


def _differences(own: Mapping[str, spec.Shape], shapes: Mapping[str, spec.Shape]) -> str:
    """What is in one and not in the other, and what has another shape; "" if they agree."""
    missing = [name for name in own if name not in shapes and not name.endswith(COUNTER)]
    extra = [name for name in shapes if name not in own]
    other = [name for name in own if name in shapes and own[name] != tuple(shapes[name])]
    parts = {"missing": missing, "not of it": extra}
    told = [f"{what} {', '.join(map(quoted, names[:3]))}{_more(names)}" for what, names in parts.items() if names]
    told += [f"{quoted(name)} is {shapes[name]}, expected {own[name]}" for name in other[:2]]
    return "; ".join(told) + (_more(other, 2) if other else "")


def _more(names: list[str], shown: int = 3) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
