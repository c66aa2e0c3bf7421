"""`trajcheck verify PATH...`: options in, exit codes out; what it does is in commands/verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import archive_path
from trajcheck.cli.printing import complain, say
from trajcheck.errors import RunError


def _known(name: str) -> str:
    if name not in ("table", "json"):
        raise typer.BadParameter(f"{name!r} is not one of table, json")
    return name


def verify_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            parser=archive_path, metavar="PATH...", help="Folders of runs, or folders that hold runs; only read."
        ),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            parser=archive_path,
            metavar="RUN",
            help="Another run: does a step descend from its step 0, or lie on its path? Repeat for several.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Files that are read at once.  (default: all processors)")
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", metavar="NAME", callback=_known, help="What to print: table or json."),
    ] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table; damage only.")] = False,
) -> None:
    """Read every file of recorded runs, compare it with its checksums, and audit each step.

    Exit code 3 where anything is damaged: bytes that are not those recorded, files that are missing or do not fit, NaN
    or Inf before the end of a run, steps that hold another step's weights or those of another run. What is suspicious
    is said, and leaves the exit code 0.
    """
    from trajcheck.commands.verify.command import verify
    from trajcheck.reports.terminal.verification import damage_lines, verification_text

    found = verify(*paths, against=against or (), threads=threads, quiet=quiet or form == "json")
    if form == "json" and not quiet:
        say(json.dumps(found.as_json(), indent=2))
    elif not quiet:
        say(verification_text(found))
    for line in damage_lines(found):
        complain(f"trajcheck: damaged: {line}")
    if found.damaged:
        raise typer.Exit(RunError.exit_code)
