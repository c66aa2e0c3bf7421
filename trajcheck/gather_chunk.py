"""One chunk of the streaming pass (gather.py): what it needs of every block, and the threads' buffers."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from trajcheck.chunk_vectors import ChunkVectors
from trajcheck.extent_reader import ExtentReader, Piece, early_end, most_open, unreadable
from trajcheck.flat_vector import FlatVectors
from trajcheck.kernel import Stages
from trajcheck.kernel_data import Block, Memory, Segments, Stage, Unread, bytes_of
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.program import Key
from trajcheck.program_writer import REGULARISED, RowRequest, write_programs
from trajcheck.references import Reference
from trajcheck.rows import Row
from trajcheck.snapshot import ITEM_SIZE, Extent
from trajcheck.trajectory import Trajectory

#: Rows whose vectors are in memory together: with a block of 65,536 elements 4 MB of float32 a thread, which processors
#: that work side by side find in their last cache. More where each group widens so many references anew.
GROUP, GROUP_OF_MANY, MANY_REFERENCES = 8, 16, 4


def length_of(pieces: Sequence[Piece]) -> int:
    """Elements of a block."""
    return pieces[-1].offset + pieces[-1].stop - pieces[-1].start


class Worker:
    """What one thread works with: memory that is used again from block to block and from chunk to chunk."""

    def __init__(self) -> None:
        self._memory = Memory.of(np.empty(0, dtype=np.uint8))
        self._chunk: ChunkPass | None = None

    def stages(self, chunk: ChunkPass) -> tuple[Stages, np.ndarray]:
        """A chunk's stages in this thread's memory, and the addresses of its buffers."""
        if chunk is not self._chunk:
            size = chunk.vectors.size
            if len(self._memory.raw) < size:  # fresh memory would be mapped and zeroed anew, at several times the cost
                self._memory = Memory.of(np.empty(size, dtype=np.uint8))
            self._bound = chunk.bind(self._memory)
            self._chunk = chunk
        return self._bound


class Workers:
    """One worker a thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def mine(self) -> Worker:
        if not hasattr(self._local, "worker"):
            self._local.worker = Worker()
        worker: Worker = self._local.worker
        return worker


class ChunkPass:
    """What one chunk needs from each block, and its open files. Threads share it; `block` changes nothing in it."""

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
        self.block_size = block
        requests = [self._request(row) for row in rows]
        group = GROUP_OF_MANY if len(references) >= MANY_REFERENCES else GROUP
        self.programs = write_programs([requests[start : start + group] for start in range(0, len(rows), group)])
        keys = dict.fromkeys(key for program in self.programs for key in program.vectors)
        flat = {key: vectors.of(self._tensors(key)) for key in keys}
        self.reader, self._lock = ExtentReader(most_open()), threading.Lock()
        self.vectors = ChunkVectors([program.vectors for program in self.programs], flat, block, self.reader)

    def __enter__(self) -> ChunkPass:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.__exit__()

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

    def bind(self, memory: Memory) -> tuple[Stages, np.ndarray]:
        """The programs with their vectors' buffers in a thread's memory, and the buffers' addresses."""
        vectors, addresses = self.vectors, memory.address + self.vectors.begins
        stages = []
        for program, buffers in zip(self.programs, vectors.buffers, strict=True):
            blocks = []
            for key, buffer in zip(program.vectors, buffers, strict=True):
                begin, dtype = int(vectors.begins[buffer]), vectors.flat[key].dtype
                raw = memory.raw[begin : begin + ITEM_SIZE[dtype] * self.block_size]
                blocks.append(Block(Memory(raw, memory.address + begin), dtype, self.block_size, self._divisor(key)))
            stages.append(Stage(program, blocks))
        return Stages(stages), addresses

    def block(self, worker: Worker, start: int, pieces: Sequence[Piece], apart: bool) -> np.ndarray:
        """The share of every product of the block from element `start` on [pieces, outputs]; that of all its pieces
        together [1, outputs] unless `apart`. Raises StepFileError."""
        length = length_of(pieces)
        borders = [piece.offset for piece in pieces] + [length]
        segments = Segments.of(borders, [self.decay.get(piece.name, 0.0) for piece in pieces])
        stages, addresses = worker.stages(self)
        ranges, reads = self.vectors.ranges(start, start + length, addresses)
        try:
            share = stages.run(segments, ranges, reads)
        except Unread as unread:
            path = self.vectors.path(start, start + length, unread.number)
            if unread.error:
                raise unreadable(path, OSError(unread.error, os.strerror(unread.error))) from unread
            raise early_end(path, unread.missing) from unread
        with self._lock:
            self.reader.bytes_read += bytes_of(ranges)
        return share if apart else share.sum(axis=0, keepdims=True)

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
