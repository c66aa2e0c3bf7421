"""A program for the pass's inner loop (loop.py): what is widened, subtracted and multiplied.

program_writer.py writes one from the products that some rows need. A source is a vector's number, or ~ the number of a
slot. Until `allocate_slots` gave every value a slot, numbers of values stand in place of slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trajcheck.inner_products.direct import Direct

#: Instructions as kernel.c numbers them; those of direct.py are the next ones.
DIFFER, CROSS, REGULARISE = range(3)

#: No place: a value that is not kept, a product that nobody asked for.
NOWHERE = -1

#: A vector: what it is, and its place in the run (a reference's number).
Key = tuple[str, int]

#: Products by name; and their numbers in a program.
Places = dict[str, int]


@dataclass
class Difference:
    """The value at hand minus that in slot `other`, kept in slot `to` (or NOWHERE); its square is product `square`."""

    other: int
    to: int
    square: int


@dataclass
class Differ:
    """The vector of number `source` (or the value in slot ~source) into slot `to`; its square; and its differences."""

    source: int
    to: int
    square: int
    differences: list[Difference]

    def words(self) -> list[int]:
        differences = [word for each in self.differences for word in (each.other, each.to)]
        return [DIFFER, self.source, self.to, len(self.differences), *differences]

    def products(self) -> list[int]:
        return [self.square, *(each.square for each in self.differences)]

    def reads(self) -> list[int]:
        return [*_slot_of(self.source), *(each.other for each in self.differences)]

    def writes(self) -> list[int]:
        return _kept(self.to, *(each.to for each in self.differences))

    def rename(self, slots: Mapping[int, int]) -> None:
        self.source, self.to = _renamed(self.source, slots), slots[self.to]
        for each in self.differences:
            each.other, each.to = slots[each.other], slots[each.to]


@dataclass
class Cross:
    """Products of a with b, of both of them with each of `common`, and of a alone with each of `more`.

    a is the value in slot ~source, or the vector of number `source`, which goes into slot `to`; and its square.
    `outputs`: the numbers of a b where something is common; a c and b c for each common c; a c for each of `more`.
    """

    source: int
    to: int
    square: int
    b: int
    common: list[int]
    more: list[int]
    outputs: list[int]

    def words(self) -> list[int]:
        counts = len(self.common), len(self.more)
        return [CROSS, self.source, self.to, self.b, *counts, *self.common, *self.more]

    def products(self) -> list[int]:
        return [self.square, *self.outputs]

    def reads(self) -> list[int]:
        return [*_slot_of(self.source), *([self.b] if self.common else []), *self.common, *self.more]

    def writes(self) -> list[int]:
        return _kept(self.to)

    def rename(self, slots: Mapping[int, int]) -> None:
        self.source, self.to, self.b = _renamed(self.source, slots), slots[self.to], slots[self.b]
        self.common = [slots[number] for number in self.common]
        self.more = [slots[number] for number in self.more]


@dataclass
class Regularise:
    """slot a + weight decay * slot b into slot `to`; its square. The weight decay is that of some `level`."""

    a: int
    b: int
    to: int
    level: int
    square: int

    def words(self) -> list[int]:
        return [REGULARISE, ~self.a, self.b, self.to, self.level]

    def products(self) -> list[int]:
        return [self.square]

    def reads(self) -> list[int]:
        return [self.a, self.b]

    def writes(self) -> list[int]:
        return [self.to]

    def rename(self, slots: Mapping[int, int]) -> None:
        self.a, self.b, self.to = slots[self.a], slots[self.b], slots[self.to]


Instruction = Differ | Cross | Regularise | Direct


@dataclass
class Program:
    """`vectors`: the keys of the vectors, in the order of their numbers. `slots`: how many are used at a time.
    `outputs`: how many products there are, of all programs that were written together. `rows`: where each row's are,
    those of the step and of each reference. `made`: the products that this program makes, in order. `code`: the
    instructions as kernel.c reads them, with places in `made` in place of products' numbers."""

    instructions: list[Instruction]
    vectors: list[Key]
    slots: int
    outputs: int
    rows: list[tuple[Places, list[Places]]]
    made: np.ndarray = field(init=False)
    code: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        places: dict[int, int] = {}
        words: list[int] = []
        for each in self.instructions:
            words += each.words()
            for number in each.products():
                words.append(NOWHERE if number == NOWHERE else places.setdefault(number, len(places)))
        self.made = np.array(list(places), dtype=np.int32)
        self.code = np.array(words, dtype=np.int32)

    @property
    def direct(self) -> int:
        """How many instructions there are, where all keep nothing; otherwise 0."""
        keeps = any(not isinstance(each, Direct) for each in self.instructions)
        return 0 if keeps else len(self.instructions)


def allocate_slots(instructions: Sequence[Instruction]) -> int:
    """Put slots in place of the numbers of values; how many are needed. A slot is free after its value's last use."""
    last: dict[int, int] = {}
    for place, instruction in enumerate(instructions):
        last |= dict.fromkeys([*instruction.reads(), *instruction.writes()], place)
    slots: dict[int, int] = {NOWHERE: NOWHERE}
    free: list[int] = []
    used = 0
    for place, instruction in enumerate(instructions):
        touched = dict.fromkeys([*instruction.reads(), *instruction.writes()])
        for number in instruction.writes():  # before those read here are free: they are read while these are written
            if not free:
                free.append(used)
                used += 1
            slots[number] = free.pop()
        instruction.rename(slots)
        free += [slots.pop(number) for number in touched if last[number] == place]
    return used


def _slot_of(source: int) -> list[int]:
    return [~source] if source < 0 else []


def _renamed(source: int, slots: Mapping[int, int]) -> int:
    return ~slots[~source] if source < 0 else source


def _kept(*places: int) -> list[int]:
    return [number for number in places if number != NOWHERE]
