"""program.py and loop.py: the compiled inner loop, numpy's, and plain arithmetic give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest

from trajcheck.inner_products import loop as kernel
from trajcheck.inner_products.blocks import RANGE, Block, Filling, Memory, Segments, Stage
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, inner_products
from trajcheck.inner_products.direct import Step, Towards
from trajcheck.inner_products.loop import Stages
from trajcheck.inner_products.program import Cross, Differ, Instruction, Key, Program
from trajcheck.inner_products.program_writer import REGULARISED, RowRequest, write_program, write_programs

STEPS = 6
HERE = Segments.of([0, 3000], [[0.0]])
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
    references: int,
    stream: np.random.Generator,
    length: int,
    dtype: str,
    skip: int = 1,
    towards_x: Sequence[str] = tuple(REFERENCE_PRODUCTS),
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
            for name, place in (("x", t), ("previous", t - 1), ("next", t + 1), ("skip", t + skip), ("first", 0))
            if 0 <= place < STEPS
        }
        towards = [{"reference": ("reference", number)} for number in range(references)]
        rows.append(RowRequest({**near, "gradient": ("gradient", t)}, towards, list(STEP_PRODUCTS), towards_x))
    return rows, blocks, plain


def run(program: Program, some: Sequence[Block], segments: Segments) -> np.ndarray:
    """The products of a program over blocks of its vectors [segments, outputs]."""
    (out,) = Stages([Stage(program, some)]).run([Filling(segments, np.empty(0, RANGE), np.zeros(1, np.int64))])
    return out


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


def by_name(program: Program, out: np.ndarray) -> list[tuple[dict[str, float], list[dict[str, float]]]]:
    """For each row the products of the step, and of each reference, by name."""

    def named(places: Mapping[str, int]) -> dict[str, float]:
        return {name: float(out[place]) for name, place in places.items()}

    return [(named(own), [named(each) for each in towards]) for own, towards in program.rows]


def values(program: Program, blocks: Mapping[Key, Block]) -> list[tuple[dict[str, float], list[dict[str, float]]]]:
    """The products of a program over blocks of one segment."""
    some = [blocks[key] for key in program.vectors]
    (out,) = run(program, some, Segments.of([0, some[0].length], [[0.0]]))
    return by_name(program, out)


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
@pytest.mark.parametrize("skip", [1, 2])
def test_products_of_a_block(dtype: str, length: int, skip: int) -> None:
    rows, blocks, plain = walk(3, np.random.default_rng(length), length, dtype, skip)
    # the last rows have no iterate so many steps on
    assert sum(isinstance(each, Step) for each in write_program(rows).instructions) == (STEPS if skip == 1 else 2)
    check(rows, blocks, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_vector_instructions(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has none of those that kernel.c looks for."""
    if (library := kernel._library()) is None:
        pytest.skip("there is no compiled loop")
    monkeypatch.setattr(library, "level", 0)
    for length in (300, 512):
        check(*walk(4, np.random.default_rng(length), length, dtype))


@pytest.mark.parametrize(("iterates", "gradients"), [("F32", "BF16"), ("F64", "F32"), ("F16", "F64")])
@pytest.mark.parametrize("length", [256, 700])
def test_vectors_of_several_dtypes(iterates: str, gradients: str, length: int) -> None:
    stream = np.random.default_rng(0)
    rows, blocks, plain = walk(2, stream, length, iterates)
    for key in plain:
        if key[0] == "gradient":
            blocks[key], plain[key] = as_block(stream.normal(size=length), gradients)
    check(rows, blocks, plain)


@pytest.mark.parametrize("references", [0, 1, 16, 300])
def test_any_number_of_references(references: int) -> None:
    check(*walk(references, np.random.default_rng(references), 300, "F32"))


@pytest.mark.skipif(os.environ.get("TRAJCHECK_KERNEL") == "numpy", reason="this is the other loop already")
def test_numpy_says_the_same() -> None:
    arguments = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "products_of_a_block or references"]
    environment = {**os.environ, "TRAJCHECK_KERNEL": "numpy", "PYTEST_ADDOPTS": ""}
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
    """Each is summed by itself, with its own weight decay, which is another on another row."""
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
    borders, decay = [0, 1, 9, 300, 1200, 1500], [[0.0, 0.5, 0.1, 2.0, 0.0], [0.25, 0.0, 3.0, 0.5, 1.0]]
    (program,) = write_programs([rows], {place: place % 2 for place in range(STEPS)})
    found = run(program, [blocks[key] for key in program.vectors], Segments.of(borders, decay))
    for segment, (start, stop) in enumerate(pairwise(borders)):
        part = {key: numbers[start:stop] for key, numbers in plain.items()}
        for place in range(STEPS):
            part[REGULARISED, place] = part["gradient", place] + decay[place % 2][segment] * part["iterate", place]
        for (own, towards), wanted in zip(by_name(program, found[segment]), expected(rows, part), strict=True):
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


def test_groups_of_rows_add_up_to_the_same_bits() -> None:
    """Whatever the group: a product is made once, by lanes that do not depend on it."""
    rows, blocks, _ = walk(3, np.random.default_rng(2), 3000, "F32")
    (whole,) = run(program := write_program(rows), [blocks[key] for key in program.vectors], HERE)
    expected = by_name(program, whole)
    for size in (1, 2, 4):
        programs = write_programs([rows[start : start + size] for start in range(0, STEPS, size)])
        stages = Stages([Stage(each, [blocks[key] for key in each.vectors]) for each in programs])
        ((out,),) = stages.run([Filling(HERE, np.empty(0, RANGE), np.zeros(len(programs), np.int64))])
        assert [row for each in programs for row in by_name(each, out)] == expected
        made = [number for each in programs for number in each.made.tolist()]
        assert sorted(made) == list(range(programs[0].outputs))


def vectors_read(instruction: Instruction) -> list[int]:
    return [instruction.source] if isinstance(instruction, Differ | Cross) and instruction.source >= 0 else []


#: What a Step makes at once towards a reference, and the products with x_s.
USUAL = ("ref_sq", "skip_sq", "next_dot_ref", "grad_dot_ref", "grad_dot_skip")


@pytest.mark.parametrize("skip", [1, 2])
def test_what_rows_share_is_done_once(skip: int) -> None:
    rows, _, _ = walk(1, np.random.default_rng(0), 4, "F32", skip, USUAL)
    program = write_program(rows)
    widened = sorted(v for each in program.instructions for v in vectors_read(each))
    assert len(set(widened)) == len(widened)  # each vector once, but for those of a Step
    numbers = [number for each in program.instructions for number in each.products() if number >= 0]
    assert sorted(numbers) == list(range(program.outputs))  # each product is made once
    assert program.slots <= len(STEP_PRODUCTS) + len(REFERENCE_PRODUCTS)  # however many rows share it
    if skip == 2:  # the steps, the ways from the start (one is the first step), the errors; two rows are Steps
        differ = [each for each in program.instructions if isinstance(each, Differ)]
        assert sum(len(each.differences) for each in differ) == (STEPS - 2) + (STEPS - 3) + STEPS


@pytest.mark.parametrize("skip", [1, 2])
@pytest.mark.parametrize("references", [0, 1, 3, 9, 40])
def test_slots_are_not_taken_while_they_are_needed(references: int, skip: int) -> None:
    """Every operand is still the value that was put there, and every product is that of its factors."""
    rows, _, _ = walk(references, np.random.default_rng(0), 4, "F32", skip)
    program = write_program(rows)
    slots: dict[int, tuple[Key, ...]] = {}
    made: dict[int, frozenset[tuple[Key, ...]]] = {}

    def read(source: int) -> tuple[Key, ...]:
        return (program.vectors[source],) if source >= 0 else slots[~source]

    for each in program.instructions:
        factors: list[tuple[tuple[Key, ...], tuple[Key, ...]]] = []
        if isinstance(each, Differ):
            value = read(each.source)
            differences = [(*value, *slots[one.other]) for one in each.differences]
            slots |= {each.to: value} if each.to >= 0 else {}
            slots |= {one.to: difference for one, difference in zip(each.differences, differences, strict=True)}
            factors = [(one, one) for one in (value, *differences)]
        elif isinstance(each, Cross):
            a = read(each.source)
            slots |= {each.to: a} if each.source >= 0 else {}
            factors = [(a, a)]
            if each.common:
                b = slots[each.b]
                factors += [(a, b), *((left, slots[value]) for value in each.common for left in (a, b))]
            factors += [(a, slots[value]) for value in each.more]
        elif isinstance(each, Step):
            g, after, x, before, first, point = (read(v) for v in each.vectors)
            step, onward, error, next_error = x + before, after + x, x + point, after + point
            factors = [(after, after), (g, g), (next_error, next_error), (g, next_error), (g, x), (onward, onward)]
            factors += [(g, onward), (g, error), (onward, error), (g, step), (onward, step), (x + first, x + first)]
        elif isinstance(each, Towards):
            g, after, x, *points = (read(v) for v in each.vectors)
            for point in points:
                next_error, error = after + point, x + point
                factors += [(next_error, next_error), (g, next_error), (g, error), (after + x, error)]
        made |= {number: frozenset(pair) for number, pair in zip(each.products(), factors, strict=True)}
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
