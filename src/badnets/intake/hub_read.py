"""Reads the files of a model folder together: what is said of the net, and its tensors from one file or from shards that an index lists.

Every tensor has to be in the shard that the index says, once, and in no other. The files are bytes here; which they are, `hub_folder` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from badnets.core.errors import RefusedError
from badnets.intake.formats import HDF5, is_keras, read_weights
from badnets.intake.hub_card import Card, read_card, read_json
from badnets.intake.hub_folder import SHARD, WEIGHTS
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.reasons import quoted, refuse
from badnets.intake.weights import MOST_TENSORS, Tensor, Weights

_HEADS = ("classifier", "classifier.1", "head", "head.fc", "fc", "heads.head")


def read_folder(files: Sequence[bytes], *, prepared: bool) -> Weights:
    """The weights with their card. `files`: config, preparation where there is one, weights or index, shards in the order of their names.

    Raises RefusedError; NeedsFilesError: which shards an index names.
    """
    config, preparation = files[0], files[1] if prepared else None
    main, *shards = files[2 if prepared else 1 :]
    card, notes = read_card(config, preparation)
    weights = _sharded(main, shards) if main[:1] == b"{" and any(main[4:8]) else _single(main)
    _check_head(weights, card)
    told = f"{'transformers' if card.library == 'unknown' else card.library} folder, {weights.format}"
    said = [f"config.json says {quoted(card.architecture)}"] if card.architecture else []
    if card.classes:
        said.append(f"names of its {len(card.classes)} classes: {_some(card.classes)}")
    return replace(weights, format=told, card=card, notes=(*weights.notes, *said, *notes))


def _some(names: Sequence[str]) -> str:
    return ", ".join(quoted(name, 40) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _single(data: bytes) -> Weights:
    if data.startswith(HDF5) or (data[:4] == b"PK\x03\x04" and is_keras(data)):
        raise refuse("E-MODEL-FOLDER", "expected safetensors or a torch file as its weights, got one of Keras or HDF5")
    try:
        weights = read_weights(data)
    except NeedsFilesError as error:
        raise refuse("E-MODEL-FOLDER", "expected safetensors or a torch file as its weights, got a graph") from error
    if weights.layers:
        raise refuse("E-MODEL-FOLDER", "expected safetensors or a torch file as its weights, got a graph")
    return weights


def _sharded(index: bytes, shards: Sequence[bytes]) -> Weights:
    places = _places(index)
    names = sorted(set(places.values()))
    if len(names) != len(shards):
        raise NeedsFilesError(names)
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    bad: list[str] = []
    formats: set[str] = set()
    for name, data in zip(names, shards, strict=True):
        try:
            weights = _single(data)
        except RefusedError as error:
            raise RefusedError(error.code, f"{name}: {error.message}", hint=error.hint) from error
        for tensor in weights.tensors:
            if tensor in tensors:
                raise refuse("E-SHARDS", f"{name}: it has the tensor {quoted(tensor)}, which another shard has too")
            if places.get(tensor) != name:
                where = f"puts into {quoted(places[tensor])}" if tensor in places else "does not name"
                raise refuse("E-SHARDS", f"{name}: it has the tensor {quoted(tensor)}, which the index {where}")
        tensors |= weights.tensors
        bad += weights.not_finite
        notes += [note for note in weights.notes if note not in notes]
        formats.add(weights.format)
    if missing := [tensor for tensor in places if tensor not in tensors]:
        raise refuse("E-SHARDS", f"{places[missing[0]]}: it lacks the tensor {quoted(missing[0])}, which the index puts there")
    ordered = {tensor: tensors[tensor] for tensor in places}
    return Weights(ordered, f"{' and '.join(sorted(formats))} in {len(names)} shards", notes=tuple(notes), not_finite=tuple(bad))


def _places(index: bytes) -> dict[str, str]:
    """Tensor -> shard, as the index says."""
    told = read_json(index, "the index").get("weight_map")
    if not isinstance(told, dict) or not told:
        raise refuse("E-SHARDS", f"the index: expected a table of tensors as weight_map, got {quoted(told)}")
    if len(told) > MOST_TENSORS:
        raise refuse("E-COUNT", f"its index names {len(told):,} tensors")
    for name in told.values():
        if not isinstance(name, str) or not any(pattern.fullmatch(name) for pattern in SHARD.values()):
            example = f"as {WEIGHTS[0].replace('.', '-00001-of-00002.')}"
            raise refuse("E-SHARDS", f"the index: expected names of shards in this folder, {example}, got {quoted(name)}")
    return told


def reordered(weights: Weights, classes: Sequence[str]) -> Weights:
    """The weights with the rows of their last layer in the order of `classes`, where the card has the very same names in another one."""
    named = [one.casefold() for one in weights.card.classes] if weights.card is not None else []
    wanted = [one.casefold() for one in classes]
    name = _head(weights)
    if named == wanted or len(set(named)) < len(named) or sorted(named) != sorted(wanted) or not name:
        return weights
    order = [named.index(one) for one in wanted]
    parts = {part: weights.tensors[part] for part in (f"{name}.weight", f"{name}.bias") if part in weights.tensors}
    if any(part.shape[:1] != (len(order),) for part in parts.values()):
        return weights
    turned = {key: Tensor(part.dtype, part.data[order]) for key, part in parts.items()}
    note = "config.json has the classes in another order than the data set: its last layer now has them in that of the data set"
    return replace(weights, tensors={**weights.tensors, **turned}, notes=(*weights.notes, note))


def _head(weights: Weights) -> str:
    """The name of the last layer; "" where none has a usual one."""
    several = sum(re.fullmatch(r"classifier\.\d+\.weight", name) is not None for name in weights.tensors) > 1
    names = [name for name in _HEADS if f"{name}.weight" in weights.tensors and not (several and name == "classifier.1")]
    return names[0] if names else ""


def _check_head(weights: Weights, card: Card) -> None:
    """Refuses a net that has another number of classes than it is said to have."""
    head = weights.tensors.get(f"{_head(weights)}.weight")
    if head is not None and card.num_classes is not None and head.shape[:1] != (card.num_classes,):
        raise refuse("E-MODEL-FOLDER", f"config.json: it says {card.num_classes} classes, its last layer has {quoted(head.shape[:1])}")
