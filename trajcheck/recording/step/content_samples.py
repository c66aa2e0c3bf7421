"""Some elements of every tensor, read after one step and again before the next: what changed though nobody wrote to it.

Small tensors are read whole, and of a large one a few elements that lie together, at every step. Besides, a part of the
large tensors is gone through in such steps that every row of a matrix is met, and every column: of an ordinary model
all of them at every step, of a small one with many tensors, for which that would be slow, some at a time in turn.
Reading takes one kernel a device and dtype, and waits for no device; in the processor's memory sums.c does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from trajcheck.recording.model.content_prints import ROUNDING, Difference
from trajcheck.recording.model.sample_places import flat, step_and_count
from trajcheck.recording.model.shards import local
from trajcheck.recording.sums.addresses import WIDTHS, Places
from trajcheck.recording.sums.compiled import compiled

#: Tensors with at most so many elements are read whole; of a larger one so many, its last.
WHOLE, FEW = 1024, 16
#: So many large tensors are gone through in one step, or one for so many elements of all, whichever is more.
AT_LEAST, ELEMENTS = 4, 1 << 16
#: Going through one begins at so many different elements, in turn.
STARTS = 8
_GOLDEN = (math.sqrt(5) - 1) / 2

Sample = list[Tensor]  # one a kind


class _Reading(NamedTuple):
    """`number` elements of a tensor, `step` apart in memory, from `start` on."""

    name: str
    start: int
    step: int
    number: int


class ContentSamples:
    """Samples of tensors by name: `next()` reads at new places, `again()` at those of the last `next()`.

    Both read where the tensors lay at the last `look()`, and keep that memory alive until `look_away()`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        kinds: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if local(tensor).numel():
                kinds.setdefault((tensor.device, tensor.dtype), {})[name] = tensor
        self._kinds = [_Kind(found) for found in kinds.values()]
        self.whole = {name for kind in self._kinds for name in kind.whole}

    def next(self) -> Sample:
        return [kind.next() for kind in self._kinds]

    def again(self) -> Sample:
        return [kind.read() for kind in self._kinds]

    def unchanged(self, before: Sample) -> bool:
        """Whether `again()` is known to give this sample of the last `next()`, without a reading."""
        return all(kind.unchanged(old) for kind, old in zip(self._kinds, before, strict=True))

    @torch.no_grad()
    def look(self) -> list[str]:
        """Where they lie now; the names of those that cannot be compared with what they were at first, in another dtype
        or of another size: then nothing can be read."""
        return [name for kind in self._kinds for name in kind.look()]

    def look_away(self) -> None:
        for kind in self._kinds:
            kind.look_away()

    @torch.no_grad()
    def differ(self, before: Sample, now: Sample) -> Difference | None:
        """What is different by more than rounding, as it is found on the devices later on; None: surely nothing is."""
        pairs = list(zip(self._kinds, before, now, strict=True))
        if all(_surely_equal(old, new) for _, old, new in pairs):
            return None
        return Difference([kind.moved(old, new) for kind, old, new in pairs], [kind.names for kind, _, _ in pairs])


class _Kind:
    """Tensors on one device and of one dtype."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.names, self._tensors = list(tensors), tensors
        self._device = tensors[self.names[0]].device
        self._sizes = [(tensor.dtype, local(tensor).numel()) for tensor in tensors.values()]
        self.whole = {name for name, (_, size) in zip(self.names, self._sizes, strict=True) if size <= WHOLE}
        self._fixed = [_fixed(name, size) for name, (_, size) in zip(self.names, self._sizes, strict=True)]
        large = [name for name in tensors if name not in self.whole]
        at_once = max(AT_LEAST, sum(local(tensors[name]).numel() for name in large) // ELEMENTS)
        self._groups = [large[first : first + at_once] for first in range(0, len(large), at_once)] or [[]]
        self._steps = {name: step_and_count(local(tensors[name])) for name in large}
        self._turn = -1
        self._group = 0
        self._scattered: list[_Reading] = []
        self._now: list[Tensor] = []
        self._places: Places | None = None  # of all that is read now, where sums.c reads it
        self._made: dict[tuple[int, int], tuple[list[_Reading], list[Tensor], Places | None]] = {}  # by group and turn
        self._owners: dict[int, Tensor] = {}  # of each element of a sample its tensor's place, by group

    def look(self) -> list[str]:
        now = [(tensor.dtype, local(tensor).numel()) for tensor in self._tensors.values()]
        if now != self._sizes:
            return [name for name, size, known in zip(self.names, now, self._sizes, strict=True) if size != known]
        # A view stays true while the tensor's address does; what is no view is made anew at every reading.
        self._flat = {name: flat(tensor) for name, tensor in self._tensors.items()}
        self._views = all(view is not None for view in self._flat.values())
        self._apart = {tensor.device for tensor in self._tensors.values()} != {self._device}
        self._always = [self._read(reading) for reading in self._fixed]
        self._now = [self._read(reading) for reading in self._scattered]
        self._places = self._places_now()
        self._made = {}
        return []

    def _places_now(self) -> Places | None:
        here = self._device.type == "cpu" and self._views and not self._apart and compiled() is not None
        views = [*self._always, *self._now]
        return Places(views) if here and views[0].element_size() in WIDTHS else None

    def look_away(self) -> None:
        self._flat, self._always, self._now, self._places, self._made = {}, [], [], None, {}

    def next(self) -> Tensor:
        self._turn += 1
        visit, self._group = divmod(self._turn, len(self._groups))
        made = self._made.get((self._group, visit % STARTS))
        if made is None:
            share = visit % STARTS * _GOLDEN % 1.0
            steps = [(name, *self._steps[name]) for name in self._groups[self._group]]
            readings = [_Reading(name, int(share * step), step, count) for name, step, count in steps]
            self._scattered, self._now = readings, [self._read(each) for each in readings]
            made = self._made[self._group, visit % STARTS] = self._scattered, self._now, self._places_now()
        self._scattered, self._now, self._places = made
        return self.read()

    def unchanged(self, before: Tensor) -> bool:
        library = compiled()
        return library is not None and self._places is not None and library.gathered(self._places, before)

    def read(self) -> Tensor:
        library = compiled()
        if library is not None and self._places is not None:
            found = torch.empty(self._places.number, dtype=self._always[0].dtype)
            library.gather(self._places, found)
            return found
        if not self._views:
            self._always = [self._read(reading) for reading in self._fixed]
            self._now = [self._read(reading) for reading in self._scattered]
        if self._apart:
            return torch.cat([part.to(self._device) for part in self._always + self._now])
        # Apart from those that lie scattered, in whose company the others would be copied one by one, too.
        together = torch.cat(self._always)
        return torch.cat([together, torch.cat(self._now)]) if self._now else together

    def moved(self, before: Tensor, now: Tensor) -> Tensor:
        """Of each tensor, whether its elements differ by more than rounding of the largest."""
        owners = self._owners_of_elements(now.device)
        eps = torch.finfo(before.dtype).eps
        limit = ROUNDING * eps if eps < 1e-5 else 2 * eps
        working = torch.float64 if before.dtype is torch.float64 else torch.float32
        old, new = before.to(now.device, working), now.to(working)
        finite, still = old.isfinite(), new.isfinite()
        change = torch.where(finite & still, (new - old).abs(), torch.where(finite == still, 0.0, torch.inf))

        def largest(values: Tensor) -> Tensor:
            return values.new_zeros(len(self.names)).scatter_reduce_(0, owners, values, "amax")

        return largest(change) > limit * largest(torch.where(finite, old.abs(), 0.0))

    def _owners_of_elements(self, device: torch.device) -> Tensor:
        known = self._owners.get(self._group)
        if known is None or known.device != device:
            places = {name: place for place, name in enumerate(self.names)}
            readings = [*self._fixed, *self._scattered]
            each = torch.tensor([places[reading.name] for reading in readings])
            known = each.repeat_interleave(torch.tensor([reading.number for reading in readings])).to(device)
            self._owners[self._group] = known
        return known

    def _read(self, reading: _Reading) -> Tensor:
        held = self._flat[reading.name]
        if held is None:
            held = local(self._tensors[reading.name].detach()).reshape(-1)
        return held.as_strided((reading.number,), (reading.step,), held.storage_offset() + reading.start)


def _fixed(name: str, size: int) -> _Reading:
    """What is read of a tensor at every step: its last elements, as what is scattered may end before its last row."""
    return _Reading(name, 0, 1, size) if size <= WHOLE else _Reading(name, size - FEW, 1, FEW)


def _surely_equal(before: Tensor, now: Tensor) -> bool:
    """Whether they are known to be equal without waiting for a device."""
    return before.device.type == now.device.type == "cpu" and torch.equal(before, now)
