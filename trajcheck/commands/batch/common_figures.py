"""Figures across runs: those of a batch that have as many parameters, drawn from their reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajcheck.commands.report.one_report import PAGE, can_draw
from trajcheck.errors import OutputError, TrajcheckError
from trajcheck.files.opening import read_json
from trajcheck.files.whole_files import write_json
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.version import __version__

log = logging.getLogger("trajcheck.batch")

FOLDER = "across"

#: Hidden, as it belongs to the batch: from which reports the figures were made.
MADE_FROM = ".made-from.json"

#: The most runs of a figure; as many as it tells apart.
MOST = 7


@dataclass(frozen=True)
class RunsAcross:
    """Runs of the same number of parameters: the report folders of the first ones below `out`, and how many there
    are."""

    out: Path
    parameters: int
    reports: tuple[str, ...]
    runs: int

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.parameters}-parameters"

    @property
    def words(self) -> str:
        shown = f"{self.runs:,}" if self.runs == len(self.reports) else f"{len(self.reports)} of {self.runs:,}"
        return f"{shown} runs of {self.parameters:,} parameters"

    def sources(self) -> dict[str, Any]:
        """What the figures are made from: sizes and times of the reports' files."""
        files = [f"{report}/{name}" for report in self.reports for name in (SUMMARY, "steps.csv", "references.csv")]
        return {"version": __version__, "runs": self.runs, "files": {name: _print(self.out / name) for name in files}}

    def drawn(self) -> bool:
        """Whether the figures that are there are of the reports as they are now."""
        try:
            known = read_json(self.out / self.name / MADE_FROM)
        except (OSError, ValueError):
            return False
        return bool(known == self.sources()) and (self.out / self.name / PAGE).is_file()


def _print(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def runs_across(out: Path, rows: Sequence[Mapping[str, Any]]) -> list[RunsAcross]:
    """The sets of two or more runs with a report, by their number of parameters, smallest first."""
    reports: dict[int, list[str]] = {}
    for row in rows:
        parameters = row.get("parameters")
        if type(parameters) is int and row.get("report"):
            reports.setdefault(parameters, []).append(row["report"])
    return [
        RunsAcross(out, parameters, tuple(found[:MOST]), len(found))
        for parameters, found in sorted(reports.items())
        if len(found) > 1
    ]


def draw_across(out: Path, rows: Sequence[Mapping[str, Any]], plots: bool | None) -> None:
    """Draw the figures of those sets of which a report has changed; one that cannot be drawn is a line of the log.

    Nothing is imported for sets that have not changed.
    """
    if plots is False or not can_draw():
        return
    for each in runs_across(out, rows):
        if each.drawn():
            continue
        try:
            _draw(each)
        except TrajcheckError as error:
            log.warning("%s: %s", out / each.name, error)
        except Exception:  # a bug of a figure must not cost the night its index
            log.exception("%s: could not be drawn", out / each.name)


def _draw(each: RunsAcross) -> None:
    from trajcheck.commands.report.several_reports import draw_together

    sources = each.sources()
    rest = each.runs - len(each.reports)
    notes = [f"{rest:,} more runs of as many parameters: the first {len(each.reports)} are drawn."] if rest else []
    folder = each.out / each.name
    draw_together([each.out / report for report in each.reports], folder, notes=notes)
    try:
        write_json(folder / MADE_FROM, sources)
    except OSError as error:
        raise OutputError(f"{folder / MADE_FROM}: cannot be written: {error.strerror}.") from error


def pages_across(out: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The pages that are of the reports as they are now: in words, and where they lie below `out`."""
    for each in runs_across(out, rows):
        if each.drawn():
            yield each.words, f"{each.name}/{PAGE}"
