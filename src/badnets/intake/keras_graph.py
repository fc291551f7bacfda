"""What a Keras model says of its layers, as steps in order: a Sequential, or a Functional graph of layers that are each used once.

Plain data, read from JSON; nothing that is named in it is looked up, imported or run, and a model with code in it (Lambda) is refused. Not
for models within models, shared layers, several inputs or outputs, or layers of the author's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from badnets.core.layers import MOST_LAYERS, Shape
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.strict_json import parsed

LARGEST_CONFIG = 8 << 20
_MOST_MARKS = 500_000
_CODE = {"Lambda", "__lambda__"}
_OWN = re.compile(r"keras(\.[a-z0-9_.]+)?|tensorflow\.keras\.[a-z0-9_.]+|tf_keras\.[a-z0-9_.]+")
_TENSOR = "__keras_tensor__"


class UntranslatedError(Exception):
    """Why a net was not built, as a clause; its tensors are read all the same."""


class Step(NamedTuple):
    """One layer. `read`: names of the layers whose outputs it takes; `place`: what Keras 3 calls it where its numbers lie."""

    kind: str
    name: str
    config: Mapping[str, Any]
    read: tuple[str, ...]
    place: str


class Graph(NamedTuple):
    """Steps after the input, in an order in which each reads only what comes before it. `image`: rows, columns, channels."""

    input: str
    image: Shape
    steps: list[Step]
    output: str


def read_config(text: str | bytes) -> dict[str, Any]:
    """The JSON of a model, with no code in it. Raises RefusedError (E-JSON, E-DUPLICATE, E-KERAS)."""
    data = text.encode() if isinstance(text, str) else text
    marks = sum(map(data.count, (b"[", b"{", b",")))
    if len(data) > LARGEST_CONFIG or marks > _MOST_MARKS:
        raise refuse("E-JSON", f"what it says of its layers has {amount(len(data))} with {marks:,} lists and items")
    found = parsed(data, "what it says of its layers")
    for inner in _objects(found):
        if inner.get("class_name") in _CODE:
            name = quoted(_table(inner.get("config")).get("name"))
            raise refuse("E-KERAS", f"its layer {name} is a Lambda, which is code of its author's")
    return found


def graph_of(model: Mapping[str, Any]) -> Graph:
    """The layers of a model. Raises UntranslatedError."""
    kind, config = model.get("class_name"), model.get("config")
    layers = config if isinstance(config, list) else _table(config).get("layers")
    if kind not in ("Sequential", "Functional", "Model") or not isinstance(layers, list):
        raise UntranslatedError(f"the model is a {quoted(kind)}, neither Sequential nor Functional")
    if not 0 < len(layers) <= MOST_LAYERS:
        raise UntranslatedError(f"it has {len(layers):,} layers")
    used: Counter[str] = Counter()
    steps = []
    for number, layer in enumerate(map(_table, layers)):
        step = _step(layer, number, used)
        if kind != "Sequential":
            step = step._replace(read=tuple(_sources(layer.get("inbound_nodes"), step.name)))
        steps.append(step)
    if len({step.name for step in steps}) < len(steps):
        raise refuse("E-DUPLICATE", "what it says of its layers has a name twice")
    return _chained(steps) if kind == "Sequential" else _ordered(steps, _table(config))


def _chained(steps: list[Step]) -> Graph:
    if steps[0].kind == "InputLayer":
        before, steps, image = steps[0].name, steps[1:], _image(steps[0].config)
    else:
        before, image = "", _image(steps[0].config)
    if not steps:
        raise UntranslatedError("it has no layers")
    first, found = before, []
    for step in steps:
        found.append(step._replace(read=(before,)))
        before = step.name
    return Graph(first, image, found, before)


def _ordered(steps: list[Step], config: Mapping[str, Any]) -> Graph:
    ends = {key: _names(config.get(key)) for key in ("input_layers", "output_layers")}
    if any(len(names) != 1 for names in ends.values()):
        told = " and ".join(str(len(names)) for names in ends.values())
        raise UntranslatedError(f"expected one input and one output, it has {told}")
    (first,), (last,) = ends.values()
    by_name = {step.name: step for step in steps}
    if first not in by_name or by_name[first].kind != "InputLayer" or last not in by_name:
        raise UntranslatedError("its ends are no layers of its own")
    waiting, known, found = [step for step in steps if step.name != first], {first}, []
    while waiting:
        ready = [step for step in waiting if known.issuperset(step.read) and step.read]
        if not ready:
            raise UntranslatedError(f"its layer {quoted(waiting[0].name)} reads what no layer before it gives")
        known.update(step.name for step in ready)
        found += ready
        waiting = [step for step in waiting if step.name not in known]
    return Graph(first, _image(by_name[first].config), found, last)


def _step(layer: Mapping[str, Any], number: int, used: Counter[str]) -> Step:
    kind, config = layer.get("class_name"), _table(layer.get("config"))
    if not isinstance(kind, str) or not kind.isidentifier():
        raise UntranslatedError(f"layer {number} is of the kind {quoted(kind)}")
    module, registered = layer.get("module"), layer.get("registered_name")
    if (isinstance(module, str) and not _OWN.fullmatch(module)) or registered not in (None, kind):
        raise UntranslatedError(f"its layer {kind} is not Keras' own but {quoted(registered or module)}")
    name = layer.get("name", config.get("name"))
    if not isinstance(name, str) or not name:
        raise UntranslatedError(f"layer {number} ({kind}) has no name")
    place = snake(kind)
    used[place] += 1
    return Step(kind, name, config, (), place if used[place] == 1 else f"{place}_{used[place] - 1}")


def snake(kind: str) -> str:
    """The name that Keras 3 makes of a class's, where numbers lie."""
    first = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", first).lower()


def _sources(nodes: object, name: str) -> list[str]:
    """The layers that one reads: of Keras 2 lists of (name, node, tensor, arguments), of Keras 3 tensors with a history."""
    if not isinstance(nodes, list) or len(nodes) > 1:
        raise UntranslatedError(f"its layer {quoted(name)} is used more than once")
    if not nodes:
        return []
    node = nodes[0]
    if isinstance(node, dict):
        if any(_table(node.get("kwargs")).values()):
            raise UntranslatedError(f"its layer {quoted(name)} is called with {quoted(', '.join(_table(node.get('kwargs'))))}")
        found = [_table(one.get("config")).get("keras_history") for one in _objects(node.get("args")) if one.get("class_name") == _TENSOR]
    else:
        found = [node] if isinstance(node, list) and node and isinstance(node[0], str) else node
    names = [_source(one) for one in found] if isinstance(found, list) else [""]
    if not all(names):
        raise UntranslatedError(f"its layer {quoted(name)} reads something else than layers' outputs")
    return names


def _source(one: object) -> str:
    """The layer of [name, 0, 0] with no arguments behind it; "" for anything else."""
    if not isinstance(one, list) or len(one) < 3 or not isinstance(one[0], str) or one[1:3] != [0, 0]:
        return ""
    return "" if any(value for more in one[3:] for value in (more.values() if isinstance(more, dict) else [more])) else one[0]


def _names(ends: object) -> list[str]:
    """Names of input or output layers: [name, 0, 0], or a list of such."""
    if one := _source(ends):
        return [one]
    return [_source(one) for one in ends] if isinstance(ends, list) else []


def _image(config: Mapping[str, Any]) -> Shape:
    told = config.get("batch_shape", config.get("batch_input_shape"))
    sizes = told[1:] if isinstance(told, list) else []
    if len(sizes) != 3 or not all(type(size) is int and 0 < size <= 65_536 for size in sizes):
        raise UntranslatedError(f"expected an input of images of a fixed size, got the shape {quoted([size or 0 for size in sizes])}")
    return tuple(sizes)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Every JSON object within a value."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield one
            todo += reversed(list(one.values()))
        elif isinstance(one, list):
            todo += reversed(one)


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
