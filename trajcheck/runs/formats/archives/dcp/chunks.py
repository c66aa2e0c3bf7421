"""The chunks of a tensor of torch.distributed.checkpoint as one extent.

Each chunk is a box of the tensor, and lies as a file of torch.save within a file of the checkpoint.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from itertools import product

from trajcheck.errors import StepFileError
from trajcheck.files.extents import ITEM_SIZE, Extent, Part
from trajcheck.files.pickles.tensors import MOST_PARTS
from trajcheck.runs.formats.archives.dcp.items import Items
from trajcheck.runs.formats.archives.dcp.metadata import NAME, Chunk, ListedTensor


class Chunked(Mapping[str, Extent]):
    """Tensors by name, each found in its files when it is asked for. Raises StepFileError there."""

    def __init__(self, folder: str, tensors: Mapping[str, ListedTensor], items: Items) -> None:
        self._folder, self._tensors, self._items = folder, tensors, items
        self._known: dict[str, Extent] = {}

    def __getitem__(self, name: str) -> Extent:
        if name not in self._known:
            self._known[name] = _extent(self._folder, name, self._tensors[name], self._items)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _extent(folder: str, name: str, listed: ListedTensor, items: Items) -> Extent:
    path = os.path.join(folder, NAME)
    if listed.dtype not in ITEM_SIZE:
        raise StepFileError(f"{path}: tensor {name!r:.200} has dtype {listed.dtype}, which is not read.")
    size = ITEM_SIZE[listed.dtype]
    pieces = [(chunk, _stored(folder, name, listed, chunk, items)) for chunk in listed.chunks if math.prod(chunk.sizes)]
    parts = [part for chunk, stored in pieces for part in _parts(path, name, listed, chunk, stored, size)]
    parts.sort()
    position = 0
    for part in parts:
        if part.begin != position:
            what = "is in no chunk" if part.begin > position else "is in two chunks"
            element = min(position, part.begin) // size
            raise StepFileError(
                f"{path}: tensor {name!r:.200} of shape {list(listed.shape)}: element {element:,} {what}."
            )
        position = part.end
    if position != math.prod(listed.shape) * size:
        raise StepFileError(
            f"{path}: tensor {name!r:.200} of shape {list(listed.shape)}: element {position // size:,} is in no chunk."
        )
    if not parts:
        return Extent(path, 0, 0, listed.dtype, listed.shape)
    first = parts[0]
    return Extent(
        first.path, first.offset, position, listed.dtype, listed.shape, tuple(parts) if len(parts) > 1 else ()
    )


def _stored(folder: str, name: str, listed: ListedTensor, chunk: Chunk, items: Items) -> Extent:
    """Where the numbers of a chunk lie, which must be what .metadata says. Raises StepFileError."""
    found = items.tensor((name, chunk.offsets), folder, chunk.item, name)
    if (found.dtype, found.shape) != (listed.dtype, chunk.sizes):
        raise StepFileError(
            f"{found.path}: holds at byte {chunk.item.offset:,} a tensor {found.dtype} of shape {list(found.shape)}, "
            f"where a chunk of {name!r:.200} is expected, {listed.dtype} of shape {list(chunk.sizes)}."
        )
    return found


def _parts(path: str, name: str, listed: ListedTensor, chunk: Chunk, stored: Extent, size: int) -> Iterator[Part]:
    """A box as ranges of the flat tensor."""
    shape, offsets, sizes = listed.shape, chunk.offsets, chunk.sizes
    outer = len(shape)  # of the leading dimensions, over which ranges are repeated
    while outer and sizes[outer:] == shape[outer:]:
        outer -= 1
    count = math.prod(sizes[:outer])
    if count > MOST_PARTS or stored.parts:
        raise StepFileError(
            f"{path}: tensor {name!r:.200} of shape {list(shape)} is cut into chunks of shape {list(sizes)}, which are "
            f"more than {MOST_PARTS:,} ranges of its elements; expected it cut along its first dimensions."
        )
    strides = [math.prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    length = math.prod(sizes[outer:]) * size
    base = sum(o * s for o, s in zip(offsets, strides, strict=True))
    for number, index in enumerate(product(*map(range, sizes[:outer]))):
        begin = (base + sum(i * s for i, s in zip(index, strides, strict=False))) * size
        yield Part(begin, begin + length, stored.path, stored.offset + number * length)
