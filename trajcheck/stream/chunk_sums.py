"""What the blocks of a chunk add up to (row_pass.py), as rows of scalars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trajcheck.inner_products.program import Program
from trajcheck.runs.references import Reference
from trajcheck.scalars.rows import Row, Rows
from trajcheck.scalars.values import ReferenceScalars, RowScalars, StepScalars, TensorSums


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
                    scalars.tensors = TensorSums(scalars.own.step, self._tensors, self._parts, own, towards)
