"""memory_k: what gradients k steps apart share beside the direction of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dense import Record, flat
from dense_samples import memory
from frames import assert_close, col
from handwritten import write_run
from plain_run_files import Outcome
from quadratics import keep
from sample_cases import SPECS, accounted, analyzed, network_records, point, rows_of, written

LAGS = (1, 2, 5, 10)


def records_with(gradients: Sequence[np.ndarray], points: Sequence[np.ndarray]) -> list[Record]:
    """Any gradients at any points; the last point alone."""
    moving = [Record(t, x, g, lr=0.1) for t, (x, g) in enumerate(zip(points, gradients, strict=False))]
    return [*moving, Record(len(moving), points[-1])]


@pytest.mark.parametrize("replay", [True, False])
def test_the_cosine_of_the_orthogonal_parts(replay: bool, tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records())
    report = analyzed(run, objective if replay else None, tmp_path / "report", memory_lags=LAGS)
    for spec in SPECS:
        rows, star = rows_of(report.references, "own", spec), flat(point(task.records, spec).x)
        for lag in LAGS:
            assert_close(rows, f"memory_{lag}", memory(task.records, star, lag), spec)


def test_lags_are_of_steps_and_not_of_records(tmp_path: Path) -> None:
    """Records 0, 5, 10, ...: a gradient one step later nobody has, and says so."""
    records = keep(network_records(20), range(0, 21, 5))
    run, _, task = written(tmp_path, records)
    report = analyzed(run, None, tmp_path / "report", refs=["init"], memory_lags=(1, 5, 10))
    rows, star = report.references, flat(task.records[0].x)
    for lag in (5, 10):
        expected = memory(task.records, star, lag)
        assert not np.isnan(expected).all()
        assert_close(rows, f"memory_{lag}", expected)
    assert np.isnan(col(rows, "memory_1")).all()
    assert accounted(report, "references", "memory_1") >= set(rows["step"])


def test_gradients_are_freed_of_clipping(tmp_path: Path) -> None:
    """A cosine does not see a positive factor."""
    records = network_records()
    plain = analyzed(write_run(tmp_path / "plain", records), None, tmp_path / "one", refs=["final"], memory_lags=(1,))
    for record in records[:-1]:
        record.g, record.clip = 0.25 * np.asarray(record.g), 0.25
    clipped = analyzed(write_run(tmp_path / "clip", records), None, tmp_path / "two", refs=["final"], memory_lags=(1,))
    assert_close(clipped.references, "memory_1", col(plain.references, "memory_1"))


def test_what_lies_along_the_reference_is_no_memory(tmp_path: Path) -> None:
    """g_t = a e_t + o_t with o_t orthogonal to e_t: memory is cos(o_t, o_{t+k}) whatever a."""
    rng = np.random.default_rng(2)
    points = [np.array([1.0 + t, 0, 0, 0, 0]) for t in range(12)]  # e_t along the first axis, towards init
    beside = [np.array([0, *rng.normal(size=4)]) for _ in range(11)]
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(beside[1:])]
    for name, along in {"none": 0.0, "much": 30.0}.items():
        gradients = [o + along * x for o, x in zip(beside, points, strict=False)]
        run = write_run(tmp_path / name, records_with(gradients, points))
        rows = analyzed(run, None, tmp_path / f"report-{name}", refs=["init"], memory_lags=(1,)).references
        np.testing.assert_allclose(col(rows, "memory_1")[1:-2], expected, rtol=1e-9, atol=1e-12)


def test_a_constant_pull_is_remembered_and_noise_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    size, count = 2000, 12
    points = [rng.normal(size=size) for _ in range(count + 1)]
    pull = rng.normal(size=size)
    for name, gradients, low, high in (
        ("pull", [pull] * count, 0.9, 1.0 + 1e-12),
        ("noise", [rng.normal(size=size) for _ in range(count)], -0.12, 0.12),
        ("turning", [pull * (-1) ** t for t in range(count)], -1.0 - 1e-12, -0.9),
    ):
        run = write_run(tmp_path / name, records_with(gradients, points))
        rows = analyzed(run, None, tmp_path / f"report-{name}", refs=["final"], memory_lags=(1,)).references
        values = col(rows, "memory_1")
        values = values[~np.isnan(values)]
        assert len(values) == count - 1
        assert (values >= low).all() and (values <= high).all(), name


def test_unasked_there_is_no_memory(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report")
    assert not any(str(name).startswith("memory") for name in report.references)


def test_the_command_line_takes_lags(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, _, _ = written(tmp_path, network_records())
    arguments = ("analyze", run, "--out", tmp_path / "report", "--memory-lags")
    assert cli(*arguments, "1,2,5", "--quiet").code == 0
    assert {"memory_1", "memory_2", "memory_5"} <= {*pd.read_csv(tmp_path / "report" / "references.csv").columns}
    for wrong in ("0", "-1", "two", "1,,2"):
        outcome = cli(*arguments, wrong)
        assert outcome.code == 2, wrong
        assert "--memory-lags" in outcome.err
