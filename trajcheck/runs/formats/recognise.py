"""The formats that trajcheck reads, and the one door to them: whoever meets a folder asks here what it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.remote.address import as_path, is_remote
from trajcheck.readable import some_of
from trajcheck.runs.formats.native.every_step import EVERY_STEP as EVERY_STEP
from trajcheck.runs.formats.native.every_step import read_every_step_file as read_every_step_file
from trajcheck.runs.formats.native.run import NativeRun
from trajcheck.runs.formats.stored_run import StoredRun

#: Folders within one another, and of each level, that are looked into for runs where a folder is none.
DEEPEST, MOST_LOOKED_INTO = 3, 100
#: Those whose folders may be a run's alone; the archives come after them.
FORMATS: tuple[type[StoredRun], ...] = (NativeRun,)


def archives() -> tuple[type[StoredRun], ...]:
    """The formats of archives, whose folders are never a run's alone. A run of trajcheck's own is spared their import:
    some fifty modules."""
    from trajcheck.runs.formats.archives.formats import ARCHIVES

    return ARCHIVES


def every_format() -> Iterator[type[StoredRun]]:
    """In the order in which they are asked: the first that recognises a place has it."""
    yield from FORMATS
    yield from archives()


def recognise(path: Path) -> StoredRun | None:
    """The run at `path`, in the format that it is in; None where there is no run of a known format. Raises OSError."""
    return next((each(path) for each in formats_of(path) if each.recognise(path)), None)


def formats_of(path: Path) -> Iterator[type[StoredRun]]:
    """Those that may be at a path: what is not on this machine is read through a listing, which not all can."""
    return (each for each in every_format() if each.elsewhere) if is_remote(path) else every_format()


def open_run(path: Path) -> StoredRun:
    """The run at `path`. Raises RunError where there is none, saying which formats are known."""
    remote = is_remote(path)
    if remote:
        path = as_path(path)
    elif not path.exists():
        raise RunError(f"{path}: no such run. Give the folder that holds its files.")
    try:
        found = recognise(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    if found is not None:
        return found
    raise RunError(f"{path}: {_why_none(path, remote)}")


def _why_none(path: Path, remote: bool) -> str:
    """What lies there instead of a run, and what to do."""
    from trajcheck.runs.formats.not_read import in_a_folder_alone, others_in, why_not  # reads trees, as archives do

    if why := in_a_folder_alone(path):
        return why
    if remote:
        hint = " A revision a step is given by a pattern: hf://ORG/NAME@step*." if str(path).startswith("hf:") else ""
        return f"no run of a format that is read from elsewhere.{hint} {known_formats(formats_of(path))}"
    if inner := _runs_below(path):
        one = "one lies in {}: give that."
        several = f"runs lie in {{}}: give one of them, or all of them by trajcheck batch {path}."
        lie = (one if len(inner) == 1 else several).format(some_of([str(each) for each in inner]))
        return f"holds no run itself; {lie}"
    kind = "a folder without a run" if path.is_dir() else "a file, not a run's folder"
    return why_not(path) or f"{kind} of a known format{others_in(path)}. {known_formats()}"


def _runs_below(path: Path) -> list[Path]:
    """Runs in the folders of a folder, as in lightning_logs/version_0; few folders are looked into."""
    found: list[Path] = []
    level = [path] if path.is_dir() else []
    for _ in range(DEEPEST):
        with suppress(OSError):
            below = [each for folder in level for each in sorted(folder.iterdir()) if each.is_dir()]
            level = []
            for each in below[:MOST_LOOKED_INTO]:
                with suppress(OSError, RunError, StepFileError):
                    (found if recognise(each) is not None else level).append(each)
    return found


def run_around(path: Path) -> Path | None:
    """The folder of the run that a path is, or lies in: one of which something can be read. An empty file of a run's
    name, as anybody may leave it in a folder for temporary files, makes no run. In a folder that is not a run's alone
    other folders are nobody's: of those around the path only those of formats are looked into that have theirs to
    themselves."""
    whole = Path(os.path.abspath(path))
    closed = tuple(each for each in FORMATS if each.closed)  # no archive is
    for folder in (whole, *whole.parents):
        with suppress(OSError):
            if folder.is_dir():
                formats = every_format() if folder == whole else closed
                found = next((each(folder) for each in formats if each.recognise(folder)), None)
                if found is not None and _is_one(found):
                    return folder
    return None


def _is_one(run: StoredRun) -> bool:
    with suppress(RunError):
        if run.info().files:
            return True
    with suppress(RunError):
        for step in [step for step, stored in run.steps().items() if stored.missing is None][:20]:
            with suppress(RunError):
                run.snapshot(step)
                return True
    return False


def known_formats(formats: Iterable[type[StoredRun]] | None = None) -> str:
    """What a run may look like, in a sentence: in any format, or in some."""
    return f"Known are: {'; '.join(f'{each.name} ({each.looks})' for each in formats or every_format())}."
