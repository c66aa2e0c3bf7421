"""What analyze, compare and flow do last, and the options that they share: print, draw, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from trajcheck.cli.printing import complain, say, say_report
from trajcheck.errors import UsageError
from trajcheck.readable import in_lines, plain

#: Finished, but something explicitly asked for could not be computed.
INCOMPLETE = 4


def _known(name: str) -> str:
    """Refuse an unknown format before anything is computed."""
    from trajcheck.reports.terminal.formats import check_format

    check_format(name)
    return name


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
#: What of a report is printed.
HEADLINE = "headline"
#: Its tables that are printed in the place of that.
SHOWN = ("assumptions", "schedule")


#: What is drawn where nobody says which figures.
MAIN_FIGURES = ("main",)


def check_shown(*names: str) -> Callable[[str | None], str | None]:
    """A check that a value of --show is one of these."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in names:
            raise UsageError(f"--show {name!r:.60}: expected one of {', '.join(names)}.")
        return name

    return check


Show = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=check_shown(HEADLINE, *SHOWN),
        help="What to print: headline; assumptions, the ledger of which of them hold along the path; or schedule, the "
        "last-iterate bound of the theory of schedules.",
    ),
]
Plots = Annotated[
    bool | None,
    typer.Option(
        "--plots/--no-plots",
        envvar="TRAJCHECK_PLOTS",
        help="Draw figures/ and report.html too.  (default: where the extra `plots` is installed)",
    ),
]
Figures = Annotated[
    list[str] | None,
    typer.Option(
        "--figures",
        metavar="NAME,...",
        help="Which figures: main, all, or names of figures; repeat.  (default: main)",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be read and evaluated, and write nothing.")]


def figure_names(said: Sequence[str] | None) -> list[str]:
    """Those of --figures, or the word for those that are not on demand."""
    return [name.strip() for each in said or () for name in each.split(",") if name.strip()] or [*MAIN_FIGURES]


def check_figures(kind: str, said: Sequence[str] | None, plots: bool | None) -> list[str]:
    """Those of --figures, refused before anything is computed where a report of that kind cannot have them."""
    names = figure_names(said)
    if said:
        if plots is False:
            raise UsageError("--figures: none is drawn with --no-plots, or TRAJCHECK_PLOTS=0 in the environment.")
        from trajcheck.reports.extras import need

        need("plots", "figures and the page need")
        from trajcheck.reports.figures.catalogue import chosen

        chosen(kind, names)
    return names


class Finished(Protocol):
    """A report of any of the three."""

    @property
    def folder(self) -> Path: ...
    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def incomplete(self) -> list[str]: ...


F = TypeVar("F", bound=Finished)


def finish_report(
    report: F,
    text: Callable[[F], str],
    form: str,
    plots: bool | None,
    quiet: bool,
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    figures: Sequence[str] = MAIN_FIGURES,
) -> None:
    """Print a finished report, `text` for people and for programs the `rows` of a table, under its name, or else its
    headline; draw it, and exit with INCOMPLETE where something is lacking."""
    if not quiet:
        say_report(form, report.folder, report.summary, lambda: text(report), rows)
    for lack in report.incomplete:
        complain(f"trajcheck: not computed: {lack}")
    if not draw_after(report.folder, plots, quiet or form != "table", figures) or report.incomplete:
        raise typer.Exit(INCOMPLETE)


def draw_after(folder: Path, plots: bool | None, quiet: bool, figures: Sequence[str] = MAIN_FIGURES) -> bool:
    """Draw the report, if that is asked for or possible. False where figures were explicitly asked for and cannot be
    drawn."""
    from trajcheck.commands.report.one_report import PAGE, can_draw, draw_report
    from trajcheck.reports.extras import install

    if plots is not False and can_draw():
        drawn = draw_report(folder, figures=figures)
        if not quiet:
            more = [plain(f"more figures: {drawn.more(folder)}")] if drawn.not_asked else []
            say(in_lines((*more, drawn.page)))
        return True
    if plots:
        complain(f"trajcheck: not computed: --plots: figures need {install('plots')}")
        return False
    if not quiet and (folder / PAGE).exists():
        say(plain(f"{PAGE} is of an earlier report; `trajcheck report {folder}` draws it anew"))
    elif not quiet and plots is None:
        say(f"figures and a page: {install('plots')}")
    return True
