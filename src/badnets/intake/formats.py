"""Tells by its first bytes what a model file is, whatever it is called, and reads the kinds that are read.

Names and endings are not looked at: they are chosen by whoever made the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from badnets.core.errors import RefusedError
from badnets.intake.hdf5_tree import SIGNATURE
from badnets.intake.keras_file import is_keras, read_hdf5, read_keras
from badnets.intake.onnx_graph import read_onnx
from badnets.intake.onnx_wire import NeedsFilesError
from badnets.intake.reasons import quoted, refuse
from badnets.intake.strict_safetensors import read_safetensors
from badnets.intake.torch_archive import read_torch_archive
from badnets.intake.torch_legacy import MAGIC, read_torch_legacy
from badnets.intake.weights import Weights

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


def _reader(data: bytes, files: Mapping[str, bytes], *, confined: bool = False) -> Callable[[bytes], Weights]:
    if not data:
        raise refuse("E-EMPTY", "the file is empty")
    if data[:4] == b"PK\x03\x04":
        return partial(_read_zip, confined=confined)
    if data.startswith(SIGNATURE):
        return partial(read_hdf5, confined=confined)
    if data.startswith(MAGIC):
        return read_torch_legacy
    for start, code, what in _STARTS:
        if data.startswith(start):
            raise refuse(code, what)
    if data[4:8] == b"TFL3":
        raise refuse("E-TFLITE", "it is a TensorFlow Lite file")
    if data[257:262] == b"ustar":
        raise refuse("E-ARCHIVE", "it is a tar archive")
    # Before pickle: a header of 640 bytes begins with 0x80 0x02 as well. Its ninth byte is a brace, or a blank in a forged one.
    if data[8:9] in (b"{", b" ", b"\t", b"\n", b"\r") and not any(data[4:8]):
        return read_safetensors
    if data.startswith(_PICKLE_STARTS) or (data[0] in _TEXT_OPCODES and data[-1:] == b"."):
        raise refuse("E-PICKLE-RAW", "it is a pickle, which is a program")
    if data[:1] == b"\x08" and data[2:3] and data[2] in _ONNX_FIELDS:
        return partial(read_onnx, files=files)
    raise refuse("E-FORMAT", f"it begins with {quoted(data[:8])}, which no weight file does")


def _read_zip(data: bytes, *, confined: bool) -> Weights:
    return read_keras(data, confined=confined) if is_keras(data) else read_torch_archive(data)
