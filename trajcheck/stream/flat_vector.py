"""Where the bytes of a flat vector lie: all tensors of a step, one after the other in one order, as ranges of files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from trajcheck.files.extents import ITEM_SIZE, Extent, Extents


class Run(NamedTuple):
    """Elements from `start` on, as far as the next run, lie in the file `path` from byte `offset` on."""

    start: int
    path: str
    offset: int
    dtype: str


class Range(NamedTuple):
    """`numel` elements in a file, from byte `offset` on; their place in a block of the flat vector, in elements too."""

    path: str
    offset: int
    numel: int
    dtype: str
    place: int


class FlatVector:
    """`dtype` is that of every tensor, or F64 where they have several, which holds them all."""

    def __init__(self, runs: list[Run], path: str = "", offset: int = 0) -> None:
        """`path` and `offset`: of a file that runs without one lie in, and of its beginning."""
        dtypes = {run.dtype for run in runs}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else "F64"
        self._runs, self._path, self._offset = runs, path, offset
        self._starts = [run.start for run in runs]

    @property
    def whole(self) -> Run | None:
        """Where it lies, if in one run."""
        if len(self._runs) != 1:
            return None
        start, path, offset, dtype = self._runs[0]
        return Run(start, path or self._path, self._offset + offset, dtype)

    def ranges(self, start: int, stop: int) -> list[Range]:
        """Where elements [start, stop) lie."""
        found = []
        number = bisect_right(self._starts, start) - 1
        begin = start
        while begin < stop:
            run = self._runs[number]
            number += 1
            end = min(stop, self._starts[number]) if number < len(self._runs) else stop
            offset = self._offset + run.offset + (begin - run.start) * ITEM_SIZE[run.dtype]
            found.append(Range(run.path or self._path, offset, end - begin, run.dtype, begin - start))
            begin = end
        return found


class FlatVectors:
    """Flat vectors of tensors in one order. What files of the same layout share is worked out once."""

    def __init__(self, numels: Mapping[str, int]) -> None:
        self._numels = numels
        self.names = [name for name, numel in numels.items() if numel]  # of those that hold numbers, in order
        self._known: dict[tuple[int, int], tuple[object, list[Run]]] = {}

    def of(self, tensors: Mapping[str, Extent]) -> FlatVector:
        """The flat vector of some tensors; they hold at least those that the order names."""
        if not isinstance(tensors, Extents):
            return FlatVector(self._runs(tensors))
        layout = tensors.layout
        key = id(layout[0]), id(layout[1])
        if key not in self._known:  # with the layout itself, so that its id stays its own
            self._known[key] = layout, self._runs(Extents("", 0, *layout))
        return FlatVector(self._known[key][1], *tensors.base)

    def _runs(self, tensors: Mapping[str, Extent]) -> list[Run]:
        runs: list[Run] = []
        start, last = 0, ("", -1, "")
        for name in self.names:
            extent = tensors[name]
            for part in extent.parts or (extent.undivided,):
                if (part.path, part.offset, extent.dtype) != last:
                    first = start + part.begin // ITEM_SIZE[extent.dtype]
                    runs.append(Run(first, part.path, part.offset, extent.dtype))
                last = part.path, part.offset + part.end - part.begin, extent.dtype
            start += self._numels[name]
        return runs
