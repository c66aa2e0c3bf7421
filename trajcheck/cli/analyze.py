"""`trajcheck analyze RUN`: options in, exit codes out; what it does is in commands/analyze."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.printing import Form, say_report
from trajcheck.cli.report import Plots, draw_after
from trajcheck.errors import UsageError

#: Finished, but something explicitly asked for could not be computed.
INCOMPLETE = 4


def _numbers(text: str | None) -> tuple[int, ...]:
    """`1,2,5` as numbers. Raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--memory-lags {text!r}: expected numbers of steps, as in 1,2,5,10,20,50.") from None


def analyze_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a recorded run; it is only read.")],
    ref: Annotated[
        list[str] | None,
        typer.Option(
            "--ref",
            metavar="SPEC",
            help="A reference point x*: final, init, best (lowest recorded loss), step:N, mean:N (the last N recorded "
            "iterates), OTHER_RUN, OTHER_RUN@(any of these), FILE.safetensors. Repeat for several; all are measured in "
            "one pass.  (default: final)",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME|run",
            help="The loss to replay: NAME() returns (model, loss), loss(model, batch) a scalar tensor; the file is "
            "executed. run: the program that the Recorder exported, RUN/objective.pt2; loading it can execute code "
            "too, so do it only for a run whose origin you trust. Without it, what needs no replay is computed, and "
            "undefined.csv says what that leaves out.",
        ),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Which z a row is measured on: own (the step's batch), previous (that of the record before), probe "
            "(the run's probe batches, with standard errors), full (the objective's data set). Repeat for several.  "
            "(default: own; previous under tzc-v1)",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAMILY",
            help="convexity, smoothness, progress, secant, geometry; repeat or separate by commas.  (default: all)",
        ),
    ] = None,
    ref_gradients: Annotated[
        bool, typer.Option("--ref-gradients", help="Replay the gradient at every reference too: smoothness towards it.")
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="A:B:C", help="Rows, as a slice of step numbers; moves neither init nor final nor x_(t-1)."
        ),
    ] = None,
    skip: Annotated[
        int, typer.Option(metavar="N", help="cos_skip takes the first record at least N steps on (momentum, Adam: 50).")
    ] = 1,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out steps that cannot be read or hold NaN or Inf; the summary lists them."
        ),
    ] = False,
    replay_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="float64, float32 or bfloat16.  (default: the run's, float32 at least)"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to replay: auto, cpu, cuda, cuda:1.")] = "auto",
    curvature: Annotated[
        int | None,
        typer.Option(
            metavar="EVERY",
            help="At every so many rows, the extreme eigenvalues of the Hessian at x_t on z (80 gradients each).",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="As in 4GB: bounds the vectors that the pass holds, and what the replay keeps on its device: "
            "parameters, gradients, references, what is read ahead, Lanczos vectors. The activations of the model's "
            "own forward and backward come on top.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of the pass over vectors.  (default: all processors)")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Write layers.csv too: the tables for each tensor.")] = False,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX",
            help="Write layers.csv with the tensors summed in whose names the expression matches the same text (its "
            "first group, if it has one). Repeat for several; the first that matches counts.",
        ),
    ] = None,
    path_integral: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Integrate the gradient along each step by N points, 1 to 64: should equal loss_change."
        ),
    ] = None,
    memory_lags: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Cosines between the parts of g_t and g_(t+K) orthogonal to x_t - x*, for these numbers of steps "
            "(the paper's: 1,2,5,10,20,50).",
        ),
    ] = None,
    smoothing: Annotated[int, typer.Option(metavar="ROWS", help="Rows over which lo_lr_smooth is taken.")] = 51,
    convention: Annotated[
        str | None,
        typer.Option(
            metavar="tzc-v1", help="The conventions of the code of arXiv 2407.01825v1, to compare with its figures."
        ),
    ] = None,
    match_permutations: Annotated[
        bool,
        typer.Option(
            "--match-permutations",
            help="Put the hidden units of references from other runs or files in the order in which they lie nearest "
            "to this run's last iterate; PERMUTATIONS in the objective's file says which axes permute together.",
        ),
    ] = False,
    pca: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The first two principal components of N evenly spaced iterates (3 to 500), references among them: "
            "trajectory.csv and a figure. Reads those iterates once more; the work is quadratic in N.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report folder.  (default: reports/RUN)"),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Compute everything anew, rather than go on from the scalars that an earlier call saved with the "
            "report: for what trajcheck cannot see has changed, such as data that the objective loads.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be read and evaluated and, from a second of the pass and a few seconds of the replay, "
            "how long it would take; write nothing. An --objective is executed for that.",
        ),
    ] = False,
    form: Form = "table",
    plots: Plots = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")] = False,
) -> None:
    """Measure a recorded run against reference points; write CSV tables and a summary."""
    from trajcheck.commands.analyze.command import run_analysis
    from trajcheck.commands.analyze.time_estimate import estimate_time
    from trajcheck.measuring.options import Options
    from trajcheck.reports.terminal.analysis import summary_text

    options = Options(
        refs=tuple(ref or ["final"]),
        objective=objective,
        ref_gradients=ref_gradients,
        metrics=tuple(name.strip() for each in metrics or [] for name in each.split(",")),
        steps=steps,
        skip=skip,
        skip_bad=skip_bad,
        replay_dtype=replay_dtype,
        device=device,
        curvature=curvature,
        sample=tuple(name.strip() for each in sample or [] for name in each.split(",")),
        layers=layers,
        group=tuple(group or ()),
        path_integral=path_integral,
        memory_lags=_numbers(memory_lags),
        smoothing=smoothing,
        convention=convention,
        memory=memory,
        threads=threads,
        match_permutations=match_permutations,
        pca=pca,
    )
    if dry_run:
        typer.echo(estimate_time(run, options))
        return
    report = run_analysis(run, options, out, fresh=fresh, quiet=quiet)
    if not quiet:
        say_report(form, report.folder, report.summary, lambda: summary_text(report))
    for lack in report.incomplete:
        typer.echo(f"trajcheck: not computed: {lack}", err=True)
    if not draw_after(report.folder, plots, quiet or form != "table") or report.incomplete:
        raise typer.Exit(INCOMPLETE)
