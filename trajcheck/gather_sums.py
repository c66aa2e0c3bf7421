"""What the blocks of a chunk add up to (gather.py), as rows of scalars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trajcheck.extent_reader import Piece
from trajcheck.program import Program, Values
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars


def empty_row(row: Row, rows: Rows, references: Sequence[Reference]) -> RowScalars:
    """A row before anything is known; a step that only supports a row has nothing towards references."""
    towards = references if row.place in rows.places else ()
    return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in towards])


def empty_like(scalars: RowScalars) -> RowScalars:
    """A row of the same step and as many references before anything is known."""
    step = scalars.own.step
    return RowScalars(StepScalars(step), [ReferenceScalars(step) for _ in scalars.references])


class ChunkSums:
    """What the blocks of a chunk add up to: in all, and tensor by tensor where some row of a program asks for it."""

    def __init__(self, programs: Sequence[Program], apart: Sequence[bool]) -> None:
        """`apart`: of each row, whether its tensors are kept apart."""
        each = iter(apart)
        self._apart = [[next(each) for _ in program.rows] for program in programs]
        self._programs = programs
        self._whole = [np.zeros(program.outputs) for program in programs]
        self._tensors: list[dict[str, np.ndarray]] = [{} for _ in programs]

    def add(self, pieces: Sequence[Piece], shares: Sequence[np.ndarray]) -> None:
        """Add one block's share [pieces, outputs] of each program."""
        for whole, tensors, apart, share in zip(self._whole, self._tensors, self._apart, shares, strict=True):
            whole += share.sum(axis=0)
            for piece, part in zip(pieces, share, strict=True) if any(apart) else ():
                if piece.name in tensors:
                    tensors[piece.name] += part
                else:
                    tensors[piece.name] = part.copy()

    def give(self, rows: Sequence[RowScalars]) -> None:
        """Set the sums in the rows, which are those of the programs in order."""
        remaining = iter(rows)
        for program, whole, tensors, apart in zip(self._programs, self._whole, self._tensors, self._apart, strict=True):
            mine = [next(remaining) for _ in program.rows]
            for scalars, found in zip(mine, program.values(whole.tolist()), strict=True):
                _set_products(scalars, found)
            for name, sums in tensors.items():
                for scalars, found, wanted in zip(mine, program.values(sums.tolist()), apart, strict=True):
                    if wanted:
                        scalars.tensors[name] = empty_like(scalars)
                        _set_products(scalars.tensors[name], found)


def _set_products(scalars: RowScalars, found: tuple[Values, list[Values]]) -> None:
    own, towards = found
    for target, values in zip(scalars.all, [own, *towards], strict=True):
        for name, value in values.items():
            setattr(target, name, value)
