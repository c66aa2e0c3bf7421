"""What the blocks of a chunk add up to (gather.py), as rows of scalars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trajcheck.program import Places, Program
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars


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


class TensorSums(Mapping[str, RowScalars]):
    """The shares of single tensors in the products of a row, which are made to rows when somebody looks at them."""

    def __init__(
        self, step: int, tensors: Sequence[str], parts: np.ndarray, own: Places, towards: Sequence[Places]
    ) -> None:
        """`parts` [tensors, outputs]: sums; the other places are those of the row's products."""
        self._step, self._numbers = step, {name: number for number, name in enumerate(tensors)}
        self._parts, self._own, self._towards = parts, own, towards

    def __getitem__(self, tensor: str) -> RowScalars:
        sums = self._parts[self._numbers[tensor]]

        def values(places: Places) -> dict[str, Any]:
            return dict(zip(places, sums[list(places.values())].tolist(), strict=True))

        references = [ReferenceScalars(self._step, **values(places)) for places in self._towards]
        return RowScalars(StepScalars(self._step, **values(self._own)), references)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def values_of(self, number: int | None, fields: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        """By tensor, some fields of the step's own (None) or towards one of the references."""
        places = self._own if number is None else self._towards[number]
        known = [name for name in fields if name in places]
        rows = self._parts[:, [places[name] for name in known]].tolist()
        if len(known) < len(fields):
            at = [known.index(name) if name in places else -1 for name in fields]
            rows = [[None if place < 0 else row[place] for place in at] for row in rows]
        return dict(zip(self._numbers, map(tuple, rows), strict=True))
