"""kernel.c as it was built: the pass's inner loop, called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trajcheck.inner_products.blocks import TYPES, Filling, Parts, Stage, Unread
from trajcheck.inner_products.program import Program

#: The version of kernel.c's interface.
_VERSION = 12


#: `program` and `block` of kernel.c: numbers and addresses, of 8 bytes each.
_PROGRAM = np.dtype(
    [(name, np.int64) for name in ("code", "words", "vectors", "types", "divisors", "made", "products", "direct")]
)
_BLOCK = np.dtype(
    [
        (name, np.int64)
        for name in ["programs", "count", "reads", "ranges", "borders", "segments", "decay", "memory", "out", "outputs"]
    ]
)


class Library:
    """kernel.c as it was built. ctypes releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of kernel.c")
        self._run, self._memory = library.trajcheck_run, library.trajcheck_memory
        number, size = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, size, number, size)
        self._run.restype = ctypes.c_int64
        self._memory.argtypes, self._memory.restype = (ctypes.c_int64, ctypes.c_int64), ctypes.c_int64
        self.level = int(library.trajcheck_level())

    def memory(self, programs: Sequence[Program]) -> np.ndarray:
        """What some programs work in."""
        slots = max((program.slots for program in programs), default=0)
        return np.empty(self._memory(slots, max((len(program.made) for program in programs), default=0)))

    def run(self, blocks: np.ndarray) -> None:
        """Run the programs of some blocks (_BLOCK). Raises Unread."""
        place, error, missing = ctypes.c_int64(), ctypes.c_int32(), ctypes.c_int64()
        references = ctypes.byref(place), ctypes.byref(error), ctypes.byref(missing)
        done = self._run(_address(blocks), len(blocks), self.level, *references)
        if done < len(blocks):
            raise Unread(int(done), place.value, error.value, missing.value)

    def run_parts(self, program: Program, parts: Parts, out: np.ndarray) -> None:
        """`kernel.run_parts`, adding to `out`."""
        count = len(parts.lengths)
        programs, blocks, each = np.zeros(count, _PROGRAM), np.zeros(count, _BLOCK), np.arange(count)
        memory, reads = self.memory([program]), np.zeros(1, np.int64)
        borders = np.stack([np.zeros_like(parts.lengths), parts.lengths], axis=1)
        for name, value in _of_program(program).items():
            programs[name] = value
        programs["vectors"] = _address(parts.addresses) + parts.addresses.strides[0] * each
        programs["types"] = _address(parts.types) + parts.types.strides[0] * each
        programs["divisors"] = _address(parts.divisors)
        blocks["programs"], blocks["count"] = _address(programs) + _PROGRAM.itemsize * each, 1
        blocks["reads"], blocks["memory"] = _address(reads), _address(memory)
        blocks["borders"], blocks["segments"] = _address(borders) + borders.strides[0] * each, 1
        blocks["decay"] = _address(parts.decay) + parts.decay.strides[0] * each
        blocks["out"], blocks["outputs"] = _address(out) + out.strides[0] * each, out.shape[1]
        self.run(blocks)


class BoundStages:
    """Stages as kernel.c wants them."""

    def __init__(self, library: Library, stages: Sequence[Stage]) -> None:
        self._library = library
        self._programs = np.zeros(len(stages), _PROGRAM)
        self._memory = library.memory([stage.program for stage in stages])
        self._kept: list[np.ndarray] = []  # what kernel.c has the addresses of
        for place, (program, blocks) in enumerate(stages):
            arrays = (
                np.array([block.memory.address for block in blocks], dtype=np.uintp),
                np.array([TYPES[block.dtype] for block in blocks], dtype=np.int32),
                np.array([block.divisor for block in blocks], dtype=np.float64),
            )
            self._kept += arrays
            vectors, types, divisors = (_address(array) for array in arrays)
            known = {**_of_program(program), "vectors": vectors, "types": types, "divisors": divisors}
            self._programs[place] = tuple(known[name] for name in _PROGRAM.names or ())

    def run(self, fillings: Sequence[Filling], outs: Sequence[np.ndarray]) -> None:
        """`Stages.run`, adding to each of `outs`."""
        programs, count, memory = _address(self._programs), len(self._programs), _address(self._memory)
        blocks = np.zeros(len(fillings), _BLOCK)
        for place, ((segments, ranges, reads), out) in enumerate(zip(fillings, outs, strict=True)):
            borders, decay = _address(segments.borders), _address(segments.decay)
            files = _address(reads), _address(ranges)
            sums = memory, _address(out), out.shape[1]
            blocks[place] = (programs, count, *files, borders, segments.count, decay, *sums)
        self._library.run(blocks)


def _of_program(program: Program) -> dict[str, int]:
    """What a program has by itself."""
    return {
        "code": _address(program.code),
        "words": len(program.code),
        "made": _address(program.made),
        "products": len(program.made),
        "direct": program.direct,
    }


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])  # quicker than array.ctypes.data
