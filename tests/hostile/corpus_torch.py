"""Hostile torch files, one case a line: what stands in the file -> the error code. Written anew on every run; nothing is loaded here."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from making import (
    NUMBERS,
    ORDERED,
    Member,
    Zip,
    call,
    checkpoint,
    group,
    name,
    number,
    parts,
    pickled,
    storage,
    table,
    tensor,
    text,
)
from payloads import FUNCTIONS, live

HONEST = pickled(table([("w", tensor())]))
BIG = 1 << 40


def raw(canary):
    """Pickles as they are: never read, whatever they do."""
    return {f"raw pickle: {key}": (data, "E-PICKLE-RAW") for key, data in live(canary).items()}


def within(canary):
    """The same pickles as the data.pkl of a torch file."""
    wrong = {data[:2]: "E-PROTOCOL" for data in live(canary).values() if data[:2] != b"\x80\x02"}
    codes = {"EXT by copyreg": "E-GLOBAL", "POP_MARK": "E-OPCODE", "memo overwritten": "E-OPCODE", "after an unused name": "E-OPCODE"}
    return {
        f"torch pickle: {key}": (checkpoint(data), wrong.get(data[:2]) or codes.get(key, "E-GLOBAL")) for key, data in live(canary).items()
    }


def functions():
    found = {}
    for module, attribute in FUNCTIONS:
        code = pickled(table([("w", tensor()), ("x", call(module, attribute, text("pass")))]))
        found[f"torch pickle calls {module}.{attribute}"] = (checkpoint(code), "E-GLOBAL")
    return found


def inert():
    """The pickle calls nothing that is not allowed, but is not what torch writes."""
    w = tensor()
    bodies = {
        "two values": (w + w, "E-PICKLE"),
        "no value": (b"", "E-PICKLE"),
        "open mark": (b"(" + table([("w", w)]), "E-PICKLE"),
        "empty stack": (b"R", "E-PICKLE"),
        "no mark": (w + b"t", "E-PICKLE"),
        "tuple below a mark": (w + b"(\x85", "E-PICKLE"),
        "memo not there": (b"h\x07", "E-PICKLE"),
        "memo twice": (b"}q\x00q\x00", "E-PICKLE"),
        "memo of nothing": (b"q\x00", "E-PICKLE"),
        "odd items": (b"}(" + text("w") + b"u", "E-PICKLE"),
        "items into a list": (b"](" + text("w") + w + b"u", "E-PICKLE"),
        "append to a table": (b"}" + w + b"a", "E-PICKLE"),
        "a tensor as key": (b"}" + w + b"Ns", "E-PICKLE"),
        "a tuple as key": (b"})Ns", "E-PICKLE"),
        "key twice": (table([("w", w), ("w", w)]), "E-DUPLICATE"),
        "key as 1 and True": (table([(number(1), w), (b"\x88", w)]), "E-DUPLICATE"),
        "wide whole number": (b"\x8a\x10" + b"\xff" * 16, "E-PICKLE"),
        "text not UTF-8": (text(b"\xff\xfe"), "E-PICKLE"),
        "lone surrogate": (text("\ud800"), "E-PICKLE"),
        "text longer than the file": (b"X\xff\xff\xff\xffabc", "E-PICKLE"),
        "endless name": (b"c" + b"a" * 500, "E-PICKLE"),
        "name over two lines": (b"ccollections\nOrdered", "E-PICKLE"),
        "call of a text": (text("exec") + group(text("pass")) + b"R", "E-CALL"),
        "call of a tensor": (w + b")R", "E-CALL"),
        "call without a tuple": (name("collections", "OrderedDict") + b"]R", "E-CALL"),
        "call of a storage class": (call("torch", "FloatStorage", number(6)), "E-CALL"),
        "OrderedDict of something": (call("collections", "OrderedDict", b"]"), "E-CALL"),
        "state of a plain table": (b"}" + text("_metadata") + b"Nsb", "E-PICKLE"),
        "state with another key": (ORDERED + b"}" + text("__class__") + b"Nsb", "E-CALL"),
        "state of a tensor": (w + b"}" + text("_metadata") + b"}sb", "E-PICKLE"),
        "state as a tuple": (ORDERED + b"N}\x86b", "E-CALL"),
        "hooks": (tensor(hooks=table([("h", text("x"))], empty=ORDERED)), "E-CALL"),
        "hooks of None": (tensor(hooks=b"N"), "E-CALL"),
        "parameter of nothing": (call("torch._utils", "_rebuild_parameter", b"N", b"\x88", ORDERED), "E-CALL"),
        "parameter with hooks": (call("torch._utils", "_rebuild_parameter", w, b"\x88", b"]"), "E-CALL"),
        "seven parts": (tensor(more=b"}"), "E-CALL"),
        "five parts": (tensor(hooks=b""), "E-CALL"),
        "foreign reference": (text("x") + b"Q", "E-STORAGE"),
        "reference to a file": (group(text("file"), text("/etc/passwd")) + b"Q", "E-STORAGE"),
        "storage of a function": (tensor(of=storage(module="collections", kind="OrderedDict")), "E-STORAGE"),
        "storage with a number as key": (group(text("storage"), name("torch", "FloatStorage"), number(0), text("cpu"), number(6)) + b"Q", "E-STORAGE"),
        "storage of six parts": (group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(6), b"N") + b"Q", "E-STORAGE"),
        "storage of negative length": (group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), b"J\xff\xff\xff\xff") + b"Q", "E-STORAGE"),
        "one storage, two types": (table([("w", w), ("v", tensor(of=storage(kind="IntStorage")))]), "E-STORAGE"),
        "one storage, two lengths": (table([("w", w), ("v", tensor((1,), of=storage(numel=5)))]), "E-STORAGE"),
        "storage not there": (table([("w", tensor(of=storage("7")))]), "E-STORAGE"),
        "storage outside": (table([("w", tensor(of=storage("../data.pkl")))]), "E-STORAGE"),
    }  # fmt: skip
    found = {f"torch pickle: {key}": (checkpoint(pickled(body)), code) for key, (body, code) in bodies.items()}
    for protocol in (0, 1, 3, 4, 5, 255):
        found[f"torch pickle of protocol {protocol}"] = (checkpoint(pickled(table([("w", w)]), protocol=protocol)), "E-PROTOCOL")
    found["torch pickle: bytes after the end"] = (checkpoint(HONEST + HONEST), "E-PICKLE")
    found["torch pickle: cut off"] = (checkpoint(HONEST[:-3]), "E-PICKLE")
    found["torch pickle: empty"] = (checkpoint(b""), "E-PROTOCOL")
    return found


def containers():
    """The zip file is not what torch writes."""

    def but(index=2, **changes):
        members = parts(HONEST)
        for key, value in changes.items():
            setattr(members[index], key, value)
        return Zip(members).written()

    def plus(*more, **kwargs):
        return Zip([*parts(HONEST), *more], **kwargs).written()

    def end(**kwargs):
        return Zip(parts(HONEST), **kwargs).written()

    hidden = Member(b"model/data.pkl", pickled(call("os", "system", text("true"))))
    packed = zlib.compress(b"\0" * 1_000_000)[2:-4]
    honest = Zip(parts(HONEST)).written()
    return {
        "prefix": (b"#!/bin/sh\n" + honest, "E-FORMAT"),
        "prefix that is a member": (end(prefix=b"PK\x03\x04" + b"\0" * 60), "E-ZIP-HIDDEN"),
        "suffix": (honest + b"\0", "E-ZIP"),
        "second zip after it": (honest + honest, "E-ZIP-HEADERS"),
        "comment": (end(comment=b"PK\x05\x06 hi"), "E-ZIP"),
        "half of it": (honest[: len(honest) // 2], "E-ZIP"),
        "only its first bytes": (honest[:4], "E-ZIP"),
        "only an end record": (honest[:4] + honest[-22:], "E-ZIP-HEADERS"),
        "unlisted member": (plus(Member(b"model/x", b"x", listed=False)), "E-ZIP-HIDDEN"),
        "unlisted data.pkl first": (Zip([Member(b"model/data.pkl", b"x", listed=False), *parts(HONEST)]).written(), "E-ZIP-HIDDEN"),
        "bytes between members": (but(before=b"hidden"), "E-ZIP-HIDDEN"),
        "bytes before the directory": (end(before_directory=b"hidden"), "E-ZIP-HIDDEN"),
        "bytes after the directory": (end(after_directory=b"hidden"), "E-ZIP-HEADERS"),
        "hidden in the padding": (but(extra=b"FB\x06\x00hidden"), "E-ZIP-HIDDEN"),
        "another extra field": (but(extra=b"UT\x04\x00abcd"), "E-ZIP-HIDDEN"),
        "padding of a false length": (but(extra=b"FB\x60\x00ZZ"), "E-ZIP-HIDDEN"),
        "member twice": (plus(Member(b"model/data/0", NUMBERS)), "E-DUPLICATE"),
        "data.pkl twice": (plus(hidden), "E-DUPLICATE"),
        "data.pkl in capitals": (plus(Member(b"model/DATA.PKL", b"x")), "E-DUPLICATE"),
        "one place for two members": (plus(Member(b"model/byteorder", b"little", at=0)), "E-ZIP-HIDDEN"),
        "encrypted": (but(flags=0x0809), "E-ZIP-PACKED"),
        "encrypted in the directory": (but(central_flags=0x0809), "E-ZIP-PACKED"),
        "strongly encrypted": (but(flags=0x0848), "E-ZIP-PACKED"),
        "directory encrypted": (but(flags=0x2808), "E-ZIP-PACKED"),
        "encrypted in the local header only": (but(flags=0x0809, central_flags=0x0808), "E-ZIP-HEADERS"),
        "deflated": (but(method=8), "E-ZIP-PACKED"),
        "deflated bomb": (but(method=8, data=packed, size=1_000_000, packed=len(packed)), "E-ZIP-PACKED"),
        "bzip2": (but(method=12), "E-ZIP-PACKED"),
        "lzma": (but(method=14), "E-ZIP-PACKED"),
        "unknown packing": (but(method=99), "E-ZIP-PACKED"),
        "stored, two sizes": (but(packed=10), "E-ZIP-PACKED"),
        "checksum wrong": (but(crc=1), "E-ZIP-CRC"),
        "checksum wrong at the data": (but(descriptor=(1, 24, 24)), "E-ZIP-HEADERS"),
        "checksum wrong in the directory": (but(crc=1, descriptor=(zlib.crc32(NUMBERS), 24, 24)), "E-ZIP-HEADERS"),
        "sizes in the local header": (but(local=(0, 24, 24)), "E-ZIP-HEADERS"),
        "no sizes after the data": (but(flags=0x0800, local=(1, 24, 24)), "E-ZIP-HEADERS"),
        "another size at the data": (but(descriptor=(zlib.crc32(NUMBERS), 23, 23)), "E-ZIP-HEADERS"),
        "size beyond the file": (but(size=1 << 31, packed=1 << 31), "E-ZIP-HEADERS"),
        "size of 4 GB": (but(size=0xFFFFFFFF, packed=0xFFFFFFFF), "E-ZIP-HEADERS"),
        "two names": (but(central_name=b"model/data/1"), "E-ZIP-HEADERS"),
        "two names of one length": (but(0, central_name=b"model/data.PKL"), "E-ZIP-HEADERS"),
        "directory points past a member": (but(at=1), "E-ZIP-HIDDEN"),
        "directory points beyond": (but(at=0x7FFFFFFF), "E-ZIP-HIDDEN"),
        "extra field in the directory": (but(central_extra=b"up\x04\x00abcd"), "E-ZIP-HEADERS"),
        "comment on a member": (but(comment=b"x"), "E-ZIP-HEADERS"),
        "symbolic link": (but(attributes=0o120777 << 16), "E-ZIP-NAME"),
        "absolute name": (plus(Member(b"/etc/passwd", b"x")), "E-ZIP-NAME"),
        "name with ..": (plus(Member(b"model/../../x", b"x")), "E-ZIP-NAME"),
        "name with .": (plus(Member(b"model/./data.pkl", b"x")), "E-ZIP-NAME"),
        "name with backslash": (plus(Member(b"model\\data.pkl", b"x")), "E-ZIP-NAME"),
        "name with a drive": (plus(Member(b"C:/x", b"x")), "E-ARCHIVE"),
        "name with NUL": (plus(Member(b"model/data.pkl\0.txt", b"x")), "E-ZIP-NAME"),
        "name with escape": (plus(Member(b"model/\x1b[2J", b"x")), "E-ZIP-NAME"),
        "name not UTF-8": (plus(Member(b"model/\xff", b"x")), "E-ZIP-NAME"),
        "name written backwards": (plus(Member("model/\u202etxt".encode(), b"x")), "E-ZIP-NAME"),
        "empty name": (plus(Member(b"", b"x")), "E-ZIP-NAME"),
        "a folder": (plus(Member(b"model/data/", b"")), "E-ZIP-NAME"),
        "count of the directory": (end(end={"count": 2, "here": 2}), "E-ZIP-HEADERS"),
        "count without 64-bit record": (end(end={"count": 2, "here": 2}, end64=None), "E-ZIP-HEADERS"),
        "no members": (end(end={"count": 0, "here": 0}, end64=None), "E-COUNT"),
        "65,535 members": (end(end={"count": 65535, "here": 65535}, end64=None), "E-COUNT"),
        "size of the directory": (end(end={"size": 10}, end64=None), "E-ZIP-HEADERS"),
        "start of the directory": (end(end={"start": 0}, end64=None), "E-ZIP-HEADERS"),
        "second disk": (end(end={"disk": 1}), "E-ZIP-HEADERS"),
        "64-bit count": (end(end64={"count": 2, "here": 2}), "E-ZIP-HEADERS"),
        "64-bit start": (end(end64={"start": 0}), "E-ZIP-HEADERS"),
        "64-bit record of a false length": (end(end64={"record": 1000}), "E-ZIP-HEADERS"),
        "64-bit locator": (end(locator={"at": 0}), "E-ZIP-HEADERS"),
        "64-bit disks": (end(locator={"disks": 2}), "E-ZIP-HEADERS"),
        "no data.pkl": (Zip(parts(HONEST)[1:]).written(), "E-ARCHIVE"),
        "two folders": (plus(Member(b"other/data.pkl", HONEST)), "E-ARCHIVE"),
        "no folder": (Zip([Member(m.name.removeprefix(b"model/"), m.data) for m in parts(HONEST)]).written(), "E-ARCHIVE"),
        "no version": (Zip(parts(HONEST)[:-1]).written(), "E-ZIP-MEMBER"),
        "version no number": (but(3, data=b"\xff"), "E-ZIP-MEMBER"),
        "version of the future": (but(3, data=b"999\n"), "E-ZIP-MEMBER"),
        "big-endian": (but(1, data=b"big"), "E-BYTEORDER"),
        "byte order in prose": (but(1, data=b"little, mostly, I think so"), "E-ZIP-MEMBER"),
        "member of its own": (plus(Member(b"model/setup.py", b"import os")), "E-ZIP-MEMBER"),
        "second pickle": (plus(Member(b"model/data2.pkl", HONEST)), "E-ZIP-MEMBER"),
        "storage that nobody uses": (plus(Member(b"model/data/1", b"smuggled")), "E-ZIP-MEMBER"),
        "storage too short": (checkpoint(storages={"0": NUMBERS[:-1]}), "E-STORAGE"),
        "storage too long": (checkpoint(storages={"0": NUMBERS + b"\0"}), "E-STORAGE"),
        "storage missing": (checkpoint(storages={}), "E-STORAGE"),
        "zip by Python, deflated": (_archive({"model/data.pkl": HONEST, "model/version": b"3"}), "E-ZIP-PACKED"),
    }  # fmt: skip


def geometry():
    """Tensors that do not lie densely within their storage. A storage of six numbers, unless said."""

    def one(*args, **kwargs):
        return checkpoint(pickled(table([("w", tensor(*args, **{"of": storage(), **kwargs}))])))

    def two(first, second):
        return checkpoint(pickled(table([("w", tensor(*first, of=storage())), ("v", tensor(*second, of=storage()))])))

    bools = table([("w", tensor((6,), of=storage(kind="BoolStorage")))])
    return {
        "zero strides, 4 TB": (one((1 << 20, 1 << 20), (0, 0)), "E-STRIDE"),
        "zero stride of one axis": (one((6, 1000), (1, 0)), "E-STRIDE"),
        "zero stride, small": (one((2, 3), (0, 1)), "E-STRIDE"),
        "expanded scalar": (one((BIG,), (0,)), "E-STRIDE"),
        "overlapping windows": (one((4, 3), (1, 1)), "E-STRIDE"),
        "stride too large": (one((2, 3), (4, 1)), "E-STRIDE"),
        "stride of two": (one((3,), (2,)), "E-STRIDE"),
        "gap between rows": (one((2, 2), (3, 1)), "E-STRIDE"),
        "huge stride": (one((2,), (1 << 47,)), "E-STRIDE"),
        "equal strides": (one((2, 2), (1, 1)), "E-STRIDE"),
        "two numbers more": (one((8,)), "E-BOUNDS"),
        "2 ** 40 numbers": (one((BIG,)), "E-BOUNDS"),
        "product beyond 64 bits": (one((1 << 40, 1 << 40)), "E-BOUNDS"),
        "product of nothing and much": (one((0, 1 << 47), (1, 1)), None),
        "offset past the end": (one((1,), offset=6), "E-BOUNDS"),
        "offset far away": (one((1,), offset=1 << 47), "E-BOUNDS"),
        "offset and all": (one((6,), offset=1), "E-BOUNDS"),
        "empty beyond the end": (one((0,), offset=7), "E-BOUNDS"),
        "scalar beyond the end": (one((), (), offset=6), "E-BOUNDS"),
        "negative size": (_sizes(b"J\xff\xff\xff\xff", number(1)), "E-CALL"),
        "negative stride": (_sizes(number(6), b"J\xff\xff\xff\xff"), "E-CALL"),
        "negative offset": (checkpoint(pickled(table([("w", tensor().replace(number(0) + b"(" + number(2), b"J\xff\xff\xff\xff(" + number(2)))]))), "E-CALL"),
        "size as a float": (_sizes(b"G" + struct.pack(">d", 6.0), number(1)), "E-CALL"),
        "size as True": (_sizes(b"\x88", number(1)), "E-CALL"),
        "size as a text": (_sizes(text("6"), number(1)), "E-CALL"),
        "size of 2 ** 62": (_sizes(number(1 << 62), number(1)), "E-CALL"),
        "fewer strides": (one((2, 3), (1,)), "E-SHAPE"),
        "more strides": (one((6,), (1, 1)), "E-SHAPE"),
        "nine axes": (one((1,) * 9), "E-SHAPE"),
        "forty axes": (one((1,) * 40), "E-SHAPE"),
        "halves overlap": (two(((4,), (1,), 0), ((4,), (1,), 2)), "E-OVERLAP"),
        "one within another": (two(((6,), (1,), 0), ((2,), (1,), 2)), "E-OVERLAP"),
        "one number shared": (two(((4,), (1,), 0), ((3,), (1,), 3)), "E-OVERLAP"),
        "the same numbers transposed": (two(((2, 3), (3, 1)), ((2, 3), (1, 2))), "E-OVERLAP"),
        "the same numbers reshaped": (two(((2, 3), (3, 1)), ((6,), (1,))), "E-OVERLAP"),
        "storage said to be 2 ** 40": (checkpoint(pickled(table([("w", tensor(of=storage(numel=BIG)))]))), "E-STORAGE"),
        "storage in a wider type": (checkpoint(pickled(table([("w", tensor(of=storage(kind="DoubleStorage")))]))), "E-STORAGE"),
        "bool of 2": (checkpoint(pickled(bools), {"0": b"\0\1\2\0\0\0"}), "E-DTYPE"),
        "bad tensor beside the state dict": (checkpoint(pickled(table([("state_dict", table([("w", tensor())])), ("x", tensor((1 << 40,), (0,), of=storage()))]))), "E-STRIDE"),
    }  # fmt: skip


def bombs():
    """Few bytes that would become much memory or time."""
    laughs = b"]" + b"".join(b"q" + bytes([i]) + b"0](" + (b"h" + bytes([i])) * 10 + b"e" for i in range(30))
    tuples = b")" + b"".join(b"q" + bytes([i]) + b"0" + (b"h" + bytes([i])) * 2 + b"\x86" for i in range(60))
    return {
        "half a million tables": (checkpoint(pickled(b"(" + b"}" * 500_001 + b"t")), "E-PICKLE"),
        "nested lists": (checkpoint(pickled(b"(" + b"]" * 100_000 + b"t"), {}), "E-NO-WEIGHTS"),
        "nested tuples": (checkpoint(pickled(b")" + b"\x85" * 100_000), {}), "E-NO-WEIGHTS"),
        "nine to the thirtieth": (checkpoint(pickled(laughs)), "E-OPCODE"),
        "doubled sixty times": (checkpoint(pickled(tuples)), "E-OPCODE"),
        "a list in itself": (checkpoint(pickled(b"]q\x00h\x00a"), {}), "E-NO-WEIGHTS"),
        "a table in itself": (checkpoint(pickled(b"}q\x00" + text("state_dict") + b"h\x00s"), {}), "E-NO-WEIGHTS"),
        "a table in itself, many names": (checkpoint(pickled(b"}q\x00" + b"".join(text(k) + b"h\x00s" for k in ("model", "net", "ema", "module"))), {}), "E-NO-WEIGHTS"),
        "pickle of 9 MB": (checkpoint(pickled(text("a" * (9 << 20)))), "E-PICKLE"),
        "memo far up": (checkpoint(pickled(table([("w", tensor())]) + b"r\xff\xff\xff\xff")), None),
        "10,001 tensors": (_many(10_001), "E-COUNT"),
        "number of 255 bytes": (checkpoint(pickled(b"\x8a\xff" + b"\x7f" * 255)), "E-PICKLE"),
        "20,000 members": (Zip([Member(b"m/%d" % i, b"") for i in range(20_000)]).written(), "E-COUNT"),
    }  # fmt: skip


def semantics():
    """Well-formed, but no state dict of one net."""
    w = tensor()
    other = tensor(of=storage("1"))
    both = {"0": NUMBERS, "1": NUMBERS}
    bodies = {
        "a number": (number(7), "E-NO-WEIGHTS", {}),
        "a text": (text("net"), "E-NO-WEIGHTS", {}),
        "nothing": (b"N", "E-NO-WEIGHTS", {}),
        "one tensor alone": (w, "E-NO-WEIGHTS", None),
        "a list of tensors": (b"]" + w + b"a", "E-NO-WEIGHTS", None),
        "empty": (b"}", "E-NO-WEIGHTS", {}),
        "empty OrderedDict": (ORDERED, "E-NO-WEIGHTS", {}),
        "empty state dict": (table([("state_dict", b"}")]), "E-NO-WEIGHTS", {}),
        "settings only": (table([("epoch", number(3)), ("lr", b"G" + struct.pack(">d", 0.1))]), "E-NO-WEIGHTS", {}),
        "too deep": (table([("model", table([("model", table([("model", table([("w", w)]))]))]))]), "E-NO-WEIGHTS", None),
        "two nets": (table([("generator", table([("w", w)])), ("discriminator", table([("w", other)]))]), "E-AMBIGUOUS", both),
        "state dict as a text": (table([("state_dict", text("w"))]), "E-NO-WEIGHTS", {}),
        "numbers as names": (table([(number(0), w)]), "E-NAME", None),
        "None as name": (table([(b"N", w)]), "E-NAME", None),
        "name with escape": (table([("\x1b]0;owned\x07", w)]), "E-NAME", None),
        "name with newline": (table([("w\nerror E-OK", w)]), "E-NAME", None),
        "name written backwards": (table([("w\u202e", w)]), "E-NAME", None),
        "name with NUL": (table([("w\0", w)]), "E-NAME", None),
        "empty name": (table([("", w)]), "E-NAME", None),
        "name of 1,000 characters": (table([("w" * 1000, w)]), "E-NAME", None),
        "name twice in capitals": (table([("w", w), ("W", other)]), None, both),
        "NaN": (table([("w", w)]), None, {"0": np.full(6, np.nan, np.float32).tobytes()}),
        "infinity": (table([("w", w)]), None, {"0": np.full(6, -np.inf, np.float32).tobytes()}),
        "one NaN with a payload": (table([("w", w)]), None, {"0": NUMBERS[:20] + b"\x01\x00\x80\x7f"}),
        "NaN in half": (table([("w", tensor(of=storage(kind="HalfStorage")))]), None, {"0": b"\xff\xff" * 6}),
        "infinity in bfloat16": (table([("w", tensor(of=storage(kind="BFloat16Storage")))]), None, {"0": b"\x80\x7f" * 6}),
        "double beyond float": (table([("w", tensor(of=storage(kind="DoubleStorage")))]), None, {"0": np.full(6, 1e300).tobytes()}),
    }  # fmt: skip
    return {f"semantics: {key}": (checkpoint(pickled(body), kept), code) for key, (body, code, kept) in bodies.items()}


def kinds():
    """Other formats, and what pretends to be one."""
    legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    script = {"net/data.pkl": HONEST, "net/code/__torch__.py": b"import os", "net/constants.pkl": b"\x80\x02).", "net/version": b"3"}
    exported = {"net/archive_format": b"pt2", "net/archive_version": b"0", "net/models/model.json": b"{}"}
    onnx = {
        f"ONNX of version {version}, then field {field >> 3}": bytes([8, version, field]) + b"\x07pytorch" + b"\0" * 40
        for version in (3, 7, 8, 9, 10)
        for field in (0x12, 0x1A, 0x3A, 0x42)
    }
    return {
        "legacy torch": (legacy + pickled(b"}"), "E-PROTOCOL"),
        "legacy torch with a payload": (legacy + pickled(call("os", "system", text("true"))), "E-GLOBAL"),
        "legacy torch, only its magic": (legacy, "E-PROTOCOL"),
        "legacy torch of another version": (legacy + pickled(number(7)) + pickled(b"}") + pickled(b"}") + pickled(b"]"), "E-LEGACY"),
        "legacy torch, magic cut off": (legacy[:-1], "E-PICKLE-RAW"),
        "torch before 0.2, a tar": (tar.getvalue(), "E-ARCHIVE"),
        "TorchScript": (_stored(script), "E-TORCHSCRIPT"),
        "TorchScript without code": (_stored({"net/data.pkl": HONEST, "net/constants.pkl": b"x", "net/version": b"3"}), "E-TORCHSCRIPT"),
        "TorchScript with extra files": (_stored({"net/data.pkl": HONEST, "net/extra/x": b"x"}), "E-TORCHSCRIPT"),
        "TorchScript for phones": (_stored({"net/data.pkl": HONEST, "net/bytecode.pkl": b"x", "net/code/x": b"x"}), "E-TORCHSCRIPT"),
        "TorchScript, deflated": (_archive(script), "E-ZIP-PACKED"),
        ".pt2": (_stored(exported), "E-PT2"),
        ".pt2 by its model": (_stored({"net/models/model.json": b"{}"}), "E-PT2"),
        ".pt2 before 2.8": (_stored({"net/serialized_exported_program.json": b"{}", "net/version": b"8"}), "E-PT2"),
        ".pt2 with compiled code": (_stored({"net/data/aotinductor/model/x.so": b"\x7fELF"}), "E-PT2"),
        "whole module": (checkpoint(pickled(call("torch.nn.modules.linear", "Linear", number(2), number(3)))), "E-GLOBAL"),
        "whole module by NEWOBJ": (checkpoint(pickled(name("torch.nn", "Module") + b")\x81")), "E-GLOBAL"),
        "numpy array": (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}", "E-NUMPY"),
        "npz": (_stored({"w.npy": b"\x93NUMPY"}), "E-NUMPY"),
        "Keras with other weights": (_stored({"config.json": b"{}", "model.weights.npz": b"x"}), "E-ARCHIVE"),
        "Keras in pieces": (_stored({"config.json": b"{}", "model.weights.json": b"{}", "model_00000.weights.h5": b"x"}), "E-ARCHIVE"),
        "Core ML package": (_stored({"Manifest.json": b"{}"}), "E-ARCHIVE"),
        "Java archive": (_stored({"META-INF/MANIFEST.MF": b"x"}), "E-ARCHIVE"),
        "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + b"\0" * 40, "E-TFLITE"),
        "GGUF": (b"GGUF\x03\0\0\0" + b"\0" * 40, "E-GGUF"),
        "gzip of a checkpoint": (gzip.compress(checkpoint()), "E-ARCHIVE"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + b"\0" * 40, "E-ARCHIVE"),
        "RAR": (b"Rar!\x1a\x07\x01\x00", "E-ARCHIVE"),
        "zstandard": (b"\x28\xb5\x2f\xfd" + b"\0" * 40, "E-ARCHIVE"),
        "xz": (b"\xfd7zXZ\x00" + b"\0" * 40, "E-ARCHIVE"),
        "bzip2": (b"BZh91AY&SY", "E-ARCHIVE"),
        "machine code": (b"\x7fELF\x02\x01\x01" + b"\0" * 40, "E-FORMAT"),
        "Windows program": (b"MZ\x90\0" + b"\0" * 40, "E-FORMAT"),
        "shell script": (b"#!/bin/sh\ntrue\n", "E-FORMAT"),
        "page of a login": (b"<!DOCTYPE html><html>", "E-FORMAT"),
        "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "E-FORMAT"),
        "JSON": (b'{"w": [1, 2]}', "E-FORMAT"),
        "zeros": (b"\0" * 4096, "E-FORMAT"),
        "one byte": (b"\x80", "E-FORMAT"),
        **{key: (data, "E-ONNX") for key, data in onnx.items()},
    }  # fmt: skip


def _many(count):
    """As many tensors of one number each in one storage."""
    of = [storage(numel=count) + b"q\x00", *[b"h\x00"] * (count - 1)]
    items = table([(str(i), tensor((1,), (1,), i, of=of[i])) for i in range(count)])
    return checkpoint(pickled(items), {"0": b"\0" * (4 * count)})


def _sizes(size, stride):
    body = name("torch._utils", "_rebuild_tensor_v2") + group(storage(), number(0), group(size), group(stride), b"\x89", ORDERED) + b"R"
    return checkpoint(pickled(table([("w", body)])))


def _archive(contents):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, data in contents.items():
            archive.writestr(zipfile.ZipInfo(key), data * 50, zipfile.ZIP_DEFLATED)
    # Python writes creator bits that torch does not; they are no reason to refuse.
    return out.getvalue()


def _stored(contents):
    return Zip([Member(key.encode(), data) for key, data in contents.items()]).written()
