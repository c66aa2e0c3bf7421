"""The inner loop of the streaming pass: runs a program (program.py) over one block of elements.

Two ways to the same numbers (to 1e-12): `kernel.c`, built with the package where there is a C compiler, and numpy,
which is always there. The environment variable TRAJCHECK_KERNEL=numpy chooses the latter.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trajcheck.program import NOWHERE, Cross, Differ, Program

#: Codes of kernel.c by safetensors' names, and numpy's types for the same bytes.
_TYPES = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
_NUMPY = {name: np.dtype(code) for name, code in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"))}
_LEVELS = ("compiled", "compiled, AVX2", "compiled, AVX-512")

#: The version of kernel.c's interface, and its sums for each product.
_VERSION, _PARTIAL = 5, 8

#: Elements at a time for numpy: some ten slots of these stay in a processor's caches.
TILE = 8192

#: Sums that are in memory at once, where a block holds many small tensors and a program makes many products.
_MOST_SUMS = 1 << 20


class Memory(NamedTuple):
    """Bytes, and where they begin. (Asking numpy for the address again at every block takes its time.)"""

    raw: np.ndarray
    address: int

    @classmethod
    def of(cls, array: np.ndarray) -> Memory:
        return cls(array, int(array.__array_interface__["data"][0]))


class Block(NamedTuple):
    """The first `length` elements of a vector, all of one dtype; the vector is those numbers / `divisor`."""

    memory: Memory
    dtype: str
    length: int
    divisor: float = 1.0

    def widen(self, start: int, stop: int, out: np.ndarray) -> np.ndarray:
        """Elements [start, stop) into `out`, in float64; exact but for the division."""
        kind = _NUMPY[self.dtype]
        values = self.memory.raw[start * kind.itemsize : stop * kind.itemsize].view(kind)
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        out[:] = values
        if self.divisor != 1.0:
            out /= self.divisor
        return out


@dataclass(frozen=True)
class Segments:
    """Where tensors begin in a block: `borders` [n + 1] from 0 to its length; `decay` [n], the weight decay of each."""

    borders: np.ndarray
    decay: np.ndarray

    @classmethod
    def of(cls, borders: Sequence[int], decay: Sequence[float]) -> Segments:
        return cls(np.array(borders, dtype=np.int64), np.array(decay, dtype=np.float64))


def run(program: Program, blocks: Sequence[Block], segments: Segments) -> np.ndarray:
    """The products of a program over blocks of its vectors [segments, outputs], all blocks of one length."""
    count = len(segments.decay)
    if not program.outputs:
        return np.zeros((count, 0))
    library = _library()
    if library is None:
        return _interpret(program, blocks, segments)
    most = max(1, _MOST_SUMS // (program.outputs * _PARTIAL))
    parts = [
        library.run(program, blocks, Segments(segments.borders[at : at + most + 1], segments.decay[at : at + most]))
        for at in range(0, count, most)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def compiled() -> bool:
    """Whether kernel.c is in use; otherwise numpy is."""
    return _library() is not None


def description() -> str:
    """Which inner loop is in use, for --version."""
    library = _library()
    return "numpy" if library is None else _LEVELS[library.level]


def read_ranges(ranges: np.ndarray) -> tuple[int, int, int] | None:
    """Read ranges of files [n, 4], int64: descriptor, offset, bytes, address of the memory to fill.

    How many were read whole; and where one was not, its errno (0: the file ended early) and how many of its bytes are
    missing. None where there is no compiled loop: nothing was read.
    """
    library = _library()
    return None if library is None else library.read(ranges)


def _interpret(program: Program, blocks: Sequence[Block], segments: Segments) -> np.ndarray:
    """What kernel.c does, by numpy."""
    out = np.zeros((len(segments.decay), program.outputs + 1))  # the last for what nobody asked for: NOWHERE is -1
    borders = segments.borders.tolist()
    longest = max(stop - start for start, stop in pairwise(borders))
    memory = np.empty((program.slots + 1, min(TILE, longest)))  # the last one for what is not kept
    for segment, (start, stop) in enumerate(pairwise(borders)):
        for begin in range(start, stop, TILE):
            end = min(begin + TILE, stop)
            _interpret_tile(
                program, blocks, memory[:, : end - begin], begin, end, segments.decay[segment], out[segment]
            )
    return out[:, :-1]


def _interpret_tile(
    program: Program, blocks: Sequence[Block], slots: np.ndarray, begin: int, end: int, decay: float, out: np.ndarray
) -> None:
    dot = np.dot
    for each in program.instructions:
        if isinstance(each, Differ):
            value = slots[~each.source] if each.source < 0 else blocks[each.source].widen(begin, end, slots[each.to])
            if each.square != NOWHERE:
                out[each.square] += dot(value, value)
            for difference in each.differences:
                found = np.subtract(value, slots[difference.other], out=slots[difference.to])
                if difference.square != NOWHERE:
                    out[difference.square] += dot(found, found)
        elif isinstance(each, Cross):
            a = slots[~each.source] if each.source < 0 else blocks[each.source].widen(begin, end, slots[each.to])
            if each.square != NOWHERE:
                out[each.square] += dot(a, a)
            factors: list[tuple[np.ndarray, np.ndarray]] = []
            if each.common:
                b = slots[each.b]
                factors.append((a, b))
                factors += [(left, slots[value]) for value in each.common for left in (a, b)]
            factors += [(a, slots[value]) for value in each.more]
            for number, (left, right) in zip(each.outputs, factors, strict=True):
                if number != NOWHERE:
                    out[number] += dot(left, right)
        else:
            found = np.multiply(slots[each.b], decay, out=slots[each.to])
            found += slots[each.a]
            if each.square != NOWHERE:
                out[each.square] += dot(found, found)


class _Arguments(ctypes.Structure):
    """`block` of kernel.c."""

    _fields_ = (
        ("code", ctypes.c_void_p),
        ("words", ctypes.c_int64),
        ("vectors", ctypes.c_void_p),
        ("types", ctypes.c_void_p),
        ("divisors", ctypes.c_void_p),
        ("borders", ctypes.c_void_p),
        ("segments", ctypes.c_int64),
        ("decay", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
    )


class _Library:
    """kernel.c as it was built. ctypes releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of kernel.c")
        self._run, self._read, self._memory = library.trajcheck_run, library.trajcheck_read, library.trajcheck_memory
        self._run.argtypes, self._run.restype = (ctypes.POINTER(_Arguments), ctypes.c_int32), None
        self._memory.argtypes, self._memory.restype = (ctypes.c_int64,), ctypes.c_int64
        number, size = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)
        self._read.argtypes, self._read.restype = (ctypes.c_void_p, ctypes.c_int64, number, size), ctypes.c_int64
        self.level = int(library.trajcheck_level())

    def run(self, program: Program, blocks: Sequence[Block], segments: Segments) -> np.ndarray:
        """The products over some blocks, of each segment."""
        count = len(segments.decay)
        out = np.zeros((count, program.outputs, _PARTIAL))
        arrays = (
            program.code,
            np.array([block.memory.address for block in blocks], dtype=np.uintp),
            np.array([_TYPES[block.dtype] for block in blocks], dtype=np.int32),
            np.array([block.divisor for block in blocks]),
            segments.borders,
            segments.decay,
            np.empty(self._memory(program.slots)),
            out,
        )
        code, vectors, types, divisors, borders, decay, slots, sums = (Memory.of(array).address for array in arrays)
        arguments = _Arguments(
            code, len(program.code), vectors, types, divisors, borders, count, decay, slots, sums, program.outputs
        )
        self._run(ctypes.byref(arguments), self.level)
        return out.sum(axis=2)

    def read(self, ranges: np.ndarray) -> tuple[int, int, int]:
        """`read_ranges`."""
        error, missing = ctypes.c_int32(), ctypes.c_int64()
        done = self._read(Memory.of(ranges).address, len(ranges), ctypes.byref(error), ctypes.byref(missing))
        return int(done), error.value, missing.value


@cache
def _library() -> _Library | None:
    if os.environ.get("TRAJCHECK_KERNEL") == "numpy":
        return None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernel{suffix}")
        if path.exists():
            try:
                return _Library(path)
            except (OSError, AttributeError):  # built for another machine, or another version's
                return None
    return None
