"""Reading extents: positioned reads into reused buffers, widened to float64; ranges of remote files are fetched."""

from __future__ import annotations

import os
import resource
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.extents import ITEM_SIZE, ZEROS, Extent
from trajcheck.files.opening import open_regular
from trajcheck.files.remote.address import is_remote
from trajcheck.files.remote.file import remote_file

if TYPE_CHECKING:
    import numpy as np

#: Elements per block: 1 MB as float64, so that the handful of vectors a row needs stay in cache.
BLOCK = 131072

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class BlockPiece(NamedTuple):
    """Elements [start, stop) of one tensor, at `offset` in its block."""

    name: str
    start: int
    stop: int
    offset: int


def blocks(numels: Mapping[str, int], size: int = BLOCK) -> list[list[BlockPiece]]:
    """Cut all tensors, in order, into blocks of `size` elements; the borders depend on the shapes alone."""
    result: list[list[BlockPiece]] = [[]]
    filled = 0
    for name, numel in numels.items():
        start = 0
        while start < numel:
            if filled == size:
                result.append([])
                filled = 0
            stop = min(numel, start + size - filled)
            result[-1].append(BlockPiece(name, start, stop, filled))
            filled += stop - start
            start = stop
    return [block for block in result if block]


def length_of(pieces: Sequence[BlockPiece]) -> int:
    """Elements of a block."""
    return pieces[-1].offset + pieces[-1].stop - pieces[-1].start


def most_open() -> int:
    """How many files all readers keep open together: half of what the system allows a process, and no more than
    1024."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if allowed == resource.RLIM_INFINITY else min(1024, allowed // 2)


class _Held:
    """How many files the readers of this process hold open."""

    def __init__(self) -> None:
        self._count, self._lock = 0, Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count

    @property
    def full(self) -> bool:
        return self._count >= most_open()


_held = _Held()


@cache
def _zeros() -> int:
    """A descriptor of `ZEROS`, which this process keeps."""
    return os.open(ZEROS, os.O_RDONLY | os.O_CLOEXEC)


class ExtentReader:
    """Reads ranges of extents; keeps up to `capacity` files open, and one at least whatever other readers hold."""

    def __init__(self, capacity: int = 200) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._capacity = capacity
        self._buffer = bytearray()
        self._lock = Lock()
        self.bytes_read = 0

    def __enter__(self) -> ExtentReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def share(self, path: str) -> int:
        """A descriptor for several threads, open until this reader is closed; -1 where `capacity` are open already, and
        for a remote file.
        Not to be mixed with the reading below, which closes what was not used for long. Raises StepFileError."""
        if is_remote(path):
            return -1
        with self._lock:
            return self._descriptor(path) if path in self._open or path == ZEROS or not self._full else -1

    def wide_block(self, tensors: Mapping[str, Extent], pieces: list[BlockPiece], out: np.ndarray) -> np.ndarray:
        """Fill `out` (float64) with a block of the flat vector of `tensors`; returns the part that was filled."""
        for piece in pieces:
            self.widen(tensors[piece.name], piece.start, out[piece.offset : piece.offset + piece.stop - piece.start])
        return out[: length_of(pieces)]

    def widen(self, extent: Extent, start: int, out: np.ndarray) -> None:
        """Elements [start, start + len(out)) of a floating tensor into `out`, a float64 array; exact."""
        import numpy as np  # here, so that formats are recognised without it

        size = ITEM_SIZE[extent.dtype]
        raw = np.frombuffer(self.raw(extent, start * size, len(out) * size), _NUMPY[extent.dtype])
        if extent.dtype == "BF16":
            out[:] = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            out[:] = raw

    def raw(self, extent: Extent, start: int, length: int) -> memoryview:
        """Bytes [start, start + length) of an extent; valid until the next read. Raises StepFileError."""
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view = memoryview(self._buffer)[:length]
        self.into(extent, start, view)
        return view

    def into(self, extent: Extent, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes of an extent from `start` on. Raises StepFileError on a short read."""
        if not extent.parts:
            self.range(extent.path, extent.offset + start, view)
            return
        stop = start + len(view)
        for part in extent.parts[bisect_right(extent.parts, start, key=attrgetter("end")) :]:
            if part.begin >= stop:
                break
            low, high = max(part.begin, start), min(part.end, stop)
            self.range(part.path, part.offset + low - part.begin, view[low - start : high - start])

    def range(self, path: str, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes of a file from `offset` on. Raises StepFileError on a short read."""
        try:
            remote = remote_file(path)
        except OSError as error:
            raise unreadable(path, error) from error
        if remote is not None:
            data = remote.read(offset, len(view))
            if len(data) < len(view):
                raise early_end(path, len(view) - len(data))
            view[:] = data
            self.bytes_read += len(view)
            return
        descriptor = self._descriptor(path)
        done = 0
        while done < len(view):
            try:
                count = read_at(descriptor, view[done:], offset + done)
            except OSError as error:
                raise unreadable(path, error) from error
            if count == 0:
                raise early_end(path, len(view) - done)
            done += count
        self.bytes_read += len(view)

    def _descriptor(self, path: str) -> int:
        if path == ZEROS:
            return _zeros()
        if path in self._open:
            self._open.move_to_end(path)
        else:
            while self._open and self._full:
                self._close_oldest()
            try:
                self._open[path] = open_regular(path)
            except OSError as error:
                raise unreadable(path, error) from error
            _held.add(1)
        return self._open[path]

    @property
    def _full(self) -> bool:
        return len(self._open) >= self._capacity or _held.full

    def _close_oldest(self) -> None:
        os.close(self._open.popitem(last=False)[1])
        _held.add(-1)


def unreadable(path: str, error: OSError) -> StepFileError:
    """The error for a file that the system does not give."""
    return StepFileError(f"{path}: cannot be read: {error.strerror}.")


def early_end(path: str, missing: int) -> StepFileError:
    """The error for a file that is shorter than it was."""
    return StepFileError(
        f"{path}: ended {missing:,} bytes early while it was being read. "
        "Was it changed or truncated during the analysis?"
    )


if hasattr(os, "preadv"):

    def read_at(descriptor: int, view: memoryview, offset: int) -> int:
        """Read bytes of a file from `offset` on; how many, 0 at its end."""
        return os.preadv(descriptor, [view], offset)

else:  # older macOS

    def read_at(descriptor: int, view: memoryview, offset: int) -> int:
        """Read bytes of a file from `offset` on; how many, 0 at its end."""
        data = os.pread(descriptor, len(view), offset)
        view[: len(data)] = data
        return len(data)
