"""A program for the pass's inner loop (kernel.py): what is widened, subtracted and multiplied.

program_writer.py writes one from the products that some rows need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

#: Instructions as kernel.c numbers them.
DIFFER, CROSS, REGULARISE = 0, 1, 2

#: No place: a value that is not kept, a product that nobody asked for.
NOWHERE = -1

#: A vector: what it is, and its place in the run (a reference's number).
Key = tuple[str, int]

#: Products by name; and their numbers in a program.
Values = dict[str, float]
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


@dataclass
class Regularise:
    """slot a + weight decay * slot b into slot `to`; its square."""

    a: int
    b: int
    to: int
    square: int


Instruction = Differ | Cross | Regularise


@dataclass
class Program:
    """`vectors`: the keys of the vectors, in the order of their numbers. `slots`: how many are used at a time.
    `outputs`: how many products there are. `rows`: where each row's are, those of the step and of each reference.
    `code`: the instructions as kernel.c reads them."""

    instructions: list[Instruction]
    vectors: list[Key]
    slots: int
    outputs: int
    rows: list[tuple[Places, list[Places]]]
    code: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.code = np.array([word for each in self.instructions for word in _words(each)], dtype=np.int32)

    def values(self, out: Sequence[float]) -> list[tuple[Values, list[Values]]]:
        """For each row the products of the step, and of each reference, by name."""
        return [
            (
                {name: out[place] for name, place in own.items()},
                [{name: out[place] for name, place in each.items()} for each in towards],
            )
            for own, towards in self.rows
        ]


def _words(instruction: Instruction) -> Iterable[int]:
    if isinstance(instruction, Differ):
        yield from (DIFFER, instruction.source, instruction.to, instruction.square, len(instruction.differences))
        for each in instruction.differences:
            yield from (each.other, each.to, each.square)
    elif isinstance(instruction, Cross):
        yield from (CROSS, instruction.source, instruction.to, instruction.square, instruction.b)
        yield from (len(instruction.common), len(instruction.more))
        yield from (*instruction.common, *instruction.more, *instruction.outputs)
    else:
        yield from (REGULARISE, ~instruction.a, instruction.b, instruction.to, instruction.square)


def allocate_slots(instructions: Sequence[Instruction]) -> int:
    """Put slots in place of the numbers of values; how many are needed. A slot is free after its value's last use."""
    last: dict[int, int] = {}
    for place, instruction in enumerate(instructions):
        last |= dict.fromkeys([*_reads(instruction), *_writes(instruction)], place)
    slots: dict[int, int] = {NOWHERE: NOWHERE}
    free: list[int] = []
    used = 0
    for place, instruction in enumerate(instructions):
        touched = dict.fromkeys([*_reads(instruction), *_writes(instruction)])
        for number in _writes(instruction):  # before those read here are free: they are read while these are written
            if not free:
                free.append(used)
                used += 1
            slots[number] = free.pop()
        _rename(instruction, slots)
        free += [slots.pop(number) for number in touched if last[number] == place]
    return used


def _reads(instruction: Instruction) -> list[int]:
    if isinstance(instruction, Regularise):
        return [instruction.a, instruction.b]
    if isinstance(instruction, Differ):
        others = [each.other for each in instruction.differences]
    else:
        others = [*([instruction.b] if instruction.common else []), *instruction.common, *instruction.more]
    return [*([~instruction.source] if instruction.source < 0 else []), *others]


def _writes(instruction: Instruction) -> list[int]:
    to = [each.to for each in instruction.differences] if isinstance(instruction, Differ) else []
    return [number for number in (instruction.to, *to) if number != NOWHERE]


def _rename(instruction: Instruction, slots: Mapping[int, int]) -> None:
    instruction.to = slots[instruction.to]
    if isinstance(instruction, Regularise):
        instruction.a, instruction.b = slots[instruction.a], slots[instruction.b]
        return
    if instruction.source < 0:
        instruction.source = ~slots[~instruction.source]
    if isinstance(instruction, Differ):
        for each in instruction.differences:
            each.other, each.to = slots[each.other], slots[each.to]
    else:
        instruction.b = slots[instruction.b]
        instruction.common = [slots[number] for number in instruction.common]
        instruction.more = [slots[number] for number in instruction.more]
