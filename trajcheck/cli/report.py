"""`trajcheck report REPORT`: options in, exit codes out; what it does is drawing.draw_report."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from trajcheck.cli.printing import say

#: The option of analyze, compare and flow.
Plots = Annotated[
    bool | None,
    typer.Option(
        "--plots/--no-plots",
        envvar="TRAJCHECK_PLOTS",
        help="Draw figures/ and report.html too.  (default: where the extra `plots` is installed)",
    ),
]


def draw_after(folder: Path, plots: bool | None, quiet: bool) -> bool:
    """What analyze, compare and flow do last: draw the report that they wrote, if that is asked for or possible.

    False where figures were explicitly asked for and cannot be drawn.
    """
    from trajcheck.drawing import INSTALL, PAGE, can_draw, draw_report

    if plots is not False and can_draw():
        page = draw_report(folder).page
        if not quiet:
            typer.echo(str(page).encode("utf-8", "replace").decode())
        return True
    if plots:
        typer.echo(f"trajcheck: not computed: --plots: figures need {INSTALL}", err=True)
        return False
    if not quiet and (folder / PAGE).exists():
        typer.echo(f"{PAGE} is of an earlier report; `trajcheck report {folder}` draws it anew")
    elif not quiet and plots is None:
        typer.echo(f"figures and a page: {INSTALL}")
    return True


def report_command(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder that analyze, compare or flow wrote.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME", help="Of the figures: png, svg, pdf; repeat.  (default: png and svg)"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write them there, with summary.json.  (default: into REPORT)"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; errors only.")] = False,
) -> None:
    """Draw the figures and the page of a report again, from its tables; needs no checkpoint.

    Replaces REPORT/report.html and the pictures in REPORT/figures. Needs the extra `plots`.
    """
    from trajcheck.drawing import DEFAULT_FORMATS, draw_report
    from trajcheck.reports.terminal import WIDTH

    drawn = draw_report(report, formats or DEFAULT_FORMATS, out)
    if quiet:
        return
    left_out = [
        line
        for title, reason in drawn.left_out.items()
        for line in wrap(f"left out   {title}: {reason}", WIDTH, subsequent_indent=" " * 11)
    ]
    say("\n".join(map(str, (*left_out, *drawn.figures, drawn.page))))
