"""One chunk of the streaming pass (row_pass.py): what it needs of every block, and the threads' buffers."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np

from trajcheck.files.extent_reader import ExtentReader, early_end, most_open, unreadable
from trajcheck.files.extents import ITEM_SIZE, Extent
from trajcheck.files.opening import NotRegularError
from trajcheck.files.remote.staging import Staging
from trajcheck.inner_products.blocks import NOT_REGULAR, Block, Filling, Memory, Segments, Stage, Unread
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.inner_products.loop import Stages, compiled
from trajcheck.inner_products.program import Key
from trajcheck.inner_products.program_writer import REGULARISED, write_programs
from trajcheck.inner_products.usual_row import RowRequest, is_usual
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row
from trajcheck.stream.chunk_vectors import ChunkVectors
from trajcheck.stream.cuts import Section
from trajcheck.stream.flat_vector import FlatVectors

#: Rows whose vectors are in memory together, and which share what is made of them. A row that is a Step shares nothing
#: but what it reads, and alone it finds that in its processor's second cache; numpy's loop shares there too.
GROUP = 8

#: References from which on rows that are Steps are put together as well: so many of them leave the second cache before
#: the next row comes, and a group goes through all of its rows while a few thousand elements of each lie there.
MANY_REFERENCES = 4

#: Elements of a block at the most: float32 is then read 512 kB at a time.
LONGEST = 131072


def groups(requests: Sequence[RowRequest]) -> list[list[RowRequest]]:
    """Rows, in order, put together to groups that have a program each."""
    apart = compiled()
    found: list[list[RowRequest]] = []
    before = False
    for request in requests:
        alone = apart and len(request.references) < MANY_REFERENCES and is_usual(request)
        if alone or before or not found or len(found[-1]) == GROUP:
            found.append([])
        found[-1].append(request)
        before = alone
    return found


class Worker:
    """What one thread works with: memory that is used again from block to block and from chunk to chunk."""

    def __init__(self) -> None:
        self._memory = Memory.of(np.empty(0, dtype=np.uint8))
        self._chunk: ChunkPass | None = None

    @cached_property
    def staging(self) -> Staging:
        """Where ranges of remote files are brought."""
        return Staging()

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
        piece: int,
        room: int,
    ) -> None:
        """`piece`: elements of a block at the least. `room`: bytes that its vectors take at the most otherwise."""
        self.places, self.settings = places, trajectory.settings
        self.snapshots, self.references, self.replayed = trajectory.snapshots, references, replayed
        self.step_products, self.reference_products = list(step_products), list(reference_products)
        self.needed = vectors_needed(
            [STEP_PRODUCTS[name] for name in step_products]
            + [REFERENCE_PRODUCTS[name] for name in reference_products if references]
        )
        levels = self._levels([row.place for row in rows], vectors.names)
        self.programs = write_programs(groups([self._request(row) for row in rows]), levels)
        keys = dict.fromkeys(key for program in self.programs for key in program.vectors)
        flat = {key: vectors.of(self._tensors(key)) for key in keys}
        self.reader, self._lock = ExtentReader(most_open()), threading.Lock()
        self.vectors = ChunkVectors([program.vectors for program in self.programs], flat, self.reader)
        self.block_size = max(piece, min(LONGEST, room // self.vectors.width))
        self.vectors.lay_out(self.block_size)

    def __enter__(self) -> ChunkPass:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.__exit__()

    def _levels(self, places: Sequence[int], tensors: Sequence[str]) -> dict[int, int]:
        """The level of each place: rows of one weight decay have one. `self.decay` [levels, tensors] is theirs."""
        decays = {place: self.settings.decay_at(place) for place in places}
        distinct = {id(each): each for each in decays.values()}
        self.decay = np.array([[each.get(name, 0.0) for name in tensors] for each in distinct.values()])
        numbers = {key: number for number, key in enumerate(distinct)}
        return {place: numbers[id(each)] for place, each in decays.items()}

    def _segments(self, section: Section) -> Segments:
        return Segments(section.borders, np.ascontiguousarray(self.decay[:, section.tensors]))

    def _request(self, row: Row) -> RowRequest:
        """The vectors of a row by their names in catalogue.py, as keys, and the products to take."""
        vectors: dict[str, Key] = {}
        for name, place in row.iterates.items():
            if name in self.needed and place is not None and 0 <= place < len(self.snapshots):
                vectors[name] = ("iterate", place)
        if "gradient" in self.needed and not row.no_gradient and row.step not in self.replayed:
            vectors["gradient"] = ("gradient", row.place)
            if "regularised" in self.needed and self.settings.has_decay:
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

    def shares(self, worker: Worker, sections: Sequence[Section]) -> list[np.ndarray]:
        """For each block, the share of every product [pieces, outputs]. Raises StepFileError."""
        stages, addresses = worker.stages(self)
        spans = [(section.start, section.stop) for section in sections]
        ranges = self.vectors.ranges(spans, addresses)
        if self.vectors.remote:
            self.vectors.bring([table for table, _ in ranges], worker.staging)
        try:
            shares = stages.run(
                [Filling(self._segments(each), *some) for each, some in zip(sections, ranges, strict=True)]
            )
        except Unread as unread:
            path = self.vectors.path(*spans[unread.block], unread.number)
            if unread.error == NOT_REGULAR:
                raise unreadable(path, NotRegularError(path)) from unread
            if unread.error:
                raise unreadable(path, OSError(unread.error, os.strerror(unread.error))) from unread
            raise early_end(path, unread.missing) from unread
        with self._lock:
            self.reader.bytes_read += sum(self.vectors.bytes_of(table) for table, _ in ranges)
        return shares

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
