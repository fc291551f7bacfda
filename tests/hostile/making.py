"""Writes model files byte by byte, honest ones and others: pickles from opcodes, zip files as torch lays them out, safetensors."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np


def text(value):
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    size = max(1, (value.bit_length() + 8) // 8)
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def call(module, attribute, *arguments):
    return name(module, attribute) + group(*arguments) + b"R"


ORDERED = name("collections", "OrderedDict") + b")R"


def storage(key="0", numel=6, kind="FloatStorage", *, device="cpu", module="torch"):
    return group(text("storage"), name(module, kind), text(key), text(device), number(numel)) + b"Q"


def tensor(shape=(2, 3), stride=None, offset=0, *, of=None, hooks=ORDERED, gradient=b"\x89", more=b""):
    stride = contiguous(shape) if stride is None else stride
    of = storage(numel=int(np.prod(shape))) if of is None else of
    sizes, steps = (group(*map(number, numbers)) for numbers in (shape, stride))
    return name("torch._utils", "_rebuild_tensor_v2") + group(of, number(offset), sizes, steps, gradient, hooks, more) + b"R"


def contiguous(shape):
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def table(items, *, empty=b"}"):
    """A dict of (name, already written value) pairs."""
    return empty + b"(" + b"".join((text(key) if isinstance(key, str) else key) + value for key, value in items) + b"u"


def made(kind, state=None, arguments=b")"):
    """An object of TorchScript: a class of that name, no arguments, its attributes."""
    return name(*kind.rsplit(".", 1)) + arguments + b"\x81" + (b"" if state is None else state + b"b")


def pickled(body, *, protocol=2):
    return b"\x80" + bytes([protocol]) + body + b"."


@dataclass
class Member:
    """One file of a zip and what its headers say; None: the truth."""

    name: bytes
    data: bytes
    flags: int = 0x0808
    central_flags: int | None = None
    method: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    central_name: bytes | None = None
    central_extra: bytes = b""
    comment: bytes = b""
    attributes: int = 0
    local: tuple[int, int, int] | None = None
    descriptor: tuple[int, int, int] | None = None
    extra: bytes | None = None
    listed: bool = True
    at: int | None = None
    before: bytes = b""


@dataclass
class Zip:
    """A zip file in torch's layout: sizes after the data, padding to 64 bytes, a 64-bit directory record."""

    members: list[Member]
    prefix: bytes = b""
    before_directory: bytes = b""
    after_directory: bytes = b""
    comment: bytes = b""
    suffix: bytes = b""
    end: dict = field(default_factory=dict)
    end64: dict | None = field(default_factory=dict)
    locator: dict = field(default_factory=dict)

    def written(self):
        out, places = bytearray(self.prefix), []
        for member in self.members:
            out += member.before
            places.append(len(out))
            out += _local(member, len(out))
        out += self.before_directory
        start, listed = len(out), 0
        for member, place in zip(self.members, places, strict=True):
            if member.listed:
                out += _central(member, place)
                listed += 1
        told = {"count": listed, "here": listed, "size": len(out) - start, "start": start}
        out += self.after_directory
        if self.end64 is not None:
            at = len(out)
            t = {**told, "record": 44, "this": 0, "first": 0, **self.end64}
            out += struct.pack(
                "<4sQ2H2I4Q", b"PK\x06\x06", t["record"], 0x31E, 45, t["this"], t["first"], t["here"], t["count"], t["size"], t["start"]
            )
            t = {"disk": 0, "at": at, "disks": 1, **self.locator}
            out += struct.pack("<4sIQI", b"PK\x06\x07", t["disk"], t["at"], t["disks"])
        t = {**told, "disk": 0, "first": 0, **self.end}
        out += struct.pack(
            "<4s4H2IH", b"PK\x05\x06", t["disk"], t["first"], t["here"], t["count"], t["size"], t["start"], len(self.comment)
        )
        return bytes(out + self.comment + self.suffix)


def _truth(member):
    crc = zlib.crc32(member.data) if member.crc is None else member.crc
    size = len(member.data) if member.size is None else member.size
    return crc, size if member.packed is None else member.packed, size


def _local(member, at):
    later = bool(member.flags & 8)
    crc, packed, size = member.local or ((0, 0, 0) if later else _truth(member))
    extra = member.extra
    if extra is None:
        extra = b"FB" + struct.pack("<H", gap := -(at + 34 + len(member.name)) % 64) + b"Z" * gap
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, member.flags, member.method, 0, 0, crc, packed, size, len(member.name), len(extra))
    tail = struct.pack("<4s3I", b"PK\x07\x08", *(member.descriptor or _truth(member))) if later else b""
    return head + member.name + extra + member.data + tail


def _central(member, place):
    shown = member.name if member.central_name is None else member.central_name
    flags = member.flags if member.central_flags is None else member.central_flags
    place = place if member.at is None else member.at
    return (
        struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02", 0, 0, flags, member.method, 0, 0, *_truth(member), len(shown), len(member.central_extra),
            len(member.comment), 0, 0, member.attributes, place,
        )
        + shown
        + member.central_extra
        + member.comment
    )  # fmt: skip


NUMBERS = np.arange(6, dtype=np.float32).tobytes()


def parts(pickle, storages=None, *, root="model", more=()):
    """The members of a checkpoint; `storages`: key -> bytes."""
    storages = {"0": NUMBERS} if storages is None else storages
    return [
        Member(f"{root}/data.pkl".encode(), pickle),
        Member(f"{root}/byteorder".encode(), b"little"),
        *(Member(f"{root}/data/{key}".encode(), data) for key, data in storages.items()),
        Member(f"{root}/version".encode(), b"3\n"),
        *(Member(f"{root}/{key}".encode(), data) for key, data in more),
    ]


def checkpoint(pickle=None, storages=None, **kwargs):
    pickle = pickled(table([("w", tensor())])) if pickle is None else pickle
    return Zip(parts(pickle, storages, **kwargs)).written()


def safetensors(header=None, data=NUMBERS, *, length=None, lead=b""):
    """`header`: a dict, or the bytes of one."""
    header = {"w": entry()} if header is None else header
    encoded = lead + (header if isinstance(header, bytes) else json.dumps(header).encode())
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + data


def entry(shape=(2, 3), offsets=(0, 24), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}
