"""Where the bytes of a flat vector lie: all tensors of a step, one after the other in one order, as ranges of files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from trajcheck.snapshot import ITEM_SIZE, Extent, Extents


class Run(NamedTuple):
    """Elements from `start` on, as far as the next run, lie in the file `path` from byte `offset` on."""

    start: int
    path: str
    offset: int


class Range(NamedTuple):
    """Bytes of a file, and their place in a block of the flat vector, in bytes too."""

    path: str
    offset: int
    length: int
    place: int


class FlatVector:
    """`dtype` is that of every tensor, or None where they have several: `ranges` cannot serve them then."""

    def __init__(self, dtype: str | None, runs: list[Run], path: str = "", offset: int = 0) -> None:
        """`path` and `offset`: of a file that runs without one lie in, and of its beginning."""
        self.dtype, self._runs, self._path, self._offset = dtype, runs, path, offset
        self._starts = [run.start for run in runs]

    def ranges(self, start: int, stop: int) -> list[Range]:
        """Where elements [start, stop) lie."""
        assert self.dtype is not None
        size = ITEM_SIZE[self.dtype]
        if len(self._runs) == 1:
            ((_, path, offset),) = self._runs
            return [Range(path or self._path, self._offset + offset + start * size, (stop - start) * size, 0)]
        found = []
        number = bisect_right(self._starts, start) - 1
        begin = start
        while begin < stop:
            run = self._runs[number]
            number += 1
            end = min(stop, self._starts[number]) if number < len(self._runs) else stop
            offset = self._offset + run.offset + (begin - run.start) * size
            found.append(Range(run.path or self._path, offset, (end - begin) * size, (begin - start) * size))
            begin = end
        return found


class FlatVectors:
    """Flat vectors of tensors in one order. What files of the same layout share is worked out once."""

    def __init__(self, numels: Mapping[str, int]) -> None:
        self._numels = numels
        self._known: dict[tuple[int, int], tuple[object, FlatVector]] = {}

    def of(self, tensors: Mapping[str, Extent]) -> FlatVector:
        """The flat vector of some tensors; they hold at least those that the order names."""
        if not isinstance(tensors, Extents):
            return self._laid_out(tensors)
        layout = tensors.layout
        key = id(layout[0]), id(layout[1])
        if key not in self._known:  # with the layout itself, so that its id stays its own
            self._known[key] = layout, self._laid_out(Extents("", 0, *layout))
        shared = self._known[key][1]
        return FlatVector(shared.dtype, shared._runs, *tensors.base)

    def _laid_out(self, tensors: Mapping[str, Extent]) -> FlatVector:
        runs: list[Run] = []
        dtypes = set()
        start, path, end = 0, None, -1
        for name, numel in self._numels.items():
            if not numel:
                continue
            extent = tensors[name]
            dtypes.add(extent.dtype)
            for part in extent.parts or (extent.undivided,):
                if (part.path, part.offset) != (path, end):
                    runs.append(Run(start + part.begin // ITEM_SIZE[extent.dtype], part.path, part.offset))
                path, end = part.path, part.offset + part.end - part.begin
            start += numel
        return FlatVector(dtypes.pop() if len(dtypes) == 1 else None, runs)
