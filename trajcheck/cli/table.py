"""`trajcheck table REPORT...`: options in, exit codes out; what it does is in commands/table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trajcheck.cli.parameters import named_path
from trajcheck.cli.printing import say, say_data
from trajcheck.readable import plain


def table_command(
    reports: Annotated[
        list[Path],
        typer.Argument(
            parser=named_path,
            metavar="REPORT...",
            help="Folders that analyze wrote, or folders below which they lie, as batch's --out.",
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="latex (booktabs), markdown, or csv with all digits.")
    ] = "markdown",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Quantities as in a batch's index.csv; fields, as user.optimizer; and mean:, first:, last:, min: or "
            "max: of a column of steps.csv or references.csv, as mean:rsi.  (default: cosine, ratio and shares)",
        ),
    ] = None,
    ref: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Only that reference or role, or 'x_(t-1)'; repeat.  (default: all)"),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only that sample; repeat or separate by commas.  (default: all)"),
    ] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD,...",
            help="A row for the runs that agree in these fields, as user.optimizer or group: mean and standard error "
            "over the runs.  (default: a row a run)",
        ),
    ] = None,
    caption: Annotated[str, typer.Option(metavar="TEXT", help="Above the table; in LaTeX a whole table.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="FILE",
            help="Write it there; replaces no file but such a table.  (default: stdout)",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="With --out, print nothing.")] = False,
) -> None:
    """The quantities of several reports as a table for a paper; needs no checkpoint."""
    from trajcheck.commands.table.command import table

    text = table(
        reports,
        form,
        columns=_words(columns),
        refs=ref or (),
        samples=_words(sample),
        group_by=_words(group_by),
        caption=caption,
        out=out,
    )
    if out is None:
        say_data(text.rstrip("\n"))
    elif not quiet:
        say(plain(out))


def _words(given: list[str] | None) -> list[str]:
    return [word.strip() for each in given or [] for word in each.split(",") if word.strip()]
