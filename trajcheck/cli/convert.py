"""`trajcheck convert SRC RUN`: options in, exit codes out; what it does is in commands/convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import archive_path, named_path
from trajcheck.cli.printing import complain, say
from trajcheck.readable import size_text


def convert_command(
    source: Annotated[
        Path, typer.Argument(parser=archive_path, metavar="SRC", help="A run, or an archive of checkpoints; only read.")
    ],
    run: Annotated[Path, typer.Argument(parser=named_path, metavar="RUN", help="The folder of the new run.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="float32, bfloat16 or float16: parameters, gradients and the optimizer's state are rounded to it.  "
            "(default: all stays as it is)",
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="A:B:C", help="Steps to write, as a slice of step numbers.  (default: all)")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out steps that cannot be read, and list them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, nothing printed.")] = False,
) -> None:
    """Write a run or an archive of any format as a run in trajcheck's own.

    A call that was stopped is gone on with by the same call; nothing that lies at RUN is replaced.
    """
    from trajcheck.commands.convert.command import convert

    done = convert(source, run, dtype=dtype, steps=steps, skip_bad=skip_bad, quiet=quiet)
    for step, reason in done.left_out.items():
        complain(f"trajcheck: step {step} is left out: {reason}")
    if done.damage:
        complain(f"trajcheck: the loss program is left out: {done.damage}")
    if not quiet:
        before = f", {done.already} of them by an earlier call" if done.already else ""
        say(f"{done.path}: {len(done.steps)} steps{before}; {size_text(done.bytes)} written")
