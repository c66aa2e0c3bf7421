"""The inner loop of the streaming pass: fills blocks of vectors from files, and runs programs (program.py) over them.

Two ways to the same numbers (to 1e-12): `kernel.c`, built with the package where there is a C compiler, and numpy,
which is always there. The environment variable TRAJCHECK_KERNEL=numpy chooses the latter.
"""

from __future__ import annotations

import importlib.machinery
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from trajcheck.inner_products.blocks import Filling, Parts, Segments, Stage
from trajcheck.inner_products.loop_compiled import BoundStages, Library
from trajcheck.inner_products.loop_numpy import interpret, read_range
from trajcheck.inner_products.program import Program

_LEVELS = ("compiled", "compiled, AVX2", "compiled, AVX-512")


def run_parts(program: Program, parts: Parts) -> np.ndarray:
    """The products of a program over parts of vectors in memory [parts, outputs]. Whoever calls keeps that memory."""
    library = _library()
    out = np.zeros((len(parts.lengths), program.outputs))
    if library is not None:
        library.run_parts(program, parts, out)
        return out
    for part, (length, decay) in enumerate(zip(parts.lengths.tolist(), parts.decay.tolist(), strict=True)):
        interpret(program, parts.blocks(part), Segments.of([0, length], [[decay]]), out[part : part + 1])
    return out


class Stages:
    """Programs that were written together, to run over a block one after the other, each after the reads that fill what
    it needs."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._outputs = stages[0].program.outputs
        library = _library()
        self._bound = None if library is None else BoundStages(library, stages)

    def run(self, fillings: Sequence[Filling]) -> list[np.ndarray]:
        """The products of all programs [segments, outputs] over each block. Raises Unread. Not for two threads at a
        time."""
        outs = [np.zeros((each.segments.count, self._outputs)) for each in fillings]
        if self._bound is not None:
            self._bound.run(fillings, outs)
            return outs
        for place, ((segments, ranges, reads), out) in enumerate(zip(fillings, outs, strict=True)):
            done = 0
            for (program, blocks), count in zip(self._stages, reads.tolist(), strict=True):
                for number in range(done, done + count):
                    read_range(place, number, ranges[number])
                interpret(program, blocks, segments, out)
                done += count
        return outs


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


@cache
def _library() -> Library | None:
    if os.environ.get("TRAJCHECK_KERNEL") == "numpy":
        return None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernel{suffix}")
        if path.exists():
            try:
                return Library(path)
            except (OSError, AttributeError):  # built for another machine, or another version's
                return None
    return None
