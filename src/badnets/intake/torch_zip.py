"""Reads the weights in a zip file that `torch.save` wrote, without torch: structure, pickle and tensors are each checked first.

For state dicts, alone or in a checkpoint; what torch writes otherwise is told apart in `torch_archive`. Refused: whole modules, sparse,
quantised and complex tensors, members that no tensor uses. What torch itself would do with such a file is none of its business.
"""

from __future__ import annotations

from collections.abc import Mapping

from badnets.intake.geometry import itemsize
from badnets.intake.opcodes import Machine, Storage
from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.state_dict import tensors_of
from badnets.intake.weights import Weights
from badnets.intake.zip_structure import Member

PICKLE = "data.pkl"
DATA = "data/"
_LONGEST_VERSION = 16
_ASIDE = {"byteorder": 16, ".format_version": 16, ".storage_alignment": 16, ".data/serialization_id": 64}
"""Members beside the pickle and the storages, with the most bytes that they may have."""


def read_torch_zip(data: bytes, members: Mapping[str, Member]) -> Weights:
    """The tensors of a torch checkpoint, as views of its bytes; `members`: by their names in its folder. Raises RefusedError."""
    version = read_aside(data, members)
    machine = Machine(content_of(data, members[PICKLE]))
    value = machine.run()
    check_storages(machine.storages, members, DATA)

    def place(key: str) -> memoryview:
        member = members[DATA + key]
        return memoryview(data)[member.start : member.start + member.size]

    tensors, notes = tensors_of(machine, value, len(data), place)
    return Weights(tensors, "torch zip", notes=(f"format version {version}", *notes))


def inner_members(members: Mapping[str, Member]) -> dict[str, Member]:
    """Members by name without the one folder that they all lie in; a zip that is not torch's is refused by what it is."""
    roots = {name.partition("/")[0] for name in members}
    inner = {name.partition("/")[2]: member for name, member in members.items()}
    if all(name.endswith(".npy") for name in members):
        raise refuse("E-NUMPY", "it is a NumPy archive (.npz)")
    if len(roots) > 1 or PICKLE not in inner:
        raise refuse("E-ARCHIVE", f"it is a zip archive, but none of torch's: {', '.join(map(quoted, list(members)[:3]))}")
    return inner


def content_of(data: bytes, member: Member) -> bytes:
    """The bytes of a member."""
    return data[member.start : member.start + member.size]


def read_aside(data: bytes, members: Mapping[str, Member], unread: tuple[str, ...] = (), versions: tuple[str, ...] = ("version",)) -> str:
    """The format version; refuses members that such an archive does not have, and numbers that lie the other way round.

    `unread`: how the names of others begin, which may be there; `versions`: the members of which one says the version.
    """
    small = _ASIDE | dict.fromkeys(versions, _LONGEST_VERSION)
    for name, member in members.items():
        if name != PICKLE and not name.startswith((DATA, *unread)):
            if name not in small:
                raise refuse("E-ZIP-MEMBER", f"it has the member {quoted(name)}, which no checkpoint has")
            if member.size > small[name]:
                raise refuse("E-ZIP-MEMBER", f"its member {quoted(name)} has {amount(member.size)}")
    texts = {name: content_of(data, members[name]) for name in small if name in members}
    if texts.get("byteorder", b"little") != b"little":
        raise refuse("E-BYTEORDER", f"expected little-endian numbers, got {quoted(texts['byteorder'])}")
    version = b" ".join(texts[name] for name in versions if name in texts).strip()
    if not version.isdigit() or int(version) > 10:
        raise refuse("E-ZIP-MEMBER", f"expected a format version, got {quoted(version)}")
    return version.decode()


def check_storages(storages: Mapping[str, Storage], members: Mapping[str, Member], folder: str) -> None:
    """Every storage is a member of its very length, and every member of the folder is a storage that the pickle speaks of."""
    for key, storage in storages.items():
        member = members.get(folder + key)
        if member is None:
            raise refuse("E-STORAGE", f"its pickle speaks of the storage {quoted(key)}, which is not there")
        if member.size != storage.numel * itemsize(storage.dtype):
            what = f"{storage.numel:,} x {storage.dtype}"
            raise refuse("E-STORAGE", f"storage {quoted(key)} is said to hold {what}, but has {member.size:,} bytes")
    for name in members:
        if name.startswith(folder) and name[len(folder) :] not in storages:
            raise refuse("E-ZIP-MEMBER", f"its member {quoted(name)} belongs to no tensor")
