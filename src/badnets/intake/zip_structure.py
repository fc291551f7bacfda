"""Reads the structure of a zip file as torch writes it: every byte belongs to one member or to the directory, and both agree.

Two readers of a lenient zip parser's file can see two different models; here nothing may be hidden, repeated, compressed, encrypted or
prefixed. Not a general zip reader: members are smaller than 4 GB and stored; only what nobody reads may be deflated, the code of
TorchScript.
Format: PKWARE (2022), APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from badnets.intake.reasons import quoted, refuse
from badnets.intake.weights import MOST_TENSORS

MOST_MEMBERS = MOST_TENSORS + 100

_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL, _DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
_END_FORMAT = struct.Struct("<4s4H2IH")
_END64_FORMAT = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_FORMAT = struct.Struct("<4sIQI")
_CENTRAL_FORMAT = struct.Struct("<4s6H3I5H2I")
_LOCAL_FORMAT = struct.Struct("<4s5H3I2H")
_DESCRIPTOR_FORMAT = struct.Struct("<4s3I")

_SIZES_FOLLOW = 0x0008
_FLAGS = _SIZES_FOLLOW | 0x0800  # the latter: names in UTF-8
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PADDING = b"FB"
_LINK = 0o12
_DEFLATED = 8
_RATIO, _ANYWAY = 100, 1 << 16
"""So many times smaller may a deflated member be, or this small in any case."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its bytes are `content[start : start + size]`. `sealed`: they are deflated, and never unpacked."""

    name: str
    start: int
    size: int
    crc: int
    sealed: bool = False


class _Central(NamedTuple):
    """A member as the central directory has it."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int


def read_members(data: bytes, may_be_sealed: Callable[[str], bool] = lambda name: False) -> dict[str, Member]:
    """Members by name in the directory's order, the checksum of each that is not sealed verified. Raises RefusedError (E-ZIP...)."""
    start, end, count = _directory(data)
    entries = _central(data, start, end, count)
    members: dict[str, Member] = {}
    at = 0
    for entry in sorted(entries, key=lambda entry: entry.at):
        if entry.at != at:
            raise refuse("E-ZIP-HIDDEN", f"expected a member at byte {at:,}, the directory has the next at {entry.at:,}")
        member, at = _member(data, entry, start)
        members[member.name] = member
    if at != start:
        raise refuse("E-ZIP-HIDDEN", f"{start - at:,} bytes before its directory belong to no member")
    _check_names(entries, members)
    for member in members.values():
        if member.sealed and not may_be_sealed(member.name):
            raise refuse("E-ZIP-PACKED", f"member {quoted(member.name)} is compressed, which torch never does")
        content = memoryview(data)[member.start : member.start + member.size]
        if not member.sealed and zlib.crc32(content) != member.crc:
            raise refuse("E-ZIP-CRC", f"member {quoted(member.name)} does not have its checksum: the file is damaged or was edited")
    return {name: members[name] for name in (entry.name.decode() for entry in entries)}


def member_names(data: bytes) -> set[bytes]:
    """What the directory alone says, by which one kind of archive is told from another. Raises RefusedError (E-ZIP...)."""
    return {entry.name for entry in _central(data, *_directory(data))}


def _directory(data: bytes) -> tuple[int, int, int]:
    """(start, end, number of entries) of the central directory."""
    at = len(data) - _END_FORMAT.size
    if at < 0 or data[at : at + 4] != _END:
        raise refuse("E-ZIP", "expected the zip directory at its very end: it is cut off, or something follows")
    _, disk, first, here, count, size, start, comment = _END_FORMAT.unpack_from(data, at)
    if disk or first or comment or here != count:
        raise refuse("E-ZIP-HEADERS", "its zip directory speaks of several disks or has a comment")
    end = at
    if data[at - _LOCATOR_FORMAT.size : at - _LOCATOR_FORMAT.size + 4] == _LOCATOR:
        end = _check_end64(data, at, (count, size, start))
    if not count or count > MOST_MEMBERS:
        raise refuse("E-COUNT", f"expected 1 to {MOST_MEMBERS:,} members, got {count:,}")
    if start + size != end:
        raise refuse("E-ZIP-HEADERS", f"its directory of {size:,} bytes at {start:,} does not end where the file does, at {end:,}")
    return start, end, count


def _check_end64(data: bytes, at: int, short: tuple[int, int, int]) -> int:
    """Where the 64-bit end record begins; it must repeat what the short one says."""
    _, disk, end, disks = _LOCATOR_FORMAT.unpack_from(data, at - _LOCATOR_FORMAT.size)
    if end + _END64_FORMAT.size + _LOCATOR_FORMAT.size != at or data[end : end + 4] != _END64:
        raise refuse("E-ZIP-HEADERS", "its 64-bit directory record is not where its locator says")
    _, record, _, _, this, first, here, *long = _END64_FORMAT.unpack_from(data, end)
    if disk or disks != 1 or this or first or record != _END64_FORMAT.size - 12 or here != long[0] or tuple(long) != short:
        raise refuse("E-ZIP-HEADERS", "its two directory records do not agree")
    return end


def _central(data: bytes, start: int, end: int, count: int) -> list[_Central]:
    entries = []
    at = start
    for _ in range(count):
        if at + _CENTRAL_FORMAT.size > end or data[at : at + 4] != _CENTRAL:
            raise refuse("E-ZIP-HEADERS", f"its directory ends after {len(entries)} of {count} entries")
        fields = _CENTRAL_FORMAT.unpack_from(data, at)
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        name_size, extra, comment, disk, _, attributes, offset = fields[10:]
        at += _CENTRAL_FORMAT.size
        name = data[at : at + name_size]
        at += name_size
        if extra or comment or disk:
            raise refuse("E-ZIP-HEADERS", f"member {quoted(name)} has an extra field, a comment or another disk in the directory")
        if attributes >> 28 == _LINK:
            raise refuse("E-ZIP-NAME", f"member {quoted(name)} is a symbolic link")
        entries.append(_Central(name, flags, method, crc, packed, size, offset))
    if at != end:
        raise refuse("E-ZIP-HEADERS", f"{end - at:,} bytes follow the {count} entries of its directory")
    return entries


def _member(data: bytes, entry: _Central, limit: int) -> tuple[Member, int]:
    """The member, and where the next one has to begin; its local header must say what the directory says."""
    shown = quoted(entry.name)
    if entry.flags & _ENCRYPTED:
        raise refuse("E-ZIP-PACKED", f"member {shown} is encrypted")
    sealed = entry.method == _DEFLATED and entry.size <= max(_ANYWAY, _RATIO * entry.packed)
    if not sealed and (entry.method or entry.packed != entry.size):
        raise refuse("E-ZIP-PACKED", f"member {shown} is compressed ({entry.packed:,} to {entry.size:,} bytes), which torch never does")
    at = entry.at + _LOCAL_FORMAT.size
    if at > limit or data[entry.at : entry.at + 4] != _LOCAL:
        raise refuse("E-ZIP-HEADERS", f"there is no member at byte {entry.at:,}, where the directory has {shown}")
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL_FORMAT.unpack_from(data, entry.at)
    later = bool(flags & _SIZES_FOLLOW)
    expected = (0, 0, 0) if later else (entry.crc, entry.packed, entry.size)
    if (
        flags != entry.flags
        or flags & ~_FLAGS
        or method != entry.method
        or data[at : at + name_size] != entry.name
        or (crc, packed, size) != expected
    ):
        raise refuse("E-ZIP-HEADERS", f"the header of member {shown} contradicts the directory")
    _check_padding(data[at + name_size : at + name_size + extra_size], shown)
    start = at + name_size + extra_size
    end = start + entry.packed
    after = end + (_DESCRIPTOR_FORMAT.size if later else 0)
    if after > limit:
        raise refuse("E-ZIP-HEADERS", f"member {shown} reaches into the directory")
    if later and _DESCRIPTOR_FORMAT.unpack_from(data, end) != (_DESCRIPTOR, entry.crc, entry.packed, entry.size):
        raise refuse("E-ZIP-HEADERS", f"what follows member {shown} contradicts the directory")
    return Member(_name(entry.name), start, entry.packed, entry.crc, sealed), after


def _check_padding(extra: bytes, shown: str) -> None:
    """Only torch's own padding, which aligns what follows, and nothing in it."""
    if extra and (extra[:2] != _PADDING or int.from_bytes(extra[2:4], "little") != len(extra) - 4 or extra[4:].strip(b"Z")):
        raise refuse("E-ZIP-HIDDEN", f"member {shown} has an extra field that is not torch's padding")


def _name(name: bytes) -> str:
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("E-ZIP-NAME", f"member {quoted(name)} is not named in UTF-8") from error
    parts = text.split("/")
    if not text.isprintable() or "\\" in text or not all(parts) or {".", ".."} & set(parts):
        raise refuse("E-ZIP-NAME", f"member {quoted(text)} has a name that leads elsewhere, or a folder's, or one with odd characters")
    return text


def _check_names(entries: list[_Central], members: dict[str, Member]) -> None:
    if len(members) < len(entries):
        raise refuse("E-DUPLICATE", "its zip directory has a member twice")
    if len({name.casefold() for name in members}) < len(members):
        raise refuse("E-DUPLICATE", "two of its members have names that differ in capitals only")
