"""From the products that some rows need (products.py) to a program for the pass's inner loop (kernel.py).

A program widens vectors, subtracts them and multiplies them, in the order of the rows. What rows share is done once:
x_{t+1} - x_t is row t's next step and row t+1's step, and towards a reference |x_s - x*|^2 is row s's distance. A value
stays in its slot until it was used for the last time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, Operand

WIDEN, SUBTRACT, DOT = 0, 1, 2

Values = dict[str, float]

#: A vector: what it is, and its place in the run (a reference's number).
Key = tuple[str, int]


@dataclass(frozen=True)
class RowRequest:
    """One row: its vectors by their names in products.py, and those of each reference, each as the key of a vector;
    and the products asked for. Products whose vectors are not all there are left out."""

    vectors: Mapping[str, Key]
    references: Sequence[Mapping[str, Key]]
    step_products: Sequence[str]
    reference_products: Sequence[str]


@dataclass
class Program:
    """`code`: instructions [n, 4] (what, to, a, b), as kernel.c reads them. `vectors`: the keys of the vectors, in the
    order of their numbers. `slots`: how many are used at a time. `outputs`: how many products there are."""

    code: np.ndarray
    vectors: list[Key]
    slots: int
    outputs: int
    rows: list[tuple[dict[str, int], list[dict[str, int]]]] = field(default_factory=list)  # where each product is

    def values(self, out: Sequence[float]) -> list[tuple[Values, list[Values]]]:
        """For each row the products of the step, and of each reference, by name."""
        return [
            (
                {name: out[place] for name, place in own.items()},
                [{name: out[place] for name, place in each.items()} for each in towards],
            )
            for own, towards in self.rows
        ]


def write_program(requests: Sequence[RowRequest]) -> Program:
    """The program for some rows."""
    writer = _Writer()
    rows = []
    for request in requests:
        own = writer.products(STEP_PRODUCTS, request.step_products, request.vectors)
        towards = [
            writer.products(REFERENCE_PRODUCTS, request.reference_products, {**request.vectors, **reference})
            for reference in request.references
        ]
        rows.append((own, towards))
    code, slots = writer.allocated()
    return Program(code, list(writer.vectors), slots, len(writer.outputs), rows)


class _Writer:
    """Instructions on values that are not in slots yet: a value is the key of a vector, or of two to subtract."""

    def __init__(self) -> None:
        self.vectors: dict[Key, int] = {}
        self.outputs: dict[frozenset[int], int] = {}
        self.values: dict[tuple[Key, ...], int] = {}
        self.code: list[tuple[int, int, int, int]] = []

    def products(
        self, table: Mapping[str, tuple[Operand, Operand]], names: Sequence[str], known: Mapping[str, Key]
    ) -> dict[str, int]:
        """Where each of the products will be whose vectors are all known."""
        places = {}
        for name in names:
            factors = [[key] if isinstance(key, str) else list(key) for key in table[name]]
            if all(each in known for factor in factors for each in factor):
                a, b = (self._value([known[each] for each in factor]) for factor in factors)
                pair = frozenset((a, b))
                if pair not in self.outputs:
                    self.outputs[pair] = len(self.outputs)
                    self.code.append((DOT, self.outputs[pair], a, b))
                places[name] = self.outputs[pair]
        return places

    def _value(self, keys: list[Key]) -> int:
        key = tuple(keys)
        if key in self.values:
            return self.values[key]
        if len(keys) == 1:
            vector = self.vectors.setdefault(keys[0], len(self.vectors))
            self.values[key] = len(self.values)
            self.code.append((WIDEN, self.values[key], vector, 0))
        else:
            a, b = (self._value([each]) for each in keys)
            self.values[key] = len(self.values)
            self.code.append((SUBTRACT, self.values[key], a, b))
        return self.values[key]

    def allocated(self) -> tuple[np.ndarray, int]:
        """The instructions with slots in place of values: a slot is free again after its value's last use."""
        last: dict[int, int] = {}
        for number, (what, to, a, b) in enumerate(self.code):
            for value in (to,) if what == WIDEN else (a, b) if what == DOT else (to, a, b):
                last[value] = number
        slots: dict[int, int] = {}
        free: list[int] = []
        used = 0
        code = []
        for number, (what, to, a, b) in enumerate(self.code):
            operands = () if what == WIDEN else (a, b)
            places = [slots[value] for value in operands]
            if what == DOT:
                code.append((what, to, *places))
            else:
                if not free:
                    free.append(used)
                    used += 1
                slots[to] = free.pop()
                code.append((what, slots[to], *(places or (a, 0))))
            for value in {*operands, *(() if what == DOT else (to,))}:
                if last[value] == number:
                    free.append(slots.pop(value))
        return np.array(code, dtype=np.int32).reshape(-1, 4), used
