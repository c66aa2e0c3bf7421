"""Two runs of one small network, and their comparison computed densely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dense import Columns, Record, Reference, dense, flat
from dense_compare import Matched
from frames import col, steps_of
from handwritten import write_objective, write_run
from networks import TanhNetwork
from plain_run_files import Outcome
from quadratics import Problem, descend
from sample_cases import DATA

import trajcheck
from trajcheck.metrics.resolution import BOUND

Cli = Callable[..., Outcome]
NETWORK = TanhNetwork(features=3, hidden=4)
SIDE = ("ref_dist", "rsi", "eb", "cos", "inst_gap", "gap_resolution")
SIDE_SUMS = ("convexity_num", "convexity_den", "convexity_ratio")


def network_records(seed: int, count: int = 12, rate: float = 0.1, init: int | None = None) -> list[Record]:
    """Plain SGD on batches of 4; `init` is the seed of the first iterate."""
    rng = np.random.default_rng(seed)
    samples = [NETWORK.sample(4, rng) for _ in range(count)]
    start = np.random.default_rng(seed if init is None else init).normal(size=NETWORK.size)
    return descend(NETWORK, start, samples, [rate] * count)


def written(folder: Path, name: str, records: Sequence[Record], problem: Problem | None = NETWORK, **how: Any) -> Path:
    layout = NETWORK.layout if problem is NETWORK else {"x": (flat(records[0].x).size,)}
    return write_run(folder / name, records, how.pop("layout", layout), **how)


def network_objective(folder: Path, name: str = "objective") -> str:
    path = folder / "objective.py"
    write_objective(path, NETWORK, NETWORK.layout)
    path.write_text(path.read_text() + DATA)
    return f"{path}:{name}"


def by_step(a: Sequence[Record], b: Sequence[Record]) -> list[Matched]:
    return [(i, j, 0.0) for i, x in enumerate(a) for j, y in enumerate(b) if x.step == y.step]


def assert_columns(frame: pd.DataFrame, expected: Columns, relative: float = 1e-9) -> None:
    """Every expected column to `relative`, or 1e-12 of its largest value; empty in the same rows."""
    for name, values in expected.items():
        actual = col(frame, name)
        assert len(actual) == len(values), name
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(values), err_msg=name)
        largest = np.nanmax(np.abs(values), initial=0.0)
        np.testing.assert_allclose(actual, values, rtol=relative, atol=1e-12 * largest, err_msg=name)


def assert_accounted(found: trajcheck.Comparison) -> None:
    """Every empty cell has a reason in undefined.csv, and no filled one has; columns left out have reasons for all."""
    entries = found.undefined[found.undefined["table"] == "compare"]
    assert (entries["reason"].str.len() > 0).all()
    for name in {*entries["column"], *found.pairs.columns}:
        for run_b, rows in found.pairs.groupby("run_b"):
            of = entries[(entries["column"] == name) & (entries["ref"] == run_b)]
            explained = [step for ranges in of["steps"] for step in sorted(steps_of(ranges))]
            empty = rows["step_a"][rows[name].isna()] if name in rows else rows["step_a"]
            assert sorted(explained) == sorted(empty), name


def side(records: Sequence[Record], star: Any, problem: Problem | None) -> Columns:
    """What references.csv of one run holds towards a point from elsewhere."""
    f, grad = (problem.f, problem.grad) if problem else (None, None)
    return dense(records, {"x": Reference(star)}, f, grad, c=BOUND).references["x"]


def both_sides(a: Sequence[Record], b: Sequence[Record], pairs: Sequence[Matched], problem: Problem | None) -> Columns:
    found = {}
    for name, records, star, places in (
        ("a", a, b[-1].x, [i for i, _, _ in pairs]),
        ("b", b, a[-1].x, [j if not s else None for _, j, s in pairs]),
    ):
        columns = side(records, star, problem)
        for each in (*SIDE, *SIDE_SUMS):
            values = columns[each]
            found[f"{each}_{name}"] = np.array([np.nan if place is None else values[place] for place in places])
    return found


def permuted(records: Sequence[Record], order: np.ndarray) -> list[Record]:
    """The same network with its hidden units in another order: x and g alike."""
    h, d = NETWORK.hidden, NETWORK.features

    def reorder(point: Any) -> Any:
        if point is None:
            return None
        x = flat(point).astype(float)
        weight, bias, out, gain = x[: h * d].reshape(h, d), x[h * d : h * d + h], x[h * d + h : -1], x[-1:]
        return np.concatenate([weight[order].reshape(-1), bias[order], out[order], gain])

    return [Record(r.step, reorder(r.x), reorder(r.g), r.lr, r.tau, r.z, r.loss) for r in records]


def network(count: int) -> list[Record]:
    """A few records of three numbers."""
    rng = np.random.default_rng(1)
    return [Record(t, rng.normal(size=3)) for t in range(count)]
