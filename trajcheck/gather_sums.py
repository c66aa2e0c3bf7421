"""What the blocks of a chunk add up to (gather.py), as rows of scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajcheck.extent_reader import Piece
from trajcheck.program import Places, Program
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars


def empty_row(row: Row, rows: Rows, references: Sequence[Reference]) -> RowScalars:
    """A row before anything is known; a step that only supports a row has nothing towards references."""
    towards = references if row.place in rows.places else ()
    return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in towards])


class ChunkSums:
    """What the blocks of a chunk add up to: in all, and tensor by tensor for the rows that ask for it.

    A share is [pieces, outputs]: the programs' products of each of a block's pieces, or of all of them together where
    no row is kept apart.
    """

    def __init__(self, programs: Sequence[Program], apart: Sequence[bool], tensors: Sequence[str]) -> None:
        """`apart`: of each row, whether its tensors are kept apart. `tensors`: those that hold numbers, in order."""
        each = iter(apart)
        self._programs, self._tensors = programs, tensors
        self._apart = [[next(each) for _ in program.rows] for program in programs]
        self._places: Mapping[str, int] = {name: place for place, name in enumerate(tensors)}
        self._whole = np.zeros(programs[0].outputs)
        self._parts = np.zeros((len(tensors), len(self._whole))) if self.apart else None

    @property
    def apart(self) -> bool:
        """Whether any row's tensors are kept apart."""
        return any(map(any, self._apart))

    def add(self, pieces: Sequence[Piece], share: np.ndarray) -> None:
        """Add one block's share."""
        self._whole += share.sum(axis=0)
        if self._parts is not None:
            first = self._places[pieces[0].name]  # a block's pieces are of tensors that follow one another
            self._parts[first : first + len(pieces)] += share

    def give(self, rows: Sequence[RowScalars]) -> None:
        """Set the sums in the rows, which are those of the programs in order."""
        each = iter(rows)
        whole = self._whole.tolist()
        parts = [] if self._parts is None else self._parts.tolist()
        for program, apart in zip(self._programs, self._apart, strict=True):
            for places, wanted in zip(program.rows, apart, strict=True):
                scalars = next(each)
                _set_products(scalars, places, whole)
                for name, sums in zip(self._tensors, parts, strict=True) if wanted else ():
                    scalars.tensors[name] = _row_of(scalars.own.step, places, sums)


def _row_of(step: int, places: tuple[Places, list[Places]], sums: Sequence[float]) -> RowScalars:
    own, towards = places
    return RowScalars(
        StepScalars(step, **_values(own, sums)), [ReferenceScalars(step, **_values(each, sums)) for each in towards]
    )


def _set_products(scalars: RowScalars, places: tuple[Places, list[Places]], sums: Sequence[float]) -> None:
    own, towards = places
    for target, numbers in zip(scalars.all, [own, *towards], strict=True):
        for name, value in _values(numbers, sums).items():
            setattr(target, name, value)


def _values(places: Places, sums: Sequence[float]) -> dict[str, Any]:
    return {name: sums[number] for name, number in places.items()}
