"""--convention tzc-v1: what TZC's own code, version 1, computes in another way than the definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_samples import Task, tzc_v1
from frames import assert_close, col
from plain_run_files import Outcome
from run_files import amend
from sample_cases import (
    SPECS,
    analyzed,
    assert_close_tables,
    assert_same_values,
    assert_table,
    network_records,
    rows_of,
    written,
)

STEPS = 16
EPOCHS = [t // 6 for t in range(STEPS + 1)]  # 0-5, 6-11, 12-16


def epochs_run(folder: Path) -> tuple[Path, str, Task]:
    """A run of three epochs, as its step files say."""
    run, objective, task = written(folder, network_records(STEPS), ref_gradients=True)
    for t, epoch in enumerate(EPOCHS):
        amend(run, t, epoch=epoch)
    return run, objective, task


@pytest.fixture
def report_and_task(tmp_path: Path) -> tuple[Any, Task]:
    run, objective, task = epochs_run(tmp_path)
    report = analyzed(run, objective, tmp_path / "report", convention="tzc-v1", ref_gradients=True)
    return report, task


def test_every_column(report_and_task: tuple[Any, Task]) -> None:
    report, task = report_and_task
    expected = tzc_v1(task, EPOCHS)
    assert_table(report.steps, expected.steps, "steps")
    for spec, columns in expected.references.items():
        rows = report.references[report.references["ref"] == spec].reset_index(drop=True)
        assert_table(rows, columns, f"towards {spec}")


def test_it_measures_on_the_previous_sample(report_and_task: tuple[Any, Task]) -> None:
    report, _ = report_and_task
    assert set(report.steps["sample"]) == set(report.references["sample"]) == {"previous"}


def test_averages_restart_with_each_epoch(report_and_task: tuple[Any, Task]) -> None:
    report, _ = report_and_task
    for inst, average in (("inst_gap", "avg_gap"), ("inst_smooth", "avg_smooth")):
        values, averages = col(report.steps, inst), col(report.steps, average)
        for first in (1, 6, 12):  # the first row of an epoch that has a pair
            assert averages[first] == pytest.approx(values[first], rel=1e-12)
            assert averages[first + 1] == pytest.approx((values[first] + values[first + 1]) / 2, rel=1e-12)


def test_exponential_averages_start_at_zero(report_and_task: tuple[Any, Task]) -> None:
    report, _ = report_and_task
    for inst, average in (("inst_gap", "exp_gap"), ("inst_smooth", "exp_smooth")):
        values = col(report.steps, inst)
        for name, beta in ((average, 0.99), (f"{average}_9999", 0.9999)):
            averages = col(report.steps, name)
            assert averages[1] == pytest.approx((1 - beta) * values[1], rel=1e-9)
            assert averages[2] == pytest.approx((1 - beta) * (beta * values[1] + values[2]), rel=1e-9)


def test_the_first_smoothness_ratio_has_no_inner_product_yet(report_and_task: tuple[Any, Task]) -> None:
    steps = report_and_task[0].steps
    expected = -2 * col(steps, "loss_change")[1] / col(steps, "step_norm")[1] ** 2
    assert col(steps, "smoothness_ratio")[1] == pytest.approx(expected, rel=1e-9)


def test_of_one_tensor_smoothness_is_the_same(tmp_path: Path) -> None:
    """The sum of per-tensor norms over the sum of per-tensor norms is the quotient of norms."""
    run, objective, _ = written(tmp_path, network_records(), layout={"x": (21,)})
    theirs = analyzed(run, objective, tmp_path / "theirs", convention="tzc-v1")
    ours = analyzed(run, objective, tmp_path / "ours", sample=("previous",))
    for name in ("inst_smooth", "max_smooth"):
        assert_close(theirs.steps, name, col(ours.steps, name))


def test_of_several_tensors_it_is_not(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    theirs = analyzed(run, objective, tmp_path / "theirs", convention="tzc-v1")
    ours = analyzed(run, objective, tmp_path / "ours", sample=("previous",))
    assert np.nanmax(np.abs(col(theirs.steps, "inst_smooth") / col(ours.steps, "inst_smooth") - 1)) > 1e-3


def test_without_recorded_epochs_averages_run_on(tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report", convention="tzc-v1")
    expected = tzc_v1(task, [0] * len(task.records)).steps
    for name in ("avg_gap", "avg_smooth"):
        assert_close(report.steps, name, expected[name])


def test_recorded_epochs_change_nothing_by_default(tmp_path: Path) -> None:
    run, objective, _ = epochs_run(tmp_path / "with")
    plain, objective_too, _ = written(tmp_path / "without", network_records(STEPS))
    one = analyzed(run, objective, tmp_path / "one")
    other = analyzed(plain, objective_too, tmp_path / "other")
    assert_same_values(one.steps, other.steps)
    assert not {"exp_gap_9999", "exp_smooth_9999"} & set(one.steps.columns)


def test_all_else_is_as_on_the_previous_sample(tmp_path: Path) -> None:
    run, objective, _ = epochs_run(tmp_path)
    theirs = analyzed(run, objective, tmp_path / "theirs", convention="tzc-v1", ref_gradients=True)
    ours = analyzed(run, objective, tmp_path / "ours", sample=("previous",), ref_gradients=True)
    averages = {f"{kind}_{what}" for kind in ("inst", "max", "avg", "exp") for what in ("gap", "smooth")} | {
        "smooth_resolution"
    }
    promises = {f"predicted_change_{kind}{end}" for kind in ("max", "exp") for end in ("", "_sum")}
    changed = (averages | promises | {"smoothness_ratio", "smooth_resolution"}) - {"inst_gap"}
    assert_close_tables(ours.steps, theirs.steps, but=changed)
    for spec in SPECS:
        one, other = (rows_of(report.references, "previous", spec) for report in (ours, theirs))
        assert_close_tables(one, other, but=changed)


def test_the_command_line_and_the_summary_name_the_convention(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, objective, _ = epochs_run(tmp_path)
    arguments = ("analyze", run, "--objective", objective, "--out", tmp_path / "report")
    outcome = cli(*arguments, "--convention", "tzc-v1", "--quiet")
    assert outcome.code == 0, outcome.err
    assert "exp_gap_9999" in pd.read_csv(tmp_path / "report" / "steps.csv")
    assert "tzc-v1" in (tmp_path / "report" / "summary.json").read_text()
    assert cli(*arguments, "--convention", "tzc-v7").code == 2
