"""`trajcheck inspect PATH`: options in, exit codes out; what it does is in commands/inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import archive_path
from trajcheck.cli.printing import say


def inspect_command(
    path: Annotated[
        Path,
        typer.Argument(
            parser=archive_path,
            metavar="PATH",
            help="A run, or an archive of checkpoints, here or at an address; only read.",
        ),
    ],
) -> None:
    """Say what a run or an archive is: format, steps, sizes, what can be measured and what the rest would need.

    Reads headers, and a few pieces of tensors. Exit code 3 where there is no run that can be read.
    """
    from trajcheck.commands.inspect.command import inspect
    from trajcheck.reports.terminal.inspection import inspection_text

    say(inspection_text(inspect(path)))
