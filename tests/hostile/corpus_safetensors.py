"""Hostile safetensors files, one case a line."""

from __future__ import annotations

import json

import numpy as np
from making import NUMBERS, entry, safetensors


def cases():
    def one(**changes):
        return safetensors({"w": {**entry(), **changes}})

    def raw(header, data=NUMBERS):
        return safetensors(header if isinstance(header, bytes) else header.encode(), data)

    def two(first, second, size=24):
        return safetensors({"a": entry(**first), "b": entry(**second)}, b"\0" * size)

    plain = json.dumps(entry())
    honest = safetensors()
    return {
        "header beyond the file": (safetensors(length=10_000), "E-HEADER"),
        "header of 2 ** 63": (safetensors(length=(1 << 63) - 1), "E-FORMAT"),
        "header of 9 MB": (safetensors(b'{"w":' + b" " * (9 << 20) + b"}"), "E-HEADER"),
        "header shorter than it is": (safetensors(length=20), "E-JSON"),
        "header longer by one": (safetensors(length=len(json.dumps({"w": entry()})) + 1), "E-JSON"),
        "header empty": (safetensors(length=0), "E-HEADER"),
        "leading blank": (safetensors(lead=b" "), "E-HEADER"),
        "leading newline": (safetensors(lead=b"\n"), "E-HEADER"),
        "half a file": (honest[: len(honest) // 2], "E-HEADER"),
        "last byte missing": (honest[:-1], "E-OFFSETS"),
        "a byte more": (honest + b"\0", "E-OFFSETS"),
        "a zip after it": (honest + b"PK\x05\x06" + b"\0" * 18, "E-OFFSETS"),
        "header is a list": (raw("[1]"), "E-FORMAT"),
        "not JSON": (raw("{w: 1}"), "E-JSON"),
        "not UTF-8": (raw(b'{"\xff": ' + plain.encode() + b"}"), "E-JSON"),
        "trailing comma": (raw(f'{{"w": {plain},}}'), "E-JSON"),
        "two headers": (raw(f'{{"w": {plain}}}{{"w": {plain}}}'), "E-JSON"),
        "duplicate tensor": (raw(f'{{"w": {plain}, "w": {plain}}}'), "E-DUPLICATE"),
        "duplicate by escape": (raw(f'{{"w": {plain}, "\\u0077": {plain}}}'), "E-DUPLICATE"),
        "duplicate field": (raw('{"w": {"dtype": "F32", "shape": [2, 3], "shape": [6], "data_offsets": [0, 24]}}'), "E-DUPLICATE"),
        "duplicate metadata": (raw(f'{{"__metadata__": {{}}, "__metadata__": {{}}, "w": {plain}}}'), "E-DUPLICATE"),
        "duplicate key in metadata": (raw(f'{{"__metadata__": {{"a": "1", "a": "2"}}, "w": {plain}}}'), "E-DUPLICATE"),
        "metadata with a number": (safetensors({"__metadata__": {"a": 1}, "w": entry()}), "E-JSON"),
        "metadata is a list": (safetensors({"__metadata__": [], "w": entry()}), "E-JSON"),
        "metadata nested": (safetensors({"__metadata__": {"a": {}}, "w": entry()}), "E-JSON"),
        "nested 100,000 deep": (raw(b'{"w":' + b"[" * 100_000), "E-JSON"),
        "nested 15,000 deep": (raw(b'{"w":' + b"[" * 15_000 + b"]" * 15_000 + b"}"), "E-JSON"),
        "20,000 tensors": (safetensors({str(i): entry((0,), (0, 0)) for i in range(20_000)}, b""), "E-COUNT"),
        "a million numbers": (raw(b'{"w":[' + b"1," * 1_000_000 + b"1]}"), "E-JSON"),
        "quotes without end": (raw(b'{"' + b'\\"' * 500_000), "E-JSON"),
        "number of 5,000 digits": (raw(b'{"w":' + b"9" * 5_000 + b"}"), "E-JSON"),
        "NaN as number": (raw(plain.replace("24", "NaN").join(('{"w": ', "}"))), "E-JSON"),
        "float as offset": (one(data_offsets=[0, 24.0]), "E-JSON"),
        "True as offset": (one(data_offsets=[False, 24]), "E-OFFSETS"),
        "negative offset": (one(data_offsets=[-24, 0]), "E-OFFSETS"),
        "offsets reversed": (one(data_offsets=[24, 0]), "E-SHAPE"),
        "one offset": (one(data_offsets=[24]), "E-OFFSETS"),
        "offsets as text": (one(data_offsets="0,24"), "E-OFFSETS"),
        "offset of 2 ** 64": (one(data_offsets=[1 << 64, (1 << 64) + 24]), "E-OFFSETS"),
        "shape too large": (one(shape=[2, 4]), "E-SHAPE"),
        "shape of 2 ** 62": (one(shape=[1 << 62, 4]), "E-SHAPE"),
        "product overflows to 24": (one(shape=[1 << 32, 1 << 32]), "E-SHAPE"),
        "negative shape": (one(shape=[-2, -3]), "E-SHAPE"),
        "float in shape": (one(shape=[2, 3.5]), "E-JSON"),
        "True in shape": (one(shape=[True, 6]), "E-SHAPE"),
        "nested shape": (one(shape=[[2, 3]]), "E-SHAPE"),
        "shape a text": (one(shape="2,3"), "E-SHAPE"),
        "nine axes": (one(shape=[1] * 8 + [6]), "E-SHAPE"),
        "unknown type": (one(dtype="F8_E4M3"), "E-DTYPE"),
        "type a list": (one(dtype=["F32"]), "E-DTYPE"),
        "complex": (one(dtype="C64"), "E-DTYPE"),
        "type of another width": (one(dtype="F64"), "E-SHAPE"),
        "type in small letters": (one(dtype="f32"), "E-DTYPE"),
        "field missing": (safetensors({"w": {"dtype": "F32", "shape": [6]}}), "E-JSON"),
        "field too many": (one(code="import os"), "E-JSON"),
        "tensor is a number": (safetensors({"w": 1}), "E-JSON"),
        "tensors overlap": (two({"shape": (4,), "offsets": (0, 16)}, {"shape": (4,), "offsets": (8, 24)}), "E-OFFSETS"),
        "tensors are the same": (two({}, {}), "E-OFFSETS"),
        "gap between tensors": (two({"shape": (2,), "offsets": (0, 8)}, {"shape": (2,), "offsets": (16, 24)}), "E-OFFSETS"),
        "gap before the first": (safetensors({"w": entry((2, 3), (8, 32))}, b"\0" * 32), "E-OFFSETS"),
        "empty one in a gap": (two({"shape": (0,), "offsets": (100, 100)}, {}), "E-OFFSETS"),
        "no tensor": (safetensors({}, b""), "E-NO-WEIGHTS"),
        "only metadata": (safetensors({"__metadata__": {"format": "pt"}}, b""), "E-NO-WEIGHTS"),
        "empty name": (safetensors({"": entry()}), "E-NAME"),
        "name with escape": (safetensors({"\x1b[31m": entry()}), "E-NAME"),
        "name with NUL": (safetensors({"w\0": entry()}), "E-NAME"),
        "name written backwards": (safetensors({"\u202ew": entry()}), "E-NAME"),
        "lone surrogate": (safetensors({"\ud800": entry()}), "E-NAME"),
        "name of 5,000 characters": (safetensors({"w" * 5_000: entry()}), "E-NAME"),
        "bool of 7": (safetensors({"w": entry((24,), dtype="BOOL")}, b"\7" * 24), "E-DTYPE"),
        "NaN": (safetensors(data=np.full(6, np.nan, np.float32).tobytes()), None),
        "infinity in half": (safetensors({"w": entry((12,), dtype="F16")}, b"\0\x7c" * 12), None),
    }  # fmt: skip
