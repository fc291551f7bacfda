"""Reads Keras models and weights: HDF5 as Keras 2 and 3 write it, `.keras` archives, and plain HDF5 as tables of numbers.

Where the file says what its layers are, the net comes with it; else, or where a layer is not translated, only the tensors do, in torch's
names and layout where it is clear which array is which. Nothing in it is run. Not read: what an optimizer left, assets, pickles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from badnets.intake.hdf5_tree import Tree, read_tree
from badnets.intake.keras_graph import Graph, UntranslatedError, graph_of, read_config
from badnets.intake.keras_layers import Net, by_channel
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.strict_safetensors import check_name
from badnets.intake.weights import Tensor, Weights
from badnets.intake.zip_structure import read_members

_CONFIG, _WEIGHTS, _ABOUT = "config.json", "model.weights.h5", "metadata.json"
_LARGEST_ABOUT = 64 << 10
_STORED = re.compile(r"(?:layers|_layer_checkpoint_dependencies)/(.+)/vars/(0|[1-9][0-9]{0,3})")
_KINDS = {"conv2d": ("kernel", "bias"), "dense": ("kernel", "bias"), "depthwise_conv2d": ("depthwise_kernel", "bias")}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_TORCH = {
    "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip

Held = dict[str, dict[str, Tensor]]
"""Layer -> its arrays by name, in the file's order."""


class _Found(NamedTuple):
    """`by_place`: whether layers are called by their kinds and numbers, as Keras 3 does, and not by their names."""

    held: Held
    by_place: bool
    notes: list[str]


def read_keras(data: bytes, *, confined: bool) -> Weights:
    """The model in a `.keras` archive. Raises RefusedError."""
    members = read_members(data)
    if odd := [name for name in members if name not in (_CONFIG, _WEIGHTS, _ABOUT)]:
        raise refuse("E-ZIP-MEMBER", f"it has the member {quoted(odd[0])}, which is not read of a Keras archive")
    if _ABOUT in members and members[_ABOUT].size > _LARGEST_ABOUT:
        raise refuse("E-ZIP-MEMBER", f"its member {quoted(_ABOUT)} has {amount(members[_ABOUT].size)}")
    config, weights = (memoryview(data)[members[name].start :][: members[name].size] for name in (_CONFIG, _WEIGHTS))
    model = read_config(bytes(config))
    tree = read_tree(weights, confined=confined)
    found = _stored(tree)
    if found is None:
        raise refuse("E-NO-WEIGHTS", "its weights are not where Keras puts them")
    return _model(model, found, "Keras archive")


def read_hdf5(data: bytes, *, confined: bool) -> Weights:
    """The model, weights or plain tables of an HDF5 file. Raises RefusedError."""
    tree = read_tree(memoryview(data), confined=confined)
    texts = tree.texts.get("", {}).get("model_config")
    model = read_config(texts[0]) if texts else None
    found = _listed(tree) or _stored(tree)
    if found is not None:
        return _tensors(found, "Keras weights") if model is None else _model(model, found, "Keras HDF5")
    if model is not None or not tree.sets:
        raise refuse("E-NO-WEIGHTS", "it holds no weights where Keras puts them" if model else "it holds no data set")
    return Weights(_named((path.replace("/", "."), tensor) for path, tensor in tree.sets.items()), "HDF5", notes=tuple(_tied(tree)))


def _listed(tree: Tree) -> _Found | None:
    """As Keras 2 has it: a list of layers, and of each a list of arrays."""
    root = "model_weights/" if "model_weights" in tree.groups else ""
    layers = tree.texts.get(root[:-1], {}).get("layer_names")
    if layers is None:
        return None
    if len(set(layers)) < len(layers):
        raise refuse("E-DUPLICATE", "its list of layers has a name twice")
    held: Held = {}
    belongs: set[str] = set()
    for layer in layers:
        names = tree.texts.get(root + layer, {}).get("weight_names", [])
        held[layer] = {name: tree.sets[f"{root}{layer}/{name}"] for name in names if f"{root}{layer}/{name}" in tree.sets}
        if len(held[layer]) < len(names):
            raise refuse("E-KERAS", f"of its layer {quoted(layer)}, {len(names)} arrays are listed and {len(held[layer])} are there")
        belongs |= {f"{root}{layer}/{name}" for name in names}
    left = [path for path in tree.sets if path not in belongs]
    aside = f"{root}top_level_model_weights/" if root else "optimizer"
    if odd := [path for path in left if path.startswith(root) and not path.startswith(aside)]:
        raise refuse("E-KERAS", f"its data set {quoted(odd[0])} belongs to no layer")
    return _Found({layer: arrays for layer, arrays in held.items() if arrays}, False, [*_left(left), *_tied(tree)])


def _stored(tree: Tree) -> _Found | None:
    """As Keras 3 has it: arrays by number, under the kinds of layers, numbered."""
    held: Held = {}
    left = []
    for path, tensor in tree.sets.items():
        place = _STORED.fullmatch(path)
        if place is None:
            left.append(path)
        else:
            held.setdefault(place[1], {})[place[2]] = tensor
    if odd := [layer for layer, arrays in held.items() if list(arrays) != [str(number) for number in range(len(arrays))]]:
        raise refuse("E-KERAS", f"the arrays of its layer {quoted(odd[0])} are not numbered from 0 on")
    if (odd := [path for path in left if path.startswith(("layers/", "_layer_checkpoint_dependencies/"))]) and held:
        raise refuse("E-KERAS", f"its data set {quoted(odd[0])} belongs to no layer")
    return _Found(held, True, [*_left(left), *_tied(tree)]) if held else None


def _left(paths: list[str]) -> list[str]:
    places = sorted({path.partition("/")[0] for path in paths})
    return [f"not looked at: {len(paths)} data sets of {', '.join(map(quoted, places[:3]))}"] if paths else []


def _tied(tree: Tree) -> list[str]:
    return [f"{tree.tied} data sets are the same numbers as another (tied)"] if tree.tied else []


def _model(model: Mapping[str, object], found: _Found, title: str) -> Weights:
    """With its net, or without and why."""
    try:
        graph = graph_of(model)
        names = {step.place if found.by_place else step.name: step.name for step in graph.steps}
        net = Net(graph, {names[layer]: list(arrays.values()) for layer, arrays in found.held.items() if layer in names})
        net.build()
    except UntranslatedError as error:
        weights = _tensors(found, title)
        return replace(weights, notes=(f"its net was not built: {error}", *weights.notes))
    notes = (*net.notes, *_idle(found, graph, net), *found.notes)
    return Weights(net.tensors, title, notes=notes, layers=tuple(net.layers), image=net.image)


def _idle(found: _Found, graph: Graph, net: Net) -> list[str]:
    """A note on arrays that no layer of the net has, such as the seeds of a dropout; floats would be weights."""
    own = {step.place if found.by_place else step.name for step in graph.steps if step.name in net.taken}
    left = [layer for layer in found.held if layer not in own]
    if odd := [layer for layer in left if any(tensor.is_float for tensor in found.held[layer].values())]:
        raise refuse("E-KERAS", f"the weights of {quoted(odd[0])} are those of no layer that it says it has")
    return [f"not looked at: what {len(left)} layers without weights have"] if left else []


def _tensors(found: _Found, title: str) -> Weights:
    """Tensors alone, in torch's names and layout where a layer's kind is clear."""
    turned: list[tuple[str, Tensor]] = []
    odd = []
    held = {layer: arrays for layer, arrays in found.held.items() if any(tensor.is_float for tensor in arrays.values())}
    for layer, arrays in held.items():
        known = _known(_numbered(layer, arrays) if found.by_place else _plain(arrays))
        if known is None:
            odd.append(layer)
        for name, tensor in (known or arrays).items():
            turned.append((f"{layer}/{name}".replace("/", "."), tensor))
    if not turned:
        raise refuse("E-NO-WEIGHTS", "it holds no weights")
    notes = [f"{len(held) - len(odd)} layers in torch's names and layout"]
    if seeds := len(found.held) - len(held):
        notes.append(f"not looked at: {seeds} layers that hold whole numbers only")
    if odd:
        notes.append(f"as they are in the file: {', '.join(map(quoted, odd[:3]))}" + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""))
    return Weights(_named(turned), title, notes=(*notes, *found.notes))


def _plain(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the last part of the name, without its number; nothing where that is not one array's alone, as of a model within."""
    found = {re.sub(r":0$", "", name).rpartition("/")[2]: tensor for name, tensor in arrays.items()}
    return found if len(found) == len(arrays) else {}


def _numbered(layer: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the order in which a layer of this kind has them."""
    kind = re.sub(r"_[0-9]+$", "", layer.rpartition("/")[2])
    names = _NORM if kind == "batch_normalization" and len(arrays) == len(_NORM) else _KINDS.get(kind, ())
    return dict(zip(names, arrays.values(), strict=False)) if len(arrays) <= len(names) else {}


def _known(arrays: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """In torch's names and layout, or None where that is not clear."""
    shapes = {name: tensor.shape for name, tensor in arrays.items()}
    kernel = next((name for name in ("kernel", "depthwise_kernel") if name in shapes), "")
    if kernel and set(shapes) <= {kernel, "bias"}:
        axes = len(shapes[kernel])
        wide = shapes[kernel][-1] * (shapes[kernel][2] if axes == 4 and kernel != "kernel" else 1) if axes in (2, 4) else 0
        if not wide or shapes.get("bias", (wide,)) != (wide,) or (axes == 2 and kernel != "kernel"):
            return None
        data = arrays[kernel].data
        data = data.T if axes == 2 else data.transpose(3, 2, 0, 1) if kernel == "kernel" else by_channel(data)
        # In one piece now, or whoever looks at it makes copies of its own.
        found = {**arrays, kernel: Tensor(arrays[kernel].dtype, np.ascontiguousarray(data))}
    elif set(shapes) in ({*_NORM}, {*_NORM[2:]}) and len(set(shapes.values())) == 1 and len(shapes["moving_mean"]) == 1:
        found = dict(arrays)
    else:
        return None
    return {_TORCH[name]: tensor for name, tensor in found.items()}


def _named(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in pairs:
        check_name(name)
        if name in found:
            raise refuse("E-DUPLICATE", f"two of its data sets are called {quoted(name)} when their paths are joined by dots")
        found[name] = tensor
    return found
