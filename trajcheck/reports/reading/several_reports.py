"""Saved analyses side by side: what each is called, towards what they are shown, and in what they differ."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trajcheck.errors import UsageError
from trajcheck.reports.reading.report import SavedReport, Series, read_report

#: In the order in which they are shown: the least noisy first.
SAMPLES = ("full", "probe", "own", "previous")

#: The most letters of a run's name.
LONGEST = 30

#: Runs that are told apart in one figure; style.py has as many colours.
MOST = 7


@dataclass(frozen=True)
class Together:
    """Two or more analyses; `labels` are their distinct short names, `ref` the reference that is shown of each, as it
    was given."""

    reports: Sequence[SavedReport]
    labels: Sequence[str]
    ref: str

    kind = "together"

    @property
    def shown(self) -> int:
        """How many of them figures tell apart: the first ones."""
        return min(len(self.reports), MOST)

    @property
    def towards_ref(self) -> dict[str, str]:
        """The words that choose rows of references.csv."""
        return {"ref": self.ref}

    def lines(self, table: str, column: str, **keys: str) -> dict[int, Series]:
        """By their place, the shown runs that have a value in a column on the rows with these words."""
        found = {place: self.reports[place].series(table, column, **keys) for place in range(self.shown)}
        return {place: series for place, series in found.items() if series}

    def on_samples(self, table: str, column: str, **keys: str) -> dict[str, dict[int, Series]]:
        """These lines on every sample on which there are any."""
        found = {sample: self.lines(table, column, sample=sample, **keys) for sample in SAMPLES}
        return {sample: lines for sample, lines in found.items() if lines}

    def first_sample(self, table: str, column: str, **keys: str) -> dict[int, Series]:
        """The same of a column that does not depend on the sample, from the first on which a run was measured."""
        found = {}
        for place, report in enumerate(self.reports[: self.shown]):
            if report.samples and (series := report.series(table, column, sample=report.samples[0], **keys)):
                found[place] = series
        return found

    def why_empty(self, *columns: str) -> str:
        """Why no run has a value in some columns."""
        reasons = Counter(report.why_empty(*columns) for report in self.reports)
        return "; ".join(reason for reason, _ in reasons.most_common(2))

    def missing(self, table: str, *columns: str) -> dict[str, str]:
        """Why some of the shown runs have no value in any of these columns, by their labels."""
        keys = self.towards_ref if table == "references" else {}
        found = {}
        for report, label in zip(self.reports[: self.shown], self.labels, strict=False):
            if keys and self.ref not in report.references:
                found[label] = f"its report has no reference {self.ref}"
            elif not any(report.series(table, column, **keys) for column in columns):
                found[label] = report.why_empty(*columns)
        return found

    @cached_property
    def differences(self) -> list[str]:
        """What the analyses, or what they are of, do not have in common, a sentence each."""
        found = []
        for what, value in _FACTS.items():
            values = [value(self, report) for report in self.reports]
            if len(set(values)) > 1:
                kinds = dict.fromkeys(values)
                runs = {
                    kind: [label for label, each in zip(self.labels, values, strict=True) if each == kind]
                    for kind in kinds
                }
                found.append(f"{what}: {'; '.join(f'{kind} ({_some(names)})' for kind, names in runs.items())}.")
        ids = Counter(report.id for report in self.reports)
        for report_id in (each for each, count in ids.items() if count > 1):
            names = [label for label, report in zip(self.labels, self.reports, strict=True) if report.id == report_id]
            found.append(f"{_some(names)} are reports of one and the same run.")
        return found


def read_together(folders: Sequence[Path], ref: str | None = None) -> Together:
    """The reports of some folders, which are of analyses; without `ref`, towards `final`, or where none has it towards
    the reference that most of them have.

    Raises BadInputError where a folder holds no report, UsageError where one is given twice, is no analysis, or `ref`
    is a reference of none.
    """
    places = [os.path.realpath(folder) for folder in folders]
    if twice := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise UsageError(f"{twice[-1]}: was given twice. Name each report once.")
    reports = [read_report(Path(folder)) for folder in folders]
    for report in reports:
        if report.kind != "analysis":
            raise UsageError(
                f"{report.folder}: is the report of a {report.kind}; several reports in one figure are those of "
                "trajcheck analyze. Draw this one by itself."
            )
    return Together(reports, labels(reports), _reference(reports, ref))


def _reference(reports: Sequence[SavedReport], asked: str | None) -> str:
    counts = Counter(ref for report in reports for ref in report.references)
    if asked is None:
        return "final" if "final" in counts or not counts else counts.most_common(1)[0][0]
    if asked not in counts:
        raise UsageError(
            f"--ref {asked!r}: is a reference of none of these reports; they have {', '.join(counts) or 'none'}. "
            "Choose one of them, or analyze the runs with that --ref first."
        )
    return asked


def labels(reports: Sequence[SavedReport]) -> list[str]:
    """Distinct names: the runs' paths without what they have in common, or the reports' where two are of one run;
    numbered where their ends are equal too."""
    paths = [str(report.summary["run"].get("path", "")) for report in reports]
    if len(set(paths)) < len(paths):
        paths = [os.path.abspath(report.folder) for report in reports]
    names = _without_common(paths)
    if len({name[1 - LONGEST :] for name in names}) < len(names):
        width = LONGEST - 6
        return [f"{n}. {name if len(name) <= width else '…' + name[1 - width :]}" for n, name in enumerate(names, 1)]
    return names


def _without_common(paths: Sequence[str]) -> list[str]:
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        return [os.path.relpath(path, common) if common else path for path in paths]
    except ValueError:  # some are absolute, others are not
        return list(paths)


def _some(names: Sequence[str]) -> str:
    """The names, or the first ones and how many more."""
    return ", ".join(names) if len(names) <= MOST else f"{', '.join(names[:MOST])} and {len(names) - MOST} more"


# -- what may differ --------------------------------------------------------------------------------------------------


def _samples(together: Together, report: SavedReport) -> str:
    return " and ".join(report.samples) or "none"


def _of_run(name: str) -> Callable[[Together, SavedReport], str]:
    def value(together: Together, report: SavedReport) -> str:
        found = report.summary["run"].get(name)
        return f"{found:,}" if isinstance(found, int) and not isinstance(found, bool) else str(found or "not known")

    return value


def _option(name: str, absent: str) -> Callable[[Together, SavedReport], str]:
    def value(together: Together, report: SavedReport) -> str:
        found = report.summary["options"].get(name)
        return absent if found in (None, False, []) else "yes" if found is True else str(found)

    return value


def _reference_kind(together: Together, report: SavedReport) -> str:
    values = report.summary["headline"].get("references", {}).get(together.ref)
    if values is None:
        return "not a reference of this report"
    point = values.get("point")
    if point is None:
        return "not known"
    return "a point of the run itself" if str(point).startswith(f"{report.id}/") else "a point from elsewhere"


def _dtype(together: Together, report: SavedReport) -> str:
    replay: Any = report.summary.get("replay")
    return "nothing was replayed" if not replay else str(replay.get("dtype", "not known"))


_FACTS: dict[str, Callable[[Together, SavedReport], str]] = {
    "Reference x*": _reference_kind,
    "Samples": _samples,
    "Objective of the replay": _option("objective", "none"),
    "Precision of the replay": _dtype,
    "Parameters": _of_run("parameters"),
    "Optimizer": _of_run("optimizer"),
    "Smallest stride between records": _of_run("stride"),
    "Recorded steps": _of_run("recorded_steps"),
    "Last recorded step": _of_run("last_step"),
    "Steps between gradient and iterate in cos_skip, at least (--skip)": _of_run("skip"),
    "Convention (--convention)": _option("convention", "none"),
    "Chosen steps (--steps)": _option("steps", "all"),
    "References in the order of hidden units (--match-permutations)": _option("match_permutations", "no"),
}
