"""What a run ran on and with: machine, versions, and a digest of the sources that decide numbers. Imports no torch.

It names no GPU: `core.device` does, where torch is loaded anyway.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from badnets.core.types import Scalar

_PACKAGE = Path(__file__).resolve().parent.parent
_DECIDE = (
    "core/rng.py",
    "core/ink.py",
    "core/perspective.py",
    "datasets",
    "nets",
    "triggers",
    "attacks",
    "train",
    "measure",
    "plans/_work.py",
)
_STUDY = ("stressors", "neurons", "claims/_stress.py", "claims/_further.py", "claims/_transfer.py", "claims/_handover.py")
_APART = ("train/inversion.py",)
"""Lives among those and decides nothing of them: defenders use it on nets that are trained."""
_DEFENCE = ("detectors", "repairs", *_APART, "core/view.py", "core/meter.py", "claims/_scanned.py", "claims/_mended.py")
_CAMERA = ("camera", "claims/_photographed.py", "claims/_subjects.py")
_UNLABELLED = ("claims/_unlabelled.py", "intake/unlabelled.py")
_CATALOGUES = ("datasets", "nets", "triggers", "attacks", "stressors", "neurons", "detectors", "repairs")
"""A source of these decides nothing for a run that neither names it nor imports it; bases always count."""
_NAMED = ("torch", "numpy", "scipy", "scikit-learn", "pillow", "safetensors", "pydantic", "onnxruntime")


def describe() -> dict[str, Scalar]:
    """The machine in words; None where the system does not say."""
    return {
        "cpu": _cpu(),
        "cores": num_cores(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }


def versions() -> dict[str, str]:
    """Version of Python, of badnets and of every library that can change a number."""
    import badnets

    found = {"python": platform.python_version(), "badnets": getattr(badnets, "__version__", "unknown")}
    for name in _NAMED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def code_digest(entries: frozenset[str] | None = None, package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide a net's weights and its outcomes.

    `entries`: the names that a configuration mentions; sources in catalogues that are neither among them nor imported by what is left
    do not count, so that another trigger in the folder costs no training. None: all count.
    """
    return _digest(package, _DECIDE, entries)


@cache
def study_digest(entries: frozenset[str] | None = None, package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide what is done to a trained net and what is read from its inside; `entries` as above."""
    return _digest(package, _STUDY, entries)


@cache
def defence_digest(entries: frozenset[str] | None = None, package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide what detectors say and what repairs leave; `entries` as above."""
    return _digest(package, _DEFENCE, entries)


@cache
def camera_digest(package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide how signs are photographed."""
    return _digest(package, _CAMERA)


@cache
def unlabelled_digest(package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide how a net is shown images without labels."""
    return _digest(package, _UNLABELLED)


@cache
def package_digest(package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide what a Record says: those, and statistics, claims and plans."""
    return _digest(package, (*_DECIDE, *_STUDY, *_DEFENCE, *_CAMERA, "core/stats", "core/tensors.py", "claims", "plans"))


@cache
def scan_digest(package: Path = _PACKAGE) -> str:
    """SHA-256 over the sources that decide how a stranger's file is read and what detectors say of it, clean nets aside."""
    parts = (*_DECIDE, *_DEFENCE, "intake", "core/stats", "core/suspect.py", "core/finding.py", "core/tensors.py", "core/layers.py")
    own = ("_model_file", "_outside", "_preparation", "_recognise", "_scan", "_scan_rows")
    return _digest(package, (*parts, *(f"plans/{name}.py" for name in own)))


def _digest(package: Path, parts: tuple[str, ...], entries: frozenset[str] | None = None) -> str:
    """Names and contents, whatever the folder is called and the line ends are."""
    digest = hashlib.sha256()
    for name in _chosen(package, parts, entries):
        content = (package / name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _chosen(package: Path, parts: tuple[str, ...], entries: frozenset[str] | None) -> list[str]:
    """Paths in the package: the sources of the parts but for entries that nothing asks for, and the entries of any catalogue that are."""
    chosen = [name for part in parts for name in _sources(package, part) if name not in _APART or part in _APART]
    if entries is None:
        return chosen
    known = {name for part in _CATALOGUES for name in _sources(package, part) if _counts_when_used(name)}
    wanted = {name for name in known if Path(name).stem in entries}
    fresh = {*(name for name in chosen if name not in known), *wanted}
    while fresh:
        fresh = {name for source in fresh for name in _imported((package / source).read_bytes())} & (known - wanted)
        wanted |= fresh
    return [*(name for name in chosen if name not in known), *sorted(wanted)]


def _sources(package: Path, part: str) -> list[str]:
    place = package / part
    return [part] if place.is_file() else sorted(path.relative_to(package).as_posix() for path in place.rglob("*.py"))


def _counts_when_used(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder in _CATALOGUES and "/" not in file and file not in ("__init__.py", "_base.py")


@cache
def _imported(content: bytes) -> tuple[str, ...]:
    """The modules of the package that a source may import, as paths in it, whether or not there is such a file."""
    found: list[str] = []
    for node in ast.walk(ast.parse(content)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [name.partition(".")[2].replace(".", "/") + ".py" for name in names]
    return tuple(found)


def num_cores() -> int:
    """Cores that this process may use: the affinity mask and the control group's quota count, not what the machine has."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _cpu() -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor() or None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
