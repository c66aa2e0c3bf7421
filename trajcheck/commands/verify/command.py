"""Reading runs from the first byte to the last: is what lies on the disk what was recorded?

Each format compares its files with what it knows of them: checksums, files that should be there. Then whether the
steps make a run: frozen parameters where they say, shapes those of the others, each step where its number says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from trajcheck.commands.verify.audited import audited, opened
from trajcheck.commands.verify.every_number import read_numbers
from trajcheck.errors import RunError, UsageError
from trajcheck.files.remote.address import is_remote
from trajcheck.files.walking import walk
from trajcheck.objective.program.stored import program_damage
from trajcheck.options.checks import MOST_WORKERS, within
from trajcheck.reports.making.results import Verification
from trajcheck.runs.formats.recognise import known_formats, open_run, recognise
from trajcheck.runs.formats.stored_run import PROGRAM, StoredRun


def verify(
    *paths: str | os.PathLike[str],
    against: Sequence[str | os.PathLike[str]] = (),
    threads: int | None = None,
    quiet: bool = True,
) -> Verification:
    """Verify every run at or below `paths`: headers, checksums, shapes, finite values, and that all files are there;
    and audit a sample of each tensor: is each step what its number says?

    The steps are held `against` other runs too: does one descend from another run's step 0, or lie on its path? Memory
    is bounded by the headers, the samples and one megabyte a thread; `threads` defaults to all processors. Raises
    RunError where a path holds no run, and UsageError; what is wrong with a run is said in its findings.
    """
    from trajcheck.progress_bar import progress_bar

    if threads is not None and (wrong := within(1, MOST_WORKERS, "a number")(threads)):
        raise UsageError(f"--threads {threads}: {wrong}.")
    found = {run.path: run for path in paths for run in runs_below(Path(path))}
    others = {str(path): opened(str(path)) for path in dict.fromkeys(map(str, against))}
    runs, audits = [], []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for stored in found.values():
            with progress_bar(f"verify {stored.path.name}", _count(stored), quiet) as progress:
                run = stored.verify(pool, progress) or read_numbers(stored, pool, progress)
            if damage := program_damage(stored.path / PROGRAM):
                run.damage.append(damage)
            with progress_bar(f"audit {stored.path.name}", run.steps, quiet) as progress:
                audits.append(audited(run, stored, others, progress))
            runs.append(run)
    return Verification(tuple(runs), tuple(audits))


def runs_below(path: Path) -> list[StoredRun]:
    """The runs at and below a path, without what is a part of one. Raises RunError where there is none."""
    try:
        if is_remote(path):
            return [open_run(path)]
        if not path.is_dir():
            kind = "a file, not a run's folder" if path.exists() else "no such run"
            if not path.exists() or (one := recognise(path)) is None:
                raise RunError(f"{path}: {kind}. Give a run's folder, or one that holds runs.")
            return [one]
        found = []
        for place, below, _ in walk(path, _cannot_be_read):
            here = recognise(Path(place))
            below[:] = sorted(set(below) - _parts(here))
            found += [] if here is None else [here]
    except OSError as error:
        _cannot_be_read(error)
    if not found:
        raise RunError(f"{path}: neither a run nor a folder that holds runs. {known_formats()}")
    return found


def _cannot_be_read(error: OSError) -> NoReturn:
    raise RunError(f"{error.filename}: cannot be read: {error.strerror}.") from error


def _parts(run: StoredRun | None) -> frozenset[str]:
    with suppress(RunError):  # which is said when the run is read
        return frozenset() if run is None else run.folders()
    return frozenset()


def _count(run: StoredRun) -> int:
    """How many files the steps have."""
    with suppress(RunError):
        return sum(len(step.files) for step in run.steps().values())
    return 0
