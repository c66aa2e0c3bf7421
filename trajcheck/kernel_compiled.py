"""kernel.c as it was built: the pass's inner loop, called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trajcheck.kernel_data import TYPES, Filling, Stage, Unread

#: The version of kernel.c's interface.
_VERSION = 9


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
        ("direct", ctypes.c_int64),
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


class Library:
    """kernel.c as it was built. ctypes releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of kernel.c")
        self.run, self.memory = library.trajcheck_run, library.trajcheck_memory
        number, size = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)
        self.run.argtypes = (ctypes.POINTER(_BlockArguments), ctypes.c_int64, ctypes.c_int32, size, number, size)
        self.run.restype = ctypes.c_int64
        self.memory.argtypes, self.memory.restype = (ctypes.c_int64, ctypes.c_int64), ctypes.c_int64
        self.level = int(library.trajcheck_level())


class BoundStages:
    """Stages as kernel.c wants them."""

    def __init__(self, library: Library, stages: Sequence[Stage]) -> None:
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
                code, len(program.code), vectors, types, divisors, made, len(program.made), program.direct
            )

    def run(self, fillings: Sequence[Filling], outs: Sequence[np.ndarray]) -> None:
        """`Stages.run`, adding to each of `outs`."""
        programs, memory = ctypes.addressof(self._programs), _address(self._memory)
        blocks = (_BlockArguments * len(fillings))()
        for number, ((segments, ranges, reads), out) in enumerate(zip(fillings, outs, strict=True)):
            blocks[number] = _BlockArguments(
                programs,
                len(self._programs),
                _address(reads),
                _address(ranges),
                _address(segments.borders),
                len(segments.decay),
                _address(segments.decay),
                memory,
                _address(out),
                out.shape[1],
            )
        place, error, missing = ctypes.c_int64(), ctypes.c_int32(), ctypes.c_int64()
        done = self._library.run(
            blocks, len(blocks), self._library.level, ctypes.byref(place), ctypes.byref(error), ctypes.byref(missing)
        )
        if done < len(blocks):
            raise Unread(int(done), place.value, error.value, missing.value)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])  # quicker than array.ctypes.data
