"""`trajcheck schedule LOG`: options in, exit codes out; what it does is in commands/schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import named_path
from trajcheck.cli.printing import say, say_data
from trajcheck.errors import UsageError

FORMS = ("table", "json")


def schedule_command(
    log: Annotated[
        Path,
        typer.Argument(
            parser=named_path,
            metavar="LOG",
            help="A CSV with step, loss, lr and grad_norm; trainer_state.json; every-step.f64; or a run with one.",
        ),
    ],
    distance: Annotated[
        float | None, typer.Option(metavar="D", help="|x_1 - x*|, x_1 the iterate of the first step.")
    ] = None,
    loss_ref: Annotated[float | None, typer.Option(metavar="F", help="f(x*).")] = None,
    loss_last: Annotated[
        float | None,
        typer.Option(metavar="F", help="f(x_T), as it was measured.  (default: the logged loss of that step)"),
    ] = None,
    step: Annotated[str | None, typer.Option(metavar="COL", help="The CSV's column of steps.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="COL", help="That of losses.")] = None,
    lr: Annotated[str | None, typer.Option(metavar="COL", help="That of learning rates.")] = None,
    grad_norm: Annotated[str | None, typer.Option(metavar="COL", help="That of the gradients' norms.")] = None,
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="table, or json with all digits.")] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="FILE", help="Write it there as JSON too; replaces no file but such a one."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """The last-iterate bound of convex optimisation, term by term, from a training's log alone."""
    if form not in FORMS:
        raise UsageError(f"--format {form!r}: expected one of {', '.join(FORMS)}.")
    from trajcheck.commands.schedule.command import schedule

    found = schedule(log, distance, loss_ref, loss_last, step=step, loss=loss, lr=lr, grad_norm=grad_norm, out=out)
    if quiet:
        return
    if form == "json":
        say_data(json.dumps(found.as_json, indent=2, allow_nan=False))
    else:
        from trajcheck.reports.terminal.schedule import schedule_text

        say(schedule_text(found))
