"""`trajcheck batch ARCHIVE...`: options in, exit codes out; what it does is in commands/batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajcheck.cli.finishing import INCOMPLETE, Plots
from trajcheck.cli.parameters import named_path, with_options
from trajcheck.cli.printing import is_terminal, say
from trajcheck.commands.batch.options import BatchConfig
from trajcheck.readable import in_lines, plain

if TYPE_CHECKING:
    from trajcheck.commands.batch.command import BatchResult


@with_options(BatchConfig, in_place=True)
def batch_command(
    archives: Annotated[
        list[Path],
        typer.Argument(
            parser=named_path,
            metavar="ARCHIVE...",
            help="Folders under which recorded runs lie; only read. Links are not followed.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=named_path, metavar="DIR", help="Where the reports, index.csv and index.html go.")
    ] = Path("reports"),
    config: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="FILE.toml",
            help="Options of the batch and of its analyses, also by patterns of paths.",
        ),
    ] = None,
    ref: Annotated[
        list[str] | None, typer.Option("--ref", metavar="SPEC", help="As of analyze; in place of the file's.")
    ] = None,
    ref_as: Annotated[
        list[str] | None,
        typer.Option(
            "--ref-as",
            metavar="ROLE=SPEC",
            help="As of analyze, also with parts of the run's path, as 'other={group}/seed1'; in place of the file's.",
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(metavar="FILE.py:NAME|run|none", help="As of analyze; in place of the file's.")
    ] = None,
    *,
    said: Mapping[str, Any],
    plots: Plots = None,
    log_file: Annotated[
        Path | None,
        typer.Option("--log", parser=named_path, metavar="FILE", help="Append a line a run; may be rotated meanwhile."),
    ] = None,
    json_log: Annotated[
        bool, typer.Option("--json-log", help="Log lines as JSON objects, to --log or else to standard error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but failures.  (default where no terminal is)")
    ] = False,
) -> None:
    """Analyze the runs of an archive that are new or have changed: what cron calls.

    Each run has its report below DIR; index.csv has a row a run, reference and sample. A run that cannot be analyzed
    fails its row and is tried again the next time. A second call while one is at work ends at once, with 0. After
    SIGTERM or SIGINT the exit code is 143 or 130, and everything finished is kept.
    """
    from trajcheck.cli.batch_log import batch_log
    from trajcheck.commands.batch.command import batch, with_command_line
    from trajcheck.commands.batch.config_file import read_config
    from trajcheck.commands.batch.lock import HeldError
    from trajcheck.progress_bar import progress_bar

    silent = quiet or not is_terminal(sys.stdout)
    chosen = with_command_line(BatchConfig() if config is None else read_config(config), **said)
    if plots is not None:
        chosen = replace(chosen, plots=plots)
    options = replace(
        chosen.options, refs=tuple(ref or chosen.options.refs), ref_as=tuple(ref_as or chosen.options.ref_as)
    )
    chosen = replace(chosen, options=options if objective is None else replace(options, objective=objective))
    chosen.check()
    with ExitStack() as stack:
        stack.enter_context(batch_log(log_file, as_json=json_log, verbose=not silent))
        bars = []

        def found(count: int) -> None:
            bars.append(stack.enter_context(progress_bar("analyzing", count, silent, unit="run")))

        try:
            result = batch(archives, out, chosen, found=found, progress=lambda runs: bars[-1](runs))
        except HeldError as error:
            say(plain(f"trajcheck: {error}; nothing to do here"))
            return
    if not silent:
        say(_words(result))
    if result.stopped is not None:
        raise typer.Exit(128 + result.stopped)
    if not result.complete:
        raise typer.Exit(INCOMPLETE)


def _words(result: BatchResult) -> str:
    parts = [f"{count} {status}" for status, count in result.analyzed.items()]
    parts += [f"{result.unchanged} unchanged"]
    parts += [f"{result.remaining} left for the next call"] if result.remaining else []
    return in_lines([", ".join(parts), result.out / "index.csv"])
