"""What the commands print on stdout, and the option that chooses its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trajcheck.errors import OutputError


def _known(name: str) -> str:
    """Refuse an unknown format before anything is computed."""
    from trajcheck.reports.terminal.formats import check_format

    check_format(name)
    return name


#: The option of analyze, compare and flow.
Form = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        callback=_known,
        help="What to print: table; json, the headline with warnings; csv or markdown, the headline, with warnings on "
        "stderr. With these three nothing else is on stdout, with --quiet nothing at all.",
    ),
]


def say(text: str) -> None:
    """Print; a name that is not UTF-8 must not stop a report that is already written."""
    try:
        typer.echo(text.encode("utf-8", "replace").decode())
    except OSError as error:
        raise OutputError(f"the summary could not be printed: {error.strerror}; the report is written") from error


def say_report(form: str, folder: Path, summary: Mapping[str, Any], table: Callable[[], str]) -> None:
    """Print a finished report in one of the formats; `table` makes the text for people."""
    from trajcheck.reports.terminal.formats import printed

    say(printed(form, folder, summary, table))
    if form in ("csv", "markdown"):
        for warning in summary["warnings"]:
            typer.echo(f"warning: {warning}".encode("utf-8", "replace").decode(), err=True)
