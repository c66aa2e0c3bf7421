"""Shapes of the arguments of a call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Arguments = Mapping[str, Any]
Shape = Sequence[int]


def shapes_of(arguments: Arguments) -> list[Shape]:
    """Of all tensors; an axis of length 0 counts as one of length 1, for what is left when it is summed over."""
    found: list[Shape] = []
    for value in arguments.values():
        for each in value if isinstance(value, list | tuple) else (value,):
            if hasattr(each, "numel"):
                found.append([max(1, size) for size in each.shape])
    return found


def together(shapes: Iterable[Shape]) -> list[int]:
    """The shape that those of several tensors are broadcast to, or more: the longest of each axis, from the right."""
    longest: list[int] = []
    for shape in shapes:
        reverse = list(shape)[::-1]
        longest += [0] * (len(reverse) - len(longest))
        for axis, size in enumerate(reverse):
            longest[axis] = max(longest[axis], size)
    return longest[::-1]


def listed(value: Any, count: int) -> list[Any]:
    """One number for each axis, where one may stand for all."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return max(0, (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)


def broadcast(a: Arguments) -> int:
    return math.prod(together(shapes_of(a)))


def inputs(a: Arguments) -> int:
    """Twice, for the indices that sorting and the largest give beside the values."""
    return 2 * sum(map(math.prod, shapes_of(a)))


def largest(a: Arguments) -> int:
    return max(map(math.prod, shapes_of(a)), default=1)
