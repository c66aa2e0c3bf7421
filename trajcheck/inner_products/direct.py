"""Instructions of a program (program.py) that keep nothing: the products that nearly every row has, all at once. They
widen their vectors and form their differences anew; a processor has just the registers for their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: As kernel.c numbers them.
STEP, TOWARDS, REPLAYED, REPLAYED_TOWARDS = range(3, 7)


@dataclass
class Direct:
    """`vectors` by their numbers, in the order of its class; `outputs`: the numbers of its products, in that order."""

    vectors: list[int]
    outputs: list[int]

    def head(self) -> list[int]:
        """What the instruction is: its kind, how many references it has (0: it has but one), a level of decay."""
        raise NotImplementedError

    def words(self) -> list[int]:
        return [*self.head(), *self.vectors]

    def products(self) -> list[int]:
        return self.outputs

    def reads(self) -> list[int]:
        return []

    def writes(self) -> list[int]:
        return []

    def rename(self, slots: Mapping[int, int]) -> None:
        pass


@dataclass
class Step(Direct):
    """Of the gradient g, the `next` iterate, x, the iterate `before` it, the `first` one, a `reference`.

    With d = x - before, d' = next - x, e = x - reference and e' = next - reference: next^2, g^2, e'^2, g e', g x, d'^2,
    g d', g e, d' e, g d, d' d, (x - first)^2.
    """

    def head(self) -> list[int]:
        return [STEP, 0, 0]


@dataclass
class Towards(Direct):
    """Of the gradient, next, x, and one or two references more: e'^2, g e', g e, d' e of each, as in a Step."""

    def head(self) -> list[int]:
        return [TOWARDS, len(self.vectors) - 3, 0]


@dataclass
class Replayed(Direct):
    """Of a replayed gradient g, that at `before` (h), x, `before`, `next`, and the gradient r as it was recorded.

    With r' = g + decay x: g^2, g x, g d', r'^2, g d, h d, (g - h)^2, r^2, (g - r)^2. The weight decay is that of some
    `level`.
    """

    level: int = 0

    def head(self) -> list[int]:
        return [REPLAYED, 0, self.level]


@dataclass
class ReplayedTowards(Direct):
    """Of a replayed gradient g, x, the iterate s some steps on, and one or two references: g e, r' e, g (s - reference)
    of each."""

    level: int = 0

    def head(self) -> list[int]:
        return [REPLAYED_TOWARDS, len(self.vectors) - 3, self.level]
