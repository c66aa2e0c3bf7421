"""Averages of recorded iterates, by the words of --average: which iterates each is of, and with which weights.

last:K    the mean of the last K records up to x_t (LAWA, arXiv 2209.14981)
ema:D     exponential with decay D a step: m <- D^delta m + (1 - D^delta) x from one record to the next, delta steps
          on (1 at the first), over 1 - D^n, n the sum of the deltas
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trajcheck.errors import UsageError

_SAID = re.compile(r"last:(\d{1,9})|ema:(\d?\.\d{1,20})")
#: Bytes an element of the state of a mean over the last records, and of an exponential average.
OF_LAST, OF_EXPONENTIAL = 16, 8

EXPECTED = "expected last:K, the mean of the last K records (2 or more), or ema:D with a decay D between 0 and 1 a step"


@dataclass(frozen=True)
class Average:
    """`count` is K, 0 of an exponential one; `decay` is D, 0 of the last K."""

    spec: str
    count: int = 0
    decay: float = 0.0

    def first(self, place: int) -> int:
        """The place of the earliest record that the average at a record's place is of."""
        return max(0, place - self.count + 1) if self.count else 0

    def missing(self, place: int) -> str:
        """Why there is none at a record's place; '' where there is."""
        if place + 1 >= self.count:
            return ""
        return f"there are fewer than {self.count} records up to here, and the average is of so many"

    def kept(self, steps: Sequence[int], place: int) -> float:
        """D^delta of a record's place."""
        return float(self.decay ** (steps[place] - steps[place - 1] if place else 1))

    def whole(self, steps: Sequence[int], place: int) -> float:
        """The sum of the weights before they are divided by it: K, or 1 - D^n."""
        passed = steps[place] - steps[0] + 1
        return float(self.count) if self.count else -math.expm1(passed * math.log(self.decay))


def average_wrong(said: str) -> str:
    """What is wrong with the words of one; '' where nothing is."""
    match = _SAID.fullmatch(said)
    if match is None or (match[1] and int(match[1]) < 2) or (match[2] and not 0 < float(match[2]) < 1):
        return EXPECTED
    return ""


def averages_of(said: Sequence[str]) -> tuple[Average, ...]:
    """Each once, in the order given."""
    found: dict[tuple[int, float], Average] = {}
    for each in said:
        kind, _, number = each.partition(":")
        average = Average(each, count=int(number)) if kind == "last" else Average(each, decay=float(number))
        found.setdefault((average.count, average.decay), average)
    return tuple(found.values())


def in_groups(averages: Sequence[Average], numel: int, memory: int | None) -> list[list[Average]]:
    """Which averages are formed together within so many bytes: a pass over the run for each group. Raises
    UsageError where one alone is too large."""
    if memory is None:
        return [list(averages)]
    groups: list[list[Average]] = []
    free = 0
    for average in averages:
        size = numel * (OF_LAST if average.count else OF_EXPONENTIAL)
        if size > memory:
            raise UsageError(
                f"--memory: {memory:,} bytes are too few for --average {average.spec}, whose sums are {size:,}. Give "
                f"--memory {-(-size // 10**6)}MB or more."
            )
        if size > free or not groups:
            groups.append([])
            free = memory
        groups[-1].append(average)
        free -= size
    return groups
