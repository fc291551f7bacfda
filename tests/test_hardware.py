"""Hardware: what a record says of the machine, and a digest that changes with the code and with nothing else."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from badnets.core import hardware
from badnets.core.hardware import code_digest, defence_digest, describe, num_cores, package_digest, study_digest, versions
from badnets.core.types import Record


def test_the_description_fits_into_a_record():
    said = describe()
    assert sorted(said) == ["cores", "cpu", "machine", "memory_gib", "system"]
    assert said["cores"] >= 1
    assert said["memory_gib"] > 0.1
    Record(key="k", plan="p", config={}, claims=[], hardware=said, versions=versions())
    assert json.loads(json.dumps(said)) == said


def test_versions_name_what_can_change_a_number():
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.keys() >= {"badnets", "torch", "numpy", "scipy", "scikit-learn", "pillow", "safetensors"}
    assert all(found[name][0].isdigit() for name in ("torch", "numpy", "badnets"))


def test_an_absent_library_is_called_absent(monkeypatch):
    monkeypatch.setattr(hardware, "_NAMED", ("no-such-library",))
    assert versions()["no-such-library"] == "absent"


def test_the_core_is_light():
    """Describing the machine, opening a store and an engine load neither torch nor numpy."""
    script = (
        "import sys\n"
        "from badnets.core import engine, files, hardware, store\n"
        "hardware.describe(), hardware.versions(), hardware.code_digest()\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'sklearn', 'safetensors'} & sys.modules.keys()))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_cores_follow_the_affinity_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert num_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() >= 1


@pytest.fixture
def package(tmp_path):
    """A small package of the same shape."""
    for name in ("core/rng.py", "core/store.py", "nets/a.py", "nets/b.py", "datasets/_data/x.bin", "attacks/c.py", "report/r.py"):
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\nx = 1\n")
    return tmp_path / "package"


def digest(package, *entries):
    return code_digest.__wrapped__(frozenset(entries) if entries else None, package)


def test_the_digest_is_that_of_the_package():
    assert code_digest() == code_digest.__wrapped__()
    assert len(code_digest()) == 64


def edit(package):
    (package / "nets" / "a.py").write_text("# nets/a.py\nx = 2\n")


def rename(package):
    (package / "nets" / "a.py").rename(package / "nets" / "d.py")


def add(package):
    (package / "train").mkdir()
    (package / "train" / "deep").mkdir()
    (package / "train" / "deep" / "fit.py").write_text("")


def remove(package):
    (package / "attacks" / "c.py").unlink()


def edit_streams(package):
    (package / "core" / "rng.py").write_text("")


def swap(package):
    a, b = package / "nets" / "a.py", package / "nets" / "b.py"
    first, second = a.read_text(), b.read_text()
    a.write_text(second)
    b.write_text(first)


def shift(package):
    """The same bytes in a row, cut elsewhere."""
    a, b = package / "nets" / "a.py", package / "nets" / "b.py"
    both = a.read_text() + b.read_text()
    a.write_text(both[:5])
    b.write_text(both[5:])


@pytest.mark.parametrize("change", [edit, rename, add, remove, edit_streams, swap, shift])
def test_the_digest_changes_with_the_sources_that_decide_numbers(package, change):
    before = digest(package)
    change(package)
    assert digest(package) != before


def edit_report(package):
    (package / "report" / "r.py").write_text("other")
    (package / "core" / "store.py").write_text("other")


def line_ends(package):
    (package / "nets" / "a.py").write_bytes(b"# nets/a.py\r\nx = 1\r\n")


def touch(package):
    os.utime(package / "nets" / "a.py", (0, 0))


def compiled(package):
    (package / "nets" / "__pycache__").mkdir()
    (package / "nets" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")


@pytest.mark.parametrize("change", [edit_report, line_ends, touch, compiled])
def test_the_digest_does_not_change_with_anything_else(package, change):
    before = digest(package)
    change(package)
    assert digest(package) == before


def test_the_digest_does_not_depend_on_the_place(package, tmp_path):
    shutil.copytree(package, tmp_path / "elsewhere" / "named_otherwise")
    assert digest(tmp_path / "elsewhere" / "named_otherwise") == digest(package)


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("detectors/d.py", {"defence"}),
        ("repairs/r.py", {"defence"}),
        ("train/inversion.py", {"defence"}),
        ("claims/_scanned.py", {"defence"}),
        ("train/fit.py", {"code"}),
        ("stressors/s.py", {"study"}),
        ("claims/_rivals.py", set()),
    ],
)
def test_what_is_done_to_a_trained_net_has_digests_of_its_own(package, file, changed):
    kinds = {"code": code_digest, "study": study_digest, "defence": defence_digest}

    def digests():
        return {name: kind.__wrapped__(None, package) for name, kind in kinds.items()}

    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text("x = 1")
    before, whole = digests(), package_digest.__wrapped__(package)
    (package / file).write_text("x = 2")
    after = digests()
    assert {name for name in kinds if before[name] != after[name]} == changed
    assert package_digest.__wrapped__(package) != whole


class TestEntriesThatNobodyAsksFor:
    """A plug-in in the folder must not cost the trainings of those that do not use it."""

    @pytest.fixture
    def plugins(self, tmp_path):
        for name, text in {
            "triggers/_base.py": "",
            "triggers/dot.py": "from badnets.triggers._base import Trigger",
            "triggers/_ink.py": "",
            "triggers/line.py": "from badnets.triggers import _ink, dot",
            "attacks/plain.py": "import badnets.triggers.dot",
            "attacks/fancy.py": "from badnets.triggers.line import Line",
            "nets/small.py": "",
            "measure/probe.py": "",
            "stressors/prune.py": "",
        }.items():
            path = tmp_path / "package" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "package"

    @pytest.mark.parametrize(
        ("entries", "decide"),
        [
            ({"small"}, {"nets/small.py"}),
            ({"small", "dot"}, {"nets/small.py", "triggers/dot.py"}),
            ({"plain"}, {"attacks/plain.py", "triggers/dot.py"}),
            ({"fancy"}, {"attacks/fancy.py", "triggers/line.py", "triggers/_ink.py", "triggers/dot.py"}),
            ({"prune"}, {"stressors/prune.py"}),
        ],
    )
    def test_only_what_is_named_or_imported_counts(self, plugins, entries, decide):
        always = {"triggers/_base.py", "measure/probe.py"}
        before = digest(plugins, *entries)
        changed = set()
        for path in sorted(plugins.rglob("*.py")):
            text = path.read_text()
            path.write_text(text + "\nx = 1")
            if digest(plugins, *entries) != before:
                changed.add(path.relative_to(plugins).as_posix())
            path.write_text(text)
        assert changed == always | decide

    def test_what_an_always_counted_source_imports_counts(self, plugins):
        (plugins / "measure/probe.py").write_text("from badnets.triggers.dot import Dot")
        before = digest(plugins, "small")
        (plugins / "triggers/dot.py").write_text("x = 1")
        assert digest(plugins, "small") != before

    def test_an_added_entry_changes_no_key(self, plugins):
        before, whole = digest(plugins, "small", "dot"), digest(plugins)
        (plugins / "triggers/new.py").write_text("x = 1")
        assert digest(plugins, "small", "dot") == before
        assert digest(plugins) != whole

    def test_without_names_everything_counts(self, plugins):
        before = digest(plugins)
        (plugins / "nets/small.py").write_text("x = 1")
        assert digest(plugins) != before
