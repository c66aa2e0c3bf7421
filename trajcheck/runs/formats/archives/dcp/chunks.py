"""The chunks of a tensor of torch.distributed.checkpoint as one extent.

Each chunk is a box of the tensor, and lies as a file of torch.save within a file of the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product

from trajcheck.errors import StepFileError
from trajcheck.files.extents import ITEM_SIZE, Extent, Part
from trajcheck.files.pickles.tensors import MOST_PARTS, StoredTensor
from trajcheck.files.pickles.torch_file import read_torch_file
from trajcheck.runs.formats.archives.dcp.metadata import Chunk, ListedTensor


class Chunked(Mapping[str, Extent]):
    """Tensors by name, each found in its files when it is asked for. Raises StepFileError there."""

    def __init__(self, path: str, tensors: Mapping[str, ListedTensor]) -> None:
        self._path, self._tensors = path, tensors
        self._known: dict[str, Extent] = {}

    def __getitem__(self, name: str) -> Extent:
        if name not in self._known:
            self._known[name] = _extent(self._path, name, self._tensors[name])
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _extent(path: str, name: str, listed: ListedTensor) -> Extent:
    if listed.dtype not in ITEM_SIZE:
        raise StepFileError(f"{path}: tensor {name!r:.200} has dtype {listed.dtype}, which is not read.")
    size = ITEM_SIZE[listed.dtype]
    pieces = [(chunk, _stored(name, listed, chunk)) for chunk in listed.chunks if math.prod(chunk.sizes)]
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


def _stored(name: str, listed: ListedTensor, chunk: Chunk) -> Extent:
    """Where the numbers of a chunk lie, which must be what .metadata says. Raises StepFileError."""
    path, offset, length = chunk.item
    found = read_torch_file(path, offset, length).value
    if not isinstance(found, StoredTensor):
        raise StepFileError(f"{path}: holds at byte {offset:,} no tensor, where a chunk of {name!r:.200} is expected.")
    if (found.code, found.shape) != (listed.dtype, chunk.sizes):
        raise StepFileError(
            f"{path}: holds at byte {offset:,} a tensor {found.code} of shape {list(found.shape)}, where a chunk of "
            f"{name!r:.200} is expected, {listed.dtype} of shape {list(chunk.sizes)}."
        )
    return found.extent(name)


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
