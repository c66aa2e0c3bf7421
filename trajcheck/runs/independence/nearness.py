"""What the content of points says: whether they are equal or rounded copies, and which of two is nearer to a run.

Copies are looked for among all recorded iterates; what is none is told at its first block. Distances are those of at
most ELEMENTS numbers spread over the tensors, to at most ITERATES iterates spread over the run: a run of any length and
size costs no more than some hundreds of megabytes read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from trajcheck.files.extent_reader import BLOCK, ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.trajectory import Shapes, Trajectory

#: Numbers of a point, those that are read together, and iterates, that distances are taken of.
ELEMENTS, TOGETHER, ITERATES = 1 << 20, 4096, 16


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)


def _cut_to_bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def _to_float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16)


#: What may have become of a float64 number in a copy: nothing, or it was rounded.
_ROUNDINGS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    *(lambda values: values, lambda values: values.astype(np.float32)),
    *(_to_bfloat16, _cut_to_bfloat16, _to_float16),
)


def steps_of(reader: ExtentReader, point: Mapping[str, Extent], trajectory: Trajectory) -> tuple[list[int], bool]:
    """The recorded steps whose iterate a point is, or else of which it is a copy in lower precision; and whether it is
    the latter."""
    found: dict[bool, list[int]] = {False: [], True: []}
    for snapshot in trajectory.snapshots:
        rounded = _copy(reader, point, snapshot.parameters, trajectory.shapes)
        if rounded is not None:
            found[rounded].append(snapshot.step)
    return (found[False], False) if found[False] else (found[True], bool(found[True]))


def equal_points(reader: ExtentReader, a: Mapping[str, Extent], b: Mapping[str, Extent], shapes: Shapes) -> bool:
    """Whether two points are the same, number by number; reads no further than the first difference."""
    return _copy(reader, a, b, shapes, _ROUNDINGS[:1]) is False


def _copy(
    reader: ExtentReader,
    copy: Mapping[str, Extent],
    of: Mapping[str, Extent],
    shapes: Shapes,
    roundings: Sequence[Callable[[np.ndarray], np.ndarray]] = _ROUNDINGS,
) -> bool | None:
    """Whether a point is a rounded copy of another (True), or equal (False); None where it is neither."""
    one, other = np.empty(BLOCK), np.empty(BLOCK)
    left = list(roundings)
    for name, shape in shapes.items():
        for start in range(0, prod(shape), BLOCK):
            length = min(BLOCK, prod(shape) - start)
            reader.widen(copy[name], start, one[:length])
            reader.widen(of[name], start, other[:length])
            with np.errstate(over="ignore", invalid="ignore"):
                left = [each for each in left if np.array_equal(one[:length], each(other[:length]))]
            if not left:
                return None
    return left[0] is not roundings[0]


class Nearness:
    """Distances to the iterates of a run."""

    def __init__(self, reader: ExtentReader, trajectory: Trajectory) -> None:
        self._reader, self._shapes = reader, trajectory.shapes
        total = trajectory.numel
        places = np.arange(-(-total // TOGETHER)) if total else np.empty(0, dtype=np.int64)
        self._chunks = places[:: max(1, -(-total // ELEMENTS))].tolist()
        first, *later = trajectory.snapshots
        chosen = np.unique(np.linspace(0, len(later) - 1, min(len(later), ITERATES)).round().astype(int)).tolist()
        self._later = [later[place] for place in chosen]
        self._init = self._sample(first.parameters)

    def _sample(self, point: Mapping[str, Extent]) -> np.ndarray:
        """The chosen numbers of a point."""
        out, filled = np.empty(len(self._chunks) * TOGETHER), 0
        begin = 0
        wanted = iter(self._chunks)
        chunk = next(wanted, None)
        for name, shape in self._shapes.items():
            end = begin + prod(shape)
            while chunk is not None and chunk * TOGETHER < end:
                start = max(begin, chunk * TOGETHER)
                length = min(end, (chunk + 1) * TOGETHER) - start
                self._reader.widen(point[name], start - begin, out[filled : filled + length])
                filled += length
                if start + length == (chunk + 1) * TOGETHER:
                    chunk = next(wanted, None)
                else:
                    break
            begin = end
        return out[:filled]

    def nearer_than_init(self, point: Mapping[str, Extent], margin: float = 1.0) -> int | None:
        """The step of the iterate x_s that a point is nearest to in proportion, if |point - x_s| < margin |x_0 - x_s|;
        None where there is no such step."""
        return self._nearest(self._sample(point), lambda iterate: margin * _distance(self._init, iterate))

    def nearer_than(self, point: Mapping[str, Extent], beginning: Mapping[str, Extent]) -> int | None:
        """The step of the iterate that a point is nearest to, if it is nearer than another point is."""
        here = self._sample(point)
        limit = _distance(here, self._sample(beginning))
        return self._nearest(here, lambda _: limit)

    def _nearest(self, point: np.ndarray, limit: Callable[[np.ndarray], float]) -> int | None:
        best, step = 1.0, None
        for snapshot in self._later:
            iterate = self._sample(snapshot.parameters)
            allowed = limit(iterate)
            if allowed > 0 and (share := _distance(point, iterate) / allowed) < best:
                best, step = share, snapshot.step
        return step


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))
