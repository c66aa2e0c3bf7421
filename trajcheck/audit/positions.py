"""Which elements of a tensor the audit looks at: some short ranges, that its name and its shape alone decide.

The same elements in every step, and in every run with such a tensor, whatever the format: 0.1% of them and at least
512, in ranges, so that a read takes several; stratified, one in each stretch of equal length at a pseudo-random place.
The last range ends where the tensor ends, where a file that was cut off or only half written shows first.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: The fewest elements of a tensor, the share of them, and the shortest range.
LEAST, SHARE, RANGE = 512, 1e-3, 256
#: The most ranges of a tensor: a larger one has longer ranges.
MOST_RANGES = 64


@dataclass(frozen=True)
class Much:
    """How much of a run is looked at: `least` elements of a tensor, this `share` of them, and `tensors` at most, spread
    over the run's order, the largest among them."""

    least: int = LEAST
    share: float = SHARE
    tensors: int | None = None

    def of(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """The tensors that are looked at, in their order."""
        names = [name for name, shape in shapes.items() if math.prod(shape)]
        if self.tensors is None or len(names) <= self.tensors:
            return names
        largest = sorted(names, key=lambda name: -math.prod(shapes[name]))[: self.tensors // 3]
        rest = self.tensors - len(largest)
        spread = {names[place * len(names) // rest] for place in range(rest)}
        return [name for name in names if name in spread or name in largest]


#: All of it.
WHOLE = Much()


def ranges(name: str, shape: tuple[int, ...], much: Much = WHOLE) -> tuple[tuple[int, int], ...]:
    """First and one past the last element of each range, in order and apart from one another."""
    numel = math.prod(shape)
    wanted = max(much.least, math.ceil(much.share * numel))
    if numel <= wanted:
        return ((0, numel),) if numel else ()
    count = min(MOST_RANGES, max(1, wanted // RANGE))
    length = math.ceil(wanted / count)
    stretch = numel / count
    draws = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode())).random(count)
    found = []
    for number, draw in enumerate(draws):
        first, last = math.ceil(number * stretch), math.floor((number + 1) * stretch)
        start = first + int(draw * max(0, last - first - length + 1)) if number < count - 1 else numel - length
        found.append((start, min(start + length, numel)))
    return tuple(found)
