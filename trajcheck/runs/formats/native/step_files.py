"""Which files of a run's folder belong to which step."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.runs.formats.stored_run import StoredStep

STEP_FILE = re.compile(r"step-(\d+)\.safetensors")
RANK_FILE = re.compile(r"step-(\d+)-of-rank-(\d+)-of-(\d+)\.safetensors")

#: A folder in a run: the step files that a resumed job made way for.
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class StepFiles:
    """The files of one step: one, or one for each rank of the job, as far as they are there."""

    step: int
    ranks: int
    paths: Mapping[int, Path]  # by rank

    @property
    def path(self) -> Path:
        """That of the first rank that has one."""
        return self.paths[min(self.paths)]

    @property
    def missing(self) -> str | None:
        """Which rank's file is not there, in words."""
        if len(self.paths) == self.ranks:
            return None
        rank = next(rank for rank in range(self.ranks) if rank not in self.paths)
        others = self.ranks - len(self.paths) - 1
        more = f", nor are those of {others} others" if others else ""
        return f"step {self.step} was written by {self.ranks} ranks, and the file of rank {rank} is not there{more}"

    @property
    def stored(self) -> StoredStep:
        """As the seam of formats has it."""
        files = tuple(str(path) for _, path in sorted(self.paths.items()))
        cause = "the job ended before it was written, it was lost, or that rank had no Recorder"
        return StoredStep(self.step, files, self.missing, cause)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one; a link to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_step_file(name: str) -> bool:
    return bool(STEP_FILE.fullmatch(name) or RANK_FILE.fullmatch(name))


def step_files(folder: Path) -> dict[int, StepFiles]:
    """The files of each step of a run, in the order of the steps. Raises RunError where a step has two sets of them."""
    found: dict[int, StepFiles] = {}
    for entry in _entries(folder):
        if not (match := STEP_FILE.fullmatch(entry.name) or RANK_FILE.fullmatch(entry.name)):
            continue
        step, rank, ranks = (int(part) for part in (*match.groups(), "0", "1")[:3])
        path = folder / entry.name
        if not _is_file(entry):
            raise RunError(f"{path}: not a regular file; a step is one safetensors file, or one for each rank.")
        if rank >= ranks:
            raise RunError(f"{path}: rank {rank} of {ranks}; expected ranks from 0 to {ranks - 1}.")
        there = found.get(step)
        if there is not None and (there.ranks != ranks or rank in there.paths):
            raise RunError(f"{folder}: {path.name} and {there.path.name} are both step {step}.")
        found[step] = StepFiles(step, ranks, {**(there.paths if there else {}), rank: path})
    return {step: found[step] for step in sorted(found)}


def foreign_files(folder: Path, ranks: int) -> dict[int, list[Path]]:
    """The files, by step, that a job of another number of ranks wrote."""
    found: dict[int, list[Path]] = {}
    for name in (entry.name for entry in _entries(folder)):
        if match := STEP_FILE.fullmatch(name) or RANK_FILE.fullmatch(name):
            step, _, count = (int(part) for part in (*match.groups(), "0", "1")[:3])
            if count != ranks:
                found.setdefault(step, []).append(folder / name)
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in order. Raises RunError, as for a run that was removed meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}.") from error
