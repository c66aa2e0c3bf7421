"""Figures and the page of a saved report: drawn from its tables and its summary, without the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trajcheck.errors import BadInputError, OutputError, UsageError
from trajcheck.files.opening import read_bytes
from trajcheck.reports.extras import missing, need
from trajcheck.reports.making.folder import SUMMARY, ChangedError, ReportFolder

PAGE, FIGURES = "report.html", "figures"

#: How often a report is drawn that others make anew meanwhile.
TRIES = 5
FORMATS = ("png", "svg", "pdf")
DEFAULT_FORMATS = ("png", "svg")
DEFAULT_FIGURES = ("main",)


@dataclass(frozen=True)
class DrawnReport:
    """The page, the figures' files, {title: reason} of the figures that were left out, and the names of those that were
    not asked for."""

    page: Path
    figures: list[Path]
    left_out: dict[str, str]
    not_asked: list[str] = field(default_factory=list)

    def more(self, report: Path) -> str:
        """How to get those that were not asked for; "" where all were."""
        return f"{', '.join(self.not_asked)}: `trajcheck report {report} --figures all`" if self.not_asked else ""


def can_draw() -> bool:
    """Whether the extra `plots` is installed. Imports none of it."""
    return not missing("plots")


def check_drawable(formats: Sequence[str]) -> None:
    """Raise UsageError for formats that there are not, and where the extra `plots` is not installed."""
    if unknown := [each for each in formats if each not in FORMATS] or not formats:
        found = ", ".join(map(repr, unknown)) if isinstance(unknown, list) else "none"
        raise UsageError(f"--format: {found}; expected some of {', '.join(FORMATS)}.")
    need("plots", "figures and the page need")


def draw_report(
    report: str | os.PathLike[str],
    formats: Sequence[str] = DEFAULT_FORMATS,
    out: str | os.PathLike[str] | None = None,
    figures: Sequence[str] = DEFAULT_FIGURES,
) -> DrawnReport:
    """Draw report.html and figures/ of a report folder anew, from the tables that lie in it; no checkpoint is opened.

    `formats` are of png, svg, pdf, `figures` names, "main" or "all": main leaves out those that answer questions which
    few have. They appear in the report's own folder, or in `out`, another folder that is new, empty or of the same
    report; figures of an earlier call that are not asked for now are removed. Needs the extra `plots`. Raises
    BadInputError where the folder holds no report, UsageError, OutputError.
    """
    check_drawable(formats)
    for _ in range(TRIES - 1):
        with suppress(ChangedError):  # another call has made the report anew
            return _draw_report(Path(report), formats, out, figures)
    try:
        return _draw_report(Path(report), formats, out, figures)
    except ChangedError as error:
        raise OutputError(
            f"{report}: was made anew {TRIES} times while its figures were drawn. Try again when the other calls have "
            "ended."
        ) from error


def _draw_report(
    report: Path, formats: Sequence[str], out: str | os.PathLike[str] | None, asked: Sequence[str]
) -> DrawnReport:
    from trajcheck.reports.figures.catalogue import PICTURES
    from trajcheck.reports.figures.render import draw
    from trajcheck.reports.page.document import document
    from trajcheck.reports.reading.report import read_report

    summary = _summary(report)
    saved = read_report(report)
    with ReportFolder(saved.folder if out is None else Path(out), saved.id) as folder:  # is it to be had?
        try:
            drawn = draw(saved, tuple(dict.fromkeys(("png", *formats))), asked)
            page = document(saved, drawn)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise BadInputError(
                f"{saved.folder}: cannot be drawn: its summary or a table is not as trajcheck writes it "
                f"({error!r:.200}). Make the report anew; where it is new, this is a bug."
            ) from error
        files: dict[str, str | bytes] = {
            f"{FIGURES}/{name}.{form}": content
            for name, contents in drawn.files.items()
            for form, content in contents.items()
            if form in formats
        }
        figures = list(files)
        files[PAGE] = page
        if out is not None:
            files[SUMMARY] = summary
        every = {f"{FIGURES}/{each.name}.{form}" for each in PICTURES[saved.kind] for form in FORMATS}
        folder.publish(files, sorted(every - set(files)), made_from={SUMMARY: summary} if out is None else None)
    not_asked = [each.name for each in drawn.not_asked]
    return DrawnReport(folder.path / PAGE, [folder.path / name for name in figures], drawn.left_out, not_asked)


def _summary(report: Path) -> bytes:
    """The bytes of a report's summary; none where it cannot be read, which reading the report says."""
    with suppress(OSError):
        return read_bytes(report / SUMMARY)
    return b""
