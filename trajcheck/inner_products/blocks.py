"""What the pass's inner loop (loop.py) works on: blocks of vectors in memory, and ranges of files that fill them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trajcheck.inner_products.program import Program

#: `range` of kernel.c: a range of a file and where it goes, as it stands there or widened to float64. `file` is a
#: descriptor, or -1 where the file of that path is to be opened for this range alone; addresses are numbers.
RANGE = np.dtype(
    [(name, np.int64) for name in ("file", "path", "offset", "count", "to", "type", "as")],
)

#: Codes of kernel.c by safetensors' names, and numpy's types for the same bytes.
TYPES = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
NUMPY = {name: np.dtype(code) for name, code in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"))}


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
        kind = NUMPY[self.dtype]
        out[:] = widened(self.memory.raw[start * kind.itemsize : stop * kind.itemsize].view(kind), self.dtype)
        if self.divisor != 1.0:
            out /= self.divisor
        return out


def widened(values: np.ndarray, dtype: str) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


@dataclass(frozen=True)
class Segments:
    """Where tensors begin in a block: `borders` [n + 1] from 0 to its length; `decay` [levels, n], the weight decay of
    each, at each of the levels that programs name."""

    borders: np.ndarray
    decay: np.ndarray

    @property
    def count(self) -> int:
        return len(self.borders) - 1

    @classmethod
    def of(cls, borders: Sequence[int], decay: Sequence[Sequence[float]]) -> Segments:
        return cls(np.array(borders, dtype=np.int64), np.array(decay, dtype=np.float64))


class Filling(NamedTuple):
    """One block: what it is made of, the ranges of files that fill its vectors (RANGE), and how many of these are read
    before each program [programs]."""

    segments: Segments
    ranges: np.ndarray
    reads: np.ndarray


class Stage(NamedTuple):
    """A program, and a block of each of its vectors."""

    program: Program
    blocks: Sequence[Block]


class Parts(NamedTuple):
    """Parts of vectors in memory: where each begins `addresses` [parts, vectors], its type by number `types` [parts,
    vectors], what each vector is divided by `divisors` [vectors], how many elements a part has `lengths` [parts], and
    its weight decay `decay` [parts]."""

    addresses: np.ndarray
    types: np.ndarray
    divisors: np.ndarray
    lengths: np.ndarray
    decay: np.ndarray

    def some(self, start: int, stop: int) -> Parts:
        """Parts [start, stop)."""
        addresses, types, divisors, lengths, decay = self
        here = slice(start, stop)
        return Parts(addresses[here], types[here], divisors, lengths[here], decay[here])

    def blocks(self, part: int) -> list[Block]:
        """The vectors of one part."""
        dtypes, length, found = list(TYPES), int(self.lengths[part]), []
        rows = zip(self.addresses[part].tolist(), self.types[part].tolist(), self.divisors.tolist(), strict=True)
        for address, kind, divisor in rows:
            raw = (ctypes.c_char * (length * NUMPY[dtypes[kind]].itemsize)).from_address(address)
            found.append(
                Block(Memory(np.ctypeslib.as_array(raw).view(np.uint8), address), dtypes[kind], length, divisor)
            )
        return found


#: In the place of an errno: what is to be read is a pipe, a device or a folder.
NOT_REGULAR = -1


class Unread(Exception):
    """Range `number` of a block could not be read: `missing` bytes of it, for the reason `error`, an errno or
    NOT_REGULAR (0: the file ended)."""

    def __init__(self, block: int, number: int, error: int, missing: int) -> None:
        super().__init__(block, number, error, missing)
        self.block, self.number, self.error, self.missing = block, number, error, missing
