"""every-step.f64: loss, rate, |g_t|^2 and |x_{t+1} - x_t|^2 of every step of a run, whether it was recorded or not.

Four little-endian float64 a step, in this order, NaN where one is not known; what is less than a record at the end was
being written when a job was killed. The file may be of strangers, so its size is bounded: it is read in blocks, all of
it once, to see that each number can be one, and then where it is asked.
"""

from __future__ import annotations

import math
import os
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trajcheck.errors import RunError
from trajcheck.files.opening import MOST_NUMBERS, NotRegularError, open_regular
from trajcheck.runs.logs.run_log import RunLog

if TYPE_CHECKING:
    import numpy as np

EVERY_STEP = "every-step.f64"
RECORD_BYTES = 32
COLUMNS = ("loss", "rate", "|g|^2", "|x_(t+1) - x_t|^2")
LOSS, RATE, GRAD_SQ, UPDATE_SQ = range(4)

#: Records of a block.
_BLOCK = 1 << 12


class EveryStepRecords:
    """The records that the file has when it is opened. `torn` are the bytes after the last whole one, `known` says how
    many numbers of each column are known, `skipped` which updates a loss scaler skipped: those at rate 0 that moved
    nothing and whose gradient is unknown. Raises RunError, naming file and record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = open_regular(path)
        except NotRegularError as error:
            raise RunError(f"{path}: not a regular file; expected four numbers of every step.") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
        try:
            size = os.fstat(file).st_size
            self.count, self.torn = divmod(size, RECORD_BYTES)
            if size > MOST_NUMBERS:
                raise RunError(
                    f"{path}: {size:,} bytes; expected {MOST_NUMBERS:,} at most, which are "
                    f"{MOST_NUMBERS // RECORD_BYTES:,} steps. Nothing in the run needs this file: take it away to read "
                    "the rest."
                )
            self.skipped: frozenset[int] = frozenset()
            self.known = self._checked(file)
        finally:
            os.close(file)
        self._held: tuple[int, array[float]] = -1, array("d")

    def at(self, step: int, column: int) -> float:
        """One number; NaN where it is not known, or the step has no record."""
        if not 0 <= step < self.count:
            return math.nan
        block, place = divmod(step, _BLOCK)
        if self._held[0] != block:
            file = open_regular(self.path)
            try:
                self._held = block, self._read(file, block)
            finally:
                os.close(file)
        values = self._held[1]
        return values[4 * place + column] if 4 * place + column < len(values) else math.nan

    def blocks(self) -> Iterator[tuple[int, array[float]]]:
        """The first step of each block, and its numbers, one record after the other."""
        file = open_regular(self.path)
        try:
            for block in range(-(-self.count // _BLOCK)):
                yield block * _BLOCK, self._read(file, block)
        finally:
            os.close(file)

    def _read(self, file: int, block: int) -> array[float]:
        records = min(_BLOCK, self.count - block * _BLOCK)
        found = array("d")
        data = os.pread(file, records * RECORD_BYTES, block * _BLOCK * RECORD_BYTES)
        found.frombytes(data[: len(data) // RECORD_BYTES * RECORD_BYTES])
        if sys.byteorder != "little":
            found.byteswap()
        return found

    def _checked(self, file: int) -> tuple[int, ...]:
        import numpy as np

        known = np.zeros(4, np.int64)
        for block in range(-(-self.count // _BLOCK)):
            values = np.frombuffer(self._read(file, block)).reshape(-1, 4)
            known += (~np.isnan(values)).sum(0)
            rate, gradient, update = values[:, RATE], values[:, GRAD_SQ], values[:, UPDATE_SQ]
            (places,) = np.nonzero((rate == 0) & (update == 0) & np.isnan(gradient))
            if len(places):
                self.skipped |= set((block * _BLOCK + places).tolist())
            wrong = np.isinf(values) | (values < 0)
            wrong[:, LOSS] = np.isinf(values[:, LOSS])
            if wrong.any():
                place, column = map(int, np.argwhere(wrong)[0])
                self._refuse(block * _BLOCK + place, column, float(values[place, column]))
        return tuple(known.tolist())

    def _refuse(self, record: int, column: int, value: float) -> None:
        meant = "a finite number" if column == LOSS else "a finite number that is not below 0"
        raise RunError(
            f"{self.path}: record {record}: {COLUMNS[column]} is {value:g}; expected {meant}, or NaN where it is not "
            "known. Nothing in the run needs this file: take it away to read the rest."
        )


class _Column(Mapping[int, float]):
    """The known numbers of one column, by step."""

    def __init__(self, records: EveryStepRecords, column: int) -> None:
        self._records, self._column = records, column

    def __getitem__(self, step: int) -> float:
        value = self._records.at(step, self._column)
        if value != value:
            raise KeyError(step)
        return value

    def __len__(self) -> int:
        return self._records.known[self._column]

    def __iter__(self) -> Iterator[int]:
        for first, values in self._records.blocks():
            for place, value in enumerate(values[self._column :: 4]):
                if value == value:
                    yield first + place

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps, and what they have."""
        import numpy as np

        parts = [np.frombuffer(values)[self._column :: 4] for _, values in self._records.blocks()]
        values = np.concatenate([np.empty(0), *parts])
        (steps,) = np.nonzero(~np.isnan(values))
        return steps, values[steps]


class _Rates(Mapping[int, tuple[float, ...]]):
    """Rates as logs have them, a single one for all parameter groups. `arrays` are those of the column."""

    def __init__(self, column: _Column) -> None:
        self._column = column
        self.arrays = column.arrays

    def __getitem__(self, step: int) -> tuple[float, ...]:
        return (self._column[step],)

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[int]:
        return iter(self._column)


def read_every_step(folder: Path) -> RunLog | None:
    """The file of a run as a log of its steps; None where there is none, or nothing in it. Raises RunError."""
    path = folder / EVERY_STEP
    return read_every_step_file(path) if os.path.lexists(path) else None


def read_every_step_file(path: Path) -> RunLog | None:
    """The same of a file, wherever it lies. Raises RunError."""
    records = EveryStepRecords(path)
    if not any(records.known):
        return None
    columns = [_Column(records, column) for column in range(4)]
    return RunLog(
        str(path),
        lr=_Rates(columns[RATE]),
        loss=columns[LOSS],
        grad_sq=columns[GRAD_SQ],
        update_sq=columns[UPDATE_SQ],
        skipped=records.skipped,
        files=(str(path),),
    )
