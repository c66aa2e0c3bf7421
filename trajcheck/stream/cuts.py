"""How flat vectors are cut (row_pass.py): into pieces, each summed by itself, and into blocks of pieces, each read at
once.

The pieces depend on the tensors' shapes alone. So do the sums, to the last bit: they are added piece by piece, whatever
the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

#: Elements of a piece at the most.
PIECE = 16384

#: TensorPieces of a block at the most: each has sums of its own.
MOST_PIECES = 128


class Section(NamedTuple):
    """A block: elements [start, stop) of the flat vector. Its pieces begin at `borders` [n + 1], counted from `start`;
    `tensors` [n] are the numbers of the tensors that they lie in."""

    start: int
    stop: int
    borders: np.ndarray
    tensors: np.ndarray

    @property
    def length(self) -> int:
        return self.stop - self.start


class TensorPieces(NamedTuple):
    """Pieces of tensors that follow one another: `borders` [n + 1], elements from the first tensor's first; `tensors`
    [n], the number of the tensor that each lies in."""

    borders: np.ndarray
    tensors: np.ndarray

    @classmethod
    def of(cls, numels: Mapping[str, int], size: int = PIECE) -> TensorPieces:
        """Cut tensors of so many elements, none of them empty, into pieces of `size` elements at the most."""
        ends = np.cumsum([0, *numels.values()], dtype=np.int64)
        borders = np.union1d(ends, np.arange(0, ends[-1], size))
        tensors = np.searchsorted(ends, borders[:-1], side="right") - 1
        return cls(borders, tensors)

    def sections(self, length: int) -> list[Section]:
        """Blocks of whole pieces, as many as have at most `length` elements in all, and one at least."""
        found = []
        first, pieces = 0, len(self.tensors)
        while first < pieces:
            fitting = int(np.searchsorted(self.borders, self.borders[first] + length, side="right")) - 1
            last = min(max(first + 1, fitting), first + MOST_PIECES)
            borders = self.borders[first : last + 1]
            start, stop = int(borders[0]), int(borders[-1])
            found.append(Section(start, stop, borders - start, self.tensors[first:last]))
            first = last
        return found
