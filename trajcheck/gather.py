"""The streaming pass: inner products of recorded vectors, chunk by chunk and block-major inside.

A chunk is a range of recorded steps on an absolute grid. Inside, for one block of elements, the chunk's steps are
walked in order, so that x_{t-1}, x_t, x_{t+1} and every reference stay in cache; then comes the next block. Each byte
is read once but for a halo at the chunk's ends, and peak memory depends neither on the size of the model nor on the
number of steps. Block borders and the order of the partial sums are fixed: the same machine gives the same bytes.
torch is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from trajcheck.errors import NotFiniteError
from trajcheck.extent_reader import BLOCK, ExtentReader, Piece, blocks
from trajcheck.finite import not_finite_in
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, inner_products, vectors_needed
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars
from trajcheck.snapshot import Extent, Snapshot
from trajcheck.trajectory import Trajectory

#: Recorded steps in a chunk.
CHUNK = 128


def gather(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    step_products: Collection[str],
    reference_products: Collection[str],
    *,
    replayed: Collection[int] = (),
    by_tensor: Collection[int] = (),
    chunk: int = CHUNK,
    block: int = BLOCK,
    progress: Callable[[float], object] = lambda steps: None,
) -> Iterator[RowScalars]:
    """The scalars of `rows.work` from recorded vectors alone, in order.

    `replayed` are steps whose gradients the replay will bring: their recorded ones are not read. `by_tensor` are places
    of rows whose products are also kept tensor by tensor. `progress` is told how many rows' worth of work was done.
    Raises NotFiniteError, with step and tensor, at NaN or Inf.
    """
    for _, group in groupby(rows.work, key=lambda row: row.place // chunk):
        members = list(group)
        done = [empty_row(row, rows, references) for row in members]
        pass_over = _ChunkPass(
            trajectory, members, references, step_products, reference_products, replayed, rows.places, by_tensor, block
        )
        with ExtentReader() as reader:
            numels = {name: math.prod(shape) for name, shape in trajectory.shapes.items()}
            total = sum(numels.values())
            for pieces in blocks(numels, block):
                pass_over.block(reader, pieces, done)
                length = pieces[-1].offset + pieces[-1].stop - pieces[-1].start
                progress(len(members) * length / total)
            for row, scalars in zip(members, done, strict=True):
                _check_finite(reader, trajectory, row, scalars)
        yield from done


def empty_row(row: Row, rows: Rows, references: Sequence[Reference]) -> RowScalars:
    """A row before anything is known; a step that only supports a row has nothing towards references."""
    towards = references if row.place in rows.places else ()
    return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in towards])


def empty_like(scalars: RowScalars) -> RowScalars:
    """A row of the same step and as many references before anything is known."""
    step = scalars.own.step
    return RowScalars(StepScalars(step), [ReferenceScalars(step) for _ in scalars.references])


class _ChunkPass:
    """What one chunk needs from each block; buffers are reused from block to block."""

    def __init__(
        self,
        trajectory: Trajectory,
        rows: Sequence[Row],
        references: Sequence[Reference],
        step_products: Collection[str],
        reference_products: Collection[str],
        replayed: Collection[int],
        places: Collection[int],
        by_tensor: Collection[int],
        block: int,
    ) -> None:
        self.places, self.by_tensor, self.decay = places, by_tensor, trajectory.info.decay
        self.snapshots, self.rows, self.references, self.replayed = trajectory.snapshots, rows, references, replayed
        self.step_products, self.reference_products = step_products, reference_products
        self.needed = vectors_needed(
            [STEP_PRODUCTS[name] for name in step_products]
            + [REFERENCE_PRODUCTS[name] for name in reference_products if references]
        )
        self.support_products = [name for name in step_products if name in SUPPORT_PRODUCTS]
        self.size = block
        self.buffers: list[np.ndarray] = []
        self.gradient, self.regularised, self.window = np.empty(block), np.empty(block), np.empty(block)
        self.scratch = _Scratch(block)

    def block(self, reader: ExtentReader, pieces: list[Piece], done: Sequence[RowScalars]) -> None:
        """Add one block's share of every product to the rows in `done`."""
        length = pieces[-1].offset + pieces[-1].stop - pieces[-1].start
        iterates: dict[int, np.ndarray] = {}  # those around the current row, by place
        free = [buffer[:length] for buffer in self.buffers]

        def read(tensors: Mapping[str, Extent]) -> np.ndarray:
            if not free:
                self.buffers.append(np.empty(self.size))
                free.append(self.buffers[-1][:length])
            return reader.block(tensors, pieces, free.pop())

        def iterate(place: int) -> np.ndarray:
            if place not in iterates:
                iterates[place] = read(self.snapshots[place].parameters)
            return iterates[place]

        fixed = [read(reference.parameters) for reference in self.references]
        first = read(self.snapshots[0].parameters) if "first" in self.needed else None
        for row, scalars in zip(self.rows, done, strict=True):
            for passed in [place for place in iterates if place < row.place - 1]:
                free.append(iterates.pop(passed))
            vectors = {}
            for name, place in (
                ("x", row.place),
                ("previous", row.place - 1 if row.place else None),
                ("next", row.place + 1 if row.place + 1 < len(self.snapshots) else None),
                ("skip", row.skip),
            ):
                if name in self.needed and place is not None:
                    vectors[name] = iterate(place)
            if first is not None:
                vectors["first"] = first
            snapshot = self.snapshots[row.place]
            if "gradient" in self.needed and not row.no_gradient and row.step not in self.replayed:
                gradient = _unclipped(reader.block(snapshot.gradients, pieces, self.gradient[:length]), snapshot)
                vectors["gradient"] = gradient
                if "regularised" in self.needed and self.decay:
                    vectors["regularised"] = self._regularised(gradient, iterate(row.place), pieces)
            if "window" in self.needed and not row.no_window:
                vectors["window"] = reader.block(snapshot.window_gradient, pieces, self.window[:length])
                vectors["window_start"] = iterate(row.place - 1)
            points = [{"reference": vector} for vector in fixed[: len(scalars.references)]]
            step_products = self.step_products if row.place in self.places else self.support_products
            self._add(vectors, points, step_products, scalars)
            if row.place in self.by_tensor:  # beside the whole, whose last digits must not depend on it
                for piece in pieces:
                    part = slice(piece.offset, piece.offset + piece.stop - piece.start)
                    share = scalars.tensors.setdefault(piece.name, empty_like(scalars))
                    self._add(_cut(vectors, part), [_cut(point, part) for point in points], step_products, share)

    def _add(
        self,
        vectors: Mapping[str, np.ndarray],
        points: Sequence[Mapping[str, np.ndarray]],
        step_products: Collection[str],
        scalars: RowScalars,
    ) -> None:
        """Add the products of these vectors to the scalars."""
        self.scratch.reset(len(next(iter(vectors.values()))) if vectors else 0)
        own, towards = inner_products(
            vectors, points, step_products, self.reference_products, self.scratch.subtract, _dot
        )
        _add(scalars.own, own)
        for target, values in zip(scalars.references, towards, strict=True):
            _add(target, values)

    def _regularised(self, gradient: np.ndarray, x: np.ndarray, pieces: list[Piece]) -> np.ndarray:
        """g_t + lambda x_t on a block; lambda is that of each tensor."""
        out = self.regularised[: len(gradient)]
        for piece in pieces:
            part = slice(piece.offset, piece.offset + piece.stop - piece.start)
            np.multiply(x[part], self.decay.get(piece.name, 0.0), out=out[part])
        return np.add(out, gradient, out=out)


class _Scratch:
    """Buffers for the differences of one row.

    Fresh arrays of this size would be mapped and zeroed anew every time, at several times the cost of the arithmetic.
    """

    def __init__(self, size: int) -> None:
        self.size, self.length, self.taken = size, size, 0
        self.buffers: list[np.ndarray] = []

    def reset(self, length: int) -> None:
        """Forget the differences of the row before."""
        self.length, self.taken = length, 0

    def subtract(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if self.taken == len(self.buffers):
            self.buffers.append(np.empty(self.size))
        self.taken += 1
        return np.subtract(a, b, out=self.buffers[self.taken - 1][: self.length])


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b))


def _unclipped(gradient: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    if snapshot.clip is not None and snapshot.clip != 1.0:
        np.divide(gradient, snapshot.clip, out=gradient)
    return gradient


def _add(target: StepScalars | ReferenceScalars, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        setattr(target, name, (getattr(target, name) or 0.0) + value)


def _cut(vectors: Mapping[str, np.ndarray], part: slice) -> dict[str, np.ndarray]:
    return {name: vector[part] for name, vector in vectors.items()}


def _check_finite(reader: ExtentReader, trajectory: Trajectory, row: Row, scalars: RowScalars) -> None:
    values = [getattr(scalars.own, name) for name in STEP_PRODUCTS]
    for towards in scalars.references:
        values += [getattr(towards, name) for name in REFERENCE_PRODUCTS]
    if all(value is None or math.isfinite(value) for value in values):
        return
    raise_not_finite(reader, trajectory, row)


def raise_not_finite(reader: ExtentReader, trajectory: Trajectory, row: Row) -> None:
    """Find the NaN or Inf that spoilt a row, in its own step or in a neighbour, and raise NotFiniteError for it."""
    places = dict.fromkeys([row.place, row.place - 1, row.place + 1, row.skip or row.place])
    for place in places:
        if 0 <= place < len(trajectory.snapshots):
            snapshot = trajectory.snapshots[place]
            if tensor := not_finite_in(reader, snapshot, trajectory.shapes):
                raise NotFiniteError(
                    f"{snapshot.path}: step {snapshot.step}, tensor {tensor} holds NaN or Inf, in the middle of the "
                    "run; expected finite numbers. --skip-bad leaves such steps out and lists them."
                )
    raise NotFiniteError(
        f"{trajectory.path}: the inner products of step {row.step} overflow float64; its numbers are too large."
    )
