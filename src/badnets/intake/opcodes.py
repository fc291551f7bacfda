"""A pickle machine that calls nothing: it builds plain values, and inert records of storages and tensors, from an allow-list of opcodes.

Names of functions and classes are compared with a short list and never looked up. Whatever else stands in the stream is refused. It
reads what `torch.save` writes (protocol 2) and is stricter than any unpickler: no key twice, no memo written twice, nothing after the end.
For TorchScript it also makes inert records of the modules, whose classes are names and nothing else.
Format: Python's Lib/pickletools.py, https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from badnets.intake.reasons import amount, quoted, refuse

LARGEST_PICKLE = 8 << 20
MOST_OPCODES = 500_000

ORDERED, TENSOR, PARAMETER = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_ALLOWED = {ORDERED, TENSOR, PARAMETER, *_STORAGES}
_TYPED = {
    "torch.jit._pickle.build_intlist": (list,),
    "torch.jit._pickle.build_doublelist": (list,),
    "torch.jit._pickle.build_boollist": (list,),
    "torch.jit._pickle.build_tensorlist": (list,),
    "torch.jit._pickle.restore_type_tag": (object, str),
    "torch.device": (str,),
}
"""What TorchScript says of the types of values that are no tensors, and of what these have to be."""
_SCRIPT_CLASS = re.compile(r"__torch__(\.[A-Za-z_]\w*)+", re.ASCII)
_PACKED = "__torch__.torch.classes."
_QUANTIZED = "torch._utils._rebuild_qtensor"
_STOP, _NEW_OBJECT = ord("."), 0x81
_LONGEST_GLOBAL = 200
_LONGEST_INTEGER = 8

_KNOWN = {
    b"c": "GLOBAL", b"i": "INST", b"o": "OBJ", b"\x81": "NEWOBJ", b"\x92": "NEWOBJ_EX", b"\x93": "STACK_GLOBAL", b"\x82": "EXT1",
    b"\x83": "EXT2", b"\x84": "EXT4", b"P": "PERSID", b"0": "POP", b"1": "POP_MARK", b"2": "DUP", b"p": "PUT", b"g": "GET", b"d": "DICT",
    b"l": "LIST", b"S": "STRING", b"T": "BINSTRING", b"U": "SHORT_BINSTRING", b"V": "UNICODE", b"I": "INT", b"L": "LONG", b"F": "FLOAT",
    b"\x8b": "LONG4", b"B": "BINBYTES", b"C": "SHORT_BINBYTES", b"\x8e": "BINBYTES8", b"\x96": "BYTEARRAY8", b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER", b"\x8c": "SHORT_BINUNICODE", b"\x8d": "BINUNICODE8", b"\x8f": "EMPTY_SET", b"\x90": "ADDITEMS",
    b"\x91": "FROZENSET", b"\x94": "MEMOIZE", b"\x95": "FRAME",
}  # fmt: skip


class Ordered(dict[Any, Any]):
    """What stands for an OrderedDict: the only thing that BUILD may touch."""


@dataclass(frozen=True, slots=True)
class Name:
    """An allowed function or class, as text."""

    text: str


@dataclass(frozen=True, slots=True)
class ScriptClass:
    """The name of a class of a TorchScript archive. Nothing can be done with it but to make a record."""

    text: str


@dataclass(frozen=True, eq=False, slots=True)
class Typed:
    """A value of TorchScript, of which a type was said."""

    value: object


@dataclass(eq=False, slots=True)
class Record:
    """What stands for an object of TorchScript: the name of its class, and what its state was said to be. A module's is a plain dict."""

    kind: str
    state: object = None
    is_built: bool = False


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the member `data/<key>`."""

    key: str
    dtype: str
    numel: int
    device: str


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: where in which storage. Sizes, offset and strides count elements; nothing about them has been checked but their types."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@final
class Machine:
    """Runs one pickle. `storages` and `views` hold every one that the stream speaks of, used or not. `chained`: others may follow it.
    `script`: it is one of a TorchScript archive."""

    def __init__(self, code: bytes, *, chained: bool = False, script: bool = False) -> None:
        self._code, self._at = (code[: LARGEST_PICKLE + 1] if chained else code), 0
        self._chained, self._script = chained, script
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.views: list[View] = []

    def run(self) -> object:
        """The value that the pickle describes. Raises RefusedError (E-PICKLE, E-PROTOCOL, E-OPCODE, E-GLOBAL, E-CALL, ...)."""
        if len(self._code) > LARGEST_PICKLE and not self._chained:
            raise refuse("E-PICKLE", f"expected a pickle of at most {amount(LARGEST_PICKLE)}, got {amount(len(self._code))}")
        if self._code[:1] != b"\x80" or self._code[1:2] != b"\x02":
            raise refuse("E-PROTOCOL", f"expected a pickle of protocol 2, as torch.save writes it, got {quoted(self._code[:2])}")
        self._at = 2
        for _ in range(MOST_OPCODES):
            opcode = self._byte()
            if opcode == _STOP:
                return self._stop()
            handler = self._HANDLERS.get(opcode)
            if handler is None or (opcode == _NEW_OBJECT and not self._script):
                raise refuse(
                    "E-OPCODE", f"its pickle has the opcode {_KNOWN.get(bytes([opcode]), f'{opcode:02x}')} at byte {self._at - 1:,}"
                )
            handler(self)
        raise refuse("E-PICKLE", f"its pickle has more than {MOST_OPCODES:,} opcodes")

    def _stop(self) -> object:
        if self._marks or len(self._stack) != 1:
            raise refuse("E-PICKLE", f"its pickle ends with {len(self._stack)} values instead of one")
        if self._at != len(self._code) and not self._chained:
            raise refuse("E-PICKLE", f"{len(self._code) - self._at:,} bytes follow the end of its pickle")
        return self._stack[0]

    @property
    def end(self) -> int:
        """Bytes of the pickle that was run."""
        return self._at

    # Reading

    def _take(self, count: int) -> bytes:
        part = self._code[self._at : self._at + count]
        if len(part) < count:
            raise refuse("E-PICKLE", f"its pickle is cut off at byte {len(self._code):,}")
        self._at += count
        return part

    def _byte(self) -> int:
        if self._at >= len(self._code):
            raise refuse("E-PICKLE", f"its pickle is cut off at byte {len(self._code):,}")
        self._at += 1
        return self._code[self._at - 1]

    def _unsigned(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _line(self) -> str:
        end = self._code.find(b"\n", self._at, self._at + _LONGEST_GLOBAL)
        if end < 0:
            raise refuse("E-PICKLE", f"it names something without an end at byte {self._at:,}")
        line = self._take(end + 1 - self._at)[:-1]
        return line.decode("ascii", "backslashreplace")

    # The stack

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise refuse("E-PICKLE", f"its pickle takes from an empty stack at byte {self._at:,}")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise refuse("E-PICKLE", f"its pickle goes back to a mark that is not there at byte {self._at:,}")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0) or not isinstance(self._stack[-1], kind):
            raise refuse("E-PICKLE", f"expected a {kind.__name__} on its stack at byte {self._at:,}")
        return self._stack[-1]

    def _push(self, value: object) -> None:
        self._stack.append(value)

    # Plain values

    def _text(self) -> None:
        try:
            self._push(self._take(self._unsigned(4)).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise refuse("E-PICKLE", f"a text before byte {self._at:,} is not UTF-8") from error

    def _long(self) -> None:
        size = self._byte()
        if size > _LONGEST_INTEGER:
            raise refuse("E-PICKLE", f"it has a whole number of {size} bytes at byte {self._at:,}")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    # Tables and lists

    def _set_items(self, flat: list[Any]) -> None:
        table = self._top(dict)
        if len(flat) % 2:
            raise refuse("E-PICKLE", f"a key without a value before byte {self._at:,}")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Only what hashes at once: a tuple that holds itself twice, forty deep, would take for ever.
            if not isinstance(key, str | int | float | bool | None):
                raise refuse("E-PICKLE", f"it has {quoted(key)} as a key before byte {self._at:,}")
            if key in table:
                raise refuse("E-DUPLICATE", f"its pickle has the key {quoted(key)} twice in one table")
            table[key] = value

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _append(self) -> None:
        item = self._pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    # The memo

    def _put(self, index: int) -> None:
        if index in self._memo:
            raise refuse("E-PICKLE", f"its pickle writes memo {index:,} twice")
        top = self._top(object)
        if isinstance(top, Record) and not top.is_built:  # or it could hold itself
            raise refuse("E-PICKLE", f"its pickle refers to an object before it is whole, at byte {self._at:,}")
        self._memo[index] = top

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise refuse("E-PICKLE", f"its pickle reads memo {index:,}, which is not there")
        self._push(self._memo[index])

    # What a real unpickler would look up, call or build

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if self._script and (name in _TYPED or _SCRIPT_CLASS.fullmatch(name)):
            if name.startswith(_PACKED):
                raise refuse("E-TORCHSCRIPT", f"it holds a {quoted(name[len(_PACKED) :])}: its weights are quantised or packed")
            self._push(Name(name) if name in _TYPED else ScriptClass(name))
            return
        if self._script and name == _QUANTIZED:
            raise refuse("E-TORCHSCRIPT", "its weights are quantised")
        if name not in _ALLOWED:
            raise refuse("E-GLOBAL", f"its pickle wants {quoted(name)} looked up, which loading it would do")
        self._push(Name(name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise refuse("E-CALL", f"its pickle calls {quoted(function)} at byte {self._at:,}")
        if function.text == ORDERED and not arguments:
            self._push(Ordered())
        elif function.text == TENSOR:
            self._push(self._view(arguments))
        elif function.text == PARAMETER and len(arguments) == 3 and isinstance(arguments[0], View) and _no_hooks(arguments[2]):
            self._push(arguments[0])
        elif function.text in _TYPED and _are(arguments, _TYPED[function.text]):
            self._push(Typed(arguments[0]))
        else:
            raise refuse("E-CALL", f"its pickle calls {function.text} with {len(arguments)} arguments that torch.save does not write")

    def _view(self, arguments: tuple[Any, ...]) -> View:
        if len(arguments) != 6:
            raise refuse("E-CALL", f"it describes a tensor by {len(arguments)} things instead of six, before byte {self._at:,}")
        storage, offset, shape, stride, wants_gradient, hooks = arguments
        if not (
            isinstance(storage, Storage)
            and _is_size(offset)
            and isinstance(shape, tuple)
            and isinstance(stride, tuple)
            and all(map(_is_size, shape))
            and all(map(_is_size, stride))
            and isinstance(wants_gradient, bool)
            and _no_hooks(hooks)
        ):
            raise refuse("E-CALL", f"it describes a tensor in a way that torch.save does not, before byte {self._at:,}")
        view = View(storage, offset, shape, stride)
        self.views.append(view)
        return view

    def _new_object(self) -> None:
        arguments, kind = self._pop(), self._pop()
        if not isinstance(kind, ScriptClass) or arguments != ():
            raise refuse("E-CALL", f"its pickle makes an object of {quoted(kind)} at byte {self._at:,}")
        self._push(Record(kind.text))

    def _build(self) -> None:
        state = self._pop()
        if self._script and self._stack and isinstance(self._stack[-1], Record):
            record = self._top(Record)
            if record.is_built:
                raise refuse("E-CALL", f"its pickle sets the state of an object twice, at byte {self._at:,}")
            record.state, record.is_built = state, True
            return
        # A state dict carries the versions of its modules this way; they are not used.
        if not isinstance(state, dict) or state.keys() != {"_metadata"}:
            raise refuse("E-CALL", f"its pickle sets the state of an object at byte {self._at:,}")
        self._top(Ordered)

    def _persistent(self) -> None:
        told = self._pop()
        if self._chained and isinstance(told, tuple) and len(told) == 6 and told[5] is None:
            told = told[:5]  # before 1.6 a view of a storage could be named here
        if not (isinstance(told, tuple) and len(told) == 5 and told[0] == "storage" and isinstance(told[1], Name)):
            raise refuse("E-STORAGE", f"it refers to {quoted(told)} outside itself, which is no storage")
        _, kind, key, device, numel = told
        if kind.text not in _STORAGES or not isinstance(key, str) or not isinstance(device, str) or not _is_size(numel):
            raise refuse("E-STORAGE", f"it describes the storage {quoted(key)} in a way that torch.save does not")
        storage = Storage(key, _STORAGES[kind.text], numel, device)
        if self.storages.setdefault(key, storage) != storage:
            raise refuse("E-STORAGE", f"it describes the storage {quoted(key)} in two ways")
        self._push(storage)

    _HANDLERS: ClassVar[dict[int, Callable[[Machine], None]]] = {
        ord(b"("): lambda m: m._marks.append(len(m._stack)),
        ord(b"q"): lambda m: m._put(m._byte()),
        ord(b"r"): lambda m: m._put(m._unsigned(4)),
        ord(b"h"): lambda m: m._get(m._byte()),
        ord(b"j"): lambda m: m._get(m._unsigned(4)),
        ord(b"}"): lambda m: m._push({}),
        ord(b"]"): lambda m: m._push([]),
        ord(b")"): lambda m: m._push(()),
        ord(b"t"): lambda m: m._push(tuple(m._pop_to_mark())),
        ord(b"\x85"): lambda m: m._tuple(1),
        ord(b"\x86"): lambda m: m._tuple(2),
        ord(b"\x87"): lambda m: m._tuple(3),
        ord(b"s"): _set_item,
        ord(b"u"): lambda m: m._set_items(m._pop_to_mark()),
        ord(b"a"): _append,
        ord(b"e"): _appends,
        ord(b"X"): _text,
        ord(b"K"): lambda m: m._push(m._byte()),
        ord(b"M"): lambda m: m._push(m._unsigned(2)),
        ord(b"J"): lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
        ord(b"\x8a"): _long,
        ord(b"G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
        ord(b"N"): lambda m: m._push(None),
        ord(b"\x88"): lambda m: m._push(True),
        ord(b"\x89"): lambda m: m._push(False),
        ord(b"\x81"): _new_object,
        ord(b"c"): _global,
        ord(b"R"): _reduce,
        ord(b"b"): _build,
        ord(b"Q"): _persistent,
    }


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _are(values: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    return len(values) == len(kinds) and all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True))


def _no_hooks(value: object) -> bool:
    return isinstance(value, Ordered) and not value
