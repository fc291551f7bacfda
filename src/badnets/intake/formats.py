"""Tells by its first bytes what a model file is, whatever it is called, and reads the kinds that are read.

Names and endings are not looked at: they are chosen by whoever made the file. Torch files and safetensors are read with numpy alone. What
the others take, h5py among it, is imported when one of them comes, or by `import_all` where it can no longer be imported then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from badnets.core.errors import RefusedError
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.reasons import quoted, refuse
from badnets.intake.strict_safetensors import read_safetensors
from badnets.intake.torch_archive import read_torch_archive
from badnets.intake.torch_legacy import MAGIC, read_torch_legacy
from badnets.intake.weights import Weights
from badnets.intake.zip_structure import member_names

HDF5 = b"\x89HDF\r\n\x1a\n"
HEAD = 512
"""Bytes that tell a zip file, HDF5 and ONNX from all others."""
_STARTS = (
    (b"\x93NUMPY", "E-NUMPY", "it is a NumPy array"),
    (b"GGUF", "E-GGUF", "it is a GGUF file of a language model"),
    (b"\x1f\x8b", "E-ARCHIVE", "it is compressed by gzip"),
    (b"BZh", "E-ARCHIVE", "it is compressed by bzip2"),
    (b"\xfd7zXZ\x00", "E-ARCHIVE", "it is compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "E-ARCHIVE", "it is compressed by zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "E-ARCHIVE", "it is a 7z archive"),
    (b"Rar!", "E-ARCHIVE", "it is a RAR archive"),
)
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(6))
# Protocols 0 and 1 have no mark of their own: the first opcode of one, and the last.
_TEXT_OPCODES = b"(c]})ILFVSXUKN"
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
_ZIP = b"PK\x03\x04"
_KERAS = {b"config.json", b"model.weights.h5"}


class OtherKindError(Exception):
    """A file that takes more than what this module imports."""


_Kind = Literal["zip", "HDF5", "torch before 1.6", "safetensors", "ONNX"]


def read_weights(data: bytes, files: Mapping[str, bytes] | None = None, *, confined: bool = False) -> Weights:
    """The weights in the bytes of a file, with NaN and infinities looked for. `files`: others by name, in which some of them lie;
    `confined`: whether this process can reach nothing, without which no library of others is let at the file.

    Raises RefusedError: whatever is not read, and why; NeedsFilesError: where files lack.
    """
    try:
        return _reader(data, files or {}, confined=confined)(data).inspected()
    except (RefusedError, NeedsFilesError):
        raise
    except MemoryError as error:
        raise refuse("E-MEMORY", "reading it took more memory than its size allows") from error


def read_together(data: bytes, others: Sequence[bytes], *, confined: bool = False) -> Weights:
    """The same of a model and the other files that it asks for, in the order of their names. Raises NeedsFilesError: it asks for others."""
    try:
        return read_weights(data, confined=confined)
    except NeedsFilesError as error:
        if len(error.names) != len(others):
            raise
        return read_weights(data, dict(zip(error.names, others, strict=True)), confined=confined)


def is_keras(data: bytes) -> bool:
    """Whether the members of a zip file are those of a `.keras` archive."""
    return member_names(data) >= _KERAS


def begins_other(head: bytes) -> bool:
    """Whether what begins like this is read by what is not imported with this module; of a zip file its beginning does not say it."""
    try:
        return kind_of(head) in ("HDF5", "ONNX")
    except RefusedError:
        return False


def is_other(data: bytes) -> bool:
    """The same of a whole file. Raises RefusedError: a zip file that is none."""
    return begins_other(data[:HEAD]) or (data[:4] == _ZIP and is_keras(data))


def import_all() -> None:
    """Imports what every kind of file takes. Before the process is confined: it reads files."""
    from badnets.intake import hdf5_tree, hub_read, keras_file, onnx_graph  # noqa: F401 (for what comes later)

    hdf5_tree.prepare()


def kind_of(data: bytes) -> _Kind:
    """What a file is by its first bytes and its last. Raises RefusedError where it is nothing that is read."""
    if not data:
        raise refuse("E-EMPTY", "the file is empty")
    if data[:4] == _ZIP:
        return "zip"
    if data.startswith(HDF5):
        return "HDF5"
    if data.startswith(MAGIC):
        return "torch before 1.6"
    for start, code, what in _STARTS:
        if data.startswith(start):
            raise refuse(code, what)
    if data[4:8] == b"TFL3":
        raise refuse("E-TFLITE", "it is a TensorFlow Lite file")
    if data[257:262] == b"ustar":
        raise refuse("E-ARCHIVE", "it is a tar archive")
    # Before pickle: a header of 640 bytes begins with 0x80 0x02 as well. Its ninth byte is a brace, or a blank in a forged one.
    if data[8:9] in (b"{", b" ", b"\t", b"\n", b"\r") and not any(data[4:8]):
        return "safetensors"
    if data.startswith(_PICKLE_STARTS) or (data[0] in _TEXT_OPCODES and data[-1:] == b"."):
        raise refuse("E-PICKLE-RAW", "it is a pickle, which is a program")
    if data[:1] == b"\x08" and data[2:3] and data[2] in _ONNX_FIELDS:
        return "ONNX"
    raise refuse("E-FORMAT", f"it begins with {quoted(data[:8])}, which no weight file does")


def _reader(data: bytes, files: Mapping[str, bytes], *, confined: bool) -> Callable[[bytes], Weights]:
    kind = kind_of(data)
    if kind == "torch before 1.6":
        return read_torch_legacy
    if kind == "safetensors":
        return read_safetensors
    if kind == "zip" and not is_keras(data):
        return read_torch_archive
    if kind == "ONNX":
        from badnets.intake.onnx_graph import read_onnx

        return partial(read_onnx, files=files)
    from badnets.intake.keras_file import read_hdf5, read_keras

    return partial(read_keras if kind == "zip" else read_hdf5, confined=confined)
