"""`trajcheck verify PATH...`: options in, exit codes out; what it does is in commands/verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import named_path
from trajcheck.cli.printing import complain, say
from trajcheck.errors import RunError


def verify_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            parser=named_path, metavar="PATH...", help="Folders of runs, or folders that hold runs; only read."
        ),
    ],
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Files that are read at once.  (default: all processors)")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table; damage only.")] = False,
) -> None:
    """Read every file of recorded runs and compare it with its checksums.

    Exit code 3 where anything is damaged: bytes that are not those recorded, files that are missing or do not fit, NaN
    or Inf before the end of a run.
    """
    from trajcheck.commands.verify.command import verify
    from trajcheck.reports.terminal.verification import verification_text

    found = verify(*paths, threads=threads, quiet=quiet)
    if not quiet:
        say(verification_text(found))
    for run in found.runs:
        for damage in run.damage:
            complain(f"trajcheck: damaged: {damage}")
    if found.damaged:
        raise typer.Exit(RunError.exit_code)
