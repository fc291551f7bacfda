"""The command line does not grow: its options are this list. Help is instant and imports no torch."""

import inspect
import re
import subprocess
import sys
import time

import pytest
import tiny

FROZEN = {
    "": [],
    "run": ["attack", "claims", "data", "dataset", "effort", "json", "net", "plan", "store"],
    "plant": ["attack", "data", "dataset", "images", "json", "net", "out", "seed"],
    "scan": [
        *("arch", "channels", "data", "dataset", "effort", "html", "images", "json", "models", "net", "normalize"),
        *("require_sandbox", "sarif", "store"),
    ],
    "repair": ["arch", "channels", "data", "dataset", "json", "model", "net", "normalize", "out", "require_sandbox"],
    "convert": ["json", "model", "out", "require_sandbox"],
    "show": ["all", "json", "key", "store"],
    "diff": ["a", "b", "json", "store"],
    "data": [],
    "data list": ["json"],
    "data fetch": ["data", "name"],
    "data verify": ["json"],
    "list": ["catalogue", "json"],
}
COMMANDS = {"": ["convert", "data", "diff", "list", "plant", "repair", "run", "scan", "show"], "data": ["fetch", "list", "verify"]}

ADVICE = """
The options of `badnets {command}` are frozen. A new knob is a keyword-only field of the thing that it tunes, so that it travels in the
Record, in the key of the run and in `--attack badnets:field=value`:
  how the pattern looks or where it lies            -> the trigger   src/badnets/triggers/
  who is stamped, with which label                  -> the attack    src/badnets/attacks/
  widths, depths, layers                            -> the net       src/badnets/nets/
  epochs, learning rate, augmentation               -> the recipe    src/badnets/train/recipe.py
  margins and grids of one sentence                 -> the claim     src/badnets/claims/
  which parts to combine, how many seeds            -> the plan      src/badnets/plans/
If it really belongs to none of them, say so in the change, and add it to FROZEN in this file."""


def parser(command):
    """The App of a command: cyclopts imports it when it is asked for."""
    from badnets.cli.main import app

    for word in command.split():
        app = app[word]
    return app


def options(command):
    app = parser(command)
    if app.default_command is None:
        return []
    return sorted({name for argument in app.assemble_argument_collection() for name in [argument.field_info.name] if name})


@pytest.mark.parametrize("command", FROZEN)
def test_options_are_frozen(command):
    assert options(command) == FROZEN[command], ADVICE.format(command=command)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_frozen(command):
    found = sorted(name for name in parser(command) if not name.startswith("-"))
    assert found == COMMANDS[command], "A new command needs a new kind of result. " + ADVICE.format(command=command)


def test_no_option_has_a_short_or_second_name():
    """--no-json and the like are cyclopts' own."""
    for command in filter(None, FROZEN):
        if parser(command).default_command is not None:
            for argument in parser(command).assemble_argument_collection():
                long = [name for name in argument.names if name.startswith("--") and not name.startswith("--no-")]
                assert len(long) <= 1, argument.names
                assert not [name for name in argument.names if re.fullmatch("-[a-zA-Z]", name)], argument.names


@pytest.mark.parametrize("command", FROZEN)
def test_help_says_what_every_option_does(command):
    done = tiny.cli(*command.split(), "--help")
    assert (done.status, done.err) == (0, "")
    for name in FROZEN[command]:
        assert name.upper() in done.out or f"--{name.replace('_', '-')}" in done.out
        assert re.search(rf"^{name}\n +\w", inspect.getdoc(parser(command).default_command), flags=re.MULTILINE), f"{name} has no help"


@pytest.fixture(scope="module")
def imports():
    """Modules that `python -m badnets --help` imports, and its seconds (the best of three)."""
    command, seconds = [sys.executable, "-X", "importtime", "-m", "badnets", "--help"], []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert "Usage: badnets COMMAND" in done.stdout
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}, min(seconds)


def test_help_imports_nothing_heavy(imports):
    top = {name.partition(".")[0] for name in imports[0]}
    assert "cyclopts" in top
    assert not top & {"torch", "numpy", "scipy", "sklearn", "PIL", "pandas", "safetensors", "jinja2", "requests", "pooch"}


def test_help_is_quick(imports):
    """0.5 s on an idle machine; here with room for a busy one."""
    assert imports[1] < 3


def test_version():
    import badnets

    assert tiny.cli("--version").out.strip() == badnets.__version__
