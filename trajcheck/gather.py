"""The streaming pass: inner products of recorded vectors, chunk by chunk and block-major inside.

A chunk is a range of recorded steps on an absolute grid. Inside, for one block of elements, the chunk's steps are
walked in order, a few at a time; then comes the next block. What some rows need of their vectors is a short program
(program.py), written once a chunk and run on every block (kernel.py). Each byte is read once but for a halo at the
chunk's ends, and peak memory depends neither on the size of the model nor on the number of steps. Blocks are shared out
to threads; their borders and the order of the partial sums are fixed: the same machine gives the same bytes, with any
number of threads. torch is not needed here.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import TypeVar

import numpy as np

from trajcheck.errors import NotFiniteError
from trajcheck.extent_reader import ExtentReader, Piece, blocks
from trajcheck.finite import not_finite_in
from trajcheck.flat_vector import FlatVectors, Range
from trajcheck.kernel import Block, Memory, Segments, compiled, run
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.program import Key, Program, Values
from trajcheck.program_writer import REGULARISED, RowRequest, write_program
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars
from trajcheck.snapshot import ITEM_SIZE, Extent
from trajcheck.trajectory import Trajectory

#: Recorded steps in a chunk.
CHUNK = 128

#: Rows whose vectors are in memory together, and elements per block: 8 MB of float32 a thread, read 256 kB at a time.
GROUP, BLOCK = 16, 65536

T = TypeVar("T")
R = TypeVar("R")


def gather(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    step_products: Collection[str],
    reference_products: Collection[str],
    *,
    replayed: Collection[int] = (),
    by_tensor: Collection[int] = (),
    threads: int | None = None,
    chunk: int = CHUNK,
    block: int = BLOCK,
    progress: Callable[[float], object] = lambda steps: None,
) -> Iterator[RowScalars]:
    """The scalars of `rows.work` from recorded vectors alone, in order.

    `replayed` are steps whose gradients the replay will bring: their recorded ones are not read. `by_tensor` are places
    of rows whose products are also kept tensor by tensor. `threads` is how many work at a
    time, by default `available_threads()`. `progress` is told how many rows' worth of work was done.
    Raises NotFiniteError, with step and tensor, at NaN or Inf.
    """
    numels = {name: math.prod(shape) for name, shape in _file_order(trajectory).items()}
    pieces = blocks(numels, block)
    vectors = FlatVectors(numels)
    total = sum(numels.values())
    with ThreadPoolExecutor(threads or available_threads(), "trajcheck-pass") as pool, _Workers() as workers:
        for _, group in groupby(rows.work, key=lambda row: row.place // chunk):
            members = list(group)
            done = [empty_row(row, rows, references) for row in members]
            work = _ChunkPass(
                trajectory,
                members,
                references,
                step_products,
                reference_products,
                replayed,
                rows.places,
                vectors,
                block,
            )
            sums = _Sums(work.programs, [row.place in by_tensor for row in members])
            for number, shares in _in_order(pool, range(len(pieces)), partial(_work, work, workers, pieces)):
                sums.add(pieces[number], shares)
                progress(len(members) * _length(pieces[number]) / total)
            sums.give(done)
            for row, scalars in zip(members, done, strict=True):
                _check_finite(trajectory, row, scalars)
            yield from done


def available_threads() -> int:
    """How many threads are worth having: the processors that this process may use. numpy's inner loop needs the
    interpreter between its many short calls, and two threads of it are slower than one."""
    if not compiled():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file_order(trajectory: Trajectory) -> dict[str, tuple[int, ...]]:
    """The tensors in the order in which the first step's file holds them, so that small ones are read together."""
    parameters = trajectory.snapshots[0].parameters
    names = sorted(trajectory.shapes, key=lambda name: parameters[name].offset)
    return {name: trajectory.shapes[name] for name in names}


def _length(pieces: Sequence[Piece]) -> int:
    return pieces[-1].offset + pieces[-1].stop - pieces[-1].start


def _in_order(pool: ThreadPoolExecutor, items: Sequence[T], function: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each item with function(item), in order; a few are worked on at a time, so that results do not pile up."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > 2 * pool._max_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


class _Worker:
    """What one thread works with: open files, and buffers that are used again from block to block."""

    def __init__(self) -> None:
        self.reader = ExtentReader()
        self._free: dict[int, list[Memory]] = {}

    def buffer(self, size: int) -> Memory:
        """So many bytes; fresh memory would be mapped and zeroed anew at several times the cost."""
        free = self._free.get(size)
        return free.pop() if free else Memory.of(np.empty(size, dtype=np.uint8))

    def release(self, memory: Memory) -> None:
        """Take back a buffer."""
        self._free.setdefault(len(memory.raw), []).append(memory)


class _Workers:
    """One worker a thread; leaving the context closes their files."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._all: list[_Worker] = []

    def mine(self) -> _Worker:
        if not hasattr(self._local, "worker"):
            self._local.worker = _Worker()
            self._all.append(self._local.worker)
        return self._local.worker

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.reader.__exit__()


def empty_row(row: Row, rows: Rows, references: Sequence[Reference]) -> RowScalars:
    """A row before anything is known; a step that only supports a row has nothing towards references."""
    towards = references if row.place in rows.places else ()
    return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in towards])


def empty_like(scalars: RowScalars) -> RowScalars:
    """A row of the same step and as many references before anything is known."""
    step = scalars.own.step
    return RowScalars(StepScalars(step), [ReferenceScalars(step) for _ in scalars.references])


def _work(chunk: _ChunkPass, workers: _Workers, pieces: Sequence[list[Piece]], number: int) -> list[np.ndarray]:
    return chunk.block(workers.mine(), number, pieces[number])


class _Sums:
    """What the blocks of a chunk add up to: in all, and tensor by tensor where some row of a program asks for it."""

    def __init__(self, programs: Sequence[Program], apart: Sequence[bool]) -> None:
        """`apart`: of each row, whether its tensors are kept apart."""
        self.programs, self._apart = programs, iter(apart)
        self._rows_apart = [[next(self._apart) for _ in program.rows] for program in programs]
        self._whole = [np.zeros(program.outputs) for program in programs]
        self._tensors: list[dict[str, np.ndarray]] = [{} for _ in programs]

    def add(self, pieces: Sequence[Piece], shares: Sequence[np.ndarray]) -> None:
        """Add one block's share [pieces, outputs] of each program."""
        for whole, tensors, apart, share in zip(self._whole, self._tensors, self._rows_apart, shares, strict=True):
            whole += share.sum(axis=0)
            for piece, part in zip(pieces, share, strict=True) if any(apart) else ():
                if piece.name in tensors:
                    tensors[piece.name] += part
                else:
                    tensors[piece.name] = part.copy()

    def give(self, rows: Sequence[RowScalars]) -> None:
        """Set the sums in the rows, which are those of the programs in order."""
        remaining = iter(rows)
        for program, whole, tensors, apart in zip(
            self.programs, self._whole, self._tensors, self._rows_apart, strict=True
        ):
            mine = [next(remaining) for _ in program.rows]
            for scalars, found in zip(mine, program.values(whole.tolist()), strict=True):
                _set_products(scalars, found)
            for name, sums in tensors.items():
                for scalars, found, wanted in zip(mine, program.values(sums.tolist()), apart, strict=True):
                    if wanted:
                        scalars.tensors[name] = empty_like(scalars)
                        _set_products(scalars.tensors[name], found)


def _set_products(scalars: RowScalars, found: tuple[Values, list[Values]]) -> None:
    own, towards = found
    for target, values in zip(scalars.all, [own, *towards], strict=True):
        for name, value in values.items():
            setattr(target, name, value)


class _ChunkPass:
    """What one chunk needs from each block. Threads share it; `block` changes nothing in it."""

    def __init__(
        self,
        trajectory: Trajectory,
        rows: Sequence[Row],
        references: Sequence[Reference],
        step_products: Collection[str],
        reference_products: Collection[str],
        replayed: Collection[int],
        places: Collection[int],
        vectors: FlatVectors,
        block: int,
    ) -> None:
        self.places, self.decay = places, trajectory.info.decay
        self.snapshots, self.references, self.replayed = trajectory.snapshots, references, replayed
        self.step_products, self.reference_products = list(step_products), list(reference_products)
        self.needed = vectors_needed(
            [STEP_PRODUCTS[name] for name in step_products]
            + [REFERENCE_PRODUCTS[name] for name in reference_products if references]
        )
        self.size = block
        self.programs = [
            write_program([self._request(row) for row in rows[start : start + GROUP]])
            for start in range(0, len(rows), GROUP)
        ]
        self.flat = {
            key: vectors.of(self._tensors(key)) for program in self.programs for key in dict.fromkeys(program.vectors)
        }

    def _request(self, row: Row) -> RowRequest:
        """The vectors of a row by their names in products.py, as keys, and the products to take."""
        vectors: dict[str, Key] = {}
        places = {"x": row.place, "previous": row.place - 1, "next": row.place + 1, "skip": row.skip, "first": 0}
        for name, place in places.items():
            if name in self.needed and place is not None and 0 <= place < len(self.snapshots):
                vectors[name] = ("iterate", place)
        if "gradient" in self.needed and not row.no_gradient and row.step not in self.replayed:
            vectors["gradient"] = ("gradient", row.place)
            if "regularised" in self.needed and self.decay:
                vectors["regularised"] = (REGULARISED, row.place)
        if "window" in self.needed and not row.no_window:
            vectors |= {"window": ("window", row.place), "window_start": ("iterate", row.place - 1)}
        if row.place not in self.places:
            return RowRequest(vectors, (), [name for name in self.step_products if name in SUPPORT_PRODUCTS], ())
        points = [{"reference": ("reference", number)} for number in range(len(self.references))]
        return RowRequest(vectors, points, self.step_products, self.reference_products)

    def block(self, worker: _Worker, number: int, pieces: list[Piece]) -> list[np.ndarray]:
        """One block's share of every product of each program [pieces, outputs]."""
        borders = [piece.offset for piece in pieces] + [_length(pieces)]
        segments = Segments.of(borders, [self.decay.get(piece.name, 0.0) for piece in pieces])
        start = number * self.size
        held: dict[Key, Block] = {}
        shares = []
        for program, following in zip(self.programs, [*self.programs[1:], None], strict=True):
            self._read(worker, [key for key in program.vectors if key not in held], start, pieces, held)
            shares.append(run(program, [held[key] for key in program.vectors], segments))
            for key in held.keys() - set(following.vectors if following else ()):
                worker.release(held.pop(key).memory)
        return shares

    def _read(
        self, worker: _Worker, keys: Sequence[Key], start: int, pieces: list[Piece], held: dict[Key, Block]
    ) -> None:
        """Read a block of some vectors, together."""
        length = _length(pieces)
        wanted: list[tuple[Range, Memory]] = []
        for key in keys:
            flat = self.flat[key]
            dtype = flat.dtype or "F64"
            memory = worker.buffer(ITEM_SIZE[dtype] * self.size)
            if flat.dtype is None:
                worker.reader.wide_block(self._tensors(key), pieces, memory.raw.view(np.float64))
            else:
                wanted += [(part, memory) for part in flat.ranges(start, start + length)]
            held[key] = Block(memory, dtype, length, self._divisor(key))
        worker.reader.fill(wanted)

    def _tensors(self, key: Key) -> Mapping[str, Extent]:
        """Where a vector lies."""
        kind, place = key
        if kind == "reference":
            return self.references[place].parameters
        snapshot = self.snapshots[place]
        if kind == "gradient":
            return snapshot.gradients
        return snapshot.parameters if kind == "iterate" else snapshot.window_gradient

    def _divisor(self, key: Key) -> float:
        """What a vector is to be divided by: the factor that clipping applied."""
        kind, place = key
        return self.snapshots[place].clip or 1.0 if kind == "gradient" else 1.0


def _check_finite(trajectory: Trajectory, row: Row, scalars: RowScalars) -> None:
    values = [getattr(scalars.own, name) for name in STEP_PRODUCTS]
    for towards in scalars.references:
        values += [getattr(towards, name) for name in REFERENCE_PRODUCTS]
    if all(value is None or math.isfinite(value) for value in values):
        return
    with ExtentReader() as reader:
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
