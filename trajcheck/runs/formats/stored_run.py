"""What a format answers about a run as it lies on a disk: the seam behind which disk layouts differ.

A format is a subclass of StoredRun in a file of its own, and a row in recognise.FORMATS; nothing else of trajcheck
knows about it. Three questions it has to answer:

    recognise   is this place a run of the format?
    steps       which steps does it hold, and in which files is each?
    snapshot    where do the tensors of one step lie, and what was written down of it: loss, rates, batch?

Seven more have an answer that holds for any run, to be replaced by a format that knows more:

    info        id, parameters in their order, frozen and tied ones, optimizer       nothing is known
    probes      batches set aside                                                    there are none
    log         rates and losses of all steps, from beside the records               there is none
    files       whatever an analysis may read                                        those of the three above
    folders     which folders inside are parts of the run                            those that its files lie in
    listed_hashes   of each step's content, as a hub's listing gives them            none
    verify      what reading every byte shows, with checksums and such               every number is looked at

Nothing here reads tensors (but `verify`): a snapshot is made of headers, and answers with extents (file, offset,
length, dtype, shape), which the streaming pass and the replay read when they need them. Its parameters are the
trainable ones, under the names of the model, tied ones once; buffers stand apart, and what is frozen is named by
`info`. What one step says of itself is checked here; whether the steps fit together is checked by the trajectory.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trajcheck.runs.formats.verification import RunVerification
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Probe, Snapshot

#: The exported loss program and its tensors, which may lie in the folder of a run of any format.
PROGRAM, PROGRAM_TENSORS = "objective.json", "objective.safetensors"


def has_program(run: Path) -> bool:
    """Whether a program lies in a run's folder, whatever is in it."""
    return os.path.lexists(run / PROGRAM)


@dataclass(frozen=True)
class StoredStep:
    """One step before its headers are read. `files` are those in which its record lies, at least one; the first stands
    for it in messages. `missing` says in words what of it is not there, and `cause` how that may have come."""

    step: int
    files: tuple[str, ...]
    missing: str | None = None
    cause: str = "the job ended before it was written, or it was lost"


class StoredRun(ABC):
    """One run as its format sees it. `name` is the format's, and `looks` what it is recognised by, for messages.

    Errors: RunError for what cannot be read, StepFileError for one step; both name the file.
    """

    name: ClassVar[str]
    looks: ClassVar[str]
    #: Whether all that lies in the folder is the run's, so that nothing is ever written there.
    closed: ClassVar[bool] = True
    #: Whether it reads its files through a tree, so that they need not be on this machine.
    elsewhere: ClassVar[bool] = False

    #: Files in the folder that are of the run as a whole, whichever of its steps are looked at.
    beside: ClassVar[tuple[str, ...]] = (PROGRAM, PROGRAM_TENSORS)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> bool:
        """Whether there is a run of this format at `path`, a folder or a file that exists: asked of every folder of an
        archive, so decided by names or by a few bytes. Raises OSError."""

    @abstractmethod
    def steps(self) -> Mapping[int, StoredStep]:
        """The steps in their order, by number; empty where none is there yet. Reads no header."""

    @abstractmethod
    def snapshot(self, step: int) -> Snapshot:
        """One of `steps` of which nothing is missing, from its headers. Several threads may ask at once."""

    def info(self) -> RunInfo:
        """What is known of the run as a whole."""
        return RunInfo()

    def probes(self) -> tuple[Probe, ...]:
        """The batches set aside with the run, in order."""
        return ()

    def log(self) -> RunLog | None:
        """What a log beside the records says of every step: what of it the records say themselves stays theirs."""
        return None

    def files(self) -> tuple[str, ...]:
        """Every file that an analysis may read: where one of them has another size or time, a report is out of date."""
        found = [*self.info().files, *(file for step in self.steps().values() for file in step.files)]
        found += [probe.path for probe in self.probes()]
        found += () if (log := self.log()) is None else log.files
        program = [self.path / name for name in (PROGRAM, PROGRAM_TENSORS)]
        return tuple(dict.fromkeys([*found, *(str(file) for file in program if file.is_file())]))

    def folders(self) -> frozenset[str]:
        """The names of folders in `path` that are parts of this run, and never runs by themselves."""
        return frozenset(self._first_folders(file for step in self.steps().values() for file in step.files))

    def _first_folders(self, files: Iterable[str]) -> set[str]:
        below = (Path(file).relative_to(self.path) for file in files if Path(file).is_relative_to(self.path))
        return {path.parts[0] for path in below if len(path.parts) > 1}

    def listed_hashes(self) -> Mapping[int, str]:
        """Of the steps of which a listing tells it, without a read: one text of the hashes of the files that hold its
        weights. Equal texts are equal weights."""
        return {}

    def verify(self, pool: Executor, progress: Callable[[float], object]) -> RunVerification | None:
        """Read every file from its first byte to its last, several at once in `pool`, `progress(1)` after each step.

        Whether the steps fit together is seen to by whoever asks. None: the format has nothing to compare bytes with,
        so that the numbers of each snapshot are looked at and no more. Damage is told, never raised.
        """
        return None
