"""Reads what `torch.save` wrote before 1.6: a chain of pickles, then the storages one after the other; by the machine that calls nothing.

The order is: a magic number, a version, what machine it was, the object, the keys of its storages, their numbers. State dicts alone or in a
checkpoint, as in zip files; the same refusals. Not for tar files from before 0.2.
"""

from __future__ import annotations

from badnets.intake.geometry import itemsize
from badnets.intake.opcodes import Machine
from badnets.intake.reasons import quoted, refuse
from badnets.intake.state_dict import tensors_of
from badnets.intake.weights import Weights

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_VERSION = 1001
_COUNT = 8


def read_torch_legacy(data: bytes) -> Weights:
    """The tensors of such a file, as views of its bytes. Raises RefusedError."""
    values, at = [], len(MAGIC)
    machine = Machine(b"")
    for number in range(4):
        part = Machine(data[at:], chained=True)
        values.append(part.run())
        at += part.end
        machine = part if number == 2 else machine
    version, system, value, keys = values
    if version != _VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise refuse("E-LEGACY", f"expected version {_VERSION} of a little-endian machine, got {quoted(version)}")
    storages = machine.storages
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise refuse("E-STORAGE", f"the keys of its storages are not those of the {len(storages)} that its object speaks of")
    places: dict[str, memoryview] = {}
    for key in keys:
        storage = storages[key]
        size = storage.numel * itemsize(storage.dtype)
        if int.from_bytes(data[at : at + _COUNT], "little") != storage.numel or at + _COUNT + size > len(data):
            raise refuse("E-STORAGE", f"storage {quoted(key)} of {storage.numel:,} numbers is cut off, or says another count")
        places[key] = memoryview(data)[at + _COUNT : at + _COUNT + size]
        at += _COUNT + size
    if at != len(data):
        raise refuse("E-LEGACY", f"{len(data) - at:,} bytes follow its last storage")
    tensors, notes = tensors_of(machine, value, len(data), places.__getitem__)
    return Weights(tensors, "torch before 1.6", notes=tuple(notes))
