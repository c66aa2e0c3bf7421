"""Averages of a run's iterates, formed in one pass over its records, a block of elements at a time.

A sum over the last K is kept as two float64 numbers an element, so that what enters and leaves is exact: each addition
loses nothing (Knuth's two-sum), and taking the earliest iterate away again leaves no rounding behind. It is therefore
the same wherever the pass began. An exponential average begins at the first record. Held are 16 and 8 bytes an element,
whatever K is; the iterate that leaves is read once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from trajcheck.files.extent_reader import BLOCK, ExtentReader, blocks, length_of
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.averages import Average


def begin(averages: Sequence[Average], place: int) -> int:
    """The record at which a pass begins that is to give these averages at a place."""
    return min(average.first(place) for average in averages)


class RunningAverages:
    """The averages up to one record after the other, from the record at place `start` on."""

    def __init__(self, trajectory: Trajectory, averages: Sequence[Average], start: int, reader: ExtentReader) -> None:
        self._trajectory, self.averages, self._start, self._reader = trajectory, averages, start, reader
        numels = {name: math.prod(shape) for name, shape in trajectory.shapes.items()}
        self._blocks = blocks(numels)
        self._ends = np.cumsum([0, *numels.values()]).tolist()
        self._sums = [np.zeros((2 if average.count else 1, self._ends[-1])) for average in averages]
        self._entering, self._leaving = np.empty(BLOCK), np.empty(BLOCK)
        self.place = start - 1

    def advance(self) -> None:
        """Take the next record in. Raises StepFileError."""
        self.place += 1
        snapshots, steps, begin = self._trajectory.snapshots, self._trajectory.steps, 0
        for pieces in self._blocks:
            end = begin + length_of(pieces)
            x = self._reader.wide_block(snapshots[self.place].parameters, pieces, self._entering)
            for average, sums in zip(self.averages, self._sums, strict=True):
                part = sums[:, begin:end]
                if not average.count:
                    kept = average.kept(steps, self.place)
                    part *= kept
                    part += (1 - kept) * x
                    continue
                _add(part, x)
                before = self.place - average.count
                if before >= self._start:
                    gone = self._reader.wide_block(snapshots[before].parameters, pieces, self._leaving)
                    _add(part, np.negative(gone, out=gone))
            begin = end

    def point(self, number: int, dtype_of: Callable[[str], torch.dtype], device: torch.device) -> Mapping[str, Tensor]:
        """One of the averages at `place`, each tensor rounded once, to its dtype."""
        whole = self.averages[number].whole(self._trajectory.steps, self.place)
        found = {}
        for place, (name, shape) in enumerate(self._trajectory.shapes.items()):
            flat = torch.empty(self._ends[place + 1] - self._ends[place], dtype=dtype_of(name))
            for begin in range(0, len(flat), BLOCK):
                sums = self._sums[number][:, self._ends[place] + begin :][:, : min(BLOCK, len(flat) - begin)]
                flat[begin : begin + BLOCK] = torch.from_numpy(sums.sum(axis=0) / whole)
            found[name] = flat.reshape(shape).to(device)
        return found


def _add(sums: np.ndarray, x: np.ndarray) -> None:
    """sums[0] + sums[1] + x into `sums` [2, elements], what the addition rounds off into the second."""
    first, second = sums
    total = first + x
    seen = total - first
    second += (first - (total - seen)) + (x - seen)
    first[:] = total
