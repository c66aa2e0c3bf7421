"""The command line: one command a file, options in, exit codes out. Only this package exits the process."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import typer

from trajcheck.cli.by_name import AllCommands
from trajcheck.cli.ending import Terminated, ending_by_signals
from trajcheck.cli.net import INTERRUPTED, exit_code_of
from trajcheck.cli.printing import hold_standard_descriptors, say
from trajcheck.runners.own_process import settle
from trajcheck.version import __version__

#: Taken wherever it stands in a call.
DEBUG = "--debug"

app = typer.Typer(
    name="trajcheck",
    cls=AllCommands,
    help="Offline analysis of neural-network training trajectories.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from trajcheck.inner_products.loop import description

        say(f"trajcheck {__version__} (inner loop: {description()})")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error, too; taken anywhere in a call."),
) -> None:
    """Which assumptions of optimisation theory hold on a run that was really trained?

    Exit codes: 0 done; 2 usage; 3 bad input; 4 finished, but something explicitly asked for could not be computed; 5
    the output could not be written; 1 is left to bugs.
    """


@cache
def _command() -> Any:
    """The command line as typer has it, made once."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line, and exit; whatever comes out of a command becomes a line and an exit code here (net.py)."""
    try:
        with ending_by_signals():
            code = _exit_code()
    except Terminated as ended:
        code = ended.exit_code
    except KeyboardInterrupt:  # before a command began, or when it had ended
        code = INTERRUPTED
    sys.exit(code)


def _exit_code() -> int:
    hold_standard_descriptors()
    settle()
    words = sys.argv[1:]
    options = words[: words.index("--")] if "--" in words else words
    debug = DEBUG in options
    words = [word for place, word in enumerate(words) if word != DEBUG or place >= len(options)]

    def call() -> None:
        with _command().make_context("trajcheck", words) as context:
            _command().invoke(context)

    return exit_code_of(call, debug=debug)
