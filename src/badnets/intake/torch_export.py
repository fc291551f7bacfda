"""Reads the tensors of an exported program (`torch.export.save`, .pt2), by the names that its table of weights has; not the program.

Numbers lie raw beside a table in JSON; in older files the state dict lies within as a file of `torch.save`. Not for compiled programs
of AOTInductor, for weights of classes of their own, which are pickled, nor for several programs in one archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from badnets.intake.geometry import check_disjoint, check_view, itemsize, take
from badnets.intake.opcodes import Storage, View
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.strict_json import read_json
from badnets.intake.strict_safetensors import check_bools, check_name
from badnets.intake.torch_zip import content_of, inner_members, read_torch_zip
from badnets.intake.weights import MOST_TENSORS, Tensor, Weights
from badnets.intake.zip_structure import Member, read_members

_STARTS = ("archive_format", "models/", "data/weights/", "data/aotinductor/", "data/executorch/")
_COMPILED = ("data/aotinductor/", "data/executorch/", "data/mtia", "xl_model_weights/")
_OLD, _OLD_STATE = "serialized_exported_program.json", "serialized_state_dict.pt"
_OLD_MEMBERS = ("serialized_", "extra_files/", "version")
_WEIGHTS, _CONFIG, _PICKLED = "data/weights/", "_weights_config.json", ".pt"
_CONSTANTS = "data/constants/"
_UNREAD = ("models/", _CONSTANTS, "data/sample_inputs/", "extra/", ".data/")
_SMALL = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_LARGEST_CONFIG = 8 << 20
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16",
    28: "uint16", 34: "uint32", 35: "uint64",
}  # fmt: skip
_STRIDED = 7
_ENTRY = {"path_name", "is_param", "use_pickle", "tensor_meta"}
_META = {"dtype", "sizes", "requires_grad", "device", "strides", "storage_offset", "layout"}


def is_exported(members: Mapping[str, Member]) -> bool:
    """Whether a zip of these members is an exported program and not a checkpoint."""
    inner = [name.partition("/")[2] for name in members]
    one = len({name.partition("/")[0] for name in members}) == 1
    return _OLD in members or (one and "data.pkl" not in inner and any(name.startswith(_STARTS) or name == _OLD for name in inner))


def read_exported(data: bytes, members: Mapping[str, Member]) -> Weights:
    """The tensors of its state dict, as views of its bytes; `members`: as the archive has them. Raises RefusedError."""
    if _OLD in members:
        return _from_old(data, members)
    inner = {name.partition("/")[2]: member for name, member in members.items()}
    if _OLD in inner:
        return _from_old(data, inner)
    if compiled := next((name for name in inner if name.startswith(_COMPILED)), None):
        raise refuse("E-PT2", f"it is a compiled program: {quoted(compiled)}")
    _check_aside(data, inner)
    models = [name for name in inner if name.startswith("models/")]
    if len(models) > 1:
        raise refuse("E-AMBIGUOUS", f"it holds {len(models)} programs: {', '.join(map(quoted, models[:5]))}")
    title = models[0].removeprefix("models/").removesuffix(".json") if models else ""
    config, pickled = f"{_WEIGHTS}{title}{_CONFIG}", f"{_WEIGHTS}{title}{_PICKLED}"
    if title and config in inner:
        weights = _from_config(data, inner, config)
    elif title and pickled in inner:
        _check_weights(inner, {pickled})
        weights = _from_pickled(data, inner[pickled])
    else:
        raise refuse("E-PT2", "it is an exported program without a table of its weights")
    constants = sum(name.startswith((f"{_CONSTANTS}tensor_", f"{_CONSTANTS}custom_", f"{_CONSTANTS}opaque_")) for name in inner)
    more = [f"{constants} constants of the program left out"] if constants else []
    more += ["its extra files were not looked at"] if any(name.startswith("extra/") for name in inner) else []
    return _told(weights, more)


def _told(weights: Weights, more: list[str]) -> Weights:
    note = "the program in it was not looked at: the architecture is told by the tensors' names"
    return replace(weights, format="torch.export", notes=(note, *more, *weights.notes))


def _check_aside(data: bytes, members: Mapping[str, Member]) -> None:
    for name, member in members.items():
        if name in _SMALL:
            content = content_of(data, member)[:64]
            if content.strip() != _SMALL[name]:
                code = "E-BYTEORDER" if name == "byteorder" else "E-PT2"
                raise refuse(code, f"expected {quoted(_SMALL[name])} as its {name.replace('_', ' ')}, got {quoted(content)}")
        elif not name.startswith((_WEIGHTS, *_UNREAD)):
            raise refuse("E-ZIP-MEMBER", f"it has the member {quoted(name)}, which no exported program has")


def _check_weights(members: Mapping[str, Member], known: set[str]) -> None:
    for name in members:
        if name.startswith(_WEIGHTS) and name not in known:
            raise refuse("E-ZIP-MEMBER", f"its member {quoted(name)} belongs to no tensor")


def _from_old(data: bytes, members: Mapping[str, Member]) -> Weights:
    """As torch wrote it before 2.8: a state dict among files of other kinds, without a folder."""
    if odd := next((name for name in members if not name.startswith(_OLD_MEMBERS)), None):
        raise refuse("E-ZIP-MEMBER", f"it has the member {quoted(odd)}, which no exported program has")
    if _OLD_STATE not in members:
        raise refuse("E-PT2", "it is an exported program without a state dict that can be read")
    weights = _from_pickled(data, members[_OLD_STATE])
    return _told(weights, ["its extra files were not looked at"] if any(name.startswith("extra_files/") for name in members) else [])


def _from_pickled(data: bytes, member: Member) -> Weights:
    content = content_of(data, member)
    if content[:4] != b"PK\x03\x04":
        raise refuse("E-PT2", f"expected its weights as a file of torch.save, got {quoted(content[:8])}")
    return read_torch_zip(content, inner_members(read_members(content)))


def _from_config(data: bytes, members: Mapping[str, Member], config: str) -> Weights:
    text = content_of(data, members[config])
    if len(text) > _LARGEST_CONFIG:
        raise refuse("E-JSON", f"expected a table of weights of at most {amount(_LARGEST_CONFIG)}, got {amount(len(text))}")
    table = read_json(text, "table of weights", tables=14 * MOST_TENSORS, lists=3 * MOST_TENSORS, commas=40 * MOST_TENSORS)
    entries = table.get("config")
    if table.keys() != {"config"} or not isinstance(entries, dict):
        raise refuse("E-JSON", "its table of weights is not one table called config")
    if not entries:
        raise refuse("E-NO-WEIGHTS", "its table of weights is empty")
    if len(entries) > MOST_TENSORS:
        raise refuse("E-COUNT", f"it holds {len(entries):,} tensors")
    views = {name: _view(name, entry, members) for name, entry in entries.items()}
    kinds: dict[str, str] = {}
    for view in views.values():
        if kinds.setdefault(view.storage.key, view.storage.dtype) != view.storage.dtype:
            raise refuse("E-STORAGE", f"it describes the storage {quoted(view.storage.key)} in two ways")
        check_view(view, len(data))
    _check_weights(members, {config, *(_WEIGHTS + key for key in kinds)})
    same = check_disjoint(views.values())
    tensors: dict[str, Tensor] = {}
    for name, view in views.items():
        member = members[_WEIGHTS + view.storage.key]
        tensors[name] = take(view, memoryview(data)[member.start : member.start + member.size])
        check_bools(name, tensors[name])
    return Weights(tensors, "torch.export", notes=(f"{same} tensors are the same numbers as another (tied)",) if same else ())


def _view(name: str, entry: object, members: Mapping[str, Member]) -> View:
    """Where a tensor of the table lies; whether it lies there is not yet checked."""
    check_name(name)
    if not isinstance(entry, dict) or entry.keys() != _ENTRY or not isinstance(entry["path_name"], str):
        raise refuse("E-JSON", f"tensor {quoted(name)} is not described as torch.export describes it")
    meta, key = entry["tensor_meta"], entry["path_name"]
    if entry["use_pickle"] is not False:
        raise refuse("E-PT2", f"tensor {quoted(name)} is of a class of its own, which is pickled")
    if not isinstance(meta, dict) or meta.keys() != _META or meta["layout"] != _STRIDED:
        raise refuse("E-PT2", f"tensor {quoted(name)} is not a dense one, or is not described as torch.export describes it")
    dtype = _DTYPES.get(meta["dtype"]) if type(meta["dtype"]) is int else None
    if dtype is None:
        raise refuse("E-DTYPE", f"tensor {quoted(name)} has the type number {quoted(meta['dtype'])}")
    shape, stride, (offset,) = _sizes(name, meta["sizes"]), _sizes(name, meta["strides"]), _sizes(name, [meta["storage_offset"]])
    member = members.get(_WEIGHTS + key)
    if member is None or key.endswith((".json", _PICKLED)):
        raise refuse("E-STORAGE", f"the numbers of tensor {quoted(name)} are said to lie in {quoted(key)}, which is not there")
    if member.size % itemsize(dtype):
        raise refuse("E-STORAGE", f"storage {quoted(key)} of {member.size:,} bytes holds no whole number of {dtype}")
    return View(Storage(key, dtype, member.size // itemsize(dtype), "cpu"), offset, shape, stride)


def _sizes(name: str, told: Any) -> tuple[int, ...]:
    """Whole numbers as torch.export writes them, each in a table of its own."""
    if not isinstance(told, list) or not all(isinstance(one, dict) and one.keys() == {"as_int"} for one in told):
        raise refuse("E-SHAPE", f"tensor {quoted(name)} has sizes that are not whole numbers")
    numbers = tuple(one["as_int"] for one in told)
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers):
        raise refuse("E-SHAPE", f"tensor {quoted(name)} has sizes that are none")
    return numbers
