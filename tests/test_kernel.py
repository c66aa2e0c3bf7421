"""program.py and kernel.py: the compiled inner loop, numpy's, and plain arithmetic give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from trajcheck import kernel
from trajcheck.kernel import Block
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, inner_products
from trajcheck.program import DOT, SUBTRACT, WIDEN, Key, RowRequest, write_program

STEPS = 6
DTYPES = ("F64", "F32", "F16", "BF16")


def as_block(values: np.ndarray, dtype: str) -> tuple[Block, np.ndarray]:
    """The numbers rounded to a dtype, as they stand in a file and as they are."""
    if dtype == "BF16":
        raw = (values.astype("<f4").view(np.uint32) >> 16).astype(np.uint16)
        return Block(raw.view(np.uint8), dtype), (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    rounded = values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return Block(rounded.view(np.uint8), dtype), rounded.astype(np.float64)


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
    blocks["gradient", 2] = Block(blocks["gradient", 2].raw, dtype, divisor=0.3)
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


def check(rows: Sequence[RowRequest], blocks: Mapping[Key, Block], plain: Mapping[Key, np.ndarray]) -> None:
    program = write_program(rows)
    found = program.values(kernel.run(program, [blocks[key] for key in program.vectors]))
    for (own, towards), values in zip(found, expected(rows, plain), strict=True):
        for got, want in zip([own, *towards], values, strict=True):
            assert got.keys() == want.keys()
            for name in want:
                assert got[name] == pytest.approx(want[name], rel=1e-12, abs=1e-11), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 255, 256, 257, 5000, 40000])
def test_products_of_a_block(dtype: str, length: int) -> None:
    check(*walk(2, np.random.default_rng(length), length, dtype))


@pytest.mark.parametrize("references", [0, 1, 16, 300])
def test_any_number_of_references(references: int) -> None:
    """Three hundred need more slots than the compiled loop has; numpy does them."""
    check(*walk(references, np.random.default_rng(references), 300, "F32"))


@pytest.mark.skipif(os.environ.get("TRAJCHECK_KERNEL") == "numpy", reason="this is the other loop already")
def test_numpy_says_the_same() -> None:
    arguments = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "products_of_a_block or references"]
    environment = {**os.environ, "TRAJCHECK_KERNEL": "numpy"}
    outcome = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout[-2000:]


def test_every_16_bit_number_is_widened_exactly() -> None:
    raw = np.arange(2**16, dtype=np.uint16)
    ones = Block(np.ones(1, np.float64).view(np.uint8), "F64")
    row = RowRequest({"x": ("iterate", 0), "gradient": ("gradient", 0)}, (), ["grad_dot_param"], ())
    program = write_program([row])
    for dtype in ("F16", "BF16"):
        values = (
            raw.view(np.float16).astype(float) if dtype == "F16" else (raw.astype(np.uint32) << 16).view(np.float32)
        )
        for bits in raw[np.isfinite(values)][:: 7 if dtype == "BF16" else 3]:
            blocks = {("gradient", 0): Block(np.array([bits]).view(np.uint8), dtype), ("iterate", 0): ones}
            (product,) = kernel.run(program, [blocks[key] for key in program.vectors])
            assert product == float(values[bits])


def test_what_rows_share_is_done_once() -> None:
    rows, _, _ = walk(1, np.random.default_rng(0), 4, "F32")
    program = write_program(rows)
    code = program.code.tolist()
    assert sum(what == WIDEN for what, *_ in code) == 2 * STEPS + 1
    # the steps, the ways from the start (of which the first step is one), the errors
    assert sum(what == SUBTRACT for what, *_ in code) == (STEPS - 1) + (STEPS - 1) + STEPS
    assert sum(what == DOT for what, *_ in code) == program.outputs
    assert program.slots <= 10


def test_slots_are_not_taken_while_they_are_needed() -> None:
    """Every operand is still the value that was put there."""
    rows, blocks, _ = walk(5, np.random.default_rng(0), 4, "F32")
    program = write_program(rows)
    holds: dict[int, object] = {}
    for what, to, a, b in program.code.tolist():
        if what == WIDEN:
            holds[to] = program.vectors[a]
        elif what == SUBTRACT:
            assert a in holds
            assert b in holds
            holds[to] = (holds[a], holds[b])
        else:
            assert a in holds
            assert b in holds
    assert set(program.vectors) <= set(blocks)
