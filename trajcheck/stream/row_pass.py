"""The streaming pass: inner products of recorded vectors, chunk by chunk and block-major inside.

A chunk is a range of recorded steps on an absolute grid. Inside, for one block of elements, the chunk's steps are
walked in order, a few at a time; then comes the next block. What some rows need of their vectors is a short program
(program.py), written once a chunk and run on every block (loop.py). Each byte is read once but for a halo at the
chunk's ends, and peak memory depends neither on the size of the model nor on the number of steps. Blocks are shared out
to threads; the pieces that are summed by themselves and their order are fixed (cuts.py): the same machine gives the
same bytes, with any number of threads and blocks of any length. torch is not needed here.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from itertools import groupby
from typing import TypeVar

import numpy as np

from trajcheck.inner_products.loop import compiled
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows
from trajcheck.scalars.values import RowScalars
from trajcheck.stream.chunk import ChunkPass, Workers
from trajcheck.stream.chunk_sums import ChunkSums, empty_row
from trajcheck.stream.cuts import PIECE, Section, TensorPieces
from trajcheck.stream.flat_vector import FlatVectors
from trajcheck.stream.not_finite import _check_finite

#: Recorded steps in a chunk.
CHUNK = 128

#: Bytes of the vectors of one block: processors that work side by side find them in their last cache.
ROOM = 4_000_000

#: Bytes that a thread goes through at a time: some hundredths of a second in memory, half a second from a slow disk. A
#: word with the interpreter, which has to find its own data in memory again, costs a tenth of a small block's work.
AT_ONCE = 128_000_000

#: The same of remote files, all threads together.
BROUGHT = 512_000_000

#: Bytes of sums that it brings along, where they are not those of one block.
SUMS = 4_000_000

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
    memory: int | None = None,
    chunk: int = CHUNK,
    piece: int = PIECE,
    room: int = ROOM,
    progress: Callable[[float], object] = lambda steps: None,
) -> Iterator[RowScalars]:
    """The scalars of `rows.work` from recorded vectors alone, in order.

    `replayed` are steps whose gradients the replay will bring: their recorded ones are not read. `by_tensor` are places
    of rows whose products are also kept tensor by tensor. `threads` is how many work at a time, by default
    `available_threads()`; fewer, and on shorter blocks, where they would hold more than `memory` bytes of vectors.
    `progress` is told how many rows' worth of work was done. Raises NotFiniteError, with step and tensor, at NaN or
    Inf.
    """
    numels = {name: math.prod(shape) for name, shape in _file_order(trajectory).items()}
    vectors = FlatVectors(numels)
    chunks = [list(group) for _, group in groupby(rows.work, key=lambda row: row.place // chunk)]
    threads = threads or available_threads()

    def chunk_pass(members: Sequence[Row], room: int) -> ChunkPass:
        products = step_products, reference_products
        return ChunkPass(trajectory, members, references, *products, replayed, rows.places, vectors, piece, room)

    if memory is not None and chunks:
        with chunk_pass(max(chunks, key=len), 0) as work:  # on blocks as short as they can be
            threads = max(1, min(threads, memory // max(1, work.vectors.size)))  # a pass may need no vectors
        room = min(room, memory // threads)
    tensors = {name: numel for name, numel in numels.items() if numel}
    pieces = TensorPieces.of(tensors, piece)
    workers = Workers()
    with ThreadPoolExecutor(threads, "trajcheck-pass") if threads > 1 else nullcontext() as pool:
        for members in chunks:
            done = [empty_row(row, rows, references) for row in members]
            with chunk_pass(members, room) as work:
                sums = ChunkSums(work.programs, [row.place in by_tensor for row in members], list(tensors))
                sections = pieces.sections(work.block_size)
                read, outputs = work.vectors.bytes_per_element, work.programs[0].outputs
                stretches = _stretches(sections, read, outputs, threads, _at_once(work, threads, memory))

                def share(stretch: Sequence[Section], work: ChunkPass = work) -> list[np.ndarray]:
                    return work.shares(workers.mine(), stretch)

                for stretch, found in _in_order(pool, stretches, share):
                    for section, each in zip(stretch, found, strict=True):
                        sums.add(section.tensors, each)
                    progress(len(members) * sum(section.length for section in stretch) / sections[-1].stop)
            sums.give(done)
            for row, scalars in zip(members, done, strict=True):
                _check_finite(trajectory, row, scalars)
            yield from done


def _at_once(work: ChunkPass, threads: int, memory: int | None) -> int:
    """Bytes that a thread goes through at a time: of remote files they are in memory together, and the more they are,
    the fewer the requests."""
    if not work.vectors.remote:
        return AT_ONCE
    return max(1, (BROUGHT if memory is None else memory) // threads)


def _stretches(
    sections: Sequence[Section], read: int, sums: int, threads: int, at_once: int
) -> Iterator[Sequence[Section]]:
    """Blocks that a thread works on at a time; fewer towards the end, where threads wait for the last one. For each
    element `read` bytes are read, and each piece has so many `sums`."""
    longest = max((section.length for section in sections), default=1)
    pieces = max((len(section.tensors) for section in sections), default=1)
    most = min(at_once // max(1, read * longest), SUMS // max(1, 8 * sums * pieces))
    done = 0
    while done < len(sections):
        many = max(1, min(most, (len(sections) - done) // (2 * threads)))
        yield sections[done : done + many]
        done += many


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


def _in_order(pool: ThreadPoolExecutor | None, items: Iterable[T], function: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each item with function(item), in order; a few are worked on at a time, so that results do not pile up. Without a
    pool each is worked on here, when its turn comes."""
    if pool is None:
        yield from ((item, function(item)) for item in items)
        return
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
        running = [future for _, future in waiting if not future.cancel()]
        wait(running)  # what they read is closed next
