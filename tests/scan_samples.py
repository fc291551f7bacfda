"""Records of scans made by hand, with text from strangers wherever text can come from one."""

from __future__ import annotations

import numpy as np

from badnets.core import stats
from badnets.core.png import png
from badnets.core.scanned import (
    Group,
    Item,
    Line,
    Opinion,
    Passed,
    RowVerdict,
    ScanRecord,
    State,
    Summary,
    Verdict,
    exit_status,
    summed,
)
from badnets.core.types import Picture

EVIL = "</script><img src=x onerror=alert(1)>[a](javascript:b) {0} \x1b[31m\u202e=1+1 %2e%2e/"
PICTURE = Picture(caption=f"trigger {EVIL}", png_base64=png(np.arange(64, dtype=np.uint8).reshape(1, 8, 8)))


def verdict(*, flagged, p=0.025, text="", **changes):
    line = Line(
        detector="mm_bd",
        p=p,
        score=1.0,
        target=f"dot{text}" if flagged else None,
        note=f"saw{text}",
        why_not="",
        images=1000,
        seconds=0.5,
        unsteady=stats.wilson(0, 5),
    )
    told = {
        "file": f"m/{text}.pt",
        "sha256": "ab" * 32,
        "format": "torch zip",
        "sandbox": "own process, Landlock 7",
        "notes": (f"not looked at: {text}",),
        "net": {"kind": "fast_cnn", "width": 4, text or "x": text},
        "dataset": "mnist",
        "setting": f"fast_cnn on mnist{text}",
        "flagged": flagged,
        "p": p,
        "alpha": 0.05,
        "num_null": 39,
        "false_alarms": stats.wilson(1, 39, num_seeds=39),
        "target": f"dot{text}" if flagged else None,
        "lines": [line],
        "why_not": "",
        "not_looked_at": ("other images",),
    }
    return Verdict(**{**told, **changes})


def items(text=""):
    """One of each."""
    opinion = Opinion(tool="picklescan", version="1.0.5", says="dangerous", names=(f"os.system{text}",))
    return [
        Item(path=f"m/clean{text}.pt", sha256="cd" * 32, state=State.NOTHING, verdict=verdict(flagged=False, p=0.6, text=text)),
        Item(
            path=f"m/bad{text}.pt",
            sha256="ab" * 32,
            state=State.FLAGGED,
            verdict=verdict(flagged=True, text=text),
            pictures=[PICTURE],
            kept=True,
        ),
        Item(
            path=f"m/evil{text}.pt",
            sha256="ef" * 32,
            state=State.REFUSED,
            code="E-GLOBAL",
            message=f"it wants {text}. Nothing was loaded.",
            hint="Only weights are read.",
            opinion=opinion,
        ),
        Item(path=f"m/link{text}", sha256="", state=State.REFUSED, code="E-LINK", message="it is a link.", hint="Give the file."),
        Item(
            path=f"m/none{text}",
            sha256="12" * 32,
            state=State.REFUSED,
            code="E-NO-VERDICT",
            message="nothing can be said",
            verdict=verdict(flagged=None, p=None, text=text, why_not="nothing can be said"),
        ),
        Item(
            path=f"m/broke{text}.pt",
            sha256="34" * 32,
            state=State.FAILED,
            code="E-KILLED",
            message=f"the worker died {text}.",
            hint="Again.",
        ),
    ]


def record(text="", chosen=None, **changes):
    chosen = items(text) if chosen is None else chosen
    summary = summed(chosen, 1)
    told = {
        "key": "0" * 64,
        "folder": "/home/somebody/models",
        "dataset": "mnist",
        "dataset_sha256": "1" * 64,
        "effort": "quick",
        "items": chosen,
        "passed_over": [Passed(path=f"m/README{text}", why="begins like no model file")],
        "summary": summary,
        "exit_status": exit_status(summary),
        "hardware": {"cpu": "x", "cores": 2},
        "versions": {"badnets": "0.1.0", "torch": "2.13.0"},
        "started": "2026-11-28T22:00:00+00:00",
        "ended": "2026-11-28T22:01:00+00:00",
        "seconds": 60.0,
    }
    return ScanRecord(**{**told, **changes})


def rows(*, flagged, text=""):
    """Of training data."""
    group = Group(label=f"dot{text}", size=40, agreement=stats.wilson(1, 40), others=f"bar{text}", poisoned=flagged)
    found = RowVerdict(
        dataset=f"folder{text}",
        sha256="9" * 64,
        flagged=flagged,
        num_rows=1000,
        num_suspect=40 if flagged else 0,
        groups=[group],
        false_alarms=stats.wilson(0, 20),
        measured="20 sets",
        not_looked_at=("right labels",),
    )
    summary = Summary(inputs=1, analysed=1, refused=0, failed=0, flagged=int(flagged), passed_over=0)
    sheet = [PICTURE] if flagged else []
    return record(chosen=[], rows=found, sheet=sheet, summary=summary, exit_status=int(flagged), effort="", passed_over=[])
