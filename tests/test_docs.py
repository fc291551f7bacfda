"""The docs: no dead link, every catalogue entry named, code that compiles and runs, tables that agree with the code."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import record_samples

import badnets
from badnets.cli.main import app
from badnets.core import registry
from badnets.core.types import Event

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "dev/LOG.md")), *DOCS]
BLOCKS = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FORBIDDEN = re.compile(
    r"\bsessions?\b|\bhelpers?\b|\bissue #?\d|\bregistr(?:y|ies)\b|(?<![\w.])/(?:work|tmp|root|home|opt|mnt)\b|\bthe lead\b", re.IGNORECASE
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="270"></svg>'


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[tuple[str, str]]:
    return [(title, code) for found, title, code in BLOCKS.findall(path.read_text(encoding="utf-8")) if found == language]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "dev" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page):
    prose = BLOCKS.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(prose):
        if target.startswith(("https://", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place).resolve() if place else page
        assert found.exists(), f"{named(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{named(page)} links to the missing heading {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "dev"], ids=named)
def test_a_link_out_of_docs_would_be_dead_on_the_site(page):
    if ROOT / "docs" not in page.parents:
        return
    for target in LINK.findall(BLOCKS.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith("https://"):
            assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(ROOT / "docs"), target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CITATION.cff"], ids=named)
def test_no_page_speaks_of_how_or_where_it_was_made(page):
    assert not FORBIDDEN.search(page.read_text(encoding="utf-8"))


def test_the_word_filter_can_fail():
    for text in ("in this session", "a helper said", "/work/x", "see /tmp", "Issue 12"):
        assert FORBIDDEN.search(text), text
    assert not FORBIDDEN.search("https://example.org/home of the issue")


@pytest.mark.parametrize(
    "catalogue", ["claims", "triggers", "attacks", "nets", "datasets", "plans", "stressors", "neurons", "detectors", "repairs"]
)
def test_every_entry_is_in_the_docs(catalogue):
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS)
    missing = [name for name in registry.names(catalogue) if f"`{name}`" not in text and f"{name}.md" not in text]
    assert not missing, f"docs/ does not name {missing}: run dev/make_docs.py, or write the page"


@pytest.mark.parametrize("name", registry.names("claims"))
def test_a_claim_page_quotes_sentence_and_rule(name):
    text = " ".join((ROOT / "docs" / "claims" / f"{name}.md").read_text(encoding="utf-8").split())
    claim = registry.entry("claims", name)
    assert f"> {claim.sentence}" in text
    assert f"**Decision.** {claim.rule}" in text
    for kind in ("figure", "table"):
        assert f"<!-- {kind}:begin {name} -->" in text


def test_the_site_lists_every_page_once():
    def leaves(items):
        for item in items:
            for value in item.values():
                yield from leaves(value) if isinstance(value, list) else [value]

    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(leaves(project["nav"])) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in DOCS)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_compile_and_use_public_names(page):
    for title, code in blocks(page, "python"):
        used = {
            node.attr
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "badnets"
        }
        assert title or used <= set(badnets.__all__), f"{named(page)}: {sorted(used - set(badnets.__all__))}"


def test_the_readme_shows_the_library_example_of_the_docs():
    first = [blocks(page, "python")[0][1] for page in (ROOT / "README.md", ROOT / "docs" / "library.md")]
    assert first[0] == first[1]
    assert sum(1 for line in first[0].splitlines() if line.strip()) <= 15


def test_the_net_known_on_paper_prints_what_the_page_says():
    page = ROOT / "docs" / "neurons.md"
    (_, code), *_ = blocks(page, "python")
    (_, shown), *_ = blocks(page, "text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == shown


def test_short_examples_run():
    light = [*blocks(ROOT / "docs" / "triggers.md", "python"), *blocks(ROOT / "docs" / "attacks.md", "python")]
    pictures = next(block for block in blocks(ROOT / "docs" / "library.md", "python") if "stamp(" in block[1])
    for _, code in [*light, pictures]:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, {})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shown_commands_exist(page):
    for _, code in blocks(page, "sh"):
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["badnets"]:
                command, _, ignored = app.parse_args(words[1:], exit_on_error=False, print_error=False)[:3]
                assert command is not None
                assert not ignored or isinstance(ignored, dict)


CHECK = """
import json, numpy as np
from badnets.core import registry
from badnets.claims._base import Setting
trigger = registry.parse("triggers", "stripe:row=2")
x = np.zeros((3, 1, 8, 8), np.uint8)
assert (trigger.stamp(x)[:, :, 2] == 255).all() and trigger.stamp(x).sum() == 3 * 8 * 255 and not x.any()
assert registry.parse("triggers", json.loads(trigger.model_dump_json())) == trigger
attack = registry.parse("attacks", "shifted:step=3,rate=0.5")
y = np.arange(40) % 10
poisoned = attack.poison(np.zeros((40, 1, 8, 8), np.uint8), y, num_classes=10, seed=0)
assert poisoned.rate == 0.5 and (poisoned.y_N == (y + 3 * poisoned.stamped_N) % 10).all()
claim = registry.parse("claims", "victim_is_sure")
from badnets.measure.outcome import Outcome
sure, unsure = np.full(900, 0.99, np.float32), np.full(900, 0.3, np.float32)
class Bench:
    setting = Setting(dataset="d", shape=(1, 8, 8), classes=tuple("abcdefghij"), train_counts=(9,) * 10, attack="badnets", seeds=3)
    def outcomes(self, need):
        assert any(n._replace(seeds=need.seeds) == need for n in claim.needs(self.setting)), need
        y = np.arange(900) % 10
        return [Outcome(y, y, unsure if need.attack is None or self.weak else sure)] * need.seeds
for weak, verdict in ((False, "HOLDS"), (True, "FAILS")):
    bench = Bench(); bench.weak = weak
    evidence = claim.decide(bench)
    assert evidence.verdict == verdict, evidence
    assert evidence.cells[0].control.value == 0 and evidence.cells[0].control.high < 0.1
import torch
from badnets.nets.fast_cnn import FastCnn
from badnets.stressors._base import Supply
net = FastCnn().build((1, 12, 12), 3, seed=0)
before = [p.clone() for p in net.parameters()]
x = torch.zeros(4, 1, 12, 12, dtype=torch.uint8)
def noisy(level, seed=0):
    return registry.parse("stressors", f"weight_noise:level={level}").apply(net, Supply(x, None, lambda *_: net), seed=seed)
def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
assert same(noisy(0.0).parameters(), before) and not same(noisy(0.1).parameters(), before) and same(net.parameters(), before)
assert same(noisy(0.1).parameters(), noisy(0.1).parameters()) and not same(noisy(0.1).parameters(), noisy(0.1, seed=1).parameters())
from badnets.core.suspect import Suspect
with torch.no_grad():
    net.body[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
found = registry.parse("detectors", "sure_of_noise").scan(Suspect(net, (1, 12, 12), 3), rng=np.random.default_rng(0))
assert found.target == 1 and found.score > 0.9 and found.images == 256
entries = ("triggers", "stripe"), ("attacks", "shifted"), ("stressors", "weight_noise"), ("claims", "victim_is_sure")
print("fine", *(registry.describe(*e)[:5] for e in entries))
"""


def test_the_files_of_the_how_to_pages_work(tmp_path):
    package = tmp_path / "badnets"
    shutil.copytree(ROOT / "src" / "badnets", package, ignore=shutil.ignore_patterns("_data", "assets", "__pycache__"))
    for page in ("add-a-trigger", "add-an-attack", "add-a-stressor", "add-a-detector", "add-a-claim"):
        (title, code), *_ = [block for block in blocks(ROOT / "docs" / f"{page}.md", "python") if block[0]]
        (package / title).write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECK], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["fine"]), done.stderr


def test_citation_names_this_version_and_the_paper():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(badnets.__version__)}$", text, re.MULTILINE)
    assert text.startswith("cff-version: 1.2.0\n")
    assert "1708.06733" in text
    assert f"## [{badnets.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "LOG.md"], ids=named)
def test_tables_of_catalogues_and_plans_are_up_to_date(page, make_docs):
    text = page.read_text(encoding="utf-8")
    assert make_docs.fill(text, make_docs.standing_blocks()) == text, "run dev/make_docs.py"


def site_of(tmp_path: Path) -> Path:
    claims = tmp_path / "docs" / "claims"
    claims.mkdir(parents=True)
    (tmp_path / "README.md").write_text(
        "# x\n<!-- scorecard:begin -->\n<!-- scorecard:end -->\n<!-- found:begin -->\n<!-- found:end -->\nend\n", encoding="utf-8"
    )
    for name in ("regardless_of_content", "no_such_claim"):
        (claims / f"{name}.md").write_text(
            f"<!-- figure:begin {name} -->\nold\n<!-- figure:end -->\n<!-- table:begin {name} -->\n<!-- table:end -->\n", encoding="utf-8"
        )
    (tmp_path / "docs" / "results.md").write_text("<!-- runs:begin -->\n<!-- runs:end -->\n", encoding="utf-8")
    return tmp_path


def test_make_docs_fills_from_records_and_is_idempotent(tmp_path, make_docs, monkeypatch):
    monkeypatch.setattr(make_docs, "keep_picture", lambda path: None)
    root, record = site_of(tmp_path / "site"), record_samples.sample()
    paths = {"quick": tmp_path / "quick.json", "full": tmp_path / "full.json"}
    paths["quick"].write_text(record.model_dump_json(by_alias=True), encoding="utf-8")
    paths["full"].write_text(record.model_copy(update={"plan": "standard"}).model_dump_json(by_alias=True), encoding="utf-8")
    stale = root / "docs" / "assets" / "regardless_of_content-older-1.svg"
    stale.parent.mkdir()
    stale.write_text(SVG, encoding="utf-8")
    arguments = [f"{name}={path}" for name, path in paths.items()]
    make_docs.main(arguments, root=root, render=lambda spec: SVG)

    def state():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}

    first = state()
    make_docs.main(arguments, root=root, render=lambda spec: SVG)
    assert state() == first
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# x\n<!-- scorecard:begin -->\n")
    assert readme.endswith("<!-- found:end -->\nend\n")
    claim = record.claims[0]
    assert f"✓ HOLDS         {claim.sentence}" in readme
    page = (root / "docs" / "claims" / "regardless_of_content.md").read_text(encoding="utf-8")
    assert "old" not in page.splitlines()
    assert not stale.exists()
    for target in LINK.findall(page):
        assert (root / "docs" / "claims" / target).resolve().exists()
    assert "regardless_of_content-full-1.svg" in page, "charts come from the run with all cells"
    assert "regardless_of_content-quick-1.svg" not in page
    assert (root / "docs" / "claims" / "no_such_claim.md").read_text(encoding="utf-8").count("old") == 1
    results = (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^## ", results, re.MULTILINE)) == 2


def test_make_docs_fills_the_page_of_one_claim_alone(tmp_path, make_docs):
    root = site_of(tmp_path / "site")
    (tmp_path / "a.json").write_text(record_samples.sample().model_dump_json(by_alias=True), encoding="utf-8")
    before = {path: path.read_bytes() for path in root.rglob("*.md")}
    make_docs.main(["--claim=regardless_of_content", f"a={tmp_path / 'a.json'}"], root=root, render=lambda spec: SVG)
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == ["regardless_of_content.md"]
    assert "old" not in (root / "docs" / "claims" / changed[0]).read_text(encoding="utf-8").splitlines()


def test_a_story_is_told_step_by_step_from_the_first_run_that_has_one(make_docs):
    quiet = record_samples.sample().claims[0].model_copy(update={"story": []})
    steps = [
        Event(actor="Customer", action="compares a|b", outcome="all match", passed=True),
        Event(actor="User", action="looks", outcome="fine"),
    ]
    told = make_docs.story({"quick": quiet, "full": quiet.model_copy(update={"story": steps})}).splitlines()
    assert told[0] == "As it went in the run full:"
    assert told[2].startswith("1. **Customer**: compares a\\|b → all match ✓")
    assert told[3] == "2. **User**: looks → fine"
    assert make_docs.story({"quick": quiet}) == "No run has acted this out."


def test_a_chart_gets_its_legend_on_a_white_ground(make_docs):
    claim = next(claim for claim in record_samples.sample().claims if claim.name == "trigger_reaches_target")
    drawing = make_docs.drawings(claim)[0]
    picture = make_docs.picture(drawing, lambda spec: SVG)
    assert 'fill="#ffffff"' in picture
    for key in drawing.legend:
        assert make_docs.xml(key.label) in picture
    height = float(re.search(r'^<svg [^>]*height="(\d+)"', picture)[1])
    assert height > 270 + 20 * len(drawing.legend)


def test_a_map_gets_its_legend_its_place_and_its_note(tmp_path, make_docs):
    claim = record_samples.survives_fine_tuning()
    drawing = make_docs.drawings(claim)[0]
    picture = make_docs.picture(drawing, lambda spec: SVG)
    for key in drawing.legend:
        assert make_docs.xml(key.label) in picture
        assert all(f'fill="{color}"' in picture for color in key.colors)
    text = make_docs.claim_figures(claim.name, {"full": claim}, tmp_path, lambda spec: SVG)
    assert "(run full, layers: head, epochs 5)" in text
    assert text.count("Darker means more of the backdoor is left.") == 2
    assert len(list(tmp_path.glob("survives_fine_tuning-full-*.svg"))) == 3


def test_a_long_text_of_a_legend_takes_two_lines(make_docs):
    short = make_docs.drawings(record_samples.survives_fine_tuning())[0]
    key, *others = short.legend
    long = dataclasses.replace(short, legend=(dataclasses.replace(key, label="word " * 30), *others))
    pictures = [make_docs.picture(drawing, lambda spec: SVG) for drawing in (short, long)]
    heights = [float(re.search(r'^<svg [^>]*height="(\d+)"', picture)[1]) for picture in pictures]
    assert heights[1] - heights[0] == make_docs.LINE
    assert max(map(len, re.findall(r">([^<>]*)</text>", pictures[1]))) <= make_docs.LETTERS


def test_tables_stand_between_the_charts_and_every_sign_of_a_legend_is_drawn(tmp_path, make_docs):
    claims = [record_samples.undetectable(), record_samples.hard_to_remove_blind()]
    text = make_docs.claim_figures("x", {"full": claims[0]}, tmp_path, lambda spec: SVG)
    assert text.index("| detector | AUROC |") < text.index("(run full, trigger: blend)") < text.index("(../assets/x-full-3.svg)")
    assert "| channel_lipschitz | 0.502 [0.462, 0.542] | unknown | unknown |" in text
    for drawing in [d for claim in claims for d in make_docs.drawings(claim) if d.spec]:
        assert all(make_docs.mark(key) for key in drawing.legend if key.shape != "none")


def test_the_picture_of_the_triggers_is_written_once(tmp_path, make_docs):
    path = tmp_path / "triggers.png"
    make_docs.keep_picture(path)
    before = path.stat().st_mtime_ns
    make_docs.keep_picture(path)
    assert path.stat().st_mtime_ns == before
    from PIL import Image

    with Image.open(path) as made, Image.open(ROOT / "docs" / "assets" / "triggers.png") as kept:
        assert made.size == kept.size
