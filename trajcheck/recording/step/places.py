"""Where tensors lie and how often they were written: what the processor knows of a change without reading a value.

A change in place raises a tensor's version, unless it is made through `.data`; `p.data = ...` puts it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

import torch

from trajcheck.recording.model.content_prints import Print
from trajcheck.recording.model.shards import is_sharded, local

_version = attrgetter("_version")
_address = torch.Tensor.data_ptr


class Place(NamedTuple):
    """Of each tensor, in order."""

    addresses: list[int]
    versions: list[int]

    def different(self, other: Place, names: Iterable[str]) -> list[str]:
        """The names of the tensors, given in order, that lie elsewhere or were written in between."""
        mine, others = zip(*self, strict=True), zip(*other, strict=True)
        return [name for name, here, there in zip(names, mine, others, strict=True) if here != there]


class Seen(NamedTuple):
    """How tensors were at one moment; a print of all content, where that is wanted."""

    place: Place
    print: Print | None


class Places:
    """Of the same tensors again and again, many times a second."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list(tensors)
        self._sharded = any(map(is_sharded, self._tensors))

    def now(self) -> Place:
        held = map(local, self._tensors) if self._sharded else self._tensors
        return Place(list(map(_address, held)), list(map(_version, self._tensors)))
