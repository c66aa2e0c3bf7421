"""`trajcheck flow RUN`: options in, exit codes out; what it does is in commands/flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.analyze import INCOMPLETE
from trajcheck.cli.printing import Form, say_report
from trajcheck.cli.report import Plots, draw_after


def flow_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a recorded run; it is only read.")],
    objective: Annotated[
        str,
        typer.Option(
            metavar="FILE.py:NAME|run",
            help="The loss f: NAME() returns (model, loss) or (model, loss, batches), loss(model, batch) a scalar "
            "tensor; the file is executed. run: the program that the Recorder exported, RUN/objective.pt2; loading it "
            "can execute code too, so do it only for a run whose origin you trust.",
        ),
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="POINT", help="init, or step:N: the recorded iterate where it starts.")
    ] = "init",
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="On which sample f is: full (the objective's data set), own (the one full batch of all records), "
            "probe (the mean over the run's probe batches).  (default: the first of these that there is)",
        ),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Relative tolerance; a second solution has half of it.")] = 1e-4,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance.  (default: rtol / 100)")] = None,
    max_evaluations: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Cap on the gradients of the integration; it ends there, exits 4, and goes on when called again with "
            "more.",
        ),
    ] = 100_000,
    replay_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="Of the gradients, float64 or float32; theta is float64.  (default: the run's, float32 at least)",
        ),
    ] = None,
    curvature: Annotated[
        int | None,
        typer.Option(
            metavar="EVERY",
            help="At every so many recorded times, and at the last, the Hessian's extreme eigenvalues on the flow (80 "
            "gradients each); with them, a bound on the distance.",
        ),
    ] = None,
    wanted_distance: Annotated[
        float | None,
        typer.Option(metavar="D", help="Say which learning rate the bound would allow for this distance."),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out steps that cannot be read or hold NaN or Inf; the summary lists them."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="Where to evaluate: auto, cpu, cuda, cuda:1.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report folder.  (default: reports/flow/RUN)"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and evaluated, and write nothing.")
    ] = False,
    form: Form = "table",
    plots: Plots = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")] = False,
) -> None:
    """Hold a run against its gradient flow, theta' = -grad f(theta); write flow.csv and a summary.

    A command that was killed goes on when it is given again.
    """
    from trajcheck.commands.flow.command import estimate_flow, run_flow
    from trajcheck.commands.flow.options import FlowOptions
    from trajcheck.reports.terminal.flow import flow_text

    options = FlowOptions(
        objective=objective,
        start=start,
        sample=sample,
        rtol=rtol,
        atol=atol,
        max_evaluations=max_evaluations,
        replay_dtype=replay_dtype,
        curvature=curvature,
        wanted_distance=wanted_distance,
        device=device,
        skip_bad=skip_bad,
    )
    if dry_run:
        typer.echo(estimate_flow(run, options))
        return
    report = run_flow(run, options, out, quiet=quiet)
    if not quiet:
        say_report(form, report.folder, report.summary, lambda: flow_text(report))
    for lack in report.incomplete:
        typer.echo(f"trajcheck: not computed: {lack}", err=True)
    if not draw_after(report.folder, plots, quiet or form != "table") or report.incomplete:
        raise typer.Exit(INCOMPLETE)
