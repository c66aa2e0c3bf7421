"""What processes that were killed have left among the reports (files/leftovers.py says what that is)."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from trajcheck.commands.batch.run_state import STATE
from trajcheck.commands.report.one_report import FIGURES
from trajcheck.files.folders import OpenFolder
from trajcheck.files.walking import walk
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.runs.formats.recognise import recognise
from trajcheck.scalars.saved import FOLDER as SCALARS

#: What files of a report are called; none of a run is.
_ENDINGS = (".csv", ".html", STATE, SUMMARY)


def remove_remains(out: Path, reports: Collection[Path]) -> None:
    """Remove them from `out`, from the folders of the `reports` of this call, and from all others below that hold a
    report; never from a run, and through no link. To be called by the batch that holds the folder."""
    for place, folders, files in walk(out):
        folder = Path(place)
        with suppress(OSError):
            if not _a_report_alone(folders, files) and recognise(folder) is not None:
                folders.clear()
                continue
            is_report = folder in reports or STATE in files or SUMMARY in files
            if not is_report and folder != out:
                continue
            with OpenFolder.at(folder) as there:
                there.remove_leftovers()
                for part in (SCALARS, FIGURES) if is_report else ():
                    if part in folders:
                        folders.remove(part)
                        with there.inner(part) as within:
                            within.remove_leftovers()


def _a_report_alone(folders: Collection[str], files: Collection[str]) -> bool:
    """Whether there is what a batch writes and nothing else, so that no format need be tried."""
    written = STATE in files and all(name.endswith(_ENDINGS) for name in files)
    return written and all(name in (SCALARS, FIGURES) for name in folders)
