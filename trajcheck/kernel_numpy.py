"""The pass's inner loop in numpy: what kernel.c does, a few thousand elements at a time."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from trajcheck.kernel_data import NUMPY, Block, Segments, Unread, read_at, widened
from trajcheck.program import NOWHERE, Cross, Differ, Program, Regularise, Step

#: Elements at a time for numpy: some ten slots of these stay in a processor's caches.
TILE = 8192


def read_range(number: int, wanted: np.void) -> None:
    """What kernel.c does, with Python's calls."""
    kinds = list(NUMPY.values())
    kind, count = kinds[wanted["type"]], int(wanted["count"])
    same = wanted["type"] == wanted["as"]
    into = (ctypes.c_char * (count * kinds[wanted["as"]].itemsize)).from_address(int(wanted["to"]))
    raw = memoryview(into).cast("B") if same else memoryview(bytearray(count * kind.itemsize))
    done, file = 0, int(wanted["file"])
    try:
        if file < 0:
            file = os.open(ctypes.string_at(int(wanted["path"])), os.O_RDONLY)
        while done < len(raw):
            got = read_at(file, raw[done:], int(wanted["offset"]) + done)
            if not got:
                raise Unread(number, 0, len(raw) - done)
            done += got
    except OSError as error:
        raise Unread(number, error.errno or 0, len(raw) - done) from error
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
    longest = max(stop - start for start, stop in pairwise(borders))
    memory = np.empty((program.slots + 3, min(TILE, longest)))  # the last ones for what is not kept
    for segment, (start, stop) in enumerate(pairwise(borders)):
        out = np.zeros(program.outputs + 1)  # the last for what nobody asked for: NOWHERE is -1
        for begin in range(start, stop, TILE):
            end = min(begin + TILE, stop)
            _interpret_tile(program, blocks, memory[:, : end - begin], begin, end, segments.decay[segment], out)
        sums[segment] += out[:-1]


def _interpret_tile(
    program: Program, blocks: Sequence[Block], slots: np.ndarray, begin: int, end: int, decay: float, out: np.ndarray
) -> None:
    dot = np.dot
    for each in program.instructions:
        if isinstance(each, Differ):
            value = slots[~each.source] if each.source < 0 else blocks[each.source].widen(begin, end, slots[each.to])
            if each.square != NOWHERE:
                out[each.square] += dot(value, value)
            for difference in each.differences:
                found = np.subtract(value, slots[difference.other], out=slots[difference.to])
                if difference.square != NOWHERE:
                    out[difference.square] += dot(found, found)
        elif isinstance(each, Cross):
            a = slots[~each.source] if each.source < 0 else blocks[each.source].widen(begin, end, slots[each.to])
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
            found = np.multiply(slots[each.b], decay, out=slots[each.to])
            found += slots[each.a]
            if each.square != NOWHERE:
                out[each.square] += dot(found, found)
        elif isinstance(each, Step):
            following, gradient = (
                slots[~source] if source < 0 else blocks[source].widen(begin, end, slots[to])
                for source, to in ((each.next, each.to), (each.gradient, each.to_gradient))
            )
            x, reference, spare, other = slots[each.x], slots[each.reference], slots[-2], slots[-3]
            found = [dot(following, following), dot(gradient, gradient)]
            next_error = np.subtract(following, reference, out=spare)
            found += [dot(next_error, next_error), dot(gradient, next_error), dot(gradient, x)]
            to_next, error = np.subtract(following, x, out=spare), np.subtract(x, reference, out=other)
            found += [dot(to_next, to_next), dot(gradient, to_next), dot(gradient, error), dot(to_next, error)]
            step = np.subtract(x, slots[each.before], out=other)
            found += [dot(gradient, step), dot(to_next, step)]
            from_first = np.subtract(x, slots[each.first], out=other)
            found.append(dot(from_first, from_first))
            for number, value in zip(each.outputs, found, strict=True):
                out[number] += value
        else:
            x, following, gradient = slots[each.x], slots[each.next], slots[each.gradient]
            to_next, spare, found = np.subtract(following, x, out=slots[-2]), slots[-3], []
            for reference in each.references:
                next_error = np.subtract(following, slots[reference], out=spare)
                found += [dot(next_error, next_error), dot(gradient, next_error)]
                error = np.subtract(x, slots[reference], out=spare)
                found += [dot(gradient, error), dot(to_next, error)]
            for number, value in zip(each.outputs, found, strict=True):
                out[number] += value
