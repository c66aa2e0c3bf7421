"""every-step.f64 as it is written: record i is that of step i, and nothing is written twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct

from trajcheck.errors import OutputError
from trajcheck.files.folders import open_in_place
from trajcheck.files.opening import NotRegularError
from trajcheck.runs.formats.native.every_step import EVERY_STEP, RECORD_BYTES

_RECORD = Struct("<4d")
_UNKNOWN = _RECORD.pack(*[float("nan")] * 4)
#: Unknown records that are written at once, where a job goes on behind the last that is there.
_AT_ONCE = 1 << 15


def cut(folder: Path, start: int) -> None:
    """Take out what a job before wrote from step `start` on, where there is such a file. Errors: OSError."""
    if os.path.lexists(folder / EVERY_STEP):
        os.close(_opened(folder, start, os.O_RDWR))


class EveryStepFile:
    """Open for this job, which begins with step `start`: records from there on are taken out, and those that are
    missing before it are unknown. `check` raises where nothing may be written into the run any more. Errors: OSError.
    """

    def __init__(self, folder: Path, start: int, check: Callable[[], None] = lambda: None) -> None:
        check()
        self._check = check
        self._file: int | None = _opened(folder, start, os.O_RDWR | os.O_CREAT)
        self.step = os.fstat(self._file).st_size // RECORD_BYTES  # of the next record
        self._skip_to(start)

    def append(self, step: int, records: Sequence[Sequence[float]]) -> None:
        """Records of `step` and those that follow it."""
        self._check()
        self._skip_to(step)
        self._write(b"".join([_RECORD.pack(*record) for record in records]))
        self.step += len(records)

    def close(self, *, sync: bool = True) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                if sync:
                    os.fsync(file)
            finally:
                os.close(file)

    def sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file)

    def _skip_to(self, step: int) -> None:
        while self.step < step:
            count = min(step - self.step, _AT_ONCE)
            self._write(_UNKNOWN * count)
            self.step += count

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        place = self.step * RECORD_BYTES  # what a write that failed half-way has left is written over
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written


def _opened(folder: Path, start: int, flags: int) -> int:
    """The descriptor of the file, with no record of `start` or later, and no torn one."""
    path = folder / EVERY_STEP
    try:
        file = open_in_place(path, flags)
    except NotRegularError as error:
        raise OutputError(f"{path}: not a regular file; expected the four numbers of every step.") from error
    try:
        size = os.fstat(file).st_size
        whole = min(size // RECORD_BYTES, start) * RECORD_BYTES
        if whole != size:
            os.ftruncate(file, whole)
    except BaseException:
        os.close(file)
        raise
    return file
