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
from pathlib import Path

import numpy as np

from trajcheck.program import DOT, WIDEN, Program

#: Codes of kernel.c by safetensors' names, and numpy's types for the same bytes.
_TYPES = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
_NUMPY = {name: np.dtype(code) for name, code in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"))}
_LEVELS = ("compiled", "compiled, AVX2", "compiled, AVX-512")

#: Slots of kernel.c, and the version of its interface.
SLOTS, _VERSION = 256, 3

#: Partial sums of kernel.c for each product.
_PARTIAL = 4

#: Elements at a time for numpy: some ten slots of these stay in a processor's second cache.
TILE = 16384


@dataclass(frozen=True)
class Block:
    """Some elements of a vector as they stand in the file, all of one dtype; the vector is `raw` / `divisor`."""

    raw: np.ndarray  # bytes
    dtype: str
    divisor: float = 1.0

    def widen(self, start: int, stop: int, out: np.ndarray) -> np.ndarray:
        """Elements [start, stop) into `out`, in float64; exact but for the division."""
        values = self.raw.view(_NUMPY[self.dtype])[start:stop]
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        out[:] = values
        if self.divisor != 1.0:
            out /= self.divisor
        return out

    @property
    def wide(self) -> np.ndarray:
        """All elements in float64."""
        return self.widen(0, self.length, np.empty(self.length))

    def part(self, start: int, stop: int) -> Block:
        """Elements [start, stop) of the block."""
        size = _NUMPY[self.dtype].itemsize
        return Block(self.raw[start * size : stop * size], self.dtype, self.divisor)

    @property
    def length(self) -> int:
        return self.raw.nbytes // _NUMPY[self.dtype].itemsize


def run(program: Program, blocks: Sequence[Block]) -> list[float]:
    """The products of a program over blocks of its vectors, in the order of their numbers; all of one length."""
    if not program.outputs:
        return []
    library = _library()
    if library is None or program.slots > SLOTS:
        return _interpret(program, blocks)
    return library.run(program, blocks)


def description() -> str:
    """Which inner loop is in use, for --version."""
    library = _library()
    return "numpy" if library is None else _LEVELS[library.level]


def _interpret(program: Program, blocks: Sequence[Block]) -> list[float]:
    """What kernel.c does, by numpy."""
    out = np.zeros(program.outputs)
    length = blocks[0].length
    memory = np.empty((program.slots, min(TILE, length)))
    code = program.code.tolist()
    for start in range(0, length, TILE):
        stop = min(start + TILE, length)
        slots = list(memory[:, : stop - start])
        for what, to, a, b in code:
            if what == DOT:
                out[to] += np.dot(slots[a], slots[b])
            elif what == WIDEN:
                blocks[a].widen(start, stop, slots[to])
            else:
                np.subtract(slots[a], slots[b], out=slots[to])
    return out.tolist()


class _Arguments(ctypes.Structure):
    """`block` of kernel.c."""

    _fields_ = (
        ("program", ctypes.c_void_p),
        ("instructions", ctypes.c_int64),
        ("vectors", ctypes.c_void_p),
        ("types", ctypes.c_void_p),
        ("divisors", ctypes.c_void_p),
        ("length", ctypes.c_int64),
        ("out", ctypes.c_void_p),
    )


class _Library:
    """kernel.c as it was built. ctypes releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of kernel.c")
        self._run = library.trajcheck_run
        self._run.argtypes, self._run.restype = (ctypes.POINTER(_Arguments), ctypes.c_int32), None
        self.level = int(library.trajcheck_level())

    def run(self, program: Program, blocks: Sequence[Block]) -> list[float]:
        """The products over some blocks."""
        out = np.zeros((program.outputs, _PARTIAL))
        addresses = np.array([block.raw.ctypes.data for block in blocks], dtype=np.uintp)
        types = np.array([_TYPES[block.dtype] for block in blocks], dtype=np.int32)
        divisors = np.array([block.divisor for block in blocks])
        arguments = _Arguments(
            program.code.ctypes.data,
            len(program.code),
            addresses.ctypes.data,
            types.ctypes.data,
            divisors.ctypes.data,
            blocks[0].length,
            out.ctypes.data,
        )
        self._run(ctypes.byref(arguments), self.level)
        return out.sum(axis=1).tolist()


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
