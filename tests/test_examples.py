"""Every example runs, is short, and checks by hand a number that the library printed."""

import ast
import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def test_there_are_seven():
    assert [path.name[:2] for path in EXAMPLES] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(path), run_name="__main__")
    out, err = capsys.readouterr()
    assert err == ""
    number = re.findall(r"\d\.\d{6}", out)
    assert number, "an example prints the number that it derives"
    measured = names.get("measured")
    if measured is not None:
        assert measured.victim["ASR"].value > 0.85
        assert measured.twin["ASR"].value < 0.3
    assert "unknown" not in out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_asserts(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 70
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert any(isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare) for node in ast.walk(tree))
    assert any(isinstance(node, ast.For) for node in ast.walk(tree)), "by hand means a plain loop"
