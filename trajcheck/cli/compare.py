"""`trajcheck compare RUN_A RUN_B`: options in, exit codes out; what it does is in commands/compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.analyze import INCOMPLETE
from trajcheck.cli.printing import Form, say_report
from trajcheck.cli.report import Plots, draw_after


def compare_command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of a recorded run; it is only read.")],
    run_b: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_B [RUN...]", help="Runs of the same model, each compared with RUN_A."),
    ],
    align: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Which iterates belong together: step (of equal number), time (of equal tau, the sum of learning "
            "rates), loss (of nearest recorded loss, in the order of both runs).",
        ),
    ] = "step",
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="The largest difference of two taus, or losses, that are matched.  (default: rounding of taus; any "
            "of losses)",
        ),
    ] = None,
    interpolate: Annotated[
        bool,
        typer.Option(
            "--interpolate",
            help="With --align time: where RUN_B has no record at a time of RUN_A, the point between the two around "
            "it, marked in its row.",
        ),
    ] = False,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME|run",
            help="The loss to replay, as for analyze (the file, or program, is executed): for gaps, ratios and lines.",
        ),
    ] = None,
    line: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Take the loss at N points on the straight line between x_a and x_b, and at both ends; 0: none.  "
            "(default: 9 with an objective)",
        ),
    ] = None,
    sample: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="On which z that loss is: own (the batch of RUN_A's record), probe (RUN_A's probe batches, with "
            "standard errors), full (the objective's data set).",
        ),
    ] = "own",
    match_permutations: Annotated[
        bool,
        typer.Option(
            "--match-permutations",
            help="Put the hidden units of the other runs in the order nearest to RUN_A's; the objective file says "
            "which permute.",
        ),
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Write layers.csv too: distances and cosines for each tensor.")
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="A:B:C",
            help="Records of RUN_A, as a slice of step numbers; under --align step those of the others too.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out steps that cannot be read or hold NaN or Inf; the summary lists them."
        ),
    ] = False,
    replay_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="float64, float32 or bfloat16.  (default: the runs', float32 at least)"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to replay: auto, cpu, cuda, cuda:1.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report folder.  (default: reports/compare/RUN_A--RUN_B)"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and evaluated, and write nothing.")
    ] = False,
    form: Form = "table",
    plots: Plots = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")] = False,
) -> None:
    """Compare runs of one model, iterate by iterate; write CSV tables and a summary."""
    from trajcheck.commands.compare.command import estimate_comparison, run_comparison
    from trajcheck.commands.compare.options import ComparisonOptions
    from trajcheck.reports.terminal.comparison import comparison_text

    options = ComparisonOptions(
        align=align,
        tolerance=tolerance,
        interpolate=interpolate,
        objective=objective,
        line=line,
        sample=sample,
        layers=layers,
        steps=steps,
        skip_bad=skip_bad,
        replay_dtype=replay_dtype,
        device=device,
        match_permutations=match_permutations,
    )
    runs = [run_a, *run_b]
    if dry_run:
        typer.echo(estimate_comparison(runs, options))
        return
    comparison = run_comparison(runs, options, out, quiet=quiet)
    if not quiet:
        say_report(form, comparison.folder, comparison.summary, lambda: comparison_text(comparison))
    for lack in comparison.incomplete:
        typer.echo(f"trajcheck: not computed: {lack}", err=True)
    if not draw_after(comparison.folder, plots, quiet or form != "table") or comparison.incomplete:
        raise typer.Exit(INCOMPLETE)
