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
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TypeVar

import numpy as np

from trajcheck.errors import NotFiniteError
from trajcheck.extent_reader import ExtentReader, Piece, blocks
from trajcheck.finite import not_finite_in
from trajcheck.kernel import Block, run
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.program import Key, RowRequest, Values, write_program
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars
from trajcheck.snapshot import Extent
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
    time, by default as many as there are processors. `progress` is told how many rows' worth of work was done.
    Raises NotFiniteError, with step and tensor, at NaN or Inf.
    """
    numels = {name: math.prod(shape) for name, shape in _file_order(trajectory).items()}
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
                by_tensor,
                block,
            )
            for pieces, shares in _in_order(pool, blocks(numels, block), partial(_work, work, workers)):
                for scalars, share in zip(done, shares, strict=True):
                    _add(scalars, share)
                progress(len(members) * _length(pieces) / total)
            for row, scalars in zip(members, done, strict=True):
                _check_finite(trajectory, row, scalars)
            yield from done


def available_threads() -> int:
    """The processors that this process may use."""
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
        self._free: dict[int, list[np.ndarray]] = {}

    def buffer(self, size: int) -> np.ndarray:
        """So many bytes; fresh memory would be mapped and zeroed anew at several times the cost."""
        free = self._free.get(size)
        return free.pop() if free else np.empty(size, dtype=np.uint8)

    def release(self, raw: np.ndarray) -> None:
        """Take back a buffer, of which `raw` is the part that was filled."""
        whole = raw if raw.base is None else raw.base
        self._free.setdefault(len(whole), []).append(whole)


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


def _work(chunk: _ChunkPass, workers: _Workers, pieces: list[Piece]) -> list[_Share]:
    return chunk.block(workers.mine(), pieces)


Products = tuple[Values, list[Values]]


@dataclass(slots=True)
class _Share:
    """One block's share of a row's products: of all tensors, and where asked for of each."""

    whole: Products
    tensors: dict[str, Products] = field(default_factory=dict)


class _Group:
    """A few rows of a chunk, whose vectors are in memory together, and what to do with them."""

    def __init__(self, requests: Mapping[Row, RowRequest], by_tensor: Collection[int]) -> None:
        self.rows = list(requests)
        self.program = write_program(list(requests.values()))
        self.apart = [row for row in requests if row.place in by_tensor]
        self.program_apart = write_program([requests[row] for row in self.apart])

    def shares(self, blocks: Mapping[Key, Block], pieces: Sequence[Piece]) -> list[_Share]:
        """One block's share of every product of every row."""
        found = self.program.values(run(self.program, [blocks[key] for key in self.program.vectors]))
        shares = {row: _Share(values) for row, values in zip(self.rows, found, strict=True)}
        for piece in pieces if self.apart else ():  # beside the whole, whose last digits must not depend on it
            start, stop = piece.offset, piece.offset + piece.stop - piece.start
            parts = [blocks[key].part(start, stop) for key in self.program_apart.vectors]
            found = self.program_apart.values(run(self.program_apart, parts))
            for row, values in zip(self.apart, found, strict=True):
                shares[row].tensors[piece.name] = values
        return list(shares.values())


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
        by_tensor: Collection[int],
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
        cuts = range(0, len(rows), GROUP)
        self.groups = [
            _Group({row: self._request(row) for row in rows[start : start + GROUP]}, by_tensor) for start in cuts
        ]

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
                vectors["regularised"] = ("regularised", row.place)
        if "window" in self.needed and not row.no_window:
            vectors |= {"window": ("window", row.place), "window_start": ("iterate", row.place - 1)}
        if row.place not in self.places:
            return RowRequest(vectors, (), [name for name in self.step_products if name in SUPPORT_PRODUCTS], ())
        points = [{"reference": ("reference", number)} for number in range(len(self.references))]
        return RowRequest(vectors, points, self.step_products, self.reference_products)

    def block(self, worker: _Worker, pieces: list[Piece]) -> list[_Share]:
        """One block's share of every product of every row of the chunk."""
        held: dict[Key, Block] = {}

        def buffer(size: int) -> np.ndarray:
            return worker.buffer(size * self.size)

        def vector(key: Key) -> Block:
            if key not in held:
                kind, place = key
                if kind == "regularised":
                    gradient, x = vector(("gradient", place)), vector(("iterate", place))
                    held[key] = self._regularised(gradient, x, pieces, buffer(8))
                else:
                    tensors, divisor = self._tensors(kind, place)
                    held[key] = Block(*worker.reader.block(tensors, pieces, buffer), divisor)
            return held[key]

        shares = []
        for group, following in zip(self.groups, [*self.groups[1:], None], strict=True):
            for key in group.program.vectors:
                vector(key)
            shares += group.shares(held, pieces)
            kept = set(following.program.vectors) if following else set()
            for key in held.keys() - kept:
                worker.release(held.pop(key).raw)
        return shares

    def _tensors(self, kind: str, place: int) -> tuple[Mapping[str, Extent], float]:
        """Where a vector lies, and what it is to be divided by."""
        if kind == "reference":
            return self.references[place].parameters, 1.0
        snapshot = self.snapshots[place]
        if kind == "gradient":
            return snapshot.gradients, snapshot.clip or 1.0
        return (snapshot.parameters if kind == "iterate" else snapshot.window_gradient), 1.0

    def _regularised(self, gradient: Block, x: Block, pieces: list[Piece], buffer: np.ndarray) -> Block:
        """g_t + lambda x_t on a block; lambda is that of each tensor."""
        raw = buffer[: 8 * gradient.length]
        out = raw.view(np.float64)
        wide = x.wide
        for piece in pieces:
            part = slice(piece.offset, piece.offset + piece.stop - piece.start)
            np.multiply(wide[part], self.decay.get(piece.name, 0.0), out=out[part])
        out += gradient.wide
        return Block(raw, "F64")


def _add(scalars: RowScalars, share: _Share) -> None:
    """Add one block's share to a row."""
    _add_products(scalars, share.whole)
    for name, part in share.tensors.items():
        _add_products(scalars.tensors.setdefault(name, empty_like(scalars)), part)


def _add_products(scalars: RowScalars, found: Products) -> None:
    own, towards = found
    for target, values in zip(scalars.all, [own, *towards], strict=True):
        for name, value in values.items():
            setattr(target, name, (getattr(target, name) or 0.0) + value)


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
