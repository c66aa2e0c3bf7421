"""Which runs an archive holds, and where their reports go."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from trajcheck.errors import OutputError, RunError
from trajcheck.files.walking import walk
from trajcheck.runs.formats.recognise import recognise, run_around

log = logging.getLogger("trajcheck.batch")

#: What a batch itself writes beside the reports: an archive of such a name has its reports under another.
OWN = ("index.csv", "index.html", "across", ".batch.lock", ".batch.json")


@dataclass(frozen=True)
class FoundRun:
    """`name` is the run's path below the archive it was found in, with slashes; `report` its report's folder below
    --out."""

    path: Path
    name: str
    report: Path
    archive: Path


def find_runs(
    archives: Sequence[Path], out: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[FoundRun]:
    """The runs under some folders, each once, in the order of their names; however the folders are written, and where
    one lies in another, or is a link to it, a run is that of the first.

    A name is taken where some pattern of `include` matches it (all, if there are none) and none of `exclude` does;
    patterns are those of a shell, and `*` matches slashes too. Symbolic links are not followed, nor is `out` walked.
    A report goes to <archive's name>/<run's name>; archives of the same name get a mark of their whole path.

    Raises RunError for an archive that is not there, OutputError where `out` or a report would lie in a run.
    """
    for archive in archives:
        if not archive.is_dir():
            raise RunError(f"{archive}: no such folder. Give the folder under which the runs lie.")
    real = [os.path.realpath(archive) for archive in archives]
    roots = [_whole(archive) for place, archive in enumerate(archives) if real.index(real[place]) == place]
    away = Path(os.path.abspath(out))
    if (around := run_around(away)) is not None:
        raise OutputError(f"{out}: lies in the recorded run {around}; runs are never written to. Choose another --out.")
    names = Counter(root.name for root in roots)
    found: dict[str, FoundRun] = {}
    whole: set[str] = set()
    for root in roots:
        apart = names[root.name] > 1 or root.name.casefold() in OWN
        mark = _mark(str(root)) if apart else ""
        start = os.path.realpath(root)
        for path in _walk(root, away):
            place = os.path.normpath(os.path.join(start, path.relative_to(root)))
            whole.add(place)
            name = path.relative_to(root).as_posix() if path != root else root.name
            if place in found or (include and not _any(name, include)) or _any(name, exclude):
                continue
            below = Path(root.name + mark) / path.relative_to(root)
            found[place] = FoundRun(path, name, below, root if path != root else root.parent)
    found = _told_apart(found, away)
    reports = Path(os.path.realpath(away))
    for run in found.values():
        report = reports / run.report
        if inside := next((folder for folder in (report, *report.parents) if str(folder) in whole), None):
            raise OutputError(
                f"{out}: the report of {run.path} would lie in the recorded run {inside}; runs are never written to. "
                "Choose another --out."
            )
    return sorted(found.values(), key=lambda run: run.report)


def _mark(path: str) -> str:
    return f"-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def _told_apart(found: Mapping[str, FoundRun], out: Path) -> dict[str, FoundRun]:
    """The runs, their reports under names that no file system takes for one another, whether or not it tells letters
    apart, and through no link that lies in `out`: a name gets the mark of its path where it would be."""
    spellings = Counter(_folded(run.report) for run in found.values())
    apart = {}
    for place, run in found.items():
        parts, below = list[str](), out
        for part in run.report.parts:
            if os.path.islink(below / part):
                log.warning("%s: is a link, and nothing is written through it", below / part)
                part += _mark(str(below / part))
            below /= part
            parts.append(part)
        if spellings[_folded(run.report)] > 1:
            parts[-1] += _mark(str(run.report))
        apart[place] = replace(run, report=Path(*parts))
    return apart


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _whole(archive: Path) -> Path:
    """The whole path, without . and .. in it."""
    path = os.path.abspath(archive)
    return Path(path if os.path.realpath(path) == os.path.realpath(archive) else os.path.realpath(archive))


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _walk(root: Path, away: Path) -> Iterator[Path]:
    """The runs at and below a folder; a run is not looked into. Folders that cannot be read are left out, and the log
    says so."""

    def unreadable(error: OSError) -> None:
        log.warning("%s: cannot be read: %s", error.filename, error.strerror)

    reports = os.path.realpath(away)
    for place, folders, _ in walk(root, unreadable):
        folder, found = Path(place), False
        if (folder == root or folder.name == os.path.basename(reports)) and os.path.realpath(folder) == reports:
            folders.clear()
            continue
        try:
            found = recognise(folder) is not None
        except OSError as error:  # it has gone meanwhile
            unreadable(error)
        if found:
            folders.clear()
            yield folder
