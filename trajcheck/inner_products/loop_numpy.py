"""The pass's inner loop in numpy: what kernel.c does, a few thousand elements at a time."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from trajcheck.files.extent_reader import read_at
from trajcheck.files.opening import NotRegularError, open_regular
from trajcheck.inner_products.blocks import NOT_REGULAR, NUMPY, Block, Segments, Unread, widened
from trajcheck.inner_products.direct import Direct, Replayed, ReplayedTowards, Step, Towards
from trajcheck.inner_products.program import NOWHERE, Cross, Differ, Instruction, Program, Regularise

#: Elements at a time for numpy. Of fewer, calls would take longer than what they do; products of more than 10,000 are
#: shared out to threads by OpenBLAS, which takes several times as long as they do.
TILE = 8192


def read_range(block: int, number: int, wanted: np.void) -> None:
    """What kernel.c does, with Python's calls."""
    kinds = list(NUMPY.values())
    kind, count = kinds[wanted["type"]], int(wanted["count"])
    same = wanted["type"] == wanted["as"]
    into = (ctypes.c_char * (count * kinds[wanted["as"]].itemsize)).from_address(int(wanted["to"]))
    raw = memoryview(into).cast("B") if same else memoryview(bytearray(count * kind.itemsize))
    done, file = 0, int(wanted["file"])
    try:
        if file < 0:
            file = open_regular(ctypes.string_at(int(wanted["path"])))
        while done < len(raw):
            got = read_at(file, raw[done:], int(wanted["offset"]) + done)
            if not got:
                raise Unread(block, number, 0, len(raw) - done)
            done += got
    except NotRegularError as error:
        raise Unread(block, number, NOT_REGULAR, len(raw) - done) from error
    except OSError as error:
        raise Unread(block, number, error.errno or 0, len(raw) - done) from error
    finally:
        if wanted["file"] < 0 <= file:
            os.close(file)
    if not same:
        np.frombuffer(into, np.float64)[:] = widened(np.frombuffer(raw, kind), list(NUMPY)[wanted["type"]])


def interpret(program: Program, blocks: Sequence[Block], segments: Segments, sums: np.ndarray) -> None:
    """What kernel.c does, by numpy; adds to `sums` [segments, outputs]."""
    if not program.outputs:
        return
    borders = segments.borders.tolist()
    done = _last_uses(program.instructions)
    longest = max(stop - start for start, stop in pairwise(borders))
    slots, values = np.empty((program.slots + 1, min(TILE, longest))), Values(blocks)  # the last for what is not kept
    for segment, (start, stop) in enumerate(pairwise(borders)):
        out = np.zeros(program.outputs + 1)  # the last for what nobody asked for: NOWHERE is -1
        for begin in range(start, stop, TILE):
            end = min(begin + TILE, stop)
            values.begin(begin, end)
            _interpret_tile(program, values, slots[:, : end - begin], segments.decay[:, segment], done, out)
        sums[segment] += out[:-1]


class Values:
    """Vectors as float64, and their differences, on one tile at a time: each is made once while it is held."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._held: dict[tuple[int, ...], np.ndarray] = {}
        self._free: list[np.ndarray] = []

    def begin(self, start: int, stop: int) -> None:
        """Go to the tile of elements [start, stop), at most TILE; what was held is forgotten."""
        self.forget({number for key in self._held for number in key})
        self._range = start, stop

    def vector(self, number: int) -> np.ndarray:
        if (number,) not in self._held:
            self._held[number,] = self.widen(number, self._room())
        return self._held[number,]

    def difference(self, a: int, b: int) -> np.ndarray:
        """Vector a - vector b."""
        if (a, b) not in self._held:
            self._held[a, b] = np.subtract(self.vector(a), self.vector(b), out=self._room())
        return self._held[a, b]

    def widen(self, number: int, out: np.ndarray) -> np.ndarray:
        return self._blocks[number].widen(*self._range, out)

    def forget(self, vectors: Collection[int]) -> None:
        """Let go of some vectors, and of differences that they are in."""
        for key in [key for key in self._held if any(number in vectors for number in key)]:
            held = self._held.pop(key)
            self._free.append(held if held.base is None else held.base)

    def _room(self) -> np.ndarray:
        start, stop = self._range
        room = self._free.pop() if self._free else np.empty(TILE)
        return room[: stop - start]


def _interpret_tile(
    program: Program,
    values: Values,
    slots: np.ndarray,
    decay: np.ndarray,
    done: Mapping[int, Collection[int]],
    out: np.ndarray,
) -> None:
    dot = np.dot
    for place, each in enumerate(program.instructions):
        if isinstance(each, Differ):
            value = slots[~each.source] if each.source < 0 else values.widen(each.source, slots[each.to])
            if each.square != NOWHERE:
                out[each.square] += dot(value, value)
            for difference in each.differences:
                found = np.subtract(value, slots[difference.other], out=slots[difference.to])
                if difference.square != NOWHERE:
                    out[difference.square] += dot(found, found)
        elif isinstance(each, Cross):
            a = slots[~each.source] if each.source < 0 else values.widen(each.source, slots[each.to])
            if each.square != NOWHERE:
                out[each.square] += dot(a, a)
            factors: list[tuple[np.ndarray, np.ndarray]] = []
            if each.common:
                b = slots[each.b]
                factors.append((a, b))
                factors += [(left, slots[value]) for value in each.common for left in (a, b)]
            factors += [(a, slots[value]) for value in each.more]
            for number, (left, right) in zip(each.outputs, factors, strict=True):
                if number != NOWHERE:
                    out[number] += dot(left, right)
        elif isinstance(each, Regularise):
            found = np.multiply(slots[each.b], decay[each.level], out=slots[each.to])
            found += slots[each.a]
            if each.square != NOWHERE:
                out[each.square] += dot(found, found)
        else:
            level = decay[each.level] if isinstance(each, Replayed | ReplayedTowards) else 0.0
            for number, (left, right) in zip(each.outputs, _factors(each, values, level), strict=True):
                if number != NOWHERE:
                    out[number] += dot(left, right)
        values.forget(done.get(place, ()))


def _factors(each: Direct, values: Values, decay: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each product of an instruction that keeps nothing."""
    vector, difference = values.vector, values.difference
    if isinstance(each, Step):
        g, following, x, before, first, reference = each.vectors
        gradient, to_next, step = vector(g), difference(following, x), difference(x, before)
        next_error, error, from_first = difference(following, reference), difference(x, reference), difference(x, first)
        pairs = [(vector(following), vector(following)), (gradient, gradient), (next_error, next_error)]
        pairs += [(gradient, next_error), (gradient, vector(x)), (to_next, to_next), (gradient, to_next)]
        return [
            *pairs,
            (gradient, error),
            (to_next, error),
            (gradient, step),
            (to_next, step),
            (from_first, from_first),
        ]
    pairs = []
    if isinstance(each, Towards):
        g, following, x, *references = each.vectors
        gradient, to_next = vector(g), difference(following, x)
        for reference in references:
            next_error, error = difference(following, reference), difference(x, reference)
            pairs += [(next_error, next_error), (gradient, next_error), (gradient, error), (to_next, error)]
        return pairs
    g = each.vectors[0]
    x = each.vectors[2] if isinstance(each, Replayed) else each.vectors[1]
    gradient, regularised = vector(g), vector(x) * decay
    regularised += gradient
    if isinstance(each, Replayed):
        _, old, _, before, following, recorded = each.vectors
        step, change, disagreement = difference(x, before), difference(g, old), difference(g, recorded)
        pairs = [(gradient, gradient), (gradient, vector(x)), (gradient, difference(following, x))]
        pairs += [(regularised, regularised), (gradient, step), (vector(old), step), (change, change)]
        return [*pairs, (vector(recorded), vector(recorded)), (disagreement, disagreement)]
    _, _, skip, *references = each.vectors
    for reference in references:
        error = difference(x, reference)
        pairs += [(gradient, error), (regularised, error), (gradient, difference(skip, reference))]
    return pairs


def _last_uses(instructions: Sequence[Instruction]) -> dict[int, list[int]]:
    """By the place of an instruction, the vectors that none that keeps nothing needs after it."""
    last = {
        number: place for place, each in enumerate(instructions) if isinstance(each, Direct) for number in each.vectors
    }
    uses: dict[int, list[int]] = {}
    for number, place in last.items():
        uses.setdefault(place, []).append(number)
    return uses
