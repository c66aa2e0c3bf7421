"""Figures and the page of a saved report: drawn from its tables and its summary, without the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trajcheck.errors import BadInputError, UsageError
from trajcheck.reports.extras import missing, need
from trajcheck.reports.making.folder import SUMMARY, ReportFolder

PAGE, FIGURES = "report.html", "figures"
FORMATS = ("png", "svg", "pdf")
DEFAULT_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class DrawnReport:
    """The page, the figures' files, and {title: reason} of the figures that were left out."""

    page: Path
    figures: list[Path]
    left_out: dict[str, str]


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
) -> DrawnReport:
    """Draw report.html and figures/ of a report folder anew, from the tables that lie in it; no checkpoint is opened.

    `formats` are of png, svg, pdf. They appear in the report's own folder, or in `out`, another folder that is new,
    empty or of the same report. Needs the extra `plots`. Raises BadInputError where the folder holds no report,
    UsageError, OutputError.
    """
    check_drawable(formats)
    from trajcheck.reports.figures.catalogue import PICTURES
    from trajcheck.reports.figures.render import draw
    from trajcheck.reports.page.document import document
    from trajcheck.reports.reading.report import read_report

    saved = read_report(Path(report))
    try:
        drawn = draw(saved, tuple(dict.fromkeys(("png", *formats))))
        page = document(saved, drawn)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BadInputError(
            f"{saved.folder}: cannot be drawn: its summary or a table is not as trajcheck writes it ({error!r:.200}). "
            "Make the report anew; where it is new, this is a bug."
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
        files[SUMMARY] = (saved.folder / SUMMARY).read_bytes()
    every = {f"{FIGURES}/{each.name}.{form}" for each in PICTURES[saved.kind] for form in FORMATS}
    with ReportFolder(saved.folder if out is None else Path(out), saved.id) as folder:
        folder.publish(files, outdated=sorted(every - set(files)))
    return DrawnReport(folder.path / PAGE, [folder.path / name for name in figures], drawn.left_out)
