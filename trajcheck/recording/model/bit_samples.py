"""Some bits of every tensor, read again and again at the same places: what a change of all of it, or of much, shows.

Small tensors are read whole, as many as come to `WHOLE` bytes together; of a larger one `FEW` elements of different
rows and columns. More would not pay: elements that lie apart take so long to read that all of them, which lie together,
can be read every few times instead. Reading takes one kernel a device and dtype. Nothing is kept of the tensors but
numbers, so that their memory can be given up in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from trajcheck.recording.model.bit_prints import INTEGERS
from trajcheck.recording.model.sample_places import flat, row_of

#: Bytes that are read of tensors as a whole, the smallest first; and elements of each larger one.
WHOLE, FEW = 1 << 16, 16

Sample = list[Tensor]  # one a kind


class _Part(NamedTuple):
    """`number` elements of a tensor, `step` apart in memory, from its element `start` on."""

    name: str
    start: int
    step: int
    number: int


class BitSamples:
    """Of tensors by name, as long as they are on these devices, and of these dtypes, shapes and strides.

    `whole` are those that are read as a whole, `unreadable` those of which nothing is read, as their elements lie apart
    or are out of reach.
    """

    @torch.no_grad()
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.whole: set[str] = set()
        self.unreadable: set[str] = set()
        self._kinds: dict[tuple[torch.device, torch.dtype], list[_Part]] = {}
        read = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].numel() * item[1].element_size()):
            if not _readable(tensor):
                self.unreadable.add(name)
                continue
            parts, size = self._kinds.setdefault((tensor.device, tensor.dtype), []), tensor.numel()
            read += size * tensor.element_size()
            if read <= WHOLE:
                self.whole.add(name)
                parts.append(_Part(name, 0, 1, size))
            else:
                parts.append(_few(name, tensor))

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> Sample:
        return [_bits(torch.cat([_of(tensors[part.name], part) for part in parts])) for parts in self._kinds.values()]

    @torch.no_grad()
    def differing(self, before: Sample, now: Sample) -> set[str]:
        """The names of those that differ; waits for their devices."""
        found: set[str] = set()
        for parts, old, new in zip(self._kinds.values(), before, now, strict=True):
            if torch.equal(old, new):
                continue
            words = old.numel() // sum(part.number for part in parts)  # of each element
            lengths = torch.tensor([words * part.number for part in parts])
            owners = torch.arange(len(parts)).repeat_interleave(lengths)
            found |= {parts[place].name for place in owners[(old != new).cpu()].unique().tolist()}
        return found


def _few(name: str, tensor: Tensor) -> _Part:
    """The last element, and others before it: in steps that have no factor in common with a row, so of all columns."""
    size, row = tensor.numel(), row_of(tensor)
    number = min(FEW, size)
    step = max(size // number, 1)
    while step > 1 and math.gcd(step, row) > 1:
        step -= 1
    return _Part(name, size - 1 - (number - 1) * step, step, number)


def _readable(tensor: Tensor) -> bool:
    if tensor.dtype is torch.complex32:  # torch warns of most that is done with it
        return False
    try:
        few = _of(tensor, _Part("", 0, 1, min(tensor.numel(), FEW)))
        return flat(tensor) is not None and _bits(torch.cat([few, few])).dim() == 1
    except (RuntimeError, NotImplementedError):  # a class of its own
        return False


def _of(tensor: Tensor, part: _Part) -> Tensor:
    return tensor.as_strided((part.number,), (part.step,), tensor.storage_offset() + part.start)


def _bits(elements: Tensor) -> Tensor:
    """As integers."""
    return elements.view(INTEGERS[min(elements.element_size(), 8)])
