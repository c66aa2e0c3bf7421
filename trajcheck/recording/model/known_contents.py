"""What frozen parameters and buffers hold, known at every record, and read wholly as often as time allows.

Reading all of them at every record would take as long as some small models train. So each look asks for four signs that
a tensor holds what it did: it is the same object, at the same address, of the same version, and a sample of its bits
(bit_samples.py) is the same. One of which a sign has changed is read wholly, by its print (bit_prints.py). The others
are read wholly in turn, the one that waits longest first, within `SHARE` of the training time; all of them at the first
look, and when recording ends. Small tensors are their own sample, and known wholly at every look.

What is found changed without a sign of its object, address or version was written where torch does not look, through
`.data` or by compiled code; it is read wholly at every look from then on. If its sample had not changed either, the
records since it was read wholly before may hold it wrong: that is said (`missed`), by names and steps, in every record
from then on, so that nobody evaluates these. If it had, they are as sure as samples are, and that is said (`sampled`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor

from trajcheck.recording.model.bit_prints import bit_prints
from trajcheck.recording.model.bit_samples import BitSamples, Sample
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.runs.snapshot import Contents, MissedChange, Snapshot

#: Of the training time, what reading wholly may take where nothing asks for it.
SHARE = 0.003
#: So many tensors are named with what was missed, and so often at most; beyond, the first two become one.
NAMED, TIMES = 3, 100


class Look(NamedTuple):
    """The print of each tensor, which of them were read wholly, and the number of the look."""

    prints: Mapping[str, Hashable] = {}
    wholly: frozenset[str] = frozenset()
    number: int = 0


@dataclass
class _Known:
    """Of one tensor: the records up to `sure` hold it right, or it is said of them that they may not; `looked` is the
    number of the look that read it wholly."""

    sure: int
    looked: int


@dataclass
class _Open:
    """A change without a sign of which no record tells yet: where it was `sure` before, the look that found it, and
    whether its sample missed it."""

    sure: int
    look: int
    missed: bool


class KnownContents:
    """Of the same tensors, by their names in a step file, again and again. `say` is told of what was missed."""

    def __init__(self, spent: TimeSpent, say: Callable[[str], None]) -> None:
        self.prints: dict[str, Hashable] = {}  # as of the last look
        self.earlier = Contents()  # what the job before says of its records
        self._spent, self._say = spent, say
        self._known: dict[str, _Known] = {}
        self._restless: set[str] = set()  # written without a sign
        self._open: dict[str, _Open] = {}
        self._looks = 0
        self._recorded = -1  # the last step
        self._objects: list[Callable[[], Tensor | None]] = []
        self._names: list[str] = []
        self._signs: list[list[Any]] = []
        self._sizes: dict[str, int] = {}
        self._samples = BitSamples({})
        self._sample: Sample = []
        self._seconds, self._bytes = 0.0, 0  # that reading wholly has taken, and of how many
        self._missed: list[MissedChange] = []
        self._sampled: list[tuple[int, int]] = []

    def look(self, tensors: Mapping[str, Tensor], wholly: Collection[str]) -> Look:
        """What they hold now; those of `wholly` by a whole reading. Waits for their devices."""
        self._looks += 1
        samples, written = self._samples, self._written(tensors)
        if samples is not self._samples:  # nothing is known of the new places
            wholly = tensors.keys()
        sample = self._samples.read(tensors)
        differing = self._samples.differing(self._sample, sample) if self._sample else set()
        self._sample = sample
        asked = {*written, *differing, *self._samples.unreadable, *wholly, *self._restless}
        read = [name for name in tensors if name in asked] if asked else []
        read += self._due(asked)
        if read:
            self._read({name: tensors[name] for name in read}, written, differing)
        small = self._samples.whole.difference(read)
        for name in small:
            self._confirm(name)
        return Look(self.prints, frozenset(small.union(read)), self._looks)

    def _written(self, tensors: Mapping[str, Tensor]) -> Collection[str]:
        """Those of which a sign beside the sample has changed; samples are made anew where kinds are others."""
        names, now = list(tensors), _signs(tensors.values())
        pairs = zip(self._objects, tensors.values(), strict=len(names) == len(self._objects))
        if now == self._signs and names == self._names and all(known() is tensor for known, tensor in pairs):
            return ()
        old = dict(zip(self._names, zip(self._objects, *self._signs, strict=True), strict=True)) if self._names else {}
        if names != self._names or now[KINDS:] != self._signs[KINDS:]:
            self._samples, self._sample = BitSamples(tensors), []
            self._sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
            self._known = {name: known for name, known in self._known.items() if name in tensors}
            self.prints = {name: content for name, content in self.prints.items() if name in tensors}
            self._restless &= tensors.keys()
        self._names, self._signs = names, now
        self._objects = [weakref.ref(tensor) for tensor in tensors.values()]
        written = set()
        for name, tensor, *signs in zip(names, tensors.values(), *now, strict=True):
            known, *before = old.get(name, (None,))
            if known is None or known() is not tensor or before != signs:
                written.add(name)
        return written

    def _due(self, asked: Collection[str]) -> list[str]:
        """Those that are read wholly although nothing asks for it, as long as there is time for them and, at the end,
        for all once more."""
        rate = self._seconds / self._bytes if self._bytes else 0.0
        waiting = [name for name in self._sizes if name not in asked and name not in self._samples.whole]
        left = SHARE * self._spent.training - self._seconds - rate * sum(self._sizes[name] for name in waiting)
        if left <= 0:
            return []
        due = []
        for name in sorted(waiting, key=lambda name: self._known[name].looked):
            left -= rate * self._sizes[name]
            if left < 0:
                break
            due.append(name)
        return due

    def _read(self, tensors: Mapping[str, Tensor], written: Collection[str], differing: Collection[str]) -> None:
        began = self._spent.clock()
        prints = bit_prints(tensors)
        self._seconds += self._spent.clock() - began
        self._bytes += sum(self._sizes[name] for name in tensors)
        for name, content in prints.items():
            known = self._known.get(name)
            if known is None:
                self._known[name] = _Known(self._recorded, self._looks)
                continue
            known.looked = self._looks
            if self.prints[name] != content and name not in written:
                self._restless.add(name)
                self._open.setdefault(name, _Open(known.sure, self._looks, name not in differing))
            elif name not in self._open:
                self._confirm(name)
        if any(self.prints.get(name) != content for name, content in prints.items()):
            self.prints = {**self.prints, **prints}  # another one: looks before keep theirs

    def _confirm(self, name: str) -> None:
        self._known[name].sure = max(self._known[name].sure, self._recorded)

    def recorded(self, step: int, look: Look) -> dict[str, Any]:
        """The record of a step holds what a look found; metadata that say how sure that is of this and of others."""
        missed: dict[int, list[str]] = {}
        for name, each in list(self._open.items()):
            if look.number >= each.look:
                del self._open[name]
                if self._recorded > each.sure and each.missed:
                    missed.setdefault(each.sure, []).append(name)
                elif self._recorded > each.sure:
                    self._sampled = _with_range(self._sampled, (each.sure, step))
            elif name in look.wholly:
                each.sure = step
        for name in look.wholly & self._known.keys():
            self._known[name].sure = step
        for sure, names in missed.items():
            self._missed.append(MissedChange(sure, step, tuple(names[:NAMED]), len(names)))
            self._say(self._missed[-1].sentence)
            if len(self._missed) > TIMES:
                self._missed[:2] = [self._missed[0].and_also(self._missed[1])]
        self._recorded = step
        return self._metadata(step)

    def _metadata(self, step: int) -> dict[str, Any]:
        sure = min((known.sure for known in self._known.values()), default=step)
        told: dict[str, Any] = {}
        if sure < step:
            told["sure"] = max(sure, 0)
        if missed := [*self.earlier.missed, *self._missed]:
            told["missed"] = [each.metadata for each in missed]
        if sampled := [*self.earlier.sampled, *self._sampled]:
            told["sampled"] = [list(each) for each in sampled]
        return {"contents": told} if told else {}


def _signs(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Of each tensor, in columns: equal ones of one object say that it is where it was, and not written as far as torch
    knows. What comes after `KINDS` columns is of what kind it is."""
    held = list(tensors)
    return [list(map(sign, held)) for sign in SIGNS]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:  # a class of its own, without memory of its own
        return 0


_KIND = map(attrgetter, ("dtype", "shape", "device"))
SIGNS: tuple[Callable[[Tensor], Any], ...] = (_version, _address, Tensor.stride, *_KIND)
KINDS = 2


def _with_range(ranges: Sequence[tuple[int, int]], new: tuple[int, int]) -> list[tuple[int, int]]:
    """These and another one, in order; such as meet are one, and so are the first two where they are too many."""
    found: list[tuple[int, int]] = []
    for after, until in sorted([*ranges, new]):
        if found and after < found[-1][1]:
            found[-1] = found[-1][0], max(until, found[-1][1])
        else:
            found.append((after, until))
    return found if len(found) <= TIMES else [(found[0][0], found[1][1]), *found[2:]]


def known_before(last: Snapshot, start: int) -> Contents:
    """What the last record of a run says of its records up to step `start`, where a job goes on with it that writes
    that step and all later ones anew."""
    there = last.contents
    missed = [replace(each, until=min(each.until, start)) for each in there.missed if each.after + 1 < start]
    sampled = [(after, min(until, start)) for after, until in there.sampled if after + 1 < start]
    if there.sure is not None and there.sure + 1 < start:
        sampled = _with_range(sampled, (there.sure, min(last.step + 1, start)))
    return Contents(None, tuple(missed), tuple(sampled))
