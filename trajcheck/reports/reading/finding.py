"""Reports of analyses: folders that hold one, and those below folders that hold several, as a batch leaves them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import BadInputError, UsageError
from trajcheck.files.leftovers import meant_name
from trajcheck.files.opening import read_json
from trajcheck.files.walking import walk
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.reports.reading.report import SavedReport, read_report

#: Of a report, or of a batch: no reports of single runs lie there.
_OTHERS = ("scalars", "figures", "across")


def find_reports(places: Sequence[Path]) -> list[SavedReport]:
    """The analyses in, or below, some folders, each once, in their order.

    Raises BadInputError where a folder holds none or one cannot be read, UsageError for a report of something else that
    was named itself.
    """
    found: dict[str, SavedReport] = {}
    for place in places:
        folders = [place] if (place / SUMMARY).is_file() else list(_below(place))
        if not folders:
            raise BadInputError(f"{place}: holds no report of trajcheck analyze, nor does a folder below.")
        for folder in folders:
            if os.path.realpath(folder) not in found:
                found[os.path.realpath(folder)] = read_report(folder)
    for report in found.values():
        if report.kind != "analysis":
            raise UsageError(
                f"{report.folder}: is the report of a {report.kind}; several together are those of trajcheck analyze."
            )
    return list(found.values())


def _below(place: Path) -> Iterator[Path]:
    for folder, folders, files in walk(place):
        folders[:] = [name for name in folders if meant_name(name) is None and name not in _OTHERS]
        if SUMMARY in files and _is_analysis(Path(folder) / SUMMARY):
            yield Path(folder)


def _is_analysis(path: Path) -> bool:
    """Whether a summary is of one run's analysis; one that cannot be read is, so that reading it says why."""
    with suppress(OSError, ValueError):
        summary = read_json(path)
        return isinstance(summary, dict) and not {"flow", "runs", "reports"} & summary.keys()
    return True
