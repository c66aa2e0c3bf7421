"""program.py and kernel.py: the compiled inner loop, numpy's, and plain arithmetic give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest

from trajcheck import kernel
from trajcheck.kernel import Block, Memory, Segments
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, inner_products
from trajcheck.program import Cross, Differ, Key, Program, Values
from trajcheck.program_writer import REGULARISED, RowRequest, write_program

STEPS = 6
DTYPES = ("F64", "F32", "F16", "BF16")


def as_block(values: np.ndarray, dtype: str) -> tuple[Block, np.ndarray]:
    """The numbers rounded to a dtype, as they stand in a file and as they are."""
    if dtype == "BF16":
        raw = (values.astype("<f4").view(np.uint32) >> 16).astype(np.uint16)
        return block(raw, dtype), (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    rounded = values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return block(rounded, dtype), rounded.astype(np.float64)


def block(values: np.ndarray, dtype: str) -> Block:
    return Block(Memory.of(values.view(np.uint8)), dtype, len(values))


def walk(
    references: int, stream: np.random.Generator, length: int, dtype: str
) -> tuple[list[RowRequest], dict[Key, Block], dict[Key, np.ndarray]]:
    """The rows of a short run, and its vectors as blocks and as numbers."""
    keys: list[Key] = [("iterate", t) for t in range(STEPS)] + [("gradient", t) for t in range(STEPS)]
    keys += [("reference", number) for number in range(references)]
    blocks: dict[Key, Block] = {}
    plain: dict[Key, np.ndarray] = {}
    for key in keys:
        blocks[key], plain[key] = as_block(stream.normal(size=length), dtype)
    blocks["gradient", 2] = blocks["gradient", 2]._replace(divisor=0.3)
    plain["gradient", 2] = plain["gradient", 2] / 0.3
    rows = []
    for t in range(STEPS):
        near: Mapping[str, Key] = {
            name: ("iterate", place)
            for name, place in (("x", t), ("previous", t - 1), ("next", t + 1), ("skip", t + 2), ("first", 0))
            if 0 <= place < STEPS
        }
        towards = [{"reference": ("reference", number)} for number in range(references)]
        rows.append(
            RowRequest({**near, "gradient": ("gradient", t)}, towards, list(STEP_PRODUCTS), list(REFERENCE_PRODUCTS))
        )
    return rows, blocks, plain


def expected(rows: Sequence[RowRequest], plain: Mapping[Key, np.ndarray]) -> list[list[dict[str, float]]]:
    """By numpy in long double, row by row."""
    wide = {key: values.astype(np.longdouble) for key, values in plain.items()}
    result = []
    for row in rows:
        own, towards = inner_products(
            {name: wide[key] for name, key in row.vectors.items()},
            [{name: wide[key] for name, key in reference.items()} for reference in row.references],
            row.step_products,
            row.reference_products,
            np.subtract,
            lambda a, b: float((a * b).sum()),
        )
        result.append([own, *towards])
    return result


def values(program: Program, blocks: Mapping[Key, Block]) -> list[tuple[Values, list[Values]]]:
    """The products of a program over blocks of one segment."""
    some = [blocks[key] for key in program.vectors]
    (out,) = kernel.run(program, some, Segments.of([0, some[0].length], [0.0]))
    return program.values(out.tolist())


def check(rows: Sequence[RowRequest], blocks: Mapping[Key, Block], plain: Mapping[Key, np.ndarray]) -> None:
    program = write_program(rows)
    found = values(program, blocks)
    for (own, towards), wanted in zip(found, expected(rows, plain), strict=True):
        for got, want in zip([own, *towards], wanted, strict=True):
            assert got.keys() == want.keys()
            for name in want:
                assert got[name] == pytest.approx(want[name], rel=1e-12, abs=1e-11), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 255, 256, 257, 5000, 40000])
def test_products_of_a_block(dtype: str, length: int) -> None:
    check(*walk(2, np.random.default_rng(length), length, dtype))


@pytest.mark.parametrize("references", [0, 1, 16, 300])
def test_any_number_of_references(references: int) -> None:
    check(*walk(references, np.random.default_rng(references), 300, "F32"))


@pytest.mark.skipif(os.environ.get("TRAJCHECK_KERNEL") == "numpy", reason="this is the other loop already")
def test_numpy_says_the_same() -> None:
    arguments = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "products_of_a_block or references"]
    environment = {**os.environ, "TRAJCHECK_KERNEL": "numpy"}
    outcome = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout[-2000:]


def test_every_16_bit_number_is_widened_exactly() -> None:
    raw = np.arange(2**16, dtype=np.uint16)
    ones = block(np.ones(1), "F64")
    row = RowRequest({"x": ("iterate", 0), "gradient": ("gradient", 0)}, (), ["grad_dot_param"], ())
    program = write_program([row])
    for dtype in ("F16", "BF16"):
        numbers = (
            raw.view(np.float16).astype(float) if dtype == "F16" else (raw.astype(np.uint32) << 16).view(np.float32)
        )
        for bits in raw[np.isfinite(numbers)][:: 7 if dtype == "BF16" else 3]:
            blocks = {("gradient", 0): block(np.array([bits]), dtype), ("iterate", 0): ones}
            assert values(program, blocks)[0][0]["grad_dot_param"] == float(numbers[bits])


@pytest.mark.parametrize("dtype", DTYPES)
def test_segments(dtype: str) -> None:
    """Each is summed by itself, with its own weight decay."""
    rows, blocks, plain = walk(2, np.random.default_rng(1), 1500, dtype)
    rows = [
        RowRequest(
            {**row.vectors, "regularised": (REGULARISED, place)},
            row.references,
            row.step_products,
            row.reference_products,
        )
        for place, row in enumerate(rows)
    ]
    borders, decay = [0, 1, 9, 300, 1200, 1500], [0.0, 0.5, 0.1, 2.0, 0.0]
    program = write_program(rows)
    found = kernel.run(program, [blocks[key] for key in program.vectors], Segments.of(borders, decay))
    for segment, (start, stop) in enumerate(pairwise(borders)):
        part = {key: numbers[start:stop] for key, numbers in plain.items()}
        for place in range(STEPS):
            part[REGULARISED, place] = part["gradient", place] + decay[segment] * part["iterate", place]
        for (own, towards), wanted in zip(program.values(found[segment].tolist()), expected(rows, part), strict=True):
            for got, want in zip([own, *towards], wanted, strict=True):
                assert got == pytest.approx(want, rel=1e-12, abs=1e-10)


def test_a_product_does_not_depend_on_what_is_made_beside_it() -> None:
    rows, blocks, _ = walk(3, np.random.default_rng(2), 3000, "F32")
    whole = values(write_program(rows), blocks)
    for (own, towards), row in zip(whole, rows, strict=True):
        ((alone, alone_towards),) = values(write_program([row]), blocks)
        assert (own, towards) == (alone, alone_towards)
        for name, value in own.items():
            single = RowRequest(row.vectors, (), [name], ())
            assert values(write_program([single]), blocks)[0][0] == {name: value}


def test_what_rows_share_is_done_once() -> None:
    rows, _, _ = walk(1, np.random.default_rng(0), 4, "F32")
    program = write_program(rows)
    differ = [each for each in program.instructions if isinstance(each, Differ)]
    cross = [each for each in program.instructions if isinstance(each, Cross)]
    sources = [source for source in [*(d.source for d in differ), *(c.source for c in cross)] if source >= 0]
    assert sorted(sources) == list(range(2 * STEPS + 1))  # each vector is widened once
    # the steps, the ways from the start (of which the first step is one), the errors
    assert sum(len(each.differences) for each in differ) == (STEPS - 1) + (STEPS - 1) + STEPS
    squares = [n for each in differ for n in (each.square, *(one.square for one in each.differences))]
    squares += [n for each in cross for n in (each.square, *each.outputs)]
    numbers = [n for n in squares if n >= 0]
    assert sorted(numbers) == list(range(program.outputs))  # each product is made once
    assert program.slots <= 12


@pytest.mark.parametrize("references", [0, 1, 3, 9, 40])
def test_slots_are_not_taken_while_they_are_needed(references: int) -> None:
    """Every operand is still the value that was put there, and every product is that of its factors."""
    rows, _, _ = walk(references, np.random.default_rng(0), 4, "F32")
    program = write_program(rows)
    slots: dict[int, tuple[Key, ...]] = {}
    made: dict[int, frozenset[tuple[Key, ...]]] = {}
    for each in program.instructions:
        if isinstance(each, Differ):
            value = (program.vectors[each.source],) if each.source >= 0 else slots[~each.source]
            differences = [(*value, *slots[one.other]) for one in each.differences]
            slots |= {each.to: value} if each.to >= 0 else {}
            made[each.square] = frozenset([value])
            for one, difference in zip(each.differences, differences, strict=True):
                slots[one.to] = difference
                made[one.square] = frozenset([difference])
        elif isinstance(each, Cross):
            a = (program.vectors[each.source],) if each.source >= 0 else slots[~each.source]
            if each.source >= 0:
                slots[each.to] = a
                made[each.square] = frozenset([a])
            factors = []
            if each.common:
                b = slots[each.b]
                factors += [(a, b), *((left, slots[value]) for value in each.common for left in (a, b))]
            factors += [(a, slots[value]) for value in each.more]
            made |= {number: frozenset(pair) for number, pair in zip(each.outputs, factors, strict=True) if number >= 0}
    made.pop(-1, None)
    for row, (own, towards) in zip(rows, program.rows, strict=True):
        for table, places, known in [
            (STEP_PRODUCTS, own, row.vectors),
            *(
                (REFERENCE_PRODUCTS, each, {**row.vectors, **point})
                for each, point in zip(towards, row.references, strict=True)
            ),
        ]:
            for name, place in places.items():
                keys = [(factor,) if isinstance(factor, str) else factor for factor in table[name]]
                assert made[place] == frozenset(tuple(known[each] for each in factor) for factor in keys), name
