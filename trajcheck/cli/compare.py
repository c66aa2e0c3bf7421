"""`trajcheck compare RUN_A RUN_B`: options in, exit codes out; what it does is in commands/compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trajcheck.cli.finishing import DryRun, Form, Plots, Quiet, finish_report
from trajcheck.cli.parameters import archive_path, with_options
from trajcheck.cli.printing import say
from trajcheck.commands.compare.options import CompareArguments


@with_options(CompareArguments)
def compare_command(
    run_a: Annotated[
        Path, typer.Argument(parser=archive_path, metavar="RUN_A", help="Folder of a recorded run; it is only read.")
    ],
    run_b: Annotated[
        list[Path],
        typer.Argument(
            parser=archive_path, metavar="RUN_B [RUN...]", help="Runs of the same model, each compared with RUN_A."
        ),
    ],
    *,
    said: Mapping[str, Any],
    dry_run: DryRun = False,
    form: Form = "table",
    plots: Plots = None,
    quiet: Quiet = False,
) -> None:
    """Compare runs of one model, iterate by iterate; write CSV tables and a summary."""
    from trajcheck.commands.compare.command import estimate_comparison, run_comparison
    from trajcheck.reports.terminal.comparison import comparison_text

    given = CompareArguments(run_a, run_b[0], runs=run_b[1:], **said)
    if dry_run:
        say(str(estimate_comparison(given.folders, given.options)))
        return
    comparison = run_comparison(given.folders, given.options, given.folder, quiet=quiet)
    finish_report(comparison, comparison_text, form, plots, quiet)
