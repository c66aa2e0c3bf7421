"""Tensors within the flat vectors that ZeRO's ranks hold, as extents.

Stages 1 and 2 lay the parameters of a group one after the other and cut the whole into a piece a rank. Stage 3 cuts
each parameter into a piece a rank, of ceil(numel / ranks) elements, and every rank lays its pieces one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from trajcheck.files.extents import ITEM_SIZE, Extent, Part

Shapes = Mapping[str, tuple[int, ...]]


class Flat:
    """Vectors of one dtype, laid one after the other. Raises ValueError where they are not that."""

    def __init__(self, pieces: Sequence[Extent]) -> None:
        if not pieces or any(len(each.shape) != 1 or each.dtype != pieces[0].dtype for each in pieces):
            raise ValueError("the shards are not flat vectors of one dtype")
        self.pieces, self.dtype = pieces, pieces[0].dtype
        self._ends = list(accumulate(each.numel for each in pieces))

    @property
    def numel(self) -> int:
        return self._ends[-1]

    def ranges(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """Elements [start, stop) as (file, byte, number of elements). Raises ValueError beyond the end."""
        if stop > self.numel:
            raise ValueError(f"the shards hold {self.numel:,} elements; expected {stop:,} at least")
        size = ITEM_SIZE[self.dtype]
        for piece, end in zip(self.pieces, self._ends, strict=True):
            begin = end - piece.numel
            low, high = max(start, begin), min(stop, end)
            if low < high:
                yield piece.path, piece.offset + (low - begin) * size, high - low


def in_groups(
    groups: Sequence[Flat], shapes: Sequence[Shapes], ranks: int, paddings: Sequence[Sequence[int]] | None
) -> dict[str, Extent]:
    """Stages 1 and 2: `groups` are the vectors of the parameter groups, all ranks' pieces in order, `paddings` elements
    after each parameter that are nobody's. Raises ValueError."""
    if len(groups) != len(shapes):
        raise ValueError(f"the shards hold {len(groups)} parameter groups, and shapes are given of {len(shapes)}")
    found = {}
    for number, (flat, named) in enumerate(zip(groups, shapes, strict=True)):
        position = 0
        extra = paddings[number] if paddings else [0] * len(named)
        if len(extra) != len(named):
            raise ValueError("paddings are given of another number of parameters")
        for (name, shape), padding in zip(named.items(), extra, strict=True):
            numel = math.prod(shape)
            found[name] = _extent(shape, flat.dtype, flat.ranges(position, position + numel))
            position += numel + padding
        _used(position, flat.numel, 2 * ranks)
    return found


def in_each(ranks: Sequence[Flat], shapes: Shapes) -> dict[str, Extent]:
    """Stage 3: `ranks` are the vectors of the ranks. Raises ValueError."""
    found, position = {}, 0
    for name, shape in shapes.items():
        numel = math.prod(shape)
        share = -(-numel // len(ranks))
        pieces = (
            place
            for rank, flat in enumerate(ranks)
            for place in flat.ranges(position, position + max(0, min(share, numel - rank * share)))
        )
        found[name] = _extent(shape, ranks[0].dtype, pieces)
        position += share
    for flat in ranks:
        _used(position, flat.numel, 2 * len(ranks))
    return found


def joined(pieces: Sequence[Extent], shape: tuple[int, ...]) -> Extent:
    """One tensor that every rank holds a piece of, and its padding. Raises ValueError."""
    flat = Flat(pieces)
    return _extent(shape, flat.dtype, flat.ranges(0, math.prod(shape)))


def _used(position: int, numel: int, align: int) -> None:
    """All of a vector belongs to parameters, up to padding."""
    if not position <= numel < position + max(align, 1) + 1:
        raise ValueError(f"the shards hold {numel:,} elements where the shapes make {position:,}")


def _extent(shape: tuple[int, ...], dtype: str, ranges: Iterator[tuple[str, int, int]]) -> Extent:
    size, position = ITEM_SIZE[dtype], 0
    parts: list[Part] = []
    for path, offset, count in ranges:
        parts.append(Part(position, position + count * size, path, offset))
        position += count * size
    if not parts:
        return Extent("", 0, 0, dtype, shape)
    several = tuple(parts) if len(parts) > 1 else ()
    return Extent(parts[0].path, parts[0].offset, position, dtype, shape, several)
