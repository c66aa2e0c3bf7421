"""Runs whose format keeps nothing to compare bytes with: every number of every step is read, and must be finite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import NamedTuple

from trajcheck.errors import RunError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.prints import file_size
from trajcheck.files.remote.address import is_remote
from trajcheck.reports.making.results import RunVerification
from trajcheck.runs.divergence import not_finite_in
from trajcheck.runs.formats.stored_run import StoredRun, StoredStep


class _Read(NamedTuple):
    """What was found in one step: its first tensor that holds NaN or Inf, or why it cannot be read."""

    step: StoredStep
    not_finite: str | None = None
    damage: str | None = None


def read_numbers(stored: StoredRun, pool: Executor, progress: Callable[[float], object]) -> RunVerification:
    """Headers, sizes, and whether all is there and finite; several steps at once. Of what is not on this machine the
    numbers are not read."""
    run = RunVerification(stored.path)
    try:
        thinned, steps = stored.info().thinned, stored.steps()
    except RunError as error:
        run.damage.append(str(error))
        return run
    complete = [step for step in steps.values() if step.missing is None]
    run.steps = len(complete)
    if not steps:
        run.notes.append("there is no step file yet")
        return run
    if is_remote(stored.path):
        read = "headers were read, and a sample of the numbers; a copy on this machine is read whole"
    else:
        read = "headers were read, and every number"
    run.notes.append(f"no checksums are stored in this format ({stored.name}): {read}")
    for step in steps.values():
        if step.missing is not None:
            run.told.add(step.step)
            in_the_middle = any(other.step > step.step for other in complete) and not thinned
            (run.damage if in_the_middle else run.notes).append(f"{step.files[0]}: {step.missing}; {step.cause}")
    found = []
    for each in pool.map(lambda step: _read(stored, step), complete):
        found.append(each)
        progress(len(each.step.files))
        run.files += len(each.step.files)
        run.bytes += sum(map(_size, each.step.files))
        if each.damage is not None:
            run.damage.append(each.damage)
            run.told.add(each.step.step)
    whole = [each for each in found if each.damage is None]
    run.add_not_finite((each.step.step, each.step.files[0], each.not_finite) for each in whole)
    return run


def _read(stored: StoredRun, step: StoredStep) -> _Read:
    try:
        snapshot = stored.snapshot(step.step)
        if is_remote(stored.path):
            return _Read(step)
        with ExtentReader() as reader:
            return _Read(step, not_finite_in(reader, snapshot, snapshot.parameters))
    except RunError as error:
        return _Read(step, damage=str(error))


def _size(path: str) -> int:
    with suppress(OSError):
        return file_size(path)
    return 0
