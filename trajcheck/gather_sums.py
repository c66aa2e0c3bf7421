"""What the blocks of a chunk add up to (gather.py), as rows of scalars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from trajcheck.program import Places, Program
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars

S = TypeVar("S")


def empty_row(row: Row, rows: Rows, references: Sequence[Reference]) -> RowScalars:
    """A row before anything is known; a step that only supports a row has nothing towards references."""
    towards = references if row.place in rows.places else ()
    return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in towards])


class ChunkSums:
    """What the blocks of a chunk add up to: in all, and tensor by tensor for the rows that ask for it. Piece after
    piece is added, so that nothing depends on the blocks."""

    def __init__(self, programs: Sequence[Program], apart: Sequence[bool], tensors: Sequence[str]) -> None:
        """`apart`: of each row, whether its tensors are kept apart. `tensors`: those that hold numbers, in order."""
        each = iter(apart)
        self._programs, self._tensors = programs, tensors
        self._apart = [[next(each) for _ in program.rows] for program in programs]
        self._whole = np.zeros(programs[0].outputs)
        self._parts = np.zeros((len(tensors), len(self._whole))) if any(apart) else None

    def add(self, tensors: np.ndarray, share: np.ndarray) -> None:
        """Add one block's share: all products of each of its pieces [pieces, outputs], which lie in `tensors`."""
        for tensor, piece in zip(tensors.tolist(), share, strict=True):
            self._whole += piece
            if self._parts is not None:
                self._parts[tensor] += piece

    def give(self, rows: Sequence[RowScalars]) -> None:
        """Set the sums in the rows, which are those of the programs in order."""
        each = iter(rows)
        for program, apart in zip(self._programs, self._apart, strict=True):
            for (own, towards), wanted in zip(program.rows, apart, strict=True):
                scalars = next(each)
                for target, places in zip(scalars.all, [own, *towards], strict=True):
                    for name, value in zip(places, self._whole[list(places.values())].tolist(), strict=True):
                        setattr(target, name, value)
                if wanted and self._parts is not None:
                    step = scalars.own.step
                    owns = _filled(StepScalars, step, own, self._parts)
                    others = [_filled(ReferenceScalars, step, places, self._parts) for places in towards]
                    for name, mine, *theirs in zip(self._tensors, owns, *others, strict=True):
                        scalars.tensors[name] = RowScalars(mine, theirs)


def _filled(kind: Callable[..., S], step: int, places: Places, parts: np.ndarray) -> list[S]:
    """The products of each tensor."""
    names = list(places)
    return [kind(step, **dict(zip(names, values, strict=True))) for values in parts[:, list(places.values())].tolist()]
