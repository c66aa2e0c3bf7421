"""`trajcheck report REPORT`: options in, exit codes out; what it does is in commands/report."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from trajcheck.cli.printing import say


def report_command(
    reports: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT [REPORT...]",
            help="Folder that analyze, compare or flow wrote; several that analyze wrote are drawn in common figures.",
        ),
    ],
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="With several reports: their reference that is shown, as it was given.  (default: final)",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME", help="Of the figures: png, svg, pdf; repeat.  (default: png and svg)"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write them there, with summary.json; needed with several reports.  (default: into REPORT)",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; errors only.")] = False,
) -> None:
    """Draw the figures and the page of a report again, from its tables; needs no checkpoint.

    Replaces REPORT/report.html and the pictures in REPORT/figures. With several reports it draws the first 7 runs in
    common figures, into --out DIR, which is new, empty or of such a call before. Needs the extra `plots`.
    """
    from trajcheck.commands.report.one_report import DEFAULT_FORMATS, draw_report
    from trajcheck.commands.report.several_reports import draw_together
    from trajcheck.errors import UsageError
    from trajcheck.reports.terminal.layout import WIDTH

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
    drawn = (
        draw_report(reports[0], chosen, out)
        if out is None or len(reports) == 1
        else draw_together(reports, out, ref, chosen)
    )
    if quiet:
        return
    left_out = [
        line
        for title, reason in drawn.left_out.items()
        for line in wrap(f"left out   {title}: {reason}", WIDTH, subsequent_indent=" " * 11)
    ]
    say("\n".join(map(str, (*left_out, *drawn.figures, drawn.page))))
