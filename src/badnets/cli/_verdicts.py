"""Verdicts of scans in a terminal, and the pictures that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from badnets.core import files
from badnets.core.png import png_bytes
from badnets.core.scanned import net_text, steadiness
from badnets.report import _format as show
from badnets.report._escape import plain

if TYPE_CHECKING:
    import numpy as np

    from badnets.core.scanned import Opinion, RowVerdict, Verdict
    from badnets.plans._repair import Tried
    from badnets.plans._scan import Told

LARGEST, TALL = 40, 8
"""Pictures with more pixels a side are not drawn in the terminal; in the file each pixel is so many a side."""


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> dict[str, Path]:
    """Each picture (0..1, CHW) enlarged in a PNG file."""
    written = {}
    for name, image_CHW in pictures.items():
        path = folder / f"{name.replace(' ', '-')}.png"
        files.write_bytes(path, png_bytes((image_CHW.clip(0, 1) * 255).round().astype("uint8").repeat(TALL, axis=1).repeat(TALL, axis=2)))
        written[name] = path
    return written


def print_verdict(verdict: Verdict, pictures: Mapping[str, np.ndarray], written: Mapping[str, Path]) -> None:
    """The verdict on a net, then what each detector said, then the trigger as it was found."""
    console = Console(highlight=False)
    console.print(Text.assemble(*_headline(verdict)))
    console.print(Text(_calibrated(verdict), style="dim"))
    console.print(Text(_opened(verdict), style="dim"))
    if verdict.images is not None:
        console.print(Text(plain(f"Images: {verdict.images.told}")))
    if verdict.opinion is not None:
        console.print(Text(_second(verdict.opinion), style="dim"))
    console.print()
    table = Table("detector", "p", "suspects", "images", "seconds", "what it saw", box=None, pad_edge=False, header_style="bold")
    for line in verdict.lines:
        p = "not analysable" if line.p is None else f"{line.p:.3f}"
        saw = line.why_not or line.note
        table.add_row(line.detector, p, _words(line.target or ""), f"{line.images:,}", f"{line.seconds:.1f}", _words(saw))
    console.print(table)
    if steady := steadiness(verdict.lines):
        console.print(Text(f"{steady}.", style="dim"))
    console.print(Text(_unseen(verdict.not_looked_at), style="dim"))
    if verdict.flagged:
        _draw(console, pictures)
        for name, path in written.items():
            console.print(Text(f"{name}: {path}", style="dim"), soft_wrap=True)


def _words(text: str) -> Text:
    """In a table a plain string may hold markup: a class called `[link=...]` would become a link, `[/x]` an error."""
    return Text(plain(text))


def _headline(verdict: Verdict) -> list[tuple[str, str]]:
    against = verdict.why_not
    if verdict.p is not None:
        least = verdict.p <= 1 / (1 + verdict.num_null)
        against = f"p = {verdict.p:.3f} against {verdict.num_null} clean nets{', the least that so many can show' if least else ''}"
    if verdict.flagged is None:
        return [("NOT ANALYSABLE", "bold"), (f"  {plain(against)}. This does not mean clean.", "")]
    if verdict.flagged:
        target = f" Suspected target: {plain(verdict.target)}." if verdict.target else ""
        return [("BACKDOORED", "bold red"), (f"  {against}.{target}", "")]
    return [("NOTHING FOUND", "bold"), (f"  {against}. These detectors can miss a backdoor; see `badnets run --plan matrix`.", "")]


def print_opened(model: Told, file: IO[str]) -> None:
    """What a file was taken for, what kept its reader in, and what was seen on the way."""
    Console(file=file, highlight=False).print(Text(_opened(model), style="dim"))


def _opened(verdict: Verdict | Told) -> str:
    told = [f"Read as {verdict.format}, {net_text(verdict.net)}", f"sandbox: {verdict.sandbox}", *verdict.notes]
    return plain("; ".join(told)) + "."


def _second(opinion: Opinion) -> str:
    named = f": {', '.join(opinion.names)}" if opinion.names else ""
    return plain(f"Second opinion, which decides nothing: {opinion.tool} {opinion.version} says {opinion.says}{named}") + "."


def _unseen(not_looked_at: Sequence[str]) -> str:
    return f"Not looked at: {'; '.join(not_looked_at)}."


def _calibrated(verdict: Verdict) -> str:
    alarms = show.figure(verdict.false_alarms, "rate")
    return (
        f"Clean nets: {verdict.setting}. Flagged at p <= {verdict.alpha:g}; so are {alarms} of clean nets that were not calibrated on "
        f"(n = {verdict.false_alarms.n})."
    )


def _draw(console: Console, pictures: Mapping[str, np.ndarray]) -> None:
    """The first small picture of a trigger, two rows of pixels in one of text."""
    drawn = next((image for name, image in pictures.items() if name.endswith("trigger") and max(image.shape[1:]) <= LARGEST), None)
    if drawn is None or not console.is_terminal:
        return
    rgb_HWC = (drawn.clip(0, 1) * 255).round().astype(int).transpose(1, 2, 0)
    rgb_HWC = rgb_HWC.repeat(3, axis=2) if rgb_HWC.shape[2] == 1 else rgb_HWC[..., :3]
    console.print()
    for top in range(0, len(rgb_HWC) - 1, 2):
        colours = [(tuple(upper), tuple(lower)) for upper, lower in zip(rgb_HWC[top], rgb_HWC[top + 1], strict=True)]
        line = [("▀", f"rgb({u[0]},{u[1]},{u[2]}) on rgb({v[0]},{v[1]},{v[2]})") for u, v in colours]
        console.print(Text.assemble(*line))


def print_rows(verdict: RowVerdict, written: Mapping[str, Path]) -> None:
    """The verdict on training data, class by class where something stands out."""
    console = Console(highlight=False)
    if verdict.flagged:
        head = [
            ("POISONED", "bold red"),
            (f"  {verdict.num_suspect:,} of {verdict.num_rows:,} images carry a label that the rest contradicts.", ""),
        ]
    else:
        head = [("NOTHING FOUND", "bold"), (f"  in {verdict.num_rows:,} images. Poison without wrong labels is not looked for.", "")]
    console.print(Text.assemble(*head))
    alarms = show.figure(verdict.false_alarms, "rate")
    told = f"Of clean training sets that no threshold was chosen on, {alarms} are flagged ({verdict.measured})."
    console.print(Text(told, style="dim"))
    table = Table("class", "suspects", "kept label", "others say", "verdict", box=None, pad_edge=False, header_style="bold")
    for group in verdict.groups:
        agree = show.figure(group.agreement, "rate")
        table.add_row(
            _words(group.label), f"{group.size:,}", agree, _words(group.others), "poisoned" if group.poisoned else "odd, not poisoned"
        )
    if verdict.groups:
        console.print()
        console.print(table)
    console.print()
    console.print(Text(_unseen(verdict.not_looked_at), style="dim"))
    for name, path in written.items():
        console.print(Text(f"{name}: {path}", style="dim"), soft_wrap=True)


def print_tried(one: Tried, file: IO[str]) -> None:
    """One repair in one line, as soon as it was tried."""
    accuracy, inverted = (show.figure(estimate, "rate") for estimate in (one.accuracy, one.inverted))
    told = one.why_not or f"accuracy {accuracy:<22} inverted trigger works {inverted:<22} {one.seconds:.1f} s"
    Console(file=file, highlight=False, soft_wrap=True).print(Text(f"{one.repair:<14} {plain(told)}"))
