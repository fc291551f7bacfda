"""Strict reader of .npz files: plain integer arrays only, each length checked before anything of that length is allocated; no pickle.

Does not apply to arrays of objects, floats, structures or in Fortran order.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from badnets.core.errors import RefusedError
from badnets.datasets._open import MIB, opened, reason, show, take

LIMIT = 256 * MIB
_MAX_RATIO = 100
_MAX_MEMBERS = 64
_MAX_DIRECTORY = 64 * 1024
_HEADER = re.compile(rb"\{'descr': '([^']{1,40})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,12}(?:, ?|,?(?=\))))*)\),? ?\} *\n")
_END = struct.Struct("<4s4H2LH")
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, LookupError, struct.error, zlib.error)


def read_npz(path: Path, wanted: Mapping[str, tuple[str, int]], *, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """The arrays `wanted` (name -> dtype such as "|u1", number of dimensions); other members are never unpacked."""
    with opened(path) as file:
        try:
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                members = _members(path, archive)
                missing = [name for name in wanted if f"{name}.npy" not in members]
                if missing:
                    raise _refuse("E-MISSING", path, f"expected the array {missing[0]!r}, it is missing")
                chosen = {name: members[f"{name}.npy"] for name in wanted}
                if sum(info.file_size for info in chosen.values()) > limit:
                    raise _refuse("E-LARGE", path, f"expected at most {limit:,} bytes of arrays, it claims more")
                return {name: _array(path, archive, info, *wanted[name]) for name, info in chosen.items()}
        except _BROKEN as error:
            raise _refuse("E-CORRUPT", path, f"damaged archive: {reason(error)}") from error


def _check_directory(path: Path, file: BinaryIO) -> None:
    """The end record must be the last bytes, plain (not zip64) and small: zipfile itself would read millions of entries."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 20))
    tail = file.read()
    file.seek(0)
    if tail[:4] == b"PK\x06\x07" and len(tail) == _END.size + 20:
        raise _refuse("E-ARCHIVE", path, "expected a plain zip directory, got zip64")
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise _refuse("E-ARCHIVE", path, "expected an .npz file that ends with its zip directory, got something else")
    _, _, _, _, count, length, _, _ = _END.unpack(tail[-_END.size :])
    if count > _MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise _refuse("E-LARGE", path, f"expected at most {_MAX_MEMBERS} members, its directory has {count:,} ({length:,} bytes)")


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        if info.filename in members:
            raise _refuse("E-ARCHIVE", path, f"expected each member once, {show(info.filename)} is there twice")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refuse("E-ARCHIVE", path, f"expected stored or deflated members, {show(info.filename)} is something else")
        if info.file_size > _MAX_RATIO * max(info.compress_size, 4096):
            raise _refuse("E-LARGE", path, f"expected at most {_MAX_RATIO} times the packed size, {show(info.filename)} claims more")
        members[info.filename] = info
    return members


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, dtype: str, rank: int) -> np.ndarray:
    with archive.open(info) as file:
        start = file.read(10)
        if start[:8] != b"\x93NUMPY\x01\x00" or len(start) < 10:
            raise _refuse(
                "E-MAGIC", path, f"{show(info.filename)}: expected an npy array of version 1.0, got {start[:8].hex(' ') or 'nothing'}"
            )
        shape = _shape(path, info, file.read(int.from_bytes(start[8:], "little")), dtype, rank)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        held = info.file_size - file.tell()
        if size != held:
            raise _refuse("E-SHAPE", path, f"{show(info.filename)}: its shape {shape} needs {size:,} bytes, it holds {held:,}")
        content = take(path, file, size + 1)  # ty: ignore[invalid-argument-type]
    if len(content) != size:
        raise _refuse("E-TRUNCATED", path, f"{show(info.filename)}: expected {size:,} bytes, got {len(content):,}")
    return np.frombuffer(content, dtype).reshape(shape)


def _shape(path: Path, info: zipfile.ZipInfo, header: bytes, dtype: str, rank: int) -> tuple[int, ...]:
    match = _HEADER.fullmatch(header)
    if match is None:
        raise _refuse("E-MAGIC", path, f"{show(info.filename)}: expected a plain npy header, got {show(header[:60])}")
    if match[1].startswith(b"|O"):
        raise _refuse("E-PICKLE", path, f"{show(info.filename)}: expected {dtype}, got Python objects, which run code when loaded")
    if match[1] != dtype.encode() or match[2] != b"False":
        raise _refuse("E-DTYPE", path, f"{show(info.filename)}: expected {dtype} in C order, got {show(match[1].decode('latin-1'))}")
    shape = tuple(int(part) for part in match[3].split(b",") if part.strip())
    if len(shape) != rank or 0 in shape:
        raise _refuse("E-SHAPE", path, f"{show(info.filename)}: expected {rank} dimensions, none empty, got the shape {shape}")
    return shape


def _refuse(code: str, path: Path, message: str) -> RefusedError:
    return RefusedError(code, f"{show(path)}: {message}. Nothing was loaded.", hint="Get the file again, or remove it.")
