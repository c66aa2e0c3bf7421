"""`trajcheck analyze RUN`: options in, exit codes out; what it does is in commands/analyze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trajcheck.cli.finishing import HEADLINE, Figures, Form, Plots, Quiet, Show, check_figures, finish_report
from trajcheck.cli.parameters import RecordedRun, with_options
from trajcheck.cli.printing import say
from trajcheck.commands.analyze.options import AnalyzeArguments


@with_options(AnalyzeArguments)
def analyze_command(
    run: RecordedRun,
    *,
    said: Mapping[str, Any],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be read and evaluated and, from a second of the pass and a few seconds of the replay, "
            "how long it would take; write nothing. An --objective is executed for that.",
        ),
    ] = False,
    show: Show = HEADLINE,
    form: Form = "table",
    plots: Plots = None,
    figures: Figures = None,
    quiet: Quiet = False,
) -> None:
    """Measure a recorded run against reference points; write CSV tables and a summary."""
    from trajcheck.commands.analyze.command import run_analysis
    from trajcheck.reports.terminal.analysis import summary_text

    given = AnalyzeArguments(run, **said)
    asked = check_figures("analysis", figures, plots)
    if dry_run:
        from trajcheck.commands.analyze.time_estimate import estimate_time  # for this alone

        say(str(estimate_time(run, given.options)))
        return
    report = run_analysis(run, given.options, given.folder, fresh=given.fresh, quiet=quiet)
    if show == HEADLINE:
        finish_report(report, summary_text, form, plots, quiet, figures=asked)
        return
    from trajcheck.reports.terminal.parts import PARTS

    part = PARTS[show](getattr(report, show), report.undefined, report.summary)
    finish_report(report, lambda _: part.text(), form, plots, quiet, {show: part.rows}, asked)
