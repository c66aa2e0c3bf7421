"""Where a chunk's vectors lie (chunk.py): in the files, and block by block in a thread's memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence

import numpy as np

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import ITEM_SIZE
from trajcheck.files.remote.address import is_remote
from trajcheck.files.remote.staging import Staging
from trajcheck.inner_products.blocks import RANGE, TYPES
from trajcheck.inner_products.program import Key
from trajcheck.stream.flat_vector import FlatVector, Range

#: Bytes from the end of a buffer to where the next begins at the least; and where buffers begin.
_APART, _ALIGNED = 64, 64

_SIZES = np.array([ITEM_SIZE[dtype] for dtype in TYPES])


class ChunkVectors:
    """The vectors that a chunk's programs need, program after program.

    A vector is read before the first program that needs it and stays in its buffer until the next one does not: then
    another takes the buffer. `buffers`: for each program those of its vectors. `begins` [buffers]: where each begins in
    memory of `size` bytes.
    """

    def __init__(self, programs: Sequence[Sequence[Key]], flat: Mapping[Key, FlatVector], reader: ExtentReader) -> None:
        """`programs`: the vectors of each. `reader` opens the files, and keeps them open as far as it may."""
        self.flat, self._reader = flat, reader
        self.buffers: list[list[int]] = []
        self._reads: list[list[tuple[Key, int]]] = []  # by program: what is read beforehand, and the buffer
        widths: list[int] = []
        held: dict[Key, int] = {}
        for program, following in zip(programs, [*programs[1:], []], strict=True):
            free = sorted(set(range(len(widths))) - set(held.values()), reverse=True)
            new = []
            for key in program:
                if key not in held:
                    if not free:
                        free.append(len(widths))
                        widths.append(0)
                    held[key] = free.pop()
                    widths[held[key]] = max(widths[held[key]], ITEM_SIZE[flat[key].dtype])
                    new.append((key, held[key]))
            self._reads.append(new)
            self.buffers.append([held[key] for key in program])
            held = {key: held[key] for key in held.keys() & set(following)}
        self._widths = widths
        self._paths: dict[str, ctypes.c_char_p] = {}
        #: Files that are not on this machine, by the addresses (in memory) of their paths: a range of one is brought
        #: here first.
        self.remote: dict[int, str] = {}
        self._counts = np.array([len(reads) for reads in self._reads], dtype=np.int64)
        self._table = self._simple_table()
        #: Bytes that are read into the buffers for each element of a block.
        self.bytes_per_element = sum(ITEM_SIZE[flat[key].dtype] for reads in self._reads for key, _ in reads)

    @property
    def width(self) -> int:
        """Bytes of memory for each element of a block."""
        return max(1, sum(self._widths))

    def lay_out(self, block: int) -> None:
        """Find room for blocks of so many elements."""
        sizes = [-(-(width * block + _APART) // _ALIGNED) * _ALIGNED for width in self._widths]
        self.begins = np.cumsum([0, *sizes], dtype=np.int64)[:-1]
        self.size = sum(sizes)

    def ranges(self, spans: Sequence[tuple[int, int]], addresses: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """What fills the buffers, which begin at `addresses`, with elements [start, stop) of the vectors, one block
        after the other: ranges as loop.py wants them, and how many of them come before each program."""
        if self._table is not None:
            template, sizes, buffers = self._table
            starts, stops = np.array(spans, dtype=np.int64).T[:, :, None]
            table = np.repeat(template[None], len(spans), axis=0)
            table["offset"] += starts * sizes
            table["count"] = stops - starts
            table["to"] = addresses[buffers]
            return [(ranges, self._counts) for ranges in table]
        return [self._ranges(start, stop, addresses) for start, stop in spans]

    def bring(self, tables: Sequence[np.ndarray], staging: Staging) -> None:
        """Fetch what of some ranges lies in remote files, and let them lie where it was brought. Raises
        StepFileError."""
        if not self.remote:
            return
        whole = np.concatenate(tables)
        numbers = np.flatnonzero(np.isin(whole["path"], list(self.remote)))
        some = whole[numbers]
        lengths = some["count"] * _SIZES[some["type"]]
        wanted = zip(some["path"].tolist(), some["offset"].tolist(), lengths.tolist(), strict=True)
        whole["offset"][numbers] = staging.bring([(self.remote[path], *rest) for path, *rest in wanted])
        whole["file"][numbers] = staging.descriptor
        begin = 0
        for table in tables:
            table[:] = whole[begin : begin + len(table)]
            begin += len(table)

    def _ranges(self, start: int, stop: int, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows: list[tuple[int, ...]] = []
        counts = []
        for reads in self._reads:
            before = len(rows)
            for key, buffer in reads:
                dtype, to = self.flat[key].dtype, int(addresses[buffer])
                rows += (self._row(part, dtype, to) for part in self.flat[key].ranges(start, stop))
            counts.append(len(rows) - before)
        return np.array(rows, dtype=RANGE), np.array(counts, dtype=np.int64)

    def bytes_of(self, ranges: np.ndarray) -> int:
        """How many bytes some of `ranges` have in their files."""
        if self._table is not None:
            return int(ranges["count"][0]) * self.bytes_per_element if len(ranges) else 0
        return int(ranges["count"] @ _SIZES[ranges["type"]])

    def path(self, start: int, stop: int, number: int) -> str:
        """The file of one of `ranges`."""
        parts = (part for reads in self._reads for key, _ in reads for part in self.flat[key].ranges(start, stop))
        return [part.path for part in parts][number]

    def _simple_table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The ranges of a block that begins at element 0, with their elements' sizes and their buffers, where every
        vector lies in one run: then those of other blocks lie so many bytes further on."""
        rows, buffers = [], []
        for key, buffer in (each for reads in self._reads for each in reads):
            run = self.flat[key].whole
            if run is None:
                return None
            rows.append(self._row(Range(run.path, run.offset, 0, run.dtype, 0), run.dtype, 0))
            buffers.append(buffer)
        table = np.array(rows, dtype=RANGE)
        widths = [ITEM_SIZE[self.flat[key].dtype] for reads in self._reads for key, _ in reads]
        return table, np.array(widths, dtype=np.int64), np.array(buffers, dtype=np.int64)

    def _row(self, part: Range, dtype: str, to: int) -> tuple[int, ...]:
        """A row of RANGE."""
        if part.path not in self._paths:
            self._paths[part.path] = ctypes.c_char_p(os.fsencode(part.path))
            if is_remote(part.path):
                self.remote[ctypes.cast(self._paths[part.path], ctypes.c_void_p).value or 0] = part.path
        path = ctypes.cast(self._paths[part.path], ctypes.c_void_p).value or 0
        place = to + part.place * ITEM_SIZE[dtype]
        file = self._reader.share(part.path)
        return file, path, part.offset, part.numel, place, TYPES[part.dtype], TYPES[dtype]
