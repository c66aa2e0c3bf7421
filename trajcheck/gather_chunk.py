"""One chunk of the streaming pass (gather.py): what it needs of every block, and the threads' files and buffers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from trajcheck.extent_reader import ExtentReader, Piece
from trajcheck.flat_vector import FlatVectors, Range
from trajcheck.kernel import Block, Memory, Segments, run
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.program import Key
from trajcheck.program_writer import REGULARISED, RowRequest, write_program
from trajcheck.references import Reference
from trajcheck.rows import Row
from trajcheck.snapshot import ITEM_SIZE, Extent
from trajcheck.trajectory import Trajectory

#: Rows whose vectors are in memory together: with a block of 65,536 elements 8 MB of float32 a thread.
GROUP = 16


def length_of(pieces: Sequence[Piece]) -> int:
    """Elements of a block."""
    return pieces[-1].offset + pieces[-1].stop - pieces[-1].start


class Worker:
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


class Workers:
    """One worker a thread; leaving the context closes their files."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._all: list[Worker] = []

    def mine(self) -> Worker:
        if not hasattr(self._local, "worker"):
            self._local.worker = Worker()
            self._all.append(self._local.worker)
        return self._local.worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.reader.__exit__()


class ChunkPass:
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

    def block(self, worker: Worker, number: int, pieces: list[Piece]) -> list[np.ndarray]:
        """One block's share of every product of each program [pieces, outputs]."""
        borders = [piece.offset for piece in pieces] + [length_of(pieces)]
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
        self, worker: Worker, keys: Sequence[Key], start: int, pieces: list[Piece], held: dict[Key, Block]
    ) -> None:
        """Read a block of some vectors, together."""
        length = length_of(pieces)
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
