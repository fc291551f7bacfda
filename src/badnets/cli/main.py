"""The command line's frame: names the commands (imported when called), and turns every error into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import cyclopts
from rich.console import Console

from badnets import __version__
from badnets.core.errors import BadnetsError, UsageError

app = cyclopts.App(
    name="badnets",
    version=__version__,
    help="A laboratory for neural-network backdoors: plant BadNets, measure what is said of it against clean twins, report with intervals.",
    help_on_error=False,
)
app.command("badnets.cli.run:run", help="Plant the backdoor, measure the claims against clean twins, write a report.")
app.command("badnets.cli.plant:plant", help="Train one victim and its twin and write them, marked as planted.")
app.command("badnets.cli.scan:scan", help="Look for a backdoor in a net or in training data, blind.")
app.command("badnets.cli.repair:repair", help="Repair a net with clean images, without knowing a trigger.")
app.command("badnets.cli.convert:convert", help="Turn a stranger's file of weights into clean safetensors, without loading it.")
app.command("badnets.cli.show:show", help="Show a finished run, or list them all.")
app.command("badnets.cli.show:diff", help="Compare two runs.")
app.command("badnets.cli.data:app", name="data", help="List, fetch and verify data sets.")
app.command(
    "badnets.cli.catalogue:list_",
    name="list",
    help="List what the catalogues hold: data sets, nets, attacks, claims, detectors and the rest.",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 done, 1 finding, 2 usage, 3 refused, 4 our bug, 5 store or disk, 6 partial, 130/143 signals."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        _leave(_misuse(error))
    except BadnetsError as error:
        _leave(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("BADNETS_DEBUG"):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300] + "."
        hint = "This is a defect in badnets: run again with BADNETS_DEBUG=1 and report the traceback."
        _leave(BadnetsError("E-BUG", text, hint=hint))
    sys.exit(0)


def _misuse(error: cyclopts.CycloptsError) -> UsageError:
    """What is wrong with the words of the command, and where its help is."""
    command = " ".join(("badnets", *(error.command_chain or ())))
    text = " ".join(str(error).split())
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None and error.keyword is None:
        name = error.argument.name
        shown = name if error.argument.index is None else f"{name.lstrip('-').upper()} ({name})"
        text = f"expected {shown}, got nothing for it."
    elif isinstance(error, cyclopts.UnusedCliTokensError):
        text = f"expected nothing more after {command} and what it takes, got {' '.join(error.unused_tokens or ())!r:.60}."
    return UsageError("E-USAGE", text, hint=f"See `{command} --help`.")


def _leave(error: BadnetsError) -> NoReturn:
    """One line on stderr, then the error's exit status."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold]error[/bold]", end=" ")
    console.print(printable(str(error)), markup=False)
    sys.exit(error.exit_status)


def printable(text: str) -> str:
    """Text in one line without control characters: what an untrusted name may do to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
