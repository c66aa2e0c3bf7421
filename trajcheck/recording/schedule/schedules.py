"""Which steps are recorded. A schedule is any object with `wants(step) -> bool`, which depends on nothing else.

The final iterate is always recorded besides. Consecutive pairs of steps (t, t+1) are worth more than the same number of
single steps: the quantities of one update exist where the steps on both its sides are recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from trajcheck.errors import RecorderError


class Schedule(Protocol):
    def wants(self, step: int) -> bool:
        """Whether this step is to be recorded."""


@dataclass(frozen=True)
class Every:
    """Steps 0, k, 2k, ..."""

    k: int

    def __post_init__(self) -> None:
        _check_positive("Every", "k", self.k)

    def wants(self, step: int) -> bool:
        return step % self.k == 0


@dataclass(frozen=True)
class Pairs:
    """Steps k i and k i + 1: pairs 0, 1, then k, k + 1, ..."""

    k: int

    def __post_init__(self) -> None:
        _check_positive("Pairs", "k", self.k)

    def wants(self, step: int) -> bool:
        return step % self.k in (0, 1 % self.k)


@dataclass(frozen=True)
class First:
    """Steps 0, ..., n - 1."""

    n: int

    def __post_init__(self) -> None:
        _check_positive("First", "n", self.n)

    def wants(self, step: int) -> bool:
        return step < self.n


@dataclass(frozen=True, init=False)
class Listed:
    """The steps in a list."""

    steps: frozenset[int]

    def __init__(self, steps: Iterable[int]) -> None:
        object.__setattr__(self, "steps", frozenset(steps))
        for step in self.steps:
            if not isinstance(step, int) or step < 0:
                raise RecorderError(f"Listed(steps): step numbers are integers from 0, got {step!r}.")

    def wants(self, step: int) -> bool:
        return step in self.steps

    def __repr__(self) -> str:
        return f"Listed({sorted(self.steps)})"


@dataclass(frozen=True)
class Logarithmic:
    """Pairs beginning at 0 and at the integers nearest to 10^(i / per_decade)."""

    per_decade: int = 10

    def __post_init__(self) -> None:
        _check_positive("Logarithmic", "per_decade", self.per_decade)

    def wants(self, step: int) -> bool:
        return any(self._begins(start) for start in (step, step - 1))

    def _begins(self, step: int) -> bool:
        if step <= 0:
            return step == 0
        return round(10 ** (round(self.per_decade * math.log10(step)) / self.per_decade)) == step


@dataclass(frozen=True)
class Budget:
    """As many steps as fit into `bytes` on disk; by default min(20 GB, 10% of the free disk). The default schedule.

    Every step, if all fit. Otherwise consecutive pairs, spaced logarithmically up to 1% of the run and then evenly with
    jitter (from the run's id; no random stream of the training is touched). Where `total_steps` is known the steps are
    chosen at the start, and none beyond it but the final iterate. Where it is not, every step is recorded at first, and
    whenever the budget is full the density of the recorded pairs is halved by deleting some; the first and the last
    iterate stay.
    """

    bytes: int | None = None
    total_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("bytes", "total_steps"):
            if getattr(self, name) is not None:
                _check_positive("Budget", name, getattr(self, name))


def _check_positive(schedule: str, name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RecorderError(f"{schedule}({name}=...) takes a positive integer, got {value!r}.")
