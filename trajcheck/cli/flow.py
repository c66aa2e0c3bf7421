"""`trajcheck flow RUN`: options in, exit codes out; what it does is in commands/flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.cli.finishing import DryRun, Form, Plots, Quiet, finish_report
from trajcheck.cli.parameters import RecordedRun, with_options
from trajcheck.cli.printing import say
from trajcheck.commands.flow.options import FlowArguments


@with_options(FlowArguments)
def flow_command(
    run: RecordedRun,
    *,
    said: Mapping[str, Any],
    dry_run: DryRun = False,
    form: Form = "table",
    plots: Plots = None,
    quiet: Quiet = False,
) -> None:
    """Hold a run against its gradient flow, theta' = -grad f(theta); write flow.csv and a summary.

    A command that was killed goes on when it is given again.
    """
    from trajcheck.commands.flow.command import estimate_flow, run_flow
    from trajcheck.reports.terminal.flow import flow_text

    given = FlowArguments(run, **said)
    if dry_run:
        say(estimate_flow(run, given.options))
        return
    finish_report(run_flow(run, given.options, given.folder, quiet=quiet), flow_text, form, plots, quiet)
