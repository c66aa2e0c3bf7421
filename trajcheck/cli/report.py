"""`trajcheck report REPORT`: options in, exit codes out; what it does is in commands/report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.finishing import SHOWN, Figures, check_shown, figure_names
from trajcheck.cli.parameters import named_path
from trajcheck.cli.printing import say
from trajcheck.errors import UsageError
from trajcheck.readable import in_lines, plain


def report_command(
    reports: Annotated[
        list[Path],
        typer.Argument(
            parser=named_path,
            metavar="REPORT [REPORT...]",
            help="Folder that analyze, compare or flow wrote; several that analyze wrote are drawn in common figures. "
            "With --group-by also a folder below which they lie, as batch's --out.",
        ),
    ],
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="With several reports: their reference that is shown, as it was given.  (default: final)",
        ),
    ] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD,...",
            help="With several reports: means and spreads over the runs that agree in these fields, as user.optimizer "
            "or group.",
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --group-by: over step, tau or fraction, t/T.  (default: step)"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME", help="Of the figures: png, svg, pdf; repeat.  (default: png and svg)"),
    ] = None,
    figures: Figures = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="DIR",
            help="Write them there, with summary.json; needed with several reports.  (default: into REPORT)",
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="DIR",
            help="Write every numeric column for TensorBoard, a run a report below DIR, and draw nothing.",
        ),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="Log them to that project of Weights & Biases, a run a report, and draw nothing.",
        ),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=check_shown(*SHOWN),
            help="Print that of each report, and draw nothing: assumptions, the ledger of which hold along the path; "
            "or schedule, the last-iterate bound of the theory of schedules.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; errors only.")] = False,
) -> None:
    """Draw the figures and the page of a report again, from its tables; needs no checkpoint.

    Replaces REPORT/report.html and the pictures in REPORT/figures. With several reports it draws the first 7 runs in
    common figures, into --out DIR, which is new, empty or of such a call before; with --group-by all of them, as means
    and spreads. Needs the extra `plots`. With --tensorboard or --wandb (the extras of those names) it writes the
    columns where a training's own curves are shown.
    """
    if show is not None:
        if formats or figures or out is not None or ref is not None or group_by or over or tensorboard or wandb:
            raise UsageError("--show prints, and draws and writes nothing: it takes no other option but --quiet.")
        _show(show, reports, quiet)
        return
    if tensorboard is not None or wandb is not None:
        if formats or figures or out is not None or ref is not None or group_by or over is not None:
            raise UsageError(
                "--format, --figures, --out, --ref, --group-by and --over are of figures, and with --tensorboard or "
                "--wandb none is drawn. Call trajcheck report twice."
            )
        _track(reports, tensorboard, wandb, quiet)
        return
    from trajcheck.commands.report.one_report import DEFAULT_FORMATS, draw_report
    from trajcheck.commands.report.several_reports import draw_together
    from trajcheck.reports.reading.finding import find_reports
    from trajcheck.reports.terminal.layout import wrapped

    fields = [name.strip() for each in group_by or () for name in each.split(",") if name.strip()]
    if over is not None and not fields:
        raise UsageError("--over says what means and spreads are drawn over: give --group-by too.")
    if fields:
        reports = [report.folder for report in find_reports(reports)]
    if len(reports) == 1 and ref is not None:
        raise UsageError(
            "--ref chooses what several reports are shown towards; a report alone is drawn with all of its own."
        )
    if len(reports) > 1 and out is None:
        raise UsageError(
            f"--out is needed with {len(reports)} reports: the figures that show them together belong to none of their "
            "folders. Give a new folder, as --out reports/together."
        )
    chosen = formats or DEFAULT_FORMATS
    alone = not fields and (out is None or len(reports) == 1)
    if figures and not alone:
        raise UsageError("--figures chooses those of one report; of several reports, all are drawn.")
    drawn = (
        draw_report(reports[0], chosen, out, figure_names(figures))
        if alone
        else draw_together(reports, out or "", ref, chosen, group_by=fields, over=over or "step")
    )
    if quiet:
        return
    left_out = [
        line for title, reason in drawn.left_out.items() for line in wrapped(f"left out   {title}: {reason}", 11)
    ]
    if drawn.not_asked:
        left_out += wrapped(f"not drawn  {drawn.more(reports[0])}", 11)
    say(in_lines((*left_out, *drawn.figures, drawn.page)))


def _show(name: str, places: list[Path], quiet: bool) -> None:
    """A part of each report, from its tables."""
    from trajcheck.reports.reading.finding import find_reports
    from trajcheck.reports.terminal.parts import PARTS

    found = [PARTS[name](each.tables.get(name), each.undefined, each.summary).text() for each in find_reports(places)]
    if not quiet:
        say("\n\n".join(found))


def _track(reports: list[Path], tensorboard: Path | None, wandb: str | None, quiet: bool) -> None:
    """Into every tool that was asked for; what each needs is looked for before anything is written."""
    from trajcheck.commands.report.trackers import log_wandb, write_tensorboard
    from trajcheck.reports.extras import need

    for extra, asked in (("tensorboard", tensorboard), ("wandb", wandb)):
        if asked is not None:
            need(extra, f"--{extra} needs")
    runs = write_tensorboard(reports, tensorboard) if tensorboard is not None else []
    runs += log_wandb(reports, wandb) if wandb is not None else []
    if quiet:
        return
    for run in runs:
        say(plain(f"{run.place}: {run.values:,} values of {run.tags:,} columns"))
        if run.beyond:
            say(f"left out   {run.beyond:,} values beyond what TensorBoard can hold (float32)")
