"""Scans any number of files: in parallel, each answer kept in the store as it comes, one verdict a file, a Record of all.

The detectors' answers are kept by the file's SHA-256 and by everything that decides them, so the same command does what is missing and
repeats nothing. Refusals are not kept: they cost milliseconds, and some are due to the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from badnets.claims._base import Effort
from badnets.core.config import canonical, key_of
from badnets.core.engine import Engine, Job, JobResult, ProcessEngine
from badnets.core.errors import BadnetsError, RefusedError, StoreError, UsageError
from badnets.core.hardware import scan_digest, versions
from badnets.core.scanned import Item, Opinion, State, path_text
from badnets.core.store import Store
from badnets.datasets._base import Dataset, ImageSet
from badnets.intake import second_opinion
from badnets.intake.found import digest
from badnets.intake.unlabelled import Unlabelled
from badnets.plans import _null, _scan
from badnets.plans._jobs import Site, _until_stopped
from badnets.plans._null import Kind, Null, Watcher
from badnets.plans._scan import Heard, Scan
from badnets.plans._scan_work import Errand, Opening, restored

NO_VERDICT = "This does not mean clean; more clean nets come with --effort standard."


class ScanWatcher(Watcher, Protocol):
    """Who also hears what was seen in opening a lone file, before clean nets are trained for minutes."""

    def opened(self, seen: str) -> None: ...


class Asked(NamedTuple):
    """What is asked of every file: is this net, made for this data set, backdoored? `images`: without labels, shown to every net in place
    of the clean images of the data set."""

    dataset: Dataset
    data: ImageSet
    opening: Opening
    effort: Effort
    images: Unlabelled | None = None

    @property
    def looked_at(self) -> dict[str, str | None]:
        """Hashes of the data set and of the images without labels."""
        return {"data": self.data.sha256, "images": self.images.sha256 if self.images else None}


@dataclass
class _File:
    """One input on its way: its hash, the key of its answer, and the answer or the error."""

    path: Path
    sha256: str = ""
    key: str = ""
    heard: Heard | None = None
    opinion: Opinion | None = None
    error: BadnetsError | None = None
    kept: bool = False


@dataclass(frozen=True, eq=False)
class Scanned:
    """A file's line in the Record, and its verdict with pictures where there is one."""

    item: Item
    scan: Scan | None = None
    error: BadnetsError | None = field(default=None)


def scan_files(paths: list[Path], asked: Asked, site: Site, watch: ScanWatcher) -> list[Scanned]:
    """In the order of the paths. Stopped in between, the same call goes on where it was.

    Raises StoreError and Stopped, and UsageError where the question itself is wrong. What is wrong with a file is told of that file.
    """
    files = [_File(path) for path in paths]
    with watch.stop.interruptible():
        for file in files:
            _look_up(file, asked, site.store)
    missing = {file.key: file for file in files if file.key and file.heard is None}
    _hear(missing, len(files), asked, site, watch)
    for file in files:
        if file.key in missing and file is not missing[file.key]:
            _copy(missing[file.key], file)
    if len(files) == 1 and files[0].heard is not None:
        model = files[0].heard.model
        watch.opened(f"{model.file} as a net for {asked.data.name}: {'; '.join(model.notes)}")
    nulls = _populations(files, asked, site, watch)
    return [_scanned(file, asked, nulls) for file in files]


def answer_key(sha256: str, asked: Asked) -> str:
    """SHA-256 of everything that decides what the detectors say of a file."""
    found = versions()
    return key_of(
        {
            "scan": {"file": sha256, "opening": asked.opening, "detectors": _scan.DETECTORS},
            "data": {"dataset": asked.dataset, **asked.looked_at},
            "code": scan_digest(),
            "versions": {name: found[name] for name in ("torch", "numpy", "scipy")},
            "opinion": second_opinion.version(),
        }
    )


def _look_up(file: _File, asked: Asked, store: Store) -> None:
    try:
        file.sha256 = digest(file.path)
    except (RefusedError, UsageError) as error:
        file.error = error
        return
    file.key = answer_key(file.sha256, asked)
    if store.has(file.key):
        try:
            file.heard, file.opinion = restored(store.get(file.key), store.info(file.key), file.path)
            file.kept = True
        except StoreError as error:
            if error.code not in ("E-DAMAGED", "E-MISSING"):
                raise


def _hear(missing: dict[str, _File], num_files: int, asked: Asked, site: Site, watch: Watcher) -> None:
    """Ask the detectors about the files whose answers are missing, and keep each answer as soon as it is there."""
    where = str(site.data) if site.data else None
    told: dict[str, Any] = {"dataset": asked.dataset, "data": where, "opening": asked.opening, "detectors": _scan.DETECTORS}
    told["images"] = asked.images.handed if asked.images else None
    errands = {key: Errand(path=quote(os.fsencode(file.path.absolute())), sha256=file.sha256, **told) for key, file in missing.items()}
    # Not in canonical form, which would sort the fields of the net, in whose order people read them.
    jobs = [Job(key, errand.model_dump_json()) for key, errand in errands.items()]
    watch.started(num_files, len(jobs))
    if not jobs:
        return
    for done, result in enumerate(_until_stopped(_engine(len(jobs)).run(jobs), watch.stop), start=1):
        _receive(missing[result.key], result, asked, site.store)
        watch.progress(done, len(jobs), None)


def _engine(jobs: int) -> Engine:
    from badnets.core.hardware import num_cores

    return ProcessEngine("badnets.plans._scan_work:perform", num_workers=min(jobs, num_cores()))


def _receive(file: _File, result: JobResult, asked: Asked, store: Store) -> None:
    if result.failure is not None:
        if isinstance(result.failure, UsageError) and result.failure.code != "E-FILE":
            raise result.failure
        file.error = result.failure
        return
    if result.info["opinion"]:
        file.opinion = Opinion(**result.info["opinion"])
    if result.info["refused"]:
        code, message, hint = result.info["refused"]
        file.error = RefusedError(code, message, hint=hint)
        return
    config = {"scan": file.sha256, "opening": asked.opening.model_dump(mode="json"), **asked.looked_at}
    store.put(result.key, config, result.files, {name: result.info[name] for name in ("seconds", "opinion")})
    file.heard, file.opinion = restored(result.files, result.info, file.path)


def _copy(first: _File, file: _File) -> None:
    """The same bytes under another name."""
    file.opinion, file.error = first.opinion, first.error
    if first.heard is not None:
        file.heard = Heard(first.heard.model.but(file=path_text(file.path)), first.heard.said, first.heard.pictures)


def _populations(files: list[_File], asked: Asked, site: Site, watch: Watcher) -> dict[str, Null]:
    """Clean nets for each kind of net among the files; where making them fails, the files of that kind fail."""
    nulls: dict[str, Null] = {}
    for net in _kinds(files):
        try:
            kind = Kind(asked.dataset, asked.data, net, asked.images)
            nulls[canonical(net)] = _null.null_population(kind, _scan.DETECTORS, asked.effort, site, watch)
        except (StoreError, UsageError):
            raise
        except BadnetsError as error:
            for file in files:
                if file.heard is not None and file.heard.model.net == net:
                    file.error = error
    return nulls


def _kinds(files: list[_File]) -> Iterator[dict[str, Any]]:
    seen = {canonical(file.heard.model.net): file.heard.model.net for file in files if file.heard is not None}
    yield from seen.values()


def _scanned(file: _File, asked: Asked, nulls: dict[str, Null]) -> Scanned:
    about: dict[str, Any] = {"path": path_text(file.path), "sha256": file.sha256, "opinion": file.opinion, "kept": file.kept}
    if file.error is not None:
        state = State.REFUSED if isinstance(file.error, RefusedError) else State.FAILED
        code, message, hint = file.error.code, _told(file.error), file.error.hint
        return Scanned(Item(**about, state=state, code=code, message=message, hint=hint), error=file.error)
    assert file.heard is not None
    scan = _scan.judged(file.heard, asked.data, nulls[canonical(file.heard.model.net)], asked.images)
    verdict = scan.verdict.model_copy(update={"opinion": file.opinion})
    scan = Scan(verdict, scan.pictures)
    if verdict.flagged is None:
        item = Item(**about, state=State.REFUSED, verdict=verdict, code="E-NO-VERDICT", message=verdict.why_not, hint=NO_VERDICT)
        return Scanned(item, scan)
    return Scanned(Item(**about, state=State.FLAGGED if verdict.flagged else State.NOTHING, verdict=verdict), scan)


def _told(error: BadnetsError) -> str:
    """The first and the last line of an error that may carry a traceback."""
    lines = error.message.splitlines()
    return error.message if len(lines) < 2 else f"{lines[0]} {lines[-1].strip()}"
