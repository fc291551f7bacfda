"""Hostile TorchScript archives and exported programs, one case a line: what stands in the file -> the error code, None where it is read."""

from __future__ import annotations

import json
import zlib

from making import NUMBERS, ORDERED, Member, Zip, call, checkpoint, group, made, name, number, parts, pickled, storage, table, tensor, text
from payloads import FUNCTIONS, live

NET = "__torch__.Net"
NOTHING = pickled(b")")
CODE = b"class Net(Module):\n  def forward(self, x):\n    return x\n"
RUNS = (
    b'class Net(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n  w : Tensor\n  training : bool\n'
    b"  def forward(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    return torch.add(x, self.w)\n"
)
"""The code of `net`, as torch writes it."""


def net(*items):
    """A module with a tensor and what else is said."""
    return made(NET, table([("w", tensor()), ("training", b"\x88"), *items]))


def packed(key, data, **changes):
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = press.compress(data) + press.flush()
    told = {"method": 8, "crc": zlib.crc32(data), "size": len(data), "packed": len(small), **changes}
    return Member(f"model/{key}".encode(), small, **told)


def members(body=None, storages=None, *, constants=NOTHING, more=(), code=CODE):
    pickle = body if isinstance(body, bytes) and body[:1] == b"\x80" else pickled(net() if body is None else body)
    return [
        *parts(pickle, storages, more=[("constants.pkl", constants), *more] if constants is not None else more),
        packed("code/__torch__.py", code),
    ]


def script(body=None, storages=None, **kwargs):
    return Zip(members(body, storages, **kwargs)).written()


def within(canary):
    """Pickles that really run, as the modules of an archive."""
    wrong = {data[:2]: "E-PROTOCOL" for data in live(canary).values() if data[:2] != b"\x80\x02"}
    codes = {"EXT by copyreg": "E-GLOBAL", "POP_MARK": "E-OPCODE", "memo overwritten": "E-OPCODE", "after an unused name": "E-OPCODE"}
    found = {}
    for key, data in live(canary).items():
        kept = [member for member in members() if member.name != b"model/data.pkl"]
        whole = Zip([Member(b"model/data.pkl", data), *kept]).written()
        found[f"TorchScript: {key}"] = (whole, wrong.get(data[:2]) or codes.get(key, "E-GLOBAL"))
    return found


def functions():
    """Names of functions that can do harm, among the constants of the code."""
    found = {}
    for module, attribute in FUNCTIONS:
        constants = pickled(group(call(module, attribute, text("pass"))))
        code = "E-TORCHSCRIPT" if attribute == "_rebuild_qtensor" else "E-GLOBAL"
        found[f"TorchScript constants call {module}.{attribute}"] = (script(constants=constants), code)
    return found


def unread(canary):
    """What lies beside the modules would run if anybody ran it. Nobody looks."""
    evil = f"class Net(Module):\n  def __setstate__(self, state):\n    open({str(canary)!r}, 'w')\n  def forward(self, x):\n    return x\n"
    run = live(canary)["reduce exec"]
    beside = ("traced_inputs.pkl", "bytecode.pkl", "extra/x.pkl", "mobile_debug_handles.pkl", "code/__torch__.py.debug_pkl")
    return {
        "TorchScript: code that would write a file": (Zip([*members()[:-1], packed("code/__torch__.py", evil.encode())]).written(), None),
        "TorchScript: code that is none": (Zip([*members()[:-1], packed("code/__torch__.py", b"\0" * 99, crc=7)]).written(), None),
        **{f"TorchScript: a payload as {key}": (script(more=[(key, run)]), None) for key in beside},
        ".pt2: a payload as its program": (exported(more={"models/model.json": run}), None),
        ".pt2: a payload as its sample inputs": (exported(more={"data/sample_inputs/model.pt": run}), None),
        ".pt2: a payload as a constant": (exported(more={"data/constants/opaque_obj_0": run}), None),
        ".pt2: a payload as its weights": (exported({"data/weights/model.pt": checkpoint(run)}), "E-GLOBAL"),
        ".pt2: a bare payload as its weights": (exported({"data/weights/model.pt": run}), "E-PT2"),
        ".pt2 before 2.8: a payload as its constants": (old(serialized_constants=run), None),
        ".pt2 before 2.8: a payload as its state dict": (old(checkpoint(run)), "E-GLOBAL"),
    }


def modules():
    """The pickle of the modules."""
    w, other = tensor(), tensor(of=storage("1"))
    both = {"0": NUMBERS, "1": NUMBERS}
    typed = lambda *arguments: call("torch.jit._pickle", "restore_type_tag", *arguments)  # noqa: E731
    twice = name("__torch__", "Net") + b")\x81}" + text("w") + w + b"sb}b"
    bodies = {
        "honest": (net(), None),
        "a class called os.system": (made("__torch__.os.system", table([("w", w)])), None),
        "attributes of every kind": (net(("a", number(3)), ("b", b"N"), ("c", typed(b"]" + text("x") + b"a", text("List[str]"))), ("d", call("torch", "device", text("cpu"))), ("e", call("torch.jit._pickle", "build_intlist", b"]"))), None),
        "a call of os.system": (net(("x", call("os", "system", text("true")))), "E-GLOBAL"),
        "a call of the class os.system": (net(("x", call("__torch__.os", "system", text("true")))), "E-CALL"),
        "a class called with a state": (name("__torch__", "Net") + group(w) + b"R", "E-CALL"),
        "eval within a module": (net(("x", call("builtins", "eval", text("1")))), "E-GLOBAL"),
        "an object of exec": (net(("x", made("builtins.exec"))), "E-GLOBAL"),
        "an object of OrderedDict": (net(("x", made("collections.OrderedDict"))), "E-CALL"),
        "an object of a storage class": (net(("x", made("torch.FloatStorage"))), "E-CALL"),
        "an object of a device": (net(("x", made("torch.device"))), "E-CALL"),
        "an object of a text": (net(("x", text("__torch__.Net") + b")\x81")), "E-CALL"),
        "an object with arguments": (made(NET, table([("w", w)]), arguments=group(text("x"))), "E-CALL"),
        "an object with a list of arguments": (made(NET, table([("w", w)]), arguments=b"]"), "E-CALL"),
        "an object of an object": (net(("x", made(NET, b"}") + b")\x81")), "E-CALL"),
        "a call of an object": (net() + b")R", "E-CALL"),
        "a state set twice": (twice, "E-CALL"),
        "a state of a class": (name("__torch__", "Net") + b"}b", "E-CALL"),
        "a state of a table": (b"}}b", "E-CALL"),
        "a state that only code could tell": (made(NET, group(w, b"\x88")), "E-TORCHSCRIPT"),
        "a state that is one tensor": (made(NET, w), "E-TORCHSCRIPT"),
        "a state that is typed": (made(NET, typed(table([("w", w)]), text("Dict[str, Tensor]"))), "E-TORCHSCRIPT"),
        "a state that is ordered": (made(NET, table([("w", w)], empty=ORDERED)), "E-TORCHSCRIPT"),
        "no state": (made(NET), "E-TORCHSCRIPT"),
        "an inner module without a state": (net(("x", made("__torch__.In"))), "E-TORCHSCRIPT"),
        "a type of nothing": (net(("x", typed())), "E-CALL"),
        "a type that is no text": (net(("x", typed(b"]", b"]"))), "E-CALL"),
        "a list of numbers that is a text": (net(("x", call("torch.jit._pickle", "build_intlist", text("x")))), "E-CALL"),
        "a device of a list": (net(("x", call("torch", "device", b"]"))), "E-CALL"),
        "another function of the same module": (net(("x", call("torch.jit._pickle", "build_tensor_from_id", number(1)))), "E-GLOBAL"),
        "a function of a function": (net(("x", call("torch.jit._pickle", "build_intlist.__globals__"))), "E-GLOBAL"),
        "a class of torch itself": (made("torch.nn.Module", b"}"), "E-GLOBAL"),
        "a class of almost that name": (made("__torch__x.Net", b"}"), "E-GLOBAL"),
        "a class with an empty part": (made("__torch__..Net", b"}"), "E-GLOBAL"),
        "a class with an escape": (made("__torch__.\x1b[2J.Net", b"}"), "E-GLOBAL"),
        "a class with a blank": (made("__torch__.os .system", b"}"), "E-GLOBAL"),
        "a class without a name": (name("__torch__", "") + b")\x81}b", "E-GLOBAL"),
        "a class of 1,000 characters": (made("__torch__." + "a" * 1000, b"}"), "E-PICKLE"),
        "quantised and packed": (net(("x", made("__torch__.torch.classes.quantized.LinearPackedParamsBase", group(w)))), "E-TORCHSCRIPT"),
        "a quantised tensor": (net(("x", call("torch._utils", "_rebuild_qtensor", w))), "E-TORCHSCRIPT"),
        "a sparse tensor": (net(("x", call("torch._utils", "_rebuild_sparse_tensor", w))), "E-GLOBAL"),
        "a table as its root": (table([("w", w)]), "E-TORCHSCRIPT"),
        "a tensor as its root": (w, "E-TORCHSCRIPT"),
        "two roots": (net() + net(), "E-PICKLE"),
        "a module in itself": (name("__torch__", "Net") + b")\x81q\x00}" + text("w") + w + b"s" + text("x") + b"h\x00sb", "E-PICKLE"),
        "a module in itself by its table": (made(NET, b"}q\x09(" + text("w") + w + text("x") + made(NET, b"h\x09") + b"u"), "E-PICKLE"),
        "a module in itself by a list": (net(("l", b"]q\x09" + made(NET, b"}" + text("m") + b"h\x09s") + b"a")), "E-PICKLE"),
        "an attribute twice": (net(("w", other)), "E-DUPLICATE"),
        "an attribute with a point": (net(("a.w", other)), "E-NAME"),
        "an attribute without a name": (net(("", number(1))), "E-NAME"),
        "an attribute of two points": (net(("..", other)), "E-NAME"),
        "an attribute with an escape": (net(("\x1b[2J", number(1))), "E-NAME"),
        "an attribute written backwards": (net(("\u202ew", number(1))), "E-NAME"),
        "a number as an attribute": (net((number(1), number(1))), "E-NAME"),
        "an attribute of 1,000 characters": (net(("a" * 1000, number(1))), "E-NAME"),
        "a path of 1,000 characters": (_deep(30, "abcdefghijklmnopqrst"), "E-NAME"),
        "20,000 attributes": (made(NET, table([(f"a{i}", b"N") for i in range(20_000)])), "E-COUNT"),
        "33 deep": (_deep(33), "E-PICKLE"),
        "20,000 deep": (_deep(20_000), "E-PICKLE"),
        "doubled twenty-five times": (_doubled(25), "E-COUNT"),
        "a list of itself": (net(("x", b"]q\x09h\x09a")), None),
        "a hundred lists in one another": (net(("x", b"]" * 100 + b"a" * 99)), None),
        "no tensor": (made(NET, b"}"), "E-NO-WEIGHTS"),
        "a tensor in a list only": (made(NET, table([("l", b"]" + w + b"a")])), "E-NO-WEIGHTS"),
        "expanded": (net(("x", tensor((1 << 20, 1 << 20), (0, 0), of=storage()))), "E-STRIDE"),
        "outside its storage": (net(("x", tensor((7,), of=storage()))), "E-BOUNDS"),
        "outside its storage, in a list": (net(("l", b"]" + tensor((1,), offset=99, of=storage()) + b"a")), "E-BOUNDS"),
        "two that overlap": (net(("x", tensor((4,), offset=2, of=storage()))), "E-OVERLAP"),
        "a storage that is not there": (net(("x", tensor(of=storage("7")))), "E-STORAGE"),
        "a storage among the constants": (net(("x", tensor(of=storage("../constants/0")))), "E-STORAGE"),
        "one storage of two types": (net(("x", tensor((1,), of=storage(kind="IntStorage")))), "E-STORAGE"),
        "a bool of 2": (made(NET, table([("w", tensor((24,), of=storage(numel=24, kind="BoolStorage")))])), "E-DTYPE"),
    }  # fmt: skip
    kept = {key: both if other in body else None if w[:30] in body else {} for key, (body, _) in bodies.items()}
    found = {f"TorchScript: {key}": (script(body, kept[key]), code) for key, (body, code) in bodies.items()}
    many = b"".join(text(f"t{i}") + tensor((1,), (1,), i, of=storage(numel=10_001)) for i in range(10_001))
    found["TorchScript: 10,001 tensors"] = (script(made(NET, b"}(" + many + b"u"), {"0": b"\0" * 40_004}), "E-COUNT")
    return found


def archives():
    """The zip file around it, and what is beside the modules."""
    whole = script()

    def but(**changes):
        found = members()
        for key, value in changes.items():
            setattr(found[-1], key, value)
        return Zip(found).written()

    def plus(*more):
        return Zip([*members(), *more]).written()

    frozen = pickled(group(tensor(of=storage("0"))))
    kept = [member for member in members() if member.name != b"model/constants.pkl"]
    without = [member for member in members() if member.name != b"model/data.pkl"]
    honest = pickled(net())
    return {
        "half of it": (whole[: len(whole) // 2], "E-ZIP"),
        "a prefix": (b"x" + whole, "E-FORMAT"),
        "something behind it": (whole + b"\0", "E-ZIP"),
        "no constants": (Zip(kept).written(), "E-TORCHSCRIPT"),
        "constants deflated": (Zip([*kept, packed("constants.pkl", NOTHING)]).written(), "E-ZIP-PACKED"),
        "modules deflated": (Zip([*without, packed("data.pkl", honest)]).written(), "E-ZIP-PACKED"),
        "a storage deflated": (plus(packed("data/1", NUMBERS)), "E-ZIP-PACKED"),
        "extra files deflated": (plus(packed("extra/x", CODE)), "E-ZIP-PACKED"),
        "code of another folder deflated": (plus(Member(b"other/code/x.py", packed("x", CODE).data, method=8, size=len(CODE), packed=len(packed("x", CODE).data))), "E-ARCHIVE"),
        "code that is a bomb": (plus(packed("code/x.py", b"\0" * 50_000_000)), "E-ZIP-PACKED"),
        "code of a false size": (but(size=1 << 31), "E-ZIP-PACKED"),
        "code beyond the file": (but(packed=1 << 31), "E-ZIP-HEADERS"),
        "code by bzip2": (but(method=12), "E-ZIP-PACKED"),
        "code encrypted": (but(flags=0x0809), "E-ZIP-PACKED"),
        "code that contradicts itself": (but(descriptor=(1, 2, 3)), "E-ZIP-HEADERS"),
        "code with a false sum, not deflated": (plus(Member(b"model/code/x.py", CODE, crc=1)), "E-ZIP-CRC"),
        "code twice": (plus(packed("code/__torch__.py", CODE)), "E-DUPLICATE"),
        "code that leads elsewhere": (plus(packed("code/../data.pkl", honest)), "E-ZIP-NAME"),
        "code that nobody lists": (plus(Member(b"model/code/x", CODE, listed=False)), "E-ZIP-HIDDEN"),
        "modules in capitals": (plus(Member(b"model/DATA.pkl", honest)), "E-DUPLICATE"),
        "modules twice": (plus(Member(b"model/data.pkl", honest)), "E-DUPLICATE"),
        "a second pickle": (script(more=[("data2.pkl", honest)]), "E-ZIP-MEMBER"),
        "a library": (script(more=[("lib.so", b"\x7fELF")]), "E-ZIP-MEMBER"),
        "a storage of nobody": (script(more=[("data/9", NUMBERS)]), "E-ZIP-MEMBER"),
        "a constant of nobody": (script(more=[("constants/9", NUMBERS)]), "E-ZIP-MEMBER"),
        "constants that are not there": (script(constants=frozen), "E-STORAGE"),
        "constants of another size": (script(constants=frozen, more=[("constants/0", NUMBERS + b"\0")]), "E-STORAGE"),
        "constants beside its weights": (script(constants=frozen, more=[("constants/0", NUMBERS)]), None),
        "frozen": (script(made(NET, b"}"), {}, constants=frozen, more=[("constants/0", NUMBERS)]), "E-FROZEN"),
        "constants that are no pickle": (script(constants=b"x"), "E-PROTOCOL"),
        "constants cut off": (script(constants=frozen[:-9], more=[("constants/0", NUMBERS)]), "E-PICKLE"),
        "quantised constants": (script(constants=pickled(group(made("__torch__.torch.classes.xnnpack.LinearOpContext", b")")))), "E-TORCHSCRIPT"),
        "two versions": (script(more=[(".data/version", b"10\n")]), "E-ZIP-MEMBER"),
        "a table of the weights in front": (script(more=[("models/model.json", b"{}")]), "E-ZIP-MEMBER"),
        "before torch 1.4": (script(more=[("attributes.pkl", NOTHING)]), "E-TORCHSCRIPT"),
        "two folders": (plus(Member(b"other/data.pkl", honest)), "E-ARCHIVE"),
        "a checkpoint with code": (checkpoint(more=[("code/__torch__.py", CODE)]), "E-TORCHSCRIPT"),
        "a checkpoint with code and constants": (checkpoint(more=[("code/__torch__.py", CODE), ("constants.pkl", NOTHING)]), "E-TORCHSCRIPT"),
    }  # fmt: skip


def _deep(count, key="a"):
    """Modules within one another, the innermost with a tensor."""
    head = name("__torch__", "Net") + b"q\x00)\x81}" + text(key)
    again = b"h\x00)\x81}" + text(key)
    return head + again * (count - 1) + tensor() + b"sb" * count


def _doubled(count):
    """Each module holds another twice."""
    body = made(NET, table([("w", tensor())]))
    for index in range(count):
        body = made(NET, table([("a", body + b"q" + bytes([index])), ("b", b"h" + bytes([index]))]))
    return body


def meta(shape=(2, 3), stride=(3, 1), offset=0, **changes):
    told = lambda numbers: [{"as_int": number} for number in numbers]  # noqa: E731
    device = {"type": "cpu", "index": None}
    found = {"dtype": 7, "sizes": told(shape), "requires_grad": True, "device": device, "strides": told(stride)}
    return found | {"storage_offset": {"as_int": offset}, "layout": 7} | changes


def weight(*args, path="weight_0", changes=None, **kwargs):
    return {"path_name": path, "is_param": True, "use_pickle": False, "tensor_meta": meta(*args, **kwargs)} | (changes or {})


PLAIN = {"data/weights/weight_0": NUMBERS}
CONFIG = "data/weights/model_weights_config.json"
TABLE = json.dumps({"config": {"w": weight()}}).encode()


def exported(weights=None, *, config=None, more=None, model=b"{}"):
    """An exported program; `weights`: members, by default one of numbers; `config`: a dict, or the bytes of the table."""
    members = dict(PLAIN if weights is None else weights)
    if config is None and weights is None:
        config = {"w": weight()}
    if config is not None:
        members[CONFIG] = config if isinstance(config, bytes) else json.dumps({"config": config}).encode()
    members |= {"models/model.json": model, "data/sample_inputs/model.pt": b"x"} | (more or {})
    members = {"archive_format": b"pt2", "archive_version": b"0", ".data/version": b"6\n", "byteorder": b"little"} | members
    return Zip([Member(f"model/{key}".encode(), data) for key, data in members.items() if data is not None]).written()


def old(state=None, *, root="", **beside):
    """As torch wrote it before 2.8, with Python's zip files."""
    files = {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": checkpoint() if state is None else state}
    files |= {f"{key}.pt": data for key, data in beside.items()} | {"version": b"8.2"}
    return Zip([Member(f"{root}{key}".encode(), data, flags=0, extra=b"") for key, data in files.items()], end64=None).written()


def programs():
    """Tables of weights that say something else than torch writes, and archives that do."""

    def one(*args, **kwargs):
        return exported(config={"w": weight(*args, **kwargs)})

    def two(first, second, weights=None):
        return exported(PLAIN | (weights or {}), config={"w": first, "v": second})

    def raw(config):
        return exported(config=config if isinstance(config, bytes) else config.encode())

    plain = json.dumps(weight())
    whole = exported()
    return {
        "honest": (whole, None),
        "a pickled state dict": (exported({"data/weights/model.pt": checkpoint()}), None),
        "before 2.8": (old(), None),
        "before 2.8, in a folder": (old(root="net/"), None),
        "two tied": (two(weight(), weight()), None),
        "two in one storage": (two(weight((3,), (1,)), weight((3,), (1,), 3)), None),
        "a tensor twice": (raw(f'{{"config": {{"w": {plain}, "w": {plain}}}}}'), "E-DUPLICATE"),
        "a tensor twice by escape": (raw(f'{{"config": {{"w": {plain}, "\\u0077": {plain}}}}}'), "E-DUPLICATE"),
        "a field twice": (raw(f'{{"config": {{"w": {plain[:-1]}, "path_name": "weight_1"}}}}}}'), "E-DUPLICATE"),
        "a table twice": (raw(f'{{"config": {{"w": {plain}}}, "config": {{}}}}'), "E-DUPLICATE"),
        "another table beside it": (raw(f'{{"config": {{"w": {plain}}}, "more": {{}}}}'), "E-JSON"),
        "nested 100,000 deep": (raw(b'{"config": ' + b"[" * 100_000), "E-JSON"),
        "nested 20,000 deep": (raw(b'{"config": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"), "E-JSON"),
        "tables 20,000 deep": (raw(b'{"config": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001), "E-JSON"),
        "a million tables": (raw(b'{"config": [' + b"{}," * 1_000_000 + b"{}]}"), "E-COUNT"),
        "a million numbers": (raw(b'{"config": [' + b"1," * 1_000_000 + b"1]}"), "E-JSON"),
        "9 MB": (raw(b'{"config": {}}' + b" " * (9 << 20)), "E-JSON"),
        "quotes without end": (raw(b'{"' + b'\\"' * 500_000), "E-JSON"),
        "a number of 5,000 digits": (raw(b'{"config": ' + b"9" * 5_000 + b"}"), "E-JSON"),
        "no JSON": (raw("{config: 1}"), "E-JSON"),
        "no text": (raw(b'{"config": {"\xff": 1}}'), "E-JSON"),
        "half a table": (raw(f'{{"config": {{"w": {plain}'), "E-JSON"),
        "nothing": (raw(b""), "E-JSON"),
        "a list": (raw("[]"), "E-JSON"),
        "a list of tensors": (raw('{"config": []}'), "E-JSON"),
        "no tensor": (exported({}, config={}), "E-NO-WEIGHTS"),
        "10,001 tensors": (exported(config={f"t{i}": weight((1,), (1,), i) for i in range(10_001)}), "E-COUNT"),
        "a tensor that is a number": (exported(config={"w": 1}), "E-JSON"),
        "a field missing": (one(changes={"x": 1}), "E-JSON"),
        "a field of no tensor": (exported(config={"w": {"path_name": "weight_0"}}), "E-JSON"),
        "no description": (one(changes={"tensor_meta": None}), "E-PT2"),
        "a description with more": (one(code="import os"), "E-PT2"),
        "pickled": (one(changes={"use_pickle": True}), "E-PT2"),
        "pickled, perhaps": (one(changes={"use_pickle": 0}), "E-PT2"),
        "sparse": (one(layout=1), "E-PT2"),
        "a point in a number": (one(storage_offset={"as_int": 0.5}), "E-JSON"),
        "NaN in a number": (raw(f'{{"config": {{"w": {plain.replace("7", "NaN", 1)}}}}}'), "E-JSON"),
        "negative size": (one((-2, -3)), "E-SHAPE"),
        "negative stride": (one((2, 3), (-3, -1)), "E-SHAPE"),
        "negative offset": (one(offset=-1), "E-SHAPE"),
        "True as a size": (one((True, 6)), "E-SHAPE"),
        "a size of 2 ** 62": (one((1 << 62, 4)), "E-SHAPE"),
        "a size that is computed": (one(sizes=[{"as_expr": "s0"}, {"as_int": 3}]), "E-SHAPE"),
        "sizes without tables": (one(sizes=[2, 3]), "E-SHAPE"),
        "sizes as a text": (one(sizes="2,3"), "E-SHAPE"),
        "a size of two kinds": (one(sizes=[{"as_int": 2, "as_expr": "x"}, {"as_int": 3}]), "E-SHAPE"),
        "fewer strides": (one((2, 3), (1,)), "E-SHAPE"),
        "nine axes": (one((1,) * 9, (1,) * 9), "E-SHAPE"),
        "expanded to 4 TB": (one((1 << 20, 1 << 20), (0, 0)), "E-STRIDE"),
        "windows that overlap": (one((4, 3), (1, 1)), "E-STRIDE"),
        "gaps": (one((3,), (2,)), "E-STRIDE"),
        "numbers beyond the end": (one((7,), (1,)), "E-BOUNDS"),
        "an offset beyond the end": (one(offset=1), "E-BOUNDS"),
        "an offset far away": (one(offset=1 << 47), "E-BOUNDS"),
        "two that overlap": (two(weight(), weight((2,), (1,), 4)), "E-OVERLAP"),
        "two that are each other's transposed": (two(weight(), weight((3, 2), (1, 3))), "E-OVERLAP"),
        "one storage of two types": (two(weight((1,), (1,)), weight((1,), (1,), 1, dtype=4)), "E-STORAGE"),
        "an unknown type": (one(dtype=99), "E-DTYPE"),
        "a complex type": (one(dtype=10), "E-DTYPE"),
        "8-bit floats": (one(dtype=29), "E-DTYPE"),
        "a type as a text": (one(dtype="float32"), "E-DTYPE"),
        "True as a type": (one(dtype=True), "E-DTYPE"),
        "a bool of 2": (exported(config={"w": weight((24,), (1,), dtype=12)}), "E-DTYPE"),
        "a path with ..": (one(path="../../models/model.json"), "E-STORAGE"),
        "a path from the root": (one(path="/etc/passwd"), "E-STORAGE"),
        "a path to its table": (one(path="model_weights_config.json"), "E-STORAGE"),
        "a path to nothing": (one(path=""), "E-STORAGE"),
        "a path that is a number": (one(path=0), "E-JSON"),
        "numbers that are not there": (one(path="weight_1"), "E-STORAGE"),
        "numbers cut in two": (exported({"data/weights/weight_0": NUMBERS[:-1]}, config={"w": weight()}), "E-STORAGE"),
        "numbers too few": (exported({"data/weights/weight_0": NUMBERS[:-4]}, config={"w": weight()}), "E-BOUNDS"),
        "numbers of nobody": (exported(PLAIN | {"data/weights/weight_1": NUMBERS}, config={"w": weight()}), "E-ZIP-MEMBER"),
        "a pickle beside the numbers": (exported(more={"data/weights/model.pt": checkpoint()}), "E-ZIP-MEMBER"),
        "an empty name": (exported(config={"": weight()}), "E-NAME"),
        "a name with escape": (exported(config={"\x1b[2J": weight()}), "E-NAME"),
        "a name written backwards": (exported(config={"\u202ew": weight()}), "E-NAME"),
        "a name of 5,000 characters": (exported(config={"w" * 5_000: weight()}), "E-NAME"),
        "two programs": (exported(more={"models/other.json": b"{}"}), "E-AMBIGUOUS"),
        "no program": (exported(model=None), "E-PT2"),
        "no table": (exported({}), "E-PT2"),
        "a table of another program": (exported({"data/weights/other_weights_config.json": b"{}"}), "E-PT2"),
        "another format": (exported(more={"archive_format": b"pt3"}), "E-PT2"),
        "a format of 1 MB": (exported(more={"archive_format": b"pt2" + b" " * (1 << 20) + b"x"}), None),
        "another version": (exported(more={"archive_version": b"1"}), "E-PT2"),
        "big-endian": (exported(more={"byteorder": b"big"}), "E-BYTEORDER"),
        "compiled": (exported(more={"data/aotinductor/model/x.so": b"\x7fELF"}), "E-PT2"),
        "for phones": (exported(more={"data/executorch/x.pte": b"ET12"}), "E-PT2"),
        "a member of its own": (exported(more={"setup.py": b"import os"}), "E-ZIP-MEMBER"),
        "code of TorchScript": (exported(more={"code/__torch__.py": CODE}), "E-ZIP-MEMBER"),
        "a checkpoint within": (exported(more={"data.pkl": pickled(table([("w", tensor())]))}), "E-ZIP-MEMBER"),
        "something behind it": (whole + b"\0", "E-ZIP"),
        "half of it": (whole[: len(whole) // 2], "E-ZIP"),
        "only its first bytes": (whole[:100], "E-ZIP"),
        "a pickled state dict, a pickle in a zip in a zip": (exported({"data/weights/model.pt": exported()}), "E-ARCHIVE"),
        "a pickled state dict, cut off": (exported({"data/weights/model.pt": checkpoint()[:-9]}), "E-ZIP"),
        "before 2.8, no state dict": (old(b""), "E-PT2"),
        "before 2.8, a member of its own": (old(setup=b"x"), "E-ZIP-MEMBER"),
    }  # fmt: skip
