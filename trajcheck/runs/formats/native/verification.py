"""A run in the native format read from the first byte to the last: is what lies on the disk what was recorded?

Every file is looked at by itself (file_check.py); then whether the files belong together: ranks complete, batches where
steps say they are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.leftovers import meant_name
from trajcheck.runs.formats.native.description import DESCRIPTION, read_run_info
from trajcheck.runs.formats.native.every_step import EVERY_STEP
from trajcheck.runs.formats.native.every_step_check import check_every_step
from trajcheck.runs.formats.native.file_check import FileCheck, check_probe_file, check_step_file
from trajcheck.runs.formats.native.probes import PROBE_FILE
from trajcheck.runs.formats.native.step_files import SUPERSEDED, StepFiles, is_step_file, step_files
from trajcheck.runs.formats.verification import RunVerification
from trajcheck.runs.run_info import RunInfo


def verify_run(folder: Path, pool: Executor, progress: Callable[[float], object]) -> RunVerification:
    """All files of a run, several at once; `progress(1)` after each step file."""
    run = RunVerification(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        run.damage.append(f"{folder}: cannot be read: {error.strerror}.")
        return run
    info = RunInfo()
    try:
        info = read_run_info(folder)
    except RunError as error:
        run.damage.append(str(error))
    if DESCRIPTION not in names:
        run.notes.append("there is no run.json: shapes were compared with those of the other steps alone")
    if info.ended is not None and info.ended.stopped:
        run.notes.append(info.ended.stopped)
    left_out = frozenset(info.frozen)
    checks = []
    paths = [folder / name for name in names if is_step_file(name)]
    for check in pool.map(lambda path: check_step_file(path, left_out), paths):
        checks.append(check)
        progress(1)
    probes = list(pool.map(check_probe_file, [folder / name for name in names if PROBE_FILE.fullmatch(name)]))
    for check in (*checks, *probes):
        run.damage += check.damage
        run.files += 1
        run.bytes += check.bytes
        run.checked += bool(check.tensors) and check.compared == check.tensors
    _unsummed(run, [*checks, *probes])
    _complete(run, info, checks)
    _batches(run, checks)
    run.add_not_finite((each.step, str(each.path), each.not_finite) for each in checks if each.step is not None)
    _observed(run, checks)
    if EVERY_STEP in names:
        check_every_step(run, folder, info, checks)
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


def _complete(run: RunVerification, info: RunInfo, checks: Sequence[FileCheck]) -> None:
    """Whether the files of all ranks are there."""
    try:
        files = step_files(run.path)
    except RunError:  # which opening the run says as well
        return
    complete = [step for step, there in files.items() if there.missing is None]
    run.steps = len(complete)
    if not files:
        run.notes.append("there is no step file yet")
        return
    run.damage += list(_absent(files, complete, info, run))
    damaged = {check.path for check in checks if check.damage}
    run.told |= {check.step for check in checks if check.damage and check.step is not None}
    run.told |= {step for step, there in files.items() if there.missing or damaged & set(there.paths.values())}


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


def _remains(run: RunVerification, folder: Path, names: Sequence[str]) -> None:
    temporary = [name for name in names if meant_name(name) is not None]
    if temporary:
        run.notes.append(f"{len(temporary)} temporary files of a job that was killed, or is running: {temporary[0]}")
    if SUPERSEDED in names:
        aside: list[str] = []
        with suppress(OSError):
            aside = [name for name in os.listdir(folder / SUPERSEDED) if is_step_file(name)]
        run.notes.append(f"{len(aside)} step files that a resumed job made way for lie in {SUPERSEDED}/")
