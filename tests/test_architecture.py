"""The shape of the code: layers, catalogues, sealed bases, sizes, what is never written, what is never imported early."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from badnets.core import registry
from badnets.core.config import Config
from badnets.core.errors import UsageError

PACKAGE = registry.PACKAGE
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ENTRIES = [(c, n) for c in registry.catalogues() for n in registry.names(c)]

LAYERS = (
    ("core",),
    ("datasets", "nets", "triggers"),
    ("attacks", "train", "measure", "camera"),
    ("detectors", "repairs", "stressors", "neurons", "intake"),
    ("claims",),
    ("plans",),
    ("report",),
    ("cli", "web"),
)
LEVEL = {folder: level for level, line in enumerate(LAYERS) for folder in line}
BLIND = ("detectors", "repairs", "stressors")
SECRET = ("triggers", "attacks")


@functools.cache
def tree(file):
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


@functools.cache
def every_node(file):
    return tuple(ast.walk(tree(file)))


def nodes(file, *kinds):
    return [node for node in every_node(file) if isinstance(node, kinds)]


def imports(file):
    """Every `badnets.folder` that a file imports, however late and also for types only."""
    found = set()
    for node in nodes(file, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {module.split(".")[1] for module in modules if module.startswith("badnets.")}
    # import_module("badnets.x") and registry.entry("x", ...) reach across as well.
    for node in nodes(file, ast.Constant):
        if isinstance(node.value, str) and node.value.startswith("badnets.") and node.value.count(".") >= 1 and " " not in node.value:
            found.add(node.value.split(".")[1].partition(":")[0])
    return found & LEVEL.keys()


def folder(file):
    return file.split("/")[0] if "/" in file else None


class TestLayers:
    def test_every_folder_has_its_line(self):
        assert {folder(file) for file in FILES} - {None} <= LEVEL.keys()

    @pytest.mark.parametrize("file", [file for file in FILES if folder(file)])
    def test_a_folder_imports_only_from_lines_above(self, file):
        own = folder(file)
        for other in imports(file) - {own}:
            if (file, other) in SANCTIONED:
                continue
            assert LEVEL[other] < LEVEL[own], f"{file} imports {other}, which is on line {LEVEL[other]}, from line {LEVEL[own]}"

    def test_the_rule_is_not_empty(self):
        seen = {(folder(file), other) for file in FILES for other in imports(file)}
        assert {("claims", "measure"), ("attacks", "triggers"), ("measure", "nets"), ("plans", "train")} <= seen

    def test_sanctioned_crossings_are_still_needed(self):
        assert all(other in imports(file) for file, other in SANCTIONED)

    def test_defenders_never_see_the_secret(self):
        for file in FILES:
            if folder(file) in BLIND:
                assert not imports(file) & set(SECRET), f"{file} imports the secret"

    def test_nobody_imports_the_front_door(self):
        for file in FILES:
            for node in nodes(file, ast.ImportFrom):
                if node.module == "badnets" and folder(file) not in ("cli", None):
                    assert {alias.name for alias in node.names} <= {"__version__"}, file


SANCTIONED = {
    # The engine names the worker's function as text; it runs whatever function it is told.
    ("core/engine.py", "plans"),
}


class TestCatalogues:
    def test_are_the_plural_folders(self):
        assert set(registry.catalogues()) >= {"attacks", "claims", "datasets", "nets", "plans", "triggers"}
        assert set(registry.catalogues()) <= LEVEL.keys()

    @pytest.mark.parametrize(("catalogue", "name"), ENTRIES)
    def test_one_entry_a_file_named_after_it(self, catalogue, name):
        found = registry.entry(catalogue, name)
        if inspect.isclass(found):
            assert issubclass(found, Config)
            assert found.model_fields["kind"].default == name
            assert typing.get_args(found.model_fields["kind"].annotation) == (name,)
            public = [c for c in top(f"{catalogue}/{name}.py", ast.ClassDef) if not c.name.startswith("_")]
            assert [c.name for c in public] == [found.__name__]
            assert found.__name__.lower() == name.replace("_", "")
        else:
            assert found.__name__ == name

    @pytest.mark.parametrize(("catalogue", "name"), ENTRIES)
    def test_first_line_is_catalogue_text(self, catalogue, name):
        line = registry.describe(catalogue, name)
        assert 20 <= len(line) <= 140
        assert line[-1] in ".?"
        assert line[0].isupper() or line[0].isdigit() or not line[0].isalpha() or line.startswith(name.split("_")[0])

    @pytest.mark.parametrize(("catalogue", "name"), ENTRIES)
    def test_abstract_or_final(self, catalogue, name):
        """An entry derives from its catalogue's abstract base alone, and nothing derives from it."""
        found = registry.entry(catalogue, name)
        if not inspect.isclass(found):
            return
        for base in found.__mro__[1:]:
            if base.__module__.startswith(f"badnets.{catalogue}"):
                assert base.__module__.rpartition(".")[2].startswith("_"), f"{found.__name__} derives from the entry {base.__name__}"
                assert inspect.isabstract(base) or base.model_fields["kind"].is_required(), f"{base.__name__} could be an entry itself"
        assert not [s for s in found.__subclasses__() if s.__module__.startswith("badnets.")]

    @pytest.mark.parametrize(("catalogue", "name"), ENTRIES)
    def test_sealed_methods_are_not_overridden(self, catalogue, name):
        found = registry.entry(catalogue, name)
        if not inspect.isclass(found):
            return
        for base in found.__mro__[1:]:
            for method, value in vars(base).items():
                if getattr(value, "__final__", False):
                    assert getattr(found, method) is value, f"{found.__name__} overrides the sealed {method}"

    @pytest.mark.parametrize(
        ("catalogue", "sealed"),
        [
            ("triggers", {"stamp", "stamp_varied"}),
            ("attacks", {"poison"}),
            ("claims", {"decide"}),
            ("nets", {"build"}),
            ("datasets", {"load", "verify"}),
        ],
    )
    def test_bases_seal_what_the_harness_does(self, catalogue, sealed):
        base = importlib.import_module(f"badnets.{catalogue}._base")
        (found,) = [c for c in vars(base).values() if inspect.isclass(c) and inspect.isabstract(c) and c.__module__ == base.__name__]
        assert {name for name, value in vars(found).items() if getattr(value, "__final__", False)} >= sealed

    @pytest.mark.parametrize("catalogue", registry.catalogues())
    def test_an_unknown_name_gets_the_nearest(self, catalogue):
        name = registry.names(catalogue)[0]
        with pytest.raises(UsageError, match=f"E-NAME .*Did you mean '{name}'") as caught:
            registry.check(catalogue, name + "x")
        assert caught.value.exit_status == 2
        with pytest.raises(UsageError, match=f"Known: .*{name}"):
            registry.check(catalogue, "@@@@@@@@@@@@@@@@@@@@")


def top(file, kind):
    return [node for node in tree(file).body if isinstance(node, kind)]


class TestSizes:
    @pytest.mark.parametrize("file", FILES)
    def test_lines(self, file):
        lines = len((PACKAGE / file).read_text(encoding="utf-8").splitlines())
        plugin = folder(file) in registry.catalogues() and not Path(file).name.startswith("_")
        assert lines <= (200 if plugin else 400), f"{file} has {lines} lines"

    @pytest.mark.parametrize("file", FILES)
    def test_functions(self, file):
        for node in nodes(file, ast.FunctionDef, ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{file}:{node.lineno} {node.name} has {length} lines"

    @pytest.mark.parametrize("file", FILES)
    def test_every_module_says_what_it_is(self, file):
        doc = ast.get_docstring(tree(file)) or ""
        assert doc.partition("\n")[0].strip(), f"{file} has no docstring"


class TestNever:
    """What must not be in the source."""

    @pytest.mark.parametrize("file", FILES)
    def test_pickle(self, file):
        banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        for node in nodes(file, ast.Import, ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {m.split(".")[0] for m in modules} & banned, f"{file}:{node.lineno}"
        for node in nodes(file, ast.Call):
            assert ast.unparse(node.func) not in ("torch.load", "torch.save", "torch.hub.load", "eval", "exec"), f"{file}:{node.lineno}"
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                assert (keyword.arg, value) not in (("allow_pickle", "True"), ("strict", "False"), ("weights_only", "False")) or (
                    ast.unparse(node.func) in STRICTLESS
                ), f"{file}:{node.lineno} {keyword.arg}={value}"

    @pytest.mark.parametrize("file", FILES)
    def test_bare_or_silent_except(self, file):
        for node in nodes(file, ast.ExceptHandler):
            assert node.type is not None, f"{file}:{node.lineno} catches everything"
            if ast.unparse(node.type) in ("Exception", "BaseException"):
                assert any(isinstance(n, (ast.Raise, ast.Call, ast.Return)) for n in ast.walk(node)), (
                    f"{file}:{node.lineno} hides a failure"
                )

    @pytest.mark.parametrize("file", FILES)
    def test_global_randomness(self, file):
        """Randomness comes from named streams; nothing reseeds or draws from a global generator."""
        for node in nodes(file, ast.Call):
            name = ast.unparse(node.func)
            assert not name.startswith(("random.", "np.random.seed", "numpy.random.seed", "torch.manual_seed")), (
                f"{file}:{node.lineno} {name}"
            )
            if name.startswith("np.random.") and name.count(".") == 2:
                assert name in ("np.random.default_rng", "np.random.Generator"), f"{file}:{node.lineno} {name}"
            if name == "np.random.default_rng":
                assert node.args, f"{file}:{node.lineno} draws without a seed"

    @pytest.mark.parametrize("file", [file for file in FILES if file != "core/files.py"])
    def test_only_one_module_writes(self, file):
        for node in nodes(file, ast.Call):
            found = writes(node)
            assert not found or (file, ast.unparse(node.func)) in WRITERS, f"{file}:{node.lineno} {ast.unparse(node)} {found}"

    def test_the_reasons_for_writing_elsewhere_are_still_needed(self):
        used = {(f, ast.unparse(node.func)) for f in FILES for node in nodes(f, ast.Call) if writes(node)}
        assert WRITERS.keys() <= used, WRITERS.keys() - used

    @pytest.mark.parametrize("file", FILES)
    def test_secrets_of_the_workshop(self, file):
        text = (PACKAGE / file).read_text(encoding="utf-8")
        for word in ("/work/", "PEERS.md", "HABITS.md", "CLAIMS.md", "/tmp/"):
            assert word not in text, f"{file} mentions {word}"


STRICTLESS = ("zip", "torch.export.export")
"""Where strict=False hides no failure: of an export it says how the net is followed, not what is let pass."""
WRITERS = {
    ("core/png.py", "image.save"): "into memory",
    ("train/_state.py", "safetensors.torch.save"): "returns bytes",
    ("nets/_weights.py", "safetensors.torch.save"): "returns bytes",
    ("core/tensors.py", "save"): "safetensors.numpy.save, returns bytes",
    ("core/index.py", "sqlite3.connect"): "SQLite writes its own file, which can be rebuilt",
    ("train/fit.py", "self.watch.checkpoint.save"): "a protocol; the file behind it is core.files'",
}


def writes(node):
    """Why a call may write to the disk, or an empty string."""
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    if name.startswith("files.") or name in ("zipfile.ZipFile.open",):
        return ""
    if last in ("write_text", "write_bytes", "savez", "savez_compressed", "savetxt", "tofile", "mkdir", "makedirs", "touch", "save_file"):
        return last
    if last in ("unlink", "rmdir", "rmtree", "symlink_to", "hardlink_to", "mkstemp", "mkdtemp", "NamedTemporaryFile", "to_csv"):
        return last
    if last == "save" and name != "super().save":
        return last
    if name in ("sqlite3.connect", "json.dump", "np.save", "os.rename", "os.replace", "os.remove", "shutil.copy", "shutil.move"):
        return name
    texts = [ast.unparse(argument) for argument in (*node.args, *(k.value for k in node.keywords))]
    if name == "os.open":
        return "" if "os.devnull" in texts else ", ".join(t for t in texts if any(f in t for f in ("O_WRONLY", "O_RDWR", "O_CREAT")))
    if last in ("open", "fdopen"):
        given = (*(node.args[1:] if name == "open" else node.args), *(k.value for k in node.keywords))
        modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return ", ".join(m for m in modes if set(m) <= set("rwxabt+") and set(m) & set("wxa+"))
    return ""


class TestTheWriteSearchItself:
    @pytest.mark.parametrize(
        "code",
        [
            "open('a', 'w')",
            "path.open('wb')",
            "open('a', mode='a')",
            "path.write_text('x')",
            "np.save(path, x)",
            "image.save(path)",
            "os.open(path, os.O_WRONLY | os.O_CREAT)",
            "json.dump(x, file)",
            "path.mkdir()",
            "open('a', 'r+b')",
        ],
    )
    def test_finds(self, code):
        assert writes(ast.parse(code).body[0].value)

    @pytest.mark.parametrize(
        "code", ["open('a')", "path.open('rb')", "files.write_text(p, t)", "os.open(p, os.O_RDONLY)", "tar.open(mode='r:gz')"]
    )
    def test_passes(self, code):
        assert not writes(ast.parse(code).body[0].value)


def without(modules, code):
    """Run code in a fresh interpreter; it fails if any of the modules was imported."""
    check = f"import sys; hit = [m for m in {modules!r} if m in sys.modules]; sys.exit(f'imported {{hit}}' if hit else 0)"
    return subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, timeout=60)


LATE = {"core/perspective.py"}
"""Geometry in torch; whoever needs it imports it late, as the tests on listing and on the main process hold."""


class TestImports:
    HEAVY = ("torch", "scipy", "sklearn", "altair", "pandas", "matplotlib", "torchvision")

    def test_listing_every_catalogue_imports_no_torch(self):
        code = (
            "from badnets.core import registry\n"
            "for c in registry.catalogues():\n"
            "    for n in registry.names(c):\n"
            "        assert registry.describe(c, n)\n"
        )
        done = without((*self.HEAVY, "PIL"), code)
        assert done.returncode == 0, done.stderr

    def test_the_package_imports_no_torch(self):
        done = without(self.HEAVY, "import badnets")
        assert done.returncode == 0, done.stderr

    def test_claims_attacks_and_measure_import_no_torch(self):
        """The main process needs none: it decides from stored outcomes."""
        modules = [f"badnets.{c}.{n}" for c in ("triggers", "attacks", "claims") for n in registry.names(c)]
        done = without(("torch",), "\n".join(f"import {m}" for m in (*modules, "badnets.measure.rates", "badnets.plans.quick")))
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", ["core", "datasets", "report"])
    def test_light_folders_import_heavy_things_late(self, name):
        for file in FILES:
            if folder(file) == name and file not in LATE:
                for node in top(file, (ast.Import, ast.ImportFrom)):
                    modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                    assert not {m.split(".")[0] for m in modules} & {"torch", "scipy", "sklearn"}, f"{file}:{node.lineno}"

    @pytest.mark.skipif(not (PACKAGE / "cli" / "main.py").exists(), reason="the command line is not there yet")
    def test_help_imports_no_torch(self):
        done = subprocess.run([sys.executable, "-X", "importtime", "-m", "badnets", "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
        assert not loaded & set(self.HEAVY)
