"""Small recorded runs with probe batches and a data set, and their analyses, for the tests of the samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dense import Columns, Record, Reference, flat
from dense_samples import Task
from frames import assert_close, col, steps_of
from handwritten import write_objective, write_run
from networks import TanhNetwork
from quadratics import Layout, Problem, descend, keep
from run_files import Program, read_run, write_probe

import trajcheck
from trajcheck.metrics.resolution import BOUND

NETWORK = TanhNetwork(features=3, hidden=4)
SPECS = ("final", "init", "step:6")

#: A data set of 11 examples whose last batch is smaller than the others, for `--sample full`.
DATA = """

def with_data():
    rng = torch.Generator().manual_seed(5)
    batches = []
    for rows in (4, 4, 3):
        inputs = torch.randn(rows, 3, generator=rng, dtype=torch.float64)
        batches.append((inputs, torch.sin(2 * inputs[:, 0])))
    return (*objective(), batches)
"""


def network_records(count: int = 16, rate: float = 0.1, steps: Sequence[int] | None = None) -> list[Record]:
    """Plain SGD on batches of 4 of a tanh network of five tensors; its last iterate alone."""
    rng = np.random.default_rng(31)
    samples = [NETWORK.sample(4, rng) for _ in range(count)]
    records = descend(NETWORK, rng.normal(size=NETWORK.size), samples, [rate] * count)
    return records if steps is None else keep(records, steps)


def probe_batches(count: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(32)
    return [NETWORK.sample(4, rng) for _ in range(count)]


def written(
    folder: Path,
    records: Sequence[Record],
    probe: Sequence[Any] = (),
    *,
    problem: Problem = NETWORK,
    layout: Layout | None = None,
    name: str = "objective",
    **options: Any,
) -> tuple[Path, str, Task]:
    """The run with its probe batches, its objective FILE.py:NAME, and what the dense reference has to know of them.

    `name` "with_data" adds the data set. `options` go to Task.
    """
    layout = layout or (NETWORK.layout if problem is NETWORK else {"x": flat(records[0].x).shape})
    run = write_run(folder / "run", records, layout)
    if probe:
        write_probe(run, probe)
    file, _, _ = write_objective(folder / "objective.py", problem, layout).rpartition(":")
    Path(file).write_text(Path(file).read_text() + DATA)
    objective = f"{file}:{name}"
    read = read_run(run)
    references = {spec: point(read, spec) for spec in SPECS if spec != "step:6" or any(r.step == 6 for r in read)}
    return run, objective, Task(read, references, Program(objective), BOUND, probe, **options)


def point(records: Sequence[Record], spec: str) -> Reference:
    """final, init or step:N of a run."""
    if spec in ("final", "init"):
        record = records[-1 if spec == "final" else 0]
    else:
        record = next(record for record in records if f"step:{record.step}" == spec)
    return Reference(record.x, step=record.step)


def analyzed(run: Path, objective: str | None, out: Path, **options: Any) -> Any:
    """trajcheck.analyze in float64, towards the usual references unless `refs` names others."""
    options = {"refs": SPECS, "objective": objective, "out": out, "quiet": True, **options}
    if objective is not None:
        options.setdefault("replay_dtype", "float64")
    return trajcheck.analyze(run, **options)


def rows_of(frame: pd.DataFrame, sample: str, ref: str | None = None) -> pd.DataFrame:
    """The rows of one sample, and of one reference."""
    chosen = frame["sample"] == sample
    if ref is not None:
        chosen &= frame["ref"] == ref
    assert chosen.any(), f"no rows of sample {sample} {ref or ''}"
    return frame[chosen].reset_index(drop=True)


def accounted(report: Any, table: str, column: str) -> set[int]:
    """The steps at which undefined.csv explains an empty cell, whatever the sample and the reference."""
    entries = report.undefined[(report.undefined["table"] == table) & (report.undefined["column"] == column)]
    assert (entries["reason"].str.len() > 0).all(), f"{table}.{column}: an entry without a reason"
    return set().union(*map(steps_of, entries["steps"]))


def assert_table(frame: pd.DataFrame, expected: Columns, where: str, only: Sequence[str] = ()) -> None:
    """Every expected column; all differences are told at once."""
    assert col(frame, "step").tolist() == expected["step"].tolist(), where
    wrong = []
    for name in only or expected:
        try:
            assert_close(frame, name, expected[name], where)
        except AssertionError as difference:
            wrong.append(str(difference).splitlines()[0])
    assert not wrong, "\n" + "\n".join(wrong)


def assert_same_values(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Bit for bit, in every column of `one` that holds numbers."""
    for name in map(str, one.select_dtypes("number")):
        np.testing.assert_array_equal(col(one, name), col(other, name), err_msg=name)


def assert_close_tables(one: pd.DataFrame, other: pd.DataFrame, but: Collection[str] = ()) -> None:
    """But for rounding, in every column of `one` that holds numbers."""
    for name in map(str, one.select_dtypes("number")):
        if name not in but:
            assert_close(other, name, col(one, name))
