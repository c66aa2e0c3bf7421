"""Reading runs from the first byte to the last: is what lies on the disk what was recorded?

Every file is looked at by itself (file_check.py); then whether the files make a run: ranks complete, batches and frozen
parameters where steps say they are, shapes those of run.json.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trajcheck.commands.verify.file_check import FileCheck, check_probe_file, check_step_file, is_step_file
from trajcheck.errors import RunError, UsageError
from trajcheck.files.whole_files import TEMPORARY
from trajcheck.reports.making.results import RunVerification, Verification
from trajcheck.runs.formats.native import reading as native
from trajcheck.runs.formats.native.description import read_run_info
from trajcheck.runs.formats.native.probes import PROBE_FILE
from trajcheck.runs.formats.native.step_files import StepFiles, step_files
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.trajectory import open_trajectory

SUPERSEDED = "superseded"
PROGRAM = "objective.pt2"


def verify(*paths: str | os.PathLike[str], threads: int | None = None, quiet: bool = True) -> Verification:
    """Verify every run at or below `paths`: headers, checksums, shapes, finite values, and that all files are there.

    Memory is bounded by the headers and one megabyte a thread; `threads` defaults to all processors. Raises RunError
    where a path holds no run, and UsageError; what is wrong with a run is said in its `damage`.
    """
    from trajcheck.progress_bar import progress_bar

    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: expected a number, 1 or more.")
    folders = list(dict.fromkeys(run for path in paths for run in runs_below(Path(path))))
    runs = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for folder in folders:
            files = _names(folder)
            with progress_bar(f"verify {folder.name}", sum(map(is_step_file, files)), quiet) as progress:
                runs.append(_verify_run(folder, files, pool, progress))
    return Verification(tuple(runs))


def runs_below(path: Path) -> list[Path]:
    """The runs at and below a folder, those that were superseded apart. Raises RunError where there is none."""
    if not path.is_dir():
        kind = "a file, not a run's folder" if path.exists() else "no such run"
        raise RunError(f"{path}: {kind}. Give a run's folder, or one that holds runs.")
    found = []
    for place, below, _ in os.walk(path, onerror=_cannot_be_read):
        below[:] = sorted(name for name in below if name != SUPERSEDED)
        if native.recognise(Path(place)):
            found.append(Path(place))
    if not found:
        raise RunError(f"{path}: neither a run nor a folder that holds runs. A run is a folder of step files.")
    return found


def _cannot_be_read(error: OSError) -> None:
    raise RunError(f"{error.filename}: cannot be read: {error.strerror}.") from error


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        _cannot_be_read(error)
        raise


def _verify_run(
    folder: Path, names: Sequence[str], pool: ThreadPoolExecutor, progress: Callable[[float], object]
) -> RunVerification:
    run = RunVerification(folder)
    info = RunInfo()
    try:
        info = read_run_info(folder)
    except RunError as error:
        run.damage.append(str(error))
    if "run.json" not in names:
        run.notes.append("there is no run.json: shapes were compared with those of the other steps alone")
    left_out = frozenset(info.frozen)
    checks = []
    paths = [folder / name for name in names if is_step_file(name)]
    for check in pool.map(lambda path: check_step_file(path, left_out), paths):
        checks.append(check)
        progress(1)
    probes = list(pool.map(check_probe_file, [folder / n for n in names if PROBE_FILE.fullmatch(n)]))
    for check in (*checks, *probes):
        run.damage += check.damage
        run.files += 1
        run.bytes += check.bytes
        run.checked += bool(check.tensors) and check.compared == check.tensors
    _unsummed(run, [*checks, *probes])
    _structure(run, info, checks)
    _batches(run, checks)
    _finite(run, checks)
    _observed(run, checks)
    if PROGRAM in names:
        _program(run, folder / PROGRAM)
    _remains(run, folder, names)
    return run


def _unsummed(run: RunVerification, checks: Iterable[FileCheck]) -> None:
    """Files without checksums, or with some tensors that have none; among files that have them, one lost its own."""
    whole = [check for check in checks if check.tensors]
    none = [check for check in whole if not check.compared]
    if none and len(none) < len(whole):
        run.damage += [f"{check.path}: no checksum is stored in it, unlike in the run's other files." for check in none]
    elif none:
        run.notes.append(f"{_files(none)}: no checksum stored: header and size checked")
    if some := [check for check in whole if 0 < check.compared < check.tensors]:
        run.notes.append(f"{_files(some)}: no checksum stored of some tensors")


def _files(checks: Sequence[FileCheck]) -> str:
    return checks[0].path.name if len(checks) == 1 else f"{len(checks)} files, the first {checks[0].path.name}"


def _structure(run: RunVerification, info: RunInfo, checks: Sequence[FileCheck]) -> None:
    """Whether the steps fit together, and the files of all ranks are there."""
    try:
        files = step_files(run.path)
        complete = [step for step, there in files.items() if there.missing is None]
        run.steps = len(complete)
        if not files:
            run.notes.append("there is no step file yet")
            return
        run.damage += list(_absent(files, complete, info, run))
        if complete:
            told = {check.step for check in checks if check.damage}
            told |= {step for step, there in files.items() if there.missing}
            damaged = {str(check.path) for check in checks if check.damage}
            trajectory = open_trajectory(run.path, skip_bad=True)
            for step, reason in trajectory.left_out.items():
                paths = {str(path) for path in files[step].paths.values()}
                if step not in told and not paths & damaged:
                    run.damage.append(reason)
    except RunError as error:
        if not run.damage:  # else it says again what was said
            run.damage.append(str(error))


def _absent(
    files: Mapping[int, StepFiles], complete: Sequence[int], info: RunInfo, run: RunVerification
) -> Iterator[str]:
    """Steps that lack the file of a rank: damage in the middle; at the end, or where records are deleted, the remains
    of a job that was killed."""
    incomplete = {step: there for step, there in files.items() if there.missing}
    if not complete:
        first = next(iter(files.values()))
        never = [rank for rank in range(first.ranks) if all(rank not in there.paths for there in files.values())]
        which = f"rank {never[0]} of {first.ranks} wrote none of them: " if never else ""
        yield (
            f"{run.path}: none of its {len(files)} steps has the files of all ranks. {which}did every rank make a "
            "Recorder?"
        )
        return
    lost = {step: there for step, there in incomplete.items() if step < complete[-1] and not info.thinned}
    for there in lost.values():
        yield f"{there.path}: {there.missing}. Copy it here, or leave the step out (analyze --skip-bad)."
    if remains := incomplete.keys() - lost.keys():
        step = min(remains)
        run.notes.append(
            f"{len(remains)} steps are left out of the run, as a killed job leaves them: {files[step].missing}"
        )


def _batches(run: RunVerification, checks: Sequence[FileCheck]) -> None:
    """Each step's batch must be where it says."""
    holders = {(check.step, check.rank) for check in checks if check.has_batch}
    for check in checks:
        source = check.batch_from
        if source not in (None, check.step) and (source, check.rank) not in holders:
            run.damage.append(f"{check.path}: its batch is said to be in step {source}, and there is none.")


def _finite(run: RunVerification, checks: Sequence[FileCheck]) -> None:
    """A run may end in NaN or Inf; in the middle of one that goes on, they are damage."""
    good = [check.step for check in checks if check.step is not None and check.not_finite is None]
    bad = [check for check in checks if check.step is not None and check.not_finite is not None]
    steps = {check.step for check in bad}
    last = max((step for step in good if step not in steps), default=-1)
    ended = False
    for check in sorted(bad, key=lambda check: check.step or 0):
        if (check.step or 0) < last:
            run.damage.append(f"{check.path}: step {check.step}, tensor {check.not_finite}: holds NaN or Inf.")
        elif not ended:
            ended = True
            run.notes.append(f"the run ends in NaN or Inf: step {check.step}, tensor {check.not_finite}")


def _observed(run: RunVerification, checks: Sequence[FileCheck]) -> None:
    """A rank whose losses or batches are missing where the other ranks' are there."""
    losses = {(check.step, check.rank): check.has_loss for check in checks}
    batches = {(check.step, check.rank): check.has_batch or check.batch_from is not None for check in checks}
    for what, held in (("loss", losses), ("batch", batches)):
        there = {step for (step, _), has in held.items() if has}
        lacking = Counter(rank for (step, rank), has in held.items() if step in there and not has)
        for rank, steps in sorted(lacking.items()):
            run.notes.append(
                f"rank {rank} holds no {what} at {steps} of the {len(there)} steps where other ranks do: observe() "
                "was not called there"
            )


def _program(run: RunVerification, path: Path) -> None:
    """The archive's own checksums; nothing of it is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                reason = f"{packed[0]} is compressed, which the Recorder never writes"
            else:
                broken = archive.testzip()
                reason = f"the checksum of {broken} is wrong" if broken else ""
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, OSError) as error:
        reason = f"it is not a whole .pt2 archive ({error})"
    if reason:
        run.damage.append(f"{path}: {reason}. Copy the file again, or remove it.")


def _remains(run: RunVerification, folder: Path, names: Sequence[str]) -> None:
    temporary = [name for name in names if name.startswith(".") and name.endswith(TEMPORARY)]
    if temporary:
        run.notes.append(f"{len(temporary)} temporary files of a job that was killed, or is running: {temporary[0]}")
    if SUPERSEDED in names:
        aside = [name for name in _names(folder / SUPERSEDED) if is_step_file(name)]
        run.notes.append(f"{len(aside)} step files that a resumed job made way for lie in {SUPERSEDED}/")
