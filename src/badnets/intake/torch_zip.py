"""Reads the weights in a zip file that `torch.save` wrote, without torch: structure, pickle and tensors are each checked first.

For state dicts, alone or in a checkpoint. Refused: TorchScript, .pt2, whole modules, sparse, quantised and complex tensors, members that no
tensor uses. What torch itself would do with such a file is none of its business.
"""

from __future__ import annotations

from collections.abc import Mapping

from badnets.intake.geometry import itemsize
from badnets.intake.opcodes import Machine, Storage
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.state_dict import tensors_of
from badnets.intake.weights import Weights
from badnets.intake.zip_structure import Member, read_members

_PICKLE = "data.pkl"
_DATA = "data/"
_ASIDE = {"version": 16, "byteorder": 16, ".format_version": 16, ".storage_alignment": 16, ".data/serialization_id": 64}
"""Members beside the pickle and the storages, with the most bytes that they may have."""
_SCRIPT = ("code/", "constants.pkl", "attributes.pkl", "constants/", "extra/")
_PT2 = ("archive_format", "models/", "data/weights/", "data/aotinductor/", "serialized_exported_program.json")


def read_torch_zip(data: bytes) -> Weights:
    """The tensors of a torch checkpoint, as views of its bytes. Raises RefusedError."""
    members = _inner(read_members(data))
    version = _aside(data, members)
    pickle = members[_PICKLE]
    machine = Machine(data[pickle.start : pickle.start + pickle.size])
    value = machine.run()
    _check_storages(machine.storages, members)

    def place(key: str) -> memoryview:
        member = members[_DATA + key]
        return memoryview(data)[member.start : member.start + member.size]

    tensors, notes = tensors_of(machine, value, len(data), place)
    return Weights(tensors, "torch zip", notes=(f"format version {version}", *notes))


def _inner(members: Mapping[str, Member]) -> dict[str, Member]:
    """Members by name without the one folder that they all lie in; another kind of zip is refused by what it is."""
    roots = {name.partition("/")[0] for name in members}
    inner = {name.partition("/")[2]: member for name, member in members.items()}
    if all(name.endswith(".npy") for name in members):
        raise refuse("E-NUMPY", "it is a NumPy archive (.npz)")
    if len(roots) == 1 and _PICKLE not in inner and any(name.startswith(_PT2) for name in inner):
        raise refuse("E-PT2", "it is an exported program (.pt2), which is code")
    if len(roots) > 1 or _PICKLE not in inner:
        raise refuse("E-ARCHIVE", f"it is a zip archive, but none of torch's: {', '.join(map(quoted, list(members)[:3]))}")
    if any(name.startswith(_SCRIPT) for name in inner):
        raise refuse("E-TORCHSCRIPT", "it is a TorchScript archive, which is code")
    return inner


def _aside(data: bytes, members: Mapping[str, Member]) -> str:
    """The format version; refuses members that a checkpoint does not have, and numbers that lie the other way round."""
    for name, member in members.items():
        if name != _PICKLE and not name.startswith(_DATA):
            if name not in _ASIDE:
                raise refuse("E-ZIP-MEMBER", f"it has the member {quoted(name)}, which no checkpoint has")
            if member.size > _ASIDE[name]:
                raise refuse("E-ZIP-MEMBER", f"its member {quoted(name)} has {amount(member.size)}")
    texts = {name: data[members[name].start : members[name].start + members[name].size] for name in _ASIDE if name in members}
    if texts.get("byteorder", b"little") != b"little":
        raise refuse("E-BYTEORDER", f"expected little-endian numbers, got {quoted(texts['byteorder'])}")
    version = texts.get("version", b"").strip()
    if not version.isdigit() or int(version) > 10:
        raise refuse("E-ZIP-MEMBER", f"expected a format version, got {quoted(version)}")
    return version.decode()


def _check_storages(storages: Mapping[str, Storage], members: Mapping[str, Member]) -> None:
    """Every storage is a member of its very length, and every such member is a storage that the pickle speaks of."""
    for key, storage in storages.items():
        member = members.get(_DATA + key)
        if member is None:
            raise refuse("E-STORAGE", f"its pickle speaks of the storage {quoted(key)}, which is not there")
        if member.size != storage.numel * itemsize(storage.dtype):
            what = f"{storage.numel:,} x {storage.dtype}"
            raise refuse("E-STORAGE", f"storage {quoted(key)} is said to hold {what}, but has {member.size:,} bytes")
    for name in members:
        if name.startswith(_DATA) and name[len(_DATA) :] not in storages:
            raise refuse("E-ZIP-MEMBER", f"its member {quoted(name)} belongs to no tensor")
