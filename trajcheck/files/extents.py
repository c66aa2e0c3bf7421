"""Where tensors lie in files: extents, their element types, and how wide each is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

#: Bytes per element of the dtypes that a tensor of a file may have, by safetensors' code.
ITEM_SIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "C64": 8,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

#: complex128, for which safetensors has no code: in a file, pairs of F64.
PAIRS = "C128"


#: Machine epsilon of the dtypes that parameters and gradients may have.
EPSILON = {"F64": 2.0**-52, "F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}


FLOATING = tuple(EPSILON)
COMPLEX = ("C64", PAIRS)

#: The one path of an extent that is no regular file: as many zeros as are asked for.
ZEROS = "/dev/zero"


class Part(NamedTuple):
    """Bytes [begin, end) of a tensor, from `offset` on in a file."""

    begin: int
    end: int
    path: str
    offset: int


class Extent(NamedTuple):
    """A tensor as a range of bytes in a file: little-endian, C order, contiguous.

    A tensor that is stored in several files (the shards of a sharded run) has `parts`, in order and without gaps; path
    and offset are then those of the first.
    """

    path: str
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...] = ()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def undivided(self) -> Part:
        """All of a tensor that has no parts."""
        return Part(0, self.length, self.path, self.offset)


class Spec(NamedTuple):
    """A tensor within its file: dtype, shape, and where its bytes begin and end after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Extents(Mapping[str, Extent]):
    """Lazy view of some tensors of one file, under other names.

    `names` maps the name shown to the name in the file. The tables are shared between all steps with the same
    layout, so that a run of ten thousand steps costs a few objects a step and not a few hundred.
    """

    __slots__ = ("_names", "_path", "_specs", "_start")

    def __init__(self, path: str, start: int, specs: Mapping[str, Spec], names: Mapping[str, str]) -> None:
        self._path, self._start, self._specs, self._names = path, start, specs, names

    def __getitem__(self, name: str) -> Extent:
        spec = self._specs[self._names[name]]
        return Extent(self._path, self._start + spec.begin, spec.end - spec.begin, spec.dtype, spec.shape)

    @property
    def base(self) -> tuple[str, int]:
        """The file, and where in it offsets within the layout are counted from."""
        return self._path, self._start

    @property
    def layout(self) -> tuple[Mapping[str, Spec], Mapping[str, str]]:
        """What all steps with the same layout share: the tensors within a file, and the names shown."""
        return self._specs, self._names

    def only(self, shown: Iterable[str]) -> Extents:
        """Some of them, by the names shown, in this order."""
        return Extents(self._path, self._start, self._specs, {name: self._names[name] for name in shown})

    def renamed(self, shown: Mapping[str, str]) -> Extents:
        """Some of them under other names, {new: shown here}, in this order."""
        return Extents(self._path, self._start, self._specs, {new: self._names[name] for new, name in shown.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
