"""The numbers of one HDF5 data set, taken from the file's bytes by us: the library is only asked where they lie and how they are packed.

Views where they lie in one piece; pieces packed by gzip, shuffle and fletcher32 are unpacked here, and never to more than they claim. Not
for numbers in other files, virtual data sets, other filters, texts, references and compounds: refused with a reason.
Format: https://support.hdfgroup.org/documentation/hdf5/latest/_s_p_e_c.html
"""

from __future__ import annotations

import itertools
import math
import zlib
from typing import Any, NamedTuple, final

import numpy as np

from badnets.intake.reasons import amount, quoted, refuse
from badnets.intake.weights import DTYPES, MOST_AXES, Tensor

MOST_RATIO, SPARE = 100, 16 << 20
"""How often its stored bytes a packed data set may claim; bytes by which all numbers may exceed the file."""
_MOST_PIECES, _SMALL = 100_000, 64 << 10
_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_FILTERS = {_DEFLATE: "gzip", _SHUFFLE: "shuffle", _FLETCHER: "fletcher32"}
_TYPES = {
    "IEEE_F16": "float16", "IEEE_F32": "float32", "IEEE_F64": "float64", "STD_I8": "int8", "STD_U8": "uint8", "STD_I16": "int16",
    "STD_U16": "uint16", "STD_I32": "int32", "STD_U32": "uint32", "STD_I64": "int64", "STD_U64": "uint64",
}  # fmt: skip


class _Piece(NamedTuple):
    """A stored chunk: where it begins in the data set, and which bytes of the file it is."""

    corner: tuple[int, ...]
    start: int
    size: int


@final
class Numbers:
    """Reads data sets of one file and remembers which bytes each has, so that none is read as two."""

    def __init__(self, h5py: Any, data: memoryview) -> None:
        self._h5py, self._data = h5py, data
        self._total = 0
        self._ranges: list[tuple[int, int, str]] = []

    def read(self, found: Any, name: str, note: str) -> Tensor:
        """The data set behind h5py's handle. `note`: its attribute `dtype`, by which Keras marks bfloat16. Raises RefusedError."""
        h5py, plist, shown = self._h5py, found.get_create_plist(), quoted(name)
        space = found.get_space()
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            raise refuse("E-STORAGE", f"data set {shown} holds nothing, not even an empty table")
        dtype, shape = self._dtype(found.get_type(), shown, note), tuple(space.get_simple_extent_dims())
        if len(shape) > MOST_AXES or any(not 0 <= size < 1 << 48 for size in shape):
            raise refuse("E-SHAPE", f"data set {shown} has the shape {quoted(shape)}")
        if plist.get_external_count():
            raise refuse("E-HDF5", f"data set {shown} has its numbers in other files")
        code = np.dtype(DTYPES[dtype][1])
        needed = math.prod(shape) * code.itemsize
        self._total += needed
        if self._total > len(self._data) + SPARE:
            raise refuse("E-HDF5", f"its data sets claim {amount(self._total)} and more in {amount(len(self._data))} of file")
        if not needed:
            return Tensor(dtype, np.zeros(shape, code))
        layout = plist.get_layout()
        if layout == h5py.h5d.CONTIGUOUS:
            return Tensor(dtype, self._whole(found, needed, shown).view(code).reshape(shape))
        if layout == h5py.h5d.CHUNKED:
            return Tensor(dtype, self._pieces(found, plist, (shape, code), shown))
        if layout == h5py.h5d.COMPACT and needed <= _SMALL:
            small = np.empty(shape, code)
            found.read(h5py.h5s.ALL, h5py.h5s.ALL, small)
            return Tensor(dtype, small)
        raise refuse("E-HDF5", f"data set {shown} is virtual or laid out in a way that is not read")

    def check_disjoint(self) -> None:
        """Refuses a file whose data sets share bytes."""
        for (_, end, name), (start, _, other) in itertools.pairwise(sorted(self._ranges)):
            if start < end:
                raise refuse("E-OVERLAP", f"data sets {quoted(name)} and {quoted(other)} share bytes at {start:,}")

    def _dtype(self, found: Any, shown: str, note: str) -> str:
        kinds, own = self._h5py.h5t, found.get_class()
        if own == kinds.OPAQUE and found.get_size() == 2 and note == "bfloat16":
            return "bfloat16"
        if own in (kinds.FLOAT, kinds.INTEGER):
            for start, dtype in _TYPES.items():
                if found == getattr(kinds, f"{start}LE"):
                    return dtype
                if found == getattr(kinds, f"{start}BE"):
                    raise refuse("E-BYTEORDER", f"expected little-endian numbers, data set {shown} has others")
        names = {kinds.STRING: "texts", kinds.REFERENCE: "references", kinds.VLEN: "lists", kinds.COMPOUND: "compounds"}
        raise refuse("E-DTYPE", f"data set {shown} holds {names.get(own, 'numbers of a kind that is not read')}")

    def _bytes(self, start: int | None, size: int, shown: str) -> memoryview:
        """A piece of the file, which from now on is this data set's."""
        if start is None or start < 0 or size < 0 or start + size > len(self._data):
            raise refuse("E-STORAGE", f"data set {shown} does not have its numbers within the file")
        self._ranges.append((start, start + size, shown[1:-1]))
        return self._data[start : start + size]

    def _whole(self, found: Any, needed: int, shown: str) -> np.ndarray:
        if found.get_storage_size() != needed:
            raise refuse("E-STORAGE", f"data set {shown} needs {needed:,} bytes and has {found.get_storage_size():,}")
        return np.frombuffer(self._bytes(found.get_offset(), needed, shown), np.uint8)

    def _pieces(self, found: Any, plist: Any, kind: tuple[tuple[int, ...], np.dtype], shown: str) -> np.ndarray:
        shape, code = kind
        chunk, filters = tuple(plist.get_chunk()), _filters(plist, shown)
        count = math.prod(-(-size // part) for size, part in zip(shape, chunk, strict=True)) if all(chunk) else _MOST_PIECES + 1
        each = math.prod(chunk) * code.itemsize
        pieces: list[_Piece] = []

        def keep(piece: Any) -> bool | None:
            if piece.filter_mask:
                raise refuse("E-HDF5", f"data set {shown} has pieces that leave out some of its filters")
            pieces.append(_Piece(tuple(piece.chunk_offset), int(piece.byte_offset), int(piece.size)))
            return True if len(pieces) > count else None

        if count > _MOST_PIECES or count * each > len(self._data) + SPARE:
            raise refuse("E-HDF5", f"data set {shown} of shape {quoted(shape)} lies in {count:,} pieces of {amount(each)}")
        found.chunk_iter(keep)
        stored = sum(piece.size for piece in pieces)
        if len({piece.corner for piece in pieces}) != count or len(pieces) != count:
            raise refuse("E-STORAGE", f"data set {shown} has {len(pieces):,} of its {count:,} pieces")
        if count * each > MOST_RATIO * stored + _SMALL:
            raise refuse("E-HDF5", f"data set {shown} claims {amount(count * each)} in {amount(stored)}, over {MOST_RATIO} times as much")
        whole = np.empty(shape, code)
        for piece in pieces:
            if any(at % part or not 0 <= at < size for at, part, size in zip(piece.corner, chunk, shape, strict=True)):
                raise refuse("E-STORAGE", f"data set {shown} has a piece at {quoted(piece.corner)}")
            raw = _unpacked(self._bytes(piece.start, piece.size, shown), (filters, each, code.itemsize), shown)
            into = whole[tuple(slice(at, at + part) for at, part in zip(piece.corner, chunk, strict=True))]
            into[...] = raw.view(code).reshape(chunk)[tuple(slice(size) for size in into.shape)]
        return whole


def _filters(plist: Any, shown: str) -> list[int]:
    codes = [int(plist.get_filter(number)[0]) for number in range(min(plist.get_nfilters(), 32))]
    odd = [code for code in codes if code not in _FILTERS]
    if odd or len(set(codes)) < len(codes):
        raise refuse(
            "E-HDF5",
            f"data set {shown} is packed by filter {(odd or codes)[0]}: only {', '.join(_FILTERS.values())} are read, each once",
        )
    return codes


def _unpacked(raw: memoryview, how: tuple[list[int], int, int], shown: str) -> np.ndarray:
    """The bytes of one piece. `how`: filters as they were applied, bytes that must come out, bytes of one number."""
    filters, each, item = how
    found: bytes | memoryview = raw
    for number, code in reversed(list(enumerate(filters))):
        wanted = each + (4 if _FLETCHER in filters[:number] else 0)
        if code == _DEFLATE:
            found = _inflated(found, wanted, shown)
        elif code == _FLETCHER:
            found = _checked(found, shown)
        elif len(found) == each:
            found = np.frombuffer(found, np.uint8).reshape(item, -1).T.tobytes()
    if len(found) != each:
        raise refuse("E-STORAGE", f"a piece of data set {shown} has {len(found):,} bytes, expected {each:,}")
    return np.frombuffer(found, np.uint8)


def _inflated(raw: bytes | memoryview, wanted: int, shown: str) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(raw, wanted + 1)
    except zlib.error as error:
        raise refuse("E-HDF5", f"a piece of data set {shown} is not gzip's: {quoted(str(error))}") from error
    if len(found) != wanted or not machine.eof or machine.unused_data:
        raise refuse("E-HDF5", f"a piece of data set {shown} does not unpack to the {wanted:,} bytes that it claims")
    return found


def _checked(raw: bytes | memoryview, shown: str) -> bytes | memoryview:
    """Without its checksum of Fletcher, J. (1982), An arithmetic checksum for serial transmissions; both halves count modulo 65535."""
    if len(raw) < 4:
        raise refuse("E-HDF5", f"a piece of data set {shown} is shorter than its checksum")
    body, told = raw[:-4], int.from_bytes(raw[-4:], "little")
    words = np.frombuffer(bytes(body) + b"\0" * (len(body) % 2), ">u2").astype(np.uint64)
    weights = np.arange(len(words), 0, -1, dtype=np.uint64) % 65535
    first, second = int(words.sum()) % 65535, int((words * weights).sum()) % 65535
    if (first, second) != ((told & 0xFFFF) % 65535, (told >> 16) % 65535):
        raise refuse("E-HDF5", f"a piece of data set {shown} does not have its checksum: the file is damaged or was edited")
    return body
