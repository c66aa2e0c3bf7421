"""The inner loop of the streaming pass: fills blocks of vectors from files, and runs programs (program.py) over them.

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

from trajcheck.program import NOWHERE, Cross, Differ, Program, Regularise, Step

#: `range` of kernel.c: a range of a file and where it goes, as it stands there or widened to float64. `file` is a
#: descriptor, or -1 where the file of that path is to be opened for this range alone; addresses are numbers.
RANGE = np.dtype(
    [(name, np.int64) for name in ("file", "path", "offset", "count", "to", "type", "as")],
)

#: Codes of kernel.c by safetensors' names, and numpy's types for the same bytes.
TYPES = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
_NUMPY = {name: np.dtype(code) for name, code in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"))}
_SIZES = np.array([kind.itemsize for kind in _NUMPY.values()])
_LEVELS = ("compiled", "compiled, AVX2", "compiled, AVX-512")

#: The version of kernel.c's interface.
_VERSION = 6

#: Elements at a time for numpy: some ten slots of these stay in a processor's caches.
TILE = 8192


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
        out[:] = _widened(self.memory.raw[start * kind.itemsize : stop * kind.itemsize].view(kind), self.dtype)
        if self.divisor != 1.0:
            out /= self.divisor
        return out


def _widened(values: np.ndarray, dtype: str) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


@dataclass(frozen=True)
class Segments:
    """Where tensors begin in a block: `borders` [n + 1] from 0 to its length; `decay` [n], the weight decay of each."""

    borders: np.ndarray
    decay: np.ndarray

    @classmethod
    def of(cls, borders: Sequence[int], decay: Sequence[float]) -> Segments:
        return cls(np.array(borders, dtype=np.int64), np.array(decay, dtype=np.float64))


def bytes_of(ranges: np.ndarray) -> int:
    """How many bytes some ranges (RANGE) have in their files."""
    return int(ranges["count"] @ _SIZES[ranges["type"]])


class Stage(NamedTuple):
    """A program, and a block of each of its vectors."""

    program: Program
    blocks: Sequence[Block]


class Unread(Exception):
    """Range `number` could not be read: `missing` bytes of it, for the reason `error`, an errno (0: the file ended)."""

    def __init__(self, number: int, error: int, missing: int) -> None:
        super().__init__(number, error, missing)
        self.number, self.error, self.missing = number, error, missing


def run(program: Program, blocks: Sequence[Block], segments: Segments) -> np.ndarray:
    """The products of a program over blocks of its vectors [segments, outputs], all blocks of one length."""
    return Stages([Stage(program, blocks)]).run(segments, np.empty(0, RANGE), [0])


class Stages:
    """Programs that were written together, to run over a block one after the other, each after the reads that fill what
    it needs."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._outputs = stages[0].program.outputs
        library = _library()
        self._bound = None if library is None else _Bound(library, stages)

    def run(self, segments: Segments, ranges: np.ndarray, reads: Sequence[int]) -> np.ndarray:
        """The products of all programs [segments, outputs]. `reads` [stages]: how many of `ranges` (RANGE) come before
        each. Raises Unread. Not for two threads at a time."""
        out = np.zeros((len(segments.decay), self._outputs))
        if self._bound is not None:
            self._bound.run(segments, ranges, np.array(reads, dtype=np.int64), out)
            return out
        done = 0
        for (program, blocks), count in zip(self._stages, reads, strict=True):
            for number in range(done, done + count):
                _read(number, ranges[number])
            _interpret(program, blocks, segments, out)
            done += count
        return out


def compiled() -> bool:
    """Whether kernel.c is in use; otherwise numpy is."""
    return _library() is not None


def choose_again() -> None:
    """Look once more which inner loop there is: TRAJCHECK_KERNEL was changed."""
    _library.cache_clear()


def description() -> str:
    """Which inner loop is in use, for --version."""
    library = _library()
    return "numpy" if library is None else _LEVELS[library.level]


def _read(number: int, wanted: np.void) -> None:
    """What kernel.c does, with Python's calls."""
    kinds = list(_NUMPY.values())
    kind, count = kinds[wanted["type"]], int(wanted["count"])
    same = wanted["type"] == wanted["as"]
    into = (ctypes.c_char * (count * kinds[wanted["as"]].itemsize)).from_address(int(wanted["to"]))
    raw = memoryview(into).cast("B") if same else memoryview(bytearray(count * kind.itemsize))
    done, file = 0, int(wanted["file"])
    try:
        if file < 0:
            file = os.open(ctypes.string_at(int(wanted["path"])), os.O_RDONLY)
        while done < len(raw):
            got = read_at(file, raw[done:], int(wanted["offset"]) + done)
            if not got:
                raise Unread(number, 0, len(raw) - done)
            done += got
    except OSError as error:
        raise Unread(number, error.errno or 0, len(raw) - done) from error
    finally:
        if wanted["file"] < 0 <= file:
            os.close(file)
    if not same:
        np.frombuffer(into, np.float64)[:] = _widened(np.frombuffer(raw, kind), list(_NUMPY)[wanted["type"]])


def _interpret(program: Program, blocks: Sequence[Block], segments: Segments, sums: np.ndarray) -> None:
    """What kernel.c does, by numpy; adds to `sums` [segments, outputs]."""
    if not program.outputs:
        return
    borders = segments.borders.tolist()
    longest = max(stop - start for start, stop in pairwise(borders))
    memory = np.empty((program.slots + 3, min(TILE, longest)))  # the last ones for what is not kept
    for segment, (start, stop) in enumerate(pairwise(borders)):
        out = np.zeros(program.outputs + 1)  # the last for what nobody asked for: NOWHERE is -1
        for begin in range(start, stop, TILE):
            end = min(begin + TILE, stop)
            _interpret_tile(program, blocks, memory[:, : end - begin], begin, end, segments.decay[segment], out)
        sums[segment] += out[:-1]


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
        elif isinstance(each, Regularise):
            found = np.multiply(slots[each.b], decay, out=slots[each.to])
            found += slots[each.a]
            if each.square != NOWHERE:
                out[each.square] += dot(found, found)
        elif isinstance(each, Step):
            following, gradient = (
                slots[~source] if source < 0 else blocks[source].widen(begin, end, slots[to])
                for source, to in ((each.next, each.to), (each.gradient, each.to_gradient))
            )
            x, reference, spare, other = slots[each.x], slots[each.reference], slots[-2], slots[-3]
            found = [dot(following, following), dot(gradient, gradient)]
            next_error = np.subtract(following, reference, out=spare)
            found += [dot(next_error, next_error), dot(gradient, next_error), dot(gradient, x)]
            to_next, error = np.subtract(following, x, out=spare), np.subtract(x, reference, out=other)
            found += [dot(to_next, to_next), dot(gradient, to_next), dot(gradient, error), dot(to_next, error)]
            step = np.subtract(x, slots[each.before], out=other)
            found += [dot(gradient, step), dot(to_next, step)]
            from_first = np.subtract(x, slots[each.first], out=other)
            found.append(dot(from_first, from_first))
            for number, value in zip(each.outputs, found, strict=True):
                out[number] += value
        else:
            x, following, gradient = slots[each.x], slots[each.next], slots[each.gradient]
            to_next, spare, found = np.subtract(following, x, out=slots[-2]), slots[-3], []
            for reference in each.references:
                next_error = np.subtract(following, slots[reference], out=spare)
                found += [dot(next_error, next_error), dot(gradient, next_error)]
                error = np.subtract(x, slots[reference], out=spare)
                found += [dot(gradient, error), dot(to_next, error)]
            for number, value in zip(each.outputs, found, strict=True):
                out[number] += value


class _ProgramArguments(ctypes.Structure):
    """`program` of kernel.c."""

    _fields_ = (
        ("code", ctypes.c_void_p),
        ("words", ctypes.c_int64),
        ("vectors", ctypes.c_void_p),
        ("types", ctypes.c_void_p),
        ("divisors", ctypes.c_void_p),
        ("made", ctypes.c_void_p),
        ("products", ctypes.c_int64),
    )


class _BlockArguments(ctypes.Structure):
    """`block` of kernel.c."""

    _fields_ = (
        ("programs", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("reads", ctypes.c_void_p),
        ("ranges", ctypes.c_void_p),
        ("borders", ctypes.c_void_p),
        ("segments", ctypes.c_int64),
        ("decay", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
    )


class _Library:
    """kernel.c as it was built. ctypes releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of kernel.c")
        self.run, self.memory = library.trajcheck_run, library.trajcheck_memory
        number, size = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)
        self.run.argtypes = (ctypes.POINTER(_BlockArguments), ctypes.c_int32, number, size)
        self.run.restype = ctypes.c_int64
        self.memory.argtypes, self.memory.restype = (ctypes.c_int64, ctypes.c_int64), ctypes.c_int64
        self.level = int(library.trajcheck_level())


class _Bound:
    """Stages as kernel.c wants them."""

    def __init__(self, library: _Library, stages: Sequence[Stage]) -> None:
        self._library = library
        self._programs = (_ProgramArguments * len(stages))()
        slots = max((stage.program.slots for stage in stages), default=0)
        products = max((len(stage.program.made) for stage in stages), default=0)
        self._memory = np.empty(library.memory(slots, products))
        self._kept: list[np.ndarray] = []  # what kernel.c has the addresses of
        for place, (program, blocks) in enumerate(stages):
            arrays = (
                program.code,
                np.array([block.memory.address for block in blocks], dtype=np.uintp),
                np.array([TYPES[block.dtype] for block in blocks], dtype=np.int32),
                np.array([block.divisor for block in blocks], dtype=np.float64),
                program.made,
            )
            self._kept += arrays
            code, vectors, types, divisors, made = map(_address, arrays)
            self._programs[place] = _ProgramArguments(
                code, len(program.code), vectors, types, divisors, made, len(program.made)
            )

    def run(self, segments: Segments, ranges: np.ndarray, reads: np.ndarray, out: np.ndarray) -> None:
        """`Stages.run`, adding to `out`."""
        arguments = _BlockArguments(
            ctypes.addressof(self._programs),
            len(self._programs),
            _address(reads),
            _address(ranges),
            _address(segments.borders),
            len(segments.decay),
            _address(segments.decay),
            _address(self._memory),
            _address(out),
            out.shape[1],
        )
        error, missing = ctypes.c_int32(), ctypes.c_int64()
        library = self._library
        done = library.run(ctypes.byref(arguments), library.level, ctypes.byref(error), ctypes.byref(missing))
        if done < len(ranges):
            raise Unread(int(done), error.value, missing.value)


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


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
