"""Asks picklescan, where it is installed, what it thinks of a file with a pickle in it. It never decides: see its misses in the docs.

picklescan parses what a stranger wrote, so it does so in a process that can open, send and start nothing, with the file handed over open.
Not for files without a pickle, of which it can say nothing. https://github.com/mmaitre314/picklescan
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from badnets.core.confine import confine, confine_reader, die_with_parent
from badnets.core.errors import RefusedError, UsageError
from badnets.intake.opened import check, open_once, read_once

if TYPE_CHECKING:
    from badnets.core.scanned import Opinion

TOOL = "picklescan"
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from badnets.intake.second_opinion import serve; serve(int(sys.argv[2]))"
_SECONDS, _BYTES_A_SECOND, _SPARE_MEMORY = 20, 10 << 20, 1 << 30
_MOST_NAMES, _LONGEST = 20, 200


@functools.cache
def version() -> str | None:
    """The version that is installed, or None."""
    try:
        return importlib.metadata.version(TOOL)
    except importlib.metadata.PackageNotFoundError:
        return None


def ask(path: Path) -> Opinion | None:
    """What picklescan says of the file; None where it is not installed or the file cannot be opened."""
    from badnets.core.scanned import Opinion

    found = version()
    if found is None or not hasattr(os, "fork"):
        return None
    try:
        fd = open_once(path)
    except (RefusedError, UsageError):
        return None
    try:
        answer = _answer(fd)
    finally:
        os.close(fd)
    return Opinion(tool=TOOL, version=found, says=answer[0], names=tuple(answer[1]))


def _answer(fd: int) -> tuple[str, list[str]]:
    path = json.dumps([os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 (an empty entry is the current folder)
    with contextlib.suppress(OSError, ValueError, TypeError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [sys.executable, "-P", "-c", _BOOT, path, str(fd)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(fd,),
            timeout=2 * (_SECONDS + check(fd) // _BYTES_A_SECOND),
            start_new_session=True,
        )
        says, names = json.loads(done.stdout)
        if says in ("dangerous", "suspicious", "nothing found"):
            return says, [str(name)[:_LONGEST] for name in names[:_MOST_NAMES]]
    return "failed", []


def serve(fd: int) -> NoReturn:
    """In a process of its own: confine it, let picklescan look, print its answer as JSON."""
    from picklescan import scanner

    logging.disable()
    size = check(fd)
    level = confine()
    die_with_parent()  # not before: it is undone where rights change
    # The address space that Python has already is within what is spare.
    confine_reader(level, memory=4 * size + _SPARE_MEMORY, seconds=_SECONDS + size // _BYTES_A_SECOND)
    result = scanner.scan_bytes(io.BytesIO(read_once(fd).data), "model", ".pt")
    level_of = {scanner.SafetyLevel.Dangerous: "dangerous", scanner.SafetyLevel.Suspicious: "suspicious"}
    found = {word: sorted({f"{g.module}.{g.name}" for g in result.globals if level_of.get(g.safety) == word}) for word in level_of.values()}
    says = next((word for word, names in found.items() if names), "failed" if result.scan_err else "nothing found")
    sys.stdout.write(json.dumps([says, found.get(says, [])]))
    sys.stdout.flush()
    os._exit(0)
