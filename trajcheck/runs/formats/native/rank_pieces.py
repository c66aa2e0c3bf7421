"""Tensors whose pieces lie in the files of several ranks, as extents.

A piece is a whole tensor, or the box of one that begins at `offset` (one number a dimension) in a tensor of `shape`;
in the tensor laid out flat it must be one range of elements. Together the pieces of a tensor are the whole tensor, each
element once. Nothing is merged: an extent names the ranges of the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from trajcheck.files.extents import ITEM_SIZE, Extent, Extents, Part, Spec
from trajcheck.runs.formats.native.rank_boxes import Box


class RankPieces(Mapping[str, Extent]):
    """Lazy view of the tensors of a section, whose pieces lie in the files of several ranks."""

    __slots__ = ("_sources", "_table")

    def __init__(self, section: str, sources: Sequence[Extents], boxes: Sequence[Mapping[str, Box]]) -> None:
        """`sources`: what each rank's file holds; `boxes`: where that belongs, by name in the file, unless whole.

        Raises ValueError, naming the tensor, where the pieces do not make whole tensors.
        """
        self._sources = sources
        layouts = [_Layout(*source.layout, box) for source, box in zip(sources, boxes, strict=True)]
        self._table = _table(section, tuple(layouts))

    def __getitem__(self, name: str) -> Extent:
        shape, places = self._table[name]
        found = [(place, self._sources[place.rank][name]) for place in places]
        (_, extent), *others = found
        if not others:
            return extent._replace(shape=shape)
        parts = tuple(Part(place.begin, place.begin + e.length, e.path, e.offset) for place, e in found)
        return Extent(extent.path, extent.offset, parts[-1].end, extent.dtype, shape, parts)

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class _Place(NamedTuple):
    """Bytes [begin, end) of a tensor are in the file of a rank."""

    begin: int
    end: int
    rank: int


class _Layout(NamedTuple):
    """What the file of a rank says of a section; the same objects for all steps that were written alike."""

    specs: Mapping[str, Spec]
    names: Mapping[str, str]
    boxes: Mapping[str, Box]

    def __hash__(self) -> int:
        return hash(tuple(map(id, self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Layout) and all(a is b for a, b in zip(self, other, strict=True))


@lru_cache(maxsize=64)
def _table(section: str, layouts: tuple[_Layout, ...]) -> dict[str, tuple[tuple[int, ...], list[_Place]]]:
    """{name: (shape, where its pieces begin)}: the same for all steps that were written alike. Raises ValueError."""
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    places: dict[str, list[_Place]] = {}
    for rank, layout in enumerate(layouts):
        for name, stored in layout.names.items():
            spec = layout.specs[stored]
            box = layout.boxes.get(stored, Box((0,) * len(spec.shape), spec.shape))
            begin = _start(stored, spec.shape, box, rank) * ITEM_SIZE[spec.dtype]
            known = kinds.setdefault(name, (spec.dtype, box.shape))
            if known != (spec.dtype, box.shape):
                raise ValueError(
                    f"tensor {section}/{name} is {spec.dtype} of shape {list(box.shape)} for rank {rank}, and "
                    f"{known[0]} of shape {list(known[1])} for a rank before it"
                )
            places.setdefault(name, []).append(_Place(begin, begin + spec.end - spec.begin, rank))
    return {
        name: (kinds[name][1], _in_order(f"{section}/{name}", *kinds[name], found)) for name, found in places.items()
    }


def _start(name: str, held: tuple[int, ...], box: Box, rank: int) -> int:
    """The element of the flat tensor at which a piece of shape `held` begins. Raises ValueError."""
    offset, shape = box
    inside = len(offset) == len(shape) == len(held) and all(
        start + length <= whole for start, length, whole in zip(offset, held, shape, strict=True)
    )
    if not inside:
        raise ValueError(
            f"tensor {name} of rank {rank} is a piece of shape {list(held)} from {list(offset)} on, which does not lie "
            f"in a tensor of shape {list(shape)}"
        )
    cut = next((i for i, length in enumerate(held) if length != 1), len(held))
    if math.prod(held) and held[cut + 1 :] != shape[cut + 1 :]:
        raise ValueError(
            f"tensor {name} of rank {rank} is a piece of shape {list(held)} of a tensor of shape {list(shape)}, not "
            "one range of its elements; expected it cut along the first dimension"
        )
    start = 0
    for place, length in zip(offset, shape, strict=True):
        start = start * length + place
    return start


def _in_order(name: str, dtype: str, shape: tuple[int, ...], found: list[_Place]) -> list[_Place]:
    """The pieces in order; every element must be in one of them, and in no other. Raises ValueError."""
    item, position, before = ITEM_SIZE[dtype], 0, -1
    filled = sorted(place for place in found if place.end > place.begin) or found[:1]
    for place in filled:
        if place.begin < position:
            raise ValueError(
                f"tensor {name} of shape {list(shape)}: its element {place.begin // item:,} is in the files of rank "
                f"{before} and of rank {place.rank}; expected it once"
            )
        if place.begin > position:
            break
        position, before = place.end, place.rank
    if position != math.prod(shape) * item:
        raise ValueError(f"tensor {name} of shape {list(shape)}: its element {position // item:,} is in no rank's file")
    return filled
