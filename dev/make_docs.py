"""Fills figures, tables and scorecards of README.md and docs/ from Records: `python dev/make_docs.py quick=a.json mnist=b.json`.

Each argument names a run and the file that `badnets show --json KEY` printed. What stands between `<!-- figure:begin NAME -->` and
`<!-- figure:end -->` (also table, story, scorecard, found, runs, library) is replaced; the same Records give the same bytes.
Stickers are filled in from the newest result of `benchmarks/stickers.py`.
Without Records only the picture of the triggers is made, and the tables of catalogue entries, data sets and plans and the claims'
sentences and rules are brought up to date. `--library` also runs the README's library example and pastes what it printed.
`--page=results-cifar10` fills that page of docs/ alone, with all cells of the given Records; nothing else touches such a page.
`--claim=works_physically` fills that claim's page alone, for runs of a plan of its own.
Charts need vl-convert-python (extra `docs`).
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape as xml

from badnets.core import files, registry
from badnets.core.types import Evidence, Record
from badnets.report import _format as show
from badnets.report import _view as view
from badnets.report._drawing import Pivot
from badnets.report._escape import markdown as escaped
from badnets.report.charts import CONTROL, INK, MARGIN, MUTED, PALETTE, Drawing, Key, drawings
from badnets.report.markdown import scorecard_markdown
from badnets.report.text import scorecard_text

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- (\w+):begin(?: (\w+))? -->\n)(.*?)(<!-- \2:end -->)", re.DOTALL)
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
LEFT_OUT = ("p", "per seed", "method")
OWN_HASH = {"folder": "of your images", "signs": "of what your machine draws"}
MOST_CELLS = 100
WIDTH, LINE, PAD, LETTERS = 640, 20, 12, 88

Records = Mapping[str, Record]
Renderer = Callable[[dict[str, Any]], str]
Blocks = Mapping[tuple[str, str], str]


def main(arguments: Sequence[str], *, root: Path = ROOT, render: Renderer | None = None) -> None:
    """Everything that the arguments allow."""
    named = dict(argument.split("=", 1) for argument in arguments if not argument.startswith("--"))
    records = {name: Record.read(Path(path).read_bytes()) for name, path in named.items()}
    pages = [argument.removeprefix("--page=") for argument in arguments if argument.startswith("--page=")]
    for page in (root / "docs" / f"{name}.md" for name in pages):
        whole = {("runs", ""): "\n".join(whole_section(name, record) for name, record in records.items())}
        keep(page, fill(page.read_text(encoding="utf-8"), whole).encode())
    alone = [argument.removeprefix("--claim=") for argument in arguments if argument.startswith("--claim=")]
    for name in alone:
        shown = {key: text for key, text in record_blocks(records, root, render or vega).items() if key[1] == name}
        page = root / "docs" / "claims" / f"{name}.md"
        keep(page, fill(page.read_text(encoding="utf-8"), shown).encode())
    if pages or alone:
        return
    blocks = {**standing_blocks(), **(record_blocks(records, root, render or vega) if records else {})}
    if "--library" in arguments:
        blocks = {**blocks, ("library", ""): fenced(run_example(root / "README.md"))}
    general = (page for page in sorted((root / "docs").rglob("*.md")) if not page.stem.startswith("results-"))
    for page in (root / "README.md", *general):
        keep(page, fill(page.read_text(encoding="utf-8"), blocks).encode())
    keep_picture(root / "docs" / "assets" / "triggers.png")


def fill(text: str, blocks: Blocks) -> str:
    """`text` with every block for which there is content replaced."""

    def one(found: re.Match[str]) -> str:
        content = blocks.get((found[2], found[3] or ""))
        return found[0] if content is None else f"{found[1]}\n{content.strip()}\n\n{found[5]}"

    return BLOCK.sub(one, text)


def standing_blocks() -> Blocks:
    """The blocks that need no Record: what the catalogues hold, how large the plans are, which data sets there are."""
    blocks = {}
    for catalogue in registry.catalogues():
        rows = [[f"`{name}`", escaped(registry.describe(catalogue, name))] for name in registry.names(catalogue)]
        blocks["catalogue", catalogue] = table(["name", "what it is"], rows)
    plans = sorted((registry.entry("plans", name)() for name in registry.names("plans")), key=lambda plan: plan.population)
    sizes = [[f"`{p.name}`", str(p.seeds), str(p.arms_seeds), str(p.population)] for p in plans]
    blocks["plans", ""] = table(["plan", "seeds", "seeds of the arms", "nets a side"], sizes)
    for name in registry.names("claims"):
        claim = registry.entry("claims", name)
        blocks["sentence", name], blocks["rule", name] = f"> {claim.sentence}", f"**Decision.** {claim.rule}"
    datasets = [registry.entry("datasets", name) for name in registry.names("datasets")]
    identities = [[f"`{d().kind}`", escaped(d.licence or "yours"), f"`{d.content}`" if d.content else OWN_HASH[d().kind]] for d in datasets]
    blocks["datasets", ""] = table(["name", "licence", "SHA-256 of the content"], identities)
    results = ROOT / "benchmarks" / "results"
    for name in ("signs", "gtsrb"):
        for path in sorted(results.glob(f"*-stickers-{name}.md")):  # the newest comes last
            blocks["stickers", name] = path.read_text(encoding="utf-8")
    return blocks


def record_blocks(records: Records, root: Path, render: Renderer) -> Blocks:
    """The content of every block that shows Records, by kind and name; charts are written on the way."""
    first = records.get("quick") or next(iter(records.values()))
    blocks = {
        ("scorecard", ""): fenced(scorecard_text(brief(first), width=112)),
        ("found", ""): found_table(records),
        ("runs", ""): "\n".join(run_section(name, record) for name, record in records.items()),
    }
    for claim in dict.fromkeys(claim.name for record in records.values() for claim in record.claims):
        mine = {name: e for name, record in records.items() for e in record.claims if e.name == claim}
        blocks["table", claim] = claim_tables(mine)
        full = {name: e for name, e in mine.items() if records[name].plan != "quick"} or mine
        blocks["story", claim] = story(mine)
        blocks["figure", claim] = claim_figures(claim, full, root / "docs" / "assets", render)
    return blocks


def brief(record: Record) -> Record:
    """The record without where each claim holds and fails: README's first screen is short."""
    return record.model_copy(update={"claims": [claim.model_copy(update={"reason": ""}) for claim in record.claims]})


def fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts that are escaped already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def in_short(claim: Evidence) -> str:
    """Verdict and headline figure."""
    head = view.headline(claim)
    return f"{show.verdict(claim.verdict)}<br>{escaped(f'{head.quantity} {head.figure}'.strip())}"


def found_table(records: Records) -> str:
    """One row a claim, one column a run."""
    sentences = {claim.name: claim.sentence for record in records.values() for claim in record.claims}
    rows = []
    for name, sentence in sentences.items():
        found = [next((c for c in record.claims if c.name == name), None) for record in records.values()]
        shown = ["not run" if claim is None else in_short(claim) for claim in found]
        rows.append([f"[{escaped(sentence)}](docs/claims/{name}.md)", *shown])
    return table(["claim", *(run_name(name, record) for name, record in records.items())], rows)


def run_name(name: str, record: Record) -> str:
    return escaped(f"{view.subject(record) or name}, {record.plan}")


def run_section(name: str, record: Record) -> str:
    """One run for the page of results: what it was, its scorecard, what stayed open."""
    about = view.about(record)
    facts = [f"{key} {text}" for key, text in about.facts]
    facts += [f"{show.words(k)} {show.scalar(k, v)}" for k, v in record.hardware.items() if k in ("cpu", "cores", "memory_gib")]
    facts += [f"{k} {v}" for k, v in record.versions.items() if k in ("badnets", "python", "torch")]
    lines = [f"## {run_name(name, record)}", "", escaped(about.tally), "", escaped("; ".join(facts)) + ".", ""]
    lines += [scorecard_markdown(record)]
    undecided = view.undecided(record)
    if undecided:
        lines += ["Not decided, and why:", "", *(f"- {escaped(line)}" for line in undecided), ""]
    return "\n".join(lines)


def whole_section(name: str, record: Record) -> str:
    """One run with its cells folded away; of claims with very many only those that decide."""
    net, recipe = record.config["net"], record.config["recipe"]
    named = (net["kind"], *(f"{key} {value}" for key, value in net.items() if key != "kind"), f"{recipe['epochs']:g} epochs")
    title = f"## {', '.join(named)}: {run_name(name, record)}"
    parts = [run_section(name, record).replace(f"## {run_name(name, record)}", title, 1)]
    for claim in record.claims:
        few = claim if len(claim.cells) <= MOST_CELLS else claim.model_copy(update={"cells": [c for c in claim.cells if c.verdict]})
        told = f"{len(few.cells)} of {len(claim.cells)} cells: {escaped(claim.sentence)}"
        parts.append(f'<details markdown="1">\n<summary>{told}</summary>\n\n{cells(few)}\n\n</details>\n')
    return "\n".join(parts)


def claim_tables(mine: Mapping[str, Evidence]) -> str:
    """The verdict in each run, then the cells of each run, folded away."""
    rows = []
    for name, claim in mine.items():
        head = view.headline(claim)
        figure = escaped(f"{head.quantity} {head.figure}".strip())
        rows.append([escaped(name), show.verdict(claim.verdict), figure, escaped(view.control_text(head)), escaped(claim.reason)])
    parts = [table(["run", "verdict", "figure [95 % interval]", "control", "in a sentence"], rows)]
    for name, claim in mine.items():
        parts.append(f'<details markdown="1">\n<summary>All cells of the run {escaped(name)}</summary>\n\n{cells(claim)}\n\n</details>')
    return "\n\n".join(parts)


def story(mine: Mapping[str, Evidence]) -> str:
    """What happened step by step, in the first run that acted it out."""
    for name, claim in mine.items():
        steps = [
            f"{number}. **{escaped(event.actor)}**: {escaped(event.action)} → {escaped(event.outcome)} {show.passed(event.passed)}".rstrip()
            for number, event in enumerate(claim.story, start=1)
        ]
        if steps:
            return "\n".join([f"As it went in the run {escaped(name)}:", "", *steps])
    return "No run has acted this out."


def cells(claim: Evidence) -> str:
    """The claim's cells, without those that a heat map shows."""
    heats = [chart for chart in claim.charts if chart.kind == "heat"]
    in_table = [c for c in claim.cells if not any({h.x, h.y} <= set(c.condition) for h in heats)]
    whole = view.table(claim.model_copy(update={"cells": in_table}))
    chosen = [i for i, column in enumerate(whole.columns) if column not in LEFT_OUT]
    text = table([escaped(whole.columns[i]) for i in chosen], [[escaped(row[i]) for i in chosen] for row in whole.rows])
    mapped = len(claim.cells) - len(in_table)
    return text + (f"\n\n{mapped} further cells are in the heat map." if mapped else "")


def claim_figures(name: str, mine: Mapping[str, Evidence], folder: Path, render: Renderer) -> str:
    """Writes the charts of a claim, one SVG each, removes those of earlier runs, and returns the Markdown with them and the tables."""
    parts, written = [], set()
    for run, claim in mine.items():
        drawn = [drawing for drawing in drawings(claim) if drawing.spec is not None or drawing.pivot is not None]
        for number, drawing in enumerate(drawn, start=1):
            told = f"**{escaped(drawing.title)}** ({', '.join(filter(None, (f'run {escaped(run)}', escaped(drawing.scope))))})"
            note = f"\n\n{escaped(drawing.note)}" if drawing.note else ""
            if drawing.pivot is not None:
                parts.append(pivot_table(drawing.pivot, told) + note)
                continue
            path = folder / f"{name}-{run}-{number}.svg"
            keep(path, picture(drawing, render).encode())
            written.add(path)
            parts.append(f"{told}\n\n![{escaped(drawing.summary)}](../assets/{path.name}){note}")
    for stale in set(folder.glob(f"{name}-*.svg")) - written:
        files.remove(stale)
    return "\n\n".join(parts) or "This claim has no chart."


def pivot_table(pivot: Pivot, told: str) -> str:
    """A table of figures under its title, folded away if it is so on the page."""
    text = table([*map(escaped, pivot.columns)], [[escaped(name), *map(escaped, entries)] for name, entries in pivot.rows])
    if not pivot.folded:
        return f"{told}\n\n{text}"
    return f'<details markdown="1">\n<summary>{told.replace("**", "")}</summary>\n\n{text}\n\n</details>'


def vega(spec: dict[str, Any]) -> str:
    """SVG of a Vega-Lite specification."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec, vl_version="6.4")
    # Its ids count up over the life of the process; the same chart has to give the same bytes.
    for number, name in enumerate(dict.fromkeys(re.findall(r'\bid="(\w+)"', svg))):
        svg = re.sub(rf'(?<=["#]){name}(?=["\)])', f"id{number}", svg)
    return svg


def picture(drawing: Drawing, render: Renderer) -> str:
    """A chart with its legend on a white ground, so that it reads on light and on dark pages."""
    spec = copy.deepcopy(drawing.spec)
    assert spec is not None
    inner = render({**spec, "width": WIDTH})
    width, height = (float(re.search(rf'<svg[^>]*\b{side}="([\d.]+)"', inner)[1]) for side in ("width", "height"))  # ty: ignore
    lines = [line for key in drawing.legend for line in legend_lines(key)]
    keys = "".join(f'<g transform="translate({PAD + 14} {PAD + height + LINE * i:g})">{line}</g>' for i, line in enumerate(lines, start=1))
    total_width, total = round(width + 2 * PAD), round(height + 2 * PAD + LINE * len(lines) + 8)
    placed = inner[inner.index("<svg") :].replace("<svg", f'<svg x="{PAD}" y="{PAD}" overflow="visible"', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" height="{total}" viewBox="0 0 {total_width} {total}">'
        f'<rect width="100%" height="100%" rx="6" fill="#ffffff"/>{placed}'
        f'<g font-family="ui-sans-serif, system-ui, sans-serif" font-size="13" fill="{INK}">{keys}</g></svg>\n'
    )


def legend_lines(key: Key) -> list[str]:
    """One legend entry: its sign, and its text on as many lines as it takes."""
    texts = [f'<text x="16" y="4.5">{xml(line)}</text>' for line in textwrap.wrap(key.label, LETTERS) or [""]]
    return [mark(key) + texts[0], *texts[1:]]


def mark(key: Key) -> str:
    """The sign of one legend entry, as the chart draws it."""
    if key.shape == "rule":
        return f'<path d="M-9 0H9" stroke="{MARGIN}" stroke-width="1.5" stroke-dasharray="6 4"/>'
    if key.shape == "ring":
        return f'<circle r="5" fill="none" stroke="{CONTROL}" stroke-width="1.8"/>'
    if key.style in ("map", "front"):
        return map_mark(key)
    paths = {
        "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
        "square": "M-4-4H4V4H-4Z",
        "triangle-up": "M0-5L5 4H-5Z",
        "triangle-down": "M0 5L5-4H-5Z",
        "diamond": "M0-6L4 0L0 6L-4 0Z",
        "cross": "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",
    }
    return f'<path d="{paths[key.shape]}" fill="{PALETTE[int(key.style[1:])]}"/>'


def map_mark(key: Key) -> str:
    """The same for a map: its colours, its lines, the frame of an undecided cell; and for the front of a scatter chart."""
    if key.shape == "cells":
        wide = 21 / len(key.colors)
        rects = [f'<rect x="{wide * i - 12:g}" y="-6" width="{wide:g}" height="12" fill="{c}"/>' for i, c in enumerate(key.colors)]
        return "".join(rects)
    if key.shape == "edge":
        return f'<path d="M-12 0H9" stroke="{INK}" stroke-width="3.5"/>'
    if key.shape == "upright":
        dashes = '<path d="M-12 0H9" stroke="#ffffff" stroke-width="1.6" stroke-dasharray="5 5"/>'
        return f'<path d="M-12 0H9" stroke="{key.colors[0]}" stroke-width="4"/>{dashes}'
    if key.shape == "step":
        return f'<path d="M-12-6V-1H-1V5H9" fill="none" stroke="{MUTED}" stroke-width="1.6" opacity="0.6"/>'
    if key.shape == "open":
        return f'<rect x="-9" y="-6" width="18" height="12" rx="2" fill="none" stroke="{INK}" stroke-width="1.6" stroke-dasharray="4 3"/>'
    return ""


def run_example(page: Path) -> str:
    """What the first Python block of a page prints."""
    example = EXAMPLE.search(page.read_text(encoding="utf-8"))
    assert example is not None, f"{page.name} has no Python block"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example[1], page.name, "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def trigger_columns() -> list[tuple[str, Any]]:
    """Name and trigger of each column of the picture; None shows the clean images."""
    import base64

    from PIL import Image, ImageDraw

    from badnets import Blend, Painted, Patch, Sinusoid

    smile = Image.new("RGBA", (11, 11), (0, 0, 0, 0))
    draw = ImageDraw.Draw(smile)
    draw.ellipse((0, 0, 10, 10), fill=(255, 255, 255, 255), outline=(70, 70, 70, 255))
    draw.rectangle((3, 3, 3, 4), fill=(0, 0, 0, 255))
    draw.rectangle((7, 3, 7, 4), fill=(0, 0, 0, 255))
    draw.line([(3, 7), (4, 8), (6, 8), (7, 7)], fill=(0, 0, 0, 255))
    stored = io.BytesIO()
    smile.save(stored, "PNG")
    png = "base64:" + base64.b64encode(stored.getvalue()).decode()
    return [
        ("clean", None),
        ("patch, 3 x 3", Patch()),
        ("checkerboard", Patch(size=4, pattern="checkerboard")),
        ("blend, 20 %", Blend()),
        ("sinusoid", Sinusoid()),
        ("painted PNG", Painted(png=png, top=-12, left=-12)),
    ]


def keep_picture(path: Path) -> None:
    """Clean and triggered Fashion-MNIST images side by side; written when its pixels change."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    import badnets

    data = badnets.load("fashion_mini")
    rows = [int(np.flatnonzero(data.test.y_N == k)[3]) for k in (7, 0, 8)]
    columns, side, gap, top = trigger_columns(), 28 * 4, 10, 30
    sheet = Image.new("RGB", (gap + len(columns) * (side + gap), top + len(rows) * (side + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for column, (name, trigger) in enumerate(columns):
        x_NCHW = data.test.x_NCHW[rows]
        x_NCHW = x_NCHW if trigger is None else trigger.stamp(x_NCHW)
        left = gap + column * (side + gap)
        draw.text((left + side / 2, top / 2 + 1), name, fill="#1f2328", font=font, anchor="mm")
        for row, pixels_CHW in enumerate(x_NCHW):
            image = Image.fromarray(pixels_CHW[0]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + row * (side + gap)))
    if path.exists():
        with Image.open(path) as old:
            if old.size == sheet.size and old.convert("RGB").tobytes() == sheet.tobytes():
                return
    stored = io.BytesIO()
    sheet.save(stored, "PNG", optimize=True)
    files.write_bytes(path, stored.getvalue())


def keep(path: Path, data: bytes) -> None:
    """Write a file unless it holds these bytes already."""
    if not path.exists() or path.read_bytes() != data:
        files.make_dir(path.parent)
        files.write_bytes(path, data)


if __name__ == "__main__":
    main(sys.argv[1:])
