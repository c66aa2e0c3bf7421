"""Reading the sampled elements of a step: few reads, whatever the format, as bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.audit.positions import WHOLE, Much, ranges
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import ITEM_SIZE, Extent, Extents, Spec
from trajcheck.files.remote.address import is_remote
from trajcheck.files.remote.file import fetch_pieces

#: Ranges of one file with at most so many bytes between them are read at once.
NEAR = 2048
#: So many layouts of files are remembered.
MOST_PLANS = 4

_BITS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2"}


@dataclass(frozen=True)
class Places:
    """The sampled elements of some tensors, one after the other. `starts` is where each tensor begins among them,
    `range_starts` where each range does, and `range_tensor` whose it is."""

    names: tuple[str, ...]
    ranges: tuple[tuple[tuple[int, int], ...], ...]
    starts: np.ndarray
    range_starts: np.ndarray
    range_tensor: np.ndarray
    count: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], much: Much = WHOLE) -> Places:
        """Those of the tensors that hold an element, or of so `much` of them."""
        found = {name: ranges(name, shapes[name], much) for name in much.of(shapes)}
        lengths = [stop - start for places in found.values() for start, stop in places]
        of_tensor = [number for number, places in enumerate(found.values()) for _ in places]
        range_starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.intp)
        firsts = np.searchsorted(of_tensor, np.arange(len(found)))
        return cls(
            tuple(found), tuple(found.values()), range_starts[firsts], range_starts, np.array(of_tensor), sum(lengths)
        )


@dataclass(frozen=True)
class _Plan:
    """How to read all of a file's sampled elements: reads relative to a base, and where each element then lies."""

    dtype: str
    reads: tuple[tuple[int, int], ...]
    elements: np.ndarray


class SampleReader:
    """Reads the sampled elements of one step after the other."""

    def __init__(self, places: Places, reader: ExtentReader) -> None:
        self._places, self._reader = places, reader
        self._plans: dict[tuple[int, tuple[str, ...]], tuple[Mapping[str, Spec], _Plan | None]] = {}
        self._last: tuple[Mapping[str, Spec], Mapping[str, str], _Plan | None] | None = None
        self._buffer = bytearray()

    def read(self, tensors: Mapping[str, Extent]) -> tuple[np.ndarray, np.ndarray]:
        """The bits of the sampled elements as unsigned numbers, and their values in float64. Raises StepFileError."""
        if isinstance(tensors, Extents) and (plan := self._plan(tensors)) is not None:
            bits = self._by_plan(tensors.base, plan)
            return bits.astype(np.uint64), values(bits, plan.dtype)
        self._fetch(tensors)
        whole_bits, whole = np.empty(self._places.count, np.uint64), np.empty(self._places.count)
        done = 0
        for name, each in zip(self._places.names, self._places.ranges, strict=True):
            extent = tensors[name]
            size = ITEM_SIZE[extent.dtype]
            for start, stop in each:
                raw = self._reader.raw(extent, start * size, (stop - start) * size)
                bits = np.frombuffer(raw, _BITS[extent.dtype])
                whole_bits[done : done + len(bits)] = bits
                whole[done : done + len(bits)] = values(bits, extent.dtype)
                done += len(bits)
        return whole_bits, whole

    def _fetch(self, tensors: Mapping[str, Extent]) -> None:
        """What lies in remote files: several pieces at once, for the reading of each to find."""
        pieces: list[tuple[str, int, int]] = []
        for name, each in zip(self._places.names, self._places.ranges, strict=True):
            extent = tensors[name]
            size = ITEM_SIZE[extent.dtype]
            if not extent.parts and is_remote(extent.path):
                pieces += [(extent.path, extent.offset + start * size, (stop - start) * size) for start, stop in each]
        fetch_pieces(pieces)

    def _by_plan(self, base: tuple[str, int], plan: _Plan) -> np.ndarray:
        path, start = base
        if is_remote(path):
            fetch_pieces([(path, start + offset, length) for offset, length in plan.reads])
        total = sum(length for _, length in plan.reads)
        if len(self._buffer) < total:
            self._buffer = bytearray(total)
        view, done = memoryview(self._buffer)[:total], 0
        for offset, length in plan.reads:
            self._reader.range(path, start + offset, view[done : done + length])
            done += length
        return np.frombuffer(view, _BITS[plan.dtype])[plan.elements]

    def _plan(self, tensors: Extents) -> _Plan | None:
        specs, names = tensors.layout
        if self._last is not None and self._last[0] is specs and self._last[1] is names:
            return self._last[2]
        key = id(specs), tuple(names.get(name, "") for name in self._places.names)
        if key not in self._plans:  # the layout is kept, so that its id stays its own
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            self._plans[key] = specs, _plan_of([specs[name] for name in key[1]], self._places.ranges)
        self._last = specs, names, self._plans[key][1]
        return self._last[2]


def _plan_of(specs: Sequence[Spec], places: Sequence[Sequence[tuple[int, int]]]) -> _Plan | None:
    """None where the dtypes differ, or elements lie at odd places."""
    dtype = specs[0].dtype
    size = ITEM_SIZE[dtype]
    if any(spec.dtype != dtype or spec.begin % size for spec in specs):
        return None
    wanted = [
        (spec.begin + start * size, spec.begin + stop * size)
        for spec, each in zip(specs, places, strict=True)
        for start, stop in each
    ]
    reads: list[list[int]] = []
    for begin, end in sorted(wanted):
        if reads and begin - reads[-1][1] <= NEAR:
            reads[-1][1] = max(reads[-1][1], end)
        else:
            reads.append([begin, end])
    firsts = np.array([begin for begin, _ in reads])
    before = np.concatenate([[0], np.cumsum([end - begin for begin, end in reads])])
    elements = []
    for begin, end in wanted:
        number = int(np.searchsorted(firsts, begin, "right")) - 1
        first = (before[number] + begin - reads[number][0]) // size
        elements.append(np.arange(first, first + (end - begin) // size))
    return _Plan(dtype, tuple((begin, end - begin) for begin, end in reads), np.concatenate(elements))


def values(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers that bits are, in float64."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)
