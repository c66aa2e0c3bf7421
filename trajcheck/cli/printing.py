"""What the commands print on stdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from trajcheck.errors import OutputError


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
